"""Tiny models with random numbers, what they are called with, and how tests look at them."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHOOSE = ["leverage", "greedy", "dpp"]
DRAW = ["orthogonal", "gaussian", "hadamard", "sobol"]
WAYS = [
    (features, projection)
    for features in ("neuron", "universal", "arc_cosine")
    for projection in ([*CHOOSE, *DRAW] if features == "neuron" else DRAW)
]
every_way = pytest.mark.parametrize(("features", "projection"), WAYS)
with_affine = pytest.mark.parametrize("affine", [False, True])

VOCABULARY = 40
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,  # so that the blocks do something
}
IMAGES = {"image_size": 8, "patch_size": 4}
GPT2 = {
    "n_embd": 16,
    "n_inner": 48,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": VOCABULARY,
    "n_positions": 16,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
DISTILBERT = {
    "dim": 16,
    "hidden_dim": 48,
    "n_layers": 2,
    "n_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
}
OPT = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 16}


def chain(*widths: int, activation: Any = nn.Tanh, dtype: torch.dtype = torch.float64):
    """Make Linear -> activation -> ... -> Linear of given widths."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def inputs(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def encoder(layers: int = 2, **options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        8, 2, 32, **{"batch_first": True, "dtype": torch.float64, **options}
    )
    # Nested tensors only without the fused path of a stack's first layer being in question.
    made = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    for parameter in made.parameters():  # layers of a stack start as copies of one another
        nn.init.normal_(parameter, std=0.4)
    return made


def transformer(kind: str, config: dict[str, Any], **options: Any) -> Any:
    """Make a model of Transformers by the names of its class."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind)
    return model(model.config_class(**{**config, **options}))


def tokens(samples: int = 24, length: int = 6, *, padding: bool = True) -> dict[str, Tensor]:
    """Make token numbers and their mask: every second sample ends in two padding tokens."""
    source = torch.Generator().manual_seed(2)
    ids = torch.randint(1, VOCABULARY, (samples, length), generator=source)
    mask = torch.ones_like(ids)
    if padding:
        mask[::2, -2:] = 0
        ids = ids * mask
    return {"input_ids": ids, "attention_mask": mask}


def gelu_formula(x: Tensor) -> Tensor:
    """The tanh form of GELU, written out as Transformers does."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


class Functional(nn.Module):
    """A block whose activation is a function."""

    def __init__(self, function: Any, width: int = 24) -> None:
        super().__init__()
        self.up = nn.Linear(5, width, dtype=torch.float64)
        self.down = nn.Linear(width, 5, dtype=torch.float64)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.function(self.up(x)))


def numbers(*modules: nn.Module) -> int:
    """Numbers in parameters and persistent buffers, shared ones once."""
    tensors = {
        tensor.data_ptr(): tensor for module in modules for tensor in module.state_dict().values()
    }
    return sum(tensor.numel() for tensor in tensors.values())


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def seen_by(model: nn.Module, name: str, *args, **kwargs) -> tuple[Tensor, Tensor]:
    """What a module gets and gives when the model runs in evaluation mode, all calls as rows."""
    found: list[tuple[Tensor, Tensor]] = []
    module = model.get_submodule(name)
    hook = module.register_forward_hook(lambda m, x, y: found.append((x[0].clone(), y.clone())))
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model(*args, **kwargs)
    finally:
        hook.remove()
        torch.backends.mha.set_fastpath_enabled(fused)
    before, after = zip(*found, strict=True)
    return torch.cat([x.flatten(0, -2) for x in before]), torch.cat(
        [y.flatten(0, -2) for y in after]
    )


class Packed(nn.Linear):
    """A linear layer whose weight is kept as bytes in another shape, as quantised ones are."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        numbers = torch.arange(in_features * out_features) % 256
        self.weight = nn.Parameter(numbers.to(torch.uint8)[:, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.reshape(self.out_features, self.in_features) / 255 - 0.5)
