"""Small models for the tests of the PEFT method, and how those tests look at them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.convert.models import DISTILBERT, GPT2, IMAGES, SIZES, VOCABULARY, tokens, transformer

LABELS = {"num_labels": 3}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
LLAMA = {**SIZES, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv)
        return self.proj(mixed.transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, 2)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, 48)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TimmLike(nn.Module):
    """A vision transformer with the names that timm gives its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).mT  # (n, 4, 16)
        return self.head(self.blocks(patches).mean(1))


class Encoder(nn.Module):
    """Torch's own encoder, whose fused path reads weights where it would call layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 48, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.encoder(x, src_key_padding_mask=mask)
        if mask is not None:
            y = y.masked_fill(mask.unsqueeze(-1), 0.0)
        return self.head(y.mean(1))


@dataclass(frozen=True)
class Kind:
    """A model, what it is called with, and what is adapted in it."""

    make: Callable[[], nn.Module]
    call: dict[str, Any]
    # None: what Mercer takes where the user names nothing
    targets: list[str] | None
    adapted: int  # how many modules those are
    beside: list[str] | None = None  # linear layers for the placement "replacement"
    blocks: list[str] = field(default_factory=list)  # whole blocks, for the placement "adapter"


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def words() -> dict[str, Tensor]:
    return tokens(samples=4)


def vectors() -> Tensor:
    return torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(3))


def classifier(kind: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    return lambda: transformer(f"{kind}ForSequenceClassification", {**config, **LABELS})


# What is supported: rows are models, columns where an adapter may sit.
KINDS: dict[str, Kind] = {
    "bert": Kind(
        classifier("Bert", SIZES), words(), None, 4, blocks=["attention", "layer.0", "output"]
    ),
    "roberta": Kind(
        classifier("Roberta", {**SIZES, "max_position_embeddings": 32}), words(), None, 4
    ),
    "distilbert": Kind(
        classifier("DistilBert", {**DISTILBERT, "initializer_range": 0.3}),
        words(),
        None,
        4,
        blocks=["ffn"],
    ),
    "gpt2": Kind(
        lambda: transformer("GPT2LMHeadModel", {**GPT2, "attn_implementation": "eager"}),
        words(),
        None,
        4,
        blocks=["mlp", "h.1"],
    ),
    "llama": Kind(lambda: transformer("LlamaForCausalLM", LLAMA), words(), None, 4, blocks=["mlp"]),
    "t5": Kind(
        lambda: transformer("T5ForConditionalGeneration", T5),
        {**words(), "labels": words()["input_ids"]},
        None,
        10,
        blocks=["SelfAttention", "DenseReluDense"],
    ),
    "vit": Kind(
        lambda: transformer("ViTForImageClassification", {**SIZES, **IMAGES, **LABELS}),
        {"pixel_values": images()},
        None,
        4,
        blocks=["layers?.0"],  # the older name, and the newer
    ),
    "timm": Kind(
        TimmLike,
        {"x": images()},
        ["attn.proj", "mlp.fc2"],
        4,
        beside=["attn.qkv"],
        blocks=["attn", "mlp", "blocks.1", "norm2"],
    ),
    "torch": Kind(
        Encoder,
        {"x": vectors()},
        ["self_attn", "linear2"],
        4,
        beside=["linear1"],
        blocks=["layers.0", "norm1"],
    ),
}


def build(kind: str, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Make a model of the table with the same random numbers each time, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KINDS[kind].make().to(dtype).eval()


def logits(model: nn.Module, kind: str = "bert") -> Tensor:
    """What a model answers, without gradients."""
    with torch.no_grad():
        return answer(model, kind)


def answer(model: nn.Module, kind: str = "bert") -> Tensor:
    call = {
        name: value.to(next(model.parameters()).dtype) if value.is_floating_point() else value
        for name, value in KINDS[kind].call.items()
    }
    out = model(**call)
    return out if isinstance(out, Tensor) else out.logits


def stir(model: nn.Module, name: str = "default", *, scale: float = 0.3, seed: int = 7) -> None:
    """Put random numbers into what an adapter trains, as if it had been trained."""
    source = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "mercer_snnk_" in key and f".{name}" in key:
            drawn = torch.randn(parameter.shape, generator=source)
            parameter.data.copy_(scale * drawn)


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What trains, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
