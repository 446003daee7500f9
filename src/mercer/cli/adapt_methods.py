"""Ways to fine-tune a Transformer: what each adds, what trains, the learning rates worth trying.

================ ============================================= =================================
method           what is added                                 what trains besides the head
================ ============================================= =================================
``snnk``         an SNNK adapter after each layer norm         its readout and up-projection
``lora``         low-rank terms on query and value (PEFT)      both factors
``vera``         the same with frozen random factors (PEFT)    two vectors a layer
``bottleneck``   Linear -> GELU -> Linear after each block     both layers
``bitfit``       nothing                                       every bias of the body
``probe``        nothing                                       nothing
``full``         nothing                                       everything
================ ============================================= =================================

A block is attention or the feed-forward part; what follows it acts before its residual sum. What is
added changes nothing until it is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from .._core.counter import CounterGenerator
from ..convert.adapted import attach
from ..convert.adapter_places import choose_places
from ..convert.linear import is_linear, sizes_of
from ..nn.adapter import SNNKAdapter
from ..nn.dense_weight import dense_weight

_RANK, _ALPHA = 8, 16  # of LoRA, as in its paper's runs on GLUE
_VERA_RANK = 256  # PEFT's default
_BOTTLENECK = 8
# Fewer than half of LoRA's numbers, 16 d a layer, at every width d.
_FEATURES_PER_WIDTH, _SNNK_BOTTLENECK = 2 / 3, 4
_ATTENTION_INPUTS = (  # names of query and value, or of what holds both
    ("query", "value"),  # BERT, RoBERTa, older ViT
    ("q_proj", "v_proj"),  # ViT, decoders
    ("q_lin", "v_lin"),  # DistilBERT
    ("q", "v"),  # T5
    ("query_key_value",),
    ("c_attn",),  # GPT-2
)


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be fine-tuned.

    Attributes
    ----------
    model : Module
        The model, changed in place.
    method : str
        Name of the method.
    trained : dict of str to Parameter
        What trains, without the head, by name.
    head : dict of str to Parameter
        What trains of the head.
    frozen : dict of str to Tensor
        What the method added and does not train: random projections. A seed regenerates them, so
        a task need not store them.
    """

    model: nn.Module
    method: str
    trained: dict[str, Tensor]
    head: dict[str, Tensor]
    frozen: dict[str, Tensor]

    @property
    def num_trainable(self) -> int:
        """How many numbers train, without the head."""
        return sum(p.numel() for p in self.trained.values())


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes
    ----------
    name : str
        What the command calls it.
    title : str
        What tables and figures call it.
    learning_rates : tuple of four floats
        Those to choose among.
    settings : mapping
        What the method is given, as plain values.
    insert : callable
        Takes a model whose parameters are frozen, the settings and a seed, and changes the model
        so that what the method trains requires a gradient.
    """

    name: str
    title: str
    learning_rates: tuple[float, float, float, float]
    settings: Mapping[str, Any]
    insert: Callable[[nn.Module, Mapping[str, Any], int], None]


@final
class Bottleneck(nn.Module):
    r"""The adapter of Houlsby et al., the identity at the start.

    .. math:: y = h + U \, \mathrm{gelu}(D h + b) + c

    Parameters
    ----------
    width : int
        Length of the vectors.
    rank : int
        Rows of D.
    generator : torch.Generator
        Source of D.

    References
    ----------
    Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan, Gelly:
    Parameter-Efficient Transfer Learning for NLP, 2019, arXiv 1902.00751.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        # Made empty, so that no draws of the layers touch the global random state.
        self.down = nn.Linear(width, rank, device="meta").to_empty(device="cpu")
        self.up = nn.Linear(rank, width, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            self.down.weight.normal_(std=width**-0.5, generator=generator)
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, h: Tensor) -> Tensor:
        """Map inputs of shape (..., width) to outputs of the same shape."""
        return h + self.up(nn.functional.gelu(self.down(h)))


def head_of(model: nn.Module) -> list[str]:
    """Return the names of the parameters that belong to the head of a transformers model.

    Raises
    ------
    ValueError
        If the model does not say what its body is.
    """
    body = getattr(model, "base_model", model)
    if body is model:
        raise ValueError(
            f"model: {type(model).__name__} does not tell its body from its head; name the head's "
            "modules by head="
        )
    inside = {id(p) for p in body.parameters()}
    return [name for name, p in model.named_parameters() if id(p) not in inside]


def attention_inputs(model: nn.Module) -> list[str]:
    """Return the last names of the linear layers that make queries and values."""
    last = {path.rpartition(".")[2] for path, module in model.named_modules() if is_linear(module)}
    for names in _ATTENTION_INPUTS:
        if set(names) <= last:
            return list(names)
    raise ValueError(
        f"model: no linear layers of {type(model).__name__} are called "
        + ", ".join(" and ".join(names) for names in _ATTENTION_INPUTS)
    )


def layers_of(model: nn.Module) -> list[str]:
    """Return the paths of a Transformer's layers: attention and feed-forward block each.

    They are the entries of the outermost lists that hold layers which make queries.

    Raises
    ------
    ValueError
        If the model has none.
    """
    queries = attention_inputs(model)[0]
    lists: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(outer + ".") for outer in lists)
        if isinstance(module, nn.ModuleList) and not inside:
            last = {name.rpartition(".")[2] for name, _ in module.named_modules()}
            lists += [path] if queries in last else []
    found = [
        f"{path}.{name}" for path in lists for name, _ in model.get_submodule(path).named_children()
    ]
    if not found:
        raise ValueError(
            f"model: {type(model).__name__} has no ModuleList of layers with {queries} in them"
        )
    return found


def norms_of(model: nn.Module) -> list[tuple[str, int]]:
    """Return the paths and widths of the normalisations in a Transformer's layers.

    With normalisation last (BERT) their outputs are the residual stream, with normalisation first
    (ViT, GPT-2) what the blocks read of it; those of single heads do not count.
    """
    queries = attention_inputs(model)[0]
    found = []
    for path in layers_of(model):
        layer = model.get_submodule(path)
        linear = next(m for n, m in layer.named_modules() if n.rpartition(".")[2] == queries)
        width, _ = sizes_of(linear)
        for name, module in layer.named_modules():
            weight = getattr(module, "weight", None)
            if type(module).__name__.lower().endswith("norm") and isinstance(weight, Tensor):
                found += [(f"{path}.{name}", width)] if weight.shape == (width,) else []
    if not found:
        raise ValueError(f"model: the layers of {type(model).__name__} hold no normalisation")
    return found


def _snnk(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    settings = dict(settings)
    share, generator = settings.pop("features_per_width"), CounterGenerator(seed)
    for path, width in norms_of(model):
        adapter = SNNKAdapter(width, round(share * width), generator=generator, **settings)
        attach(model, path, adapter.to(next(model.get_submodule(path).parameters())))


def _bottleneck(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for path in choose_places(model, settings["where"], None):
        layer = model.get_submodule(path)
        weight, _ = dense_weight(path, layer)  # (out, in)
        added = Bottleneck(len(weight), settings["rank"], generator).to(weight)
        model.set_submodule(path, nn.Sequential(layer, added))


def _peft(model: nn.Module, config: Any, seed: int) -> None:
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):  # PEFT draws from the global state
        torch.default_generator.manual_seed(seed)
        get_peft_model(model, config)  # type: ignore[arg-type]  # any module, changed in place


def _targets(model: nn.Module) -> dict[str, Any]:
    names = attention_inputs(model)
    transposed = any(
        is_linear(module) and not isinstance(module, nn.Linear)  # Conv1D of transformers
        for path, module in model.named_modules()
        if path.rpartition(".")[2] in names
    )
    return {"target_modules": names, "fan_in_fan_out": transposed}


def _lora(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    from peft import LoraConfig

    _peft(model, LoraConfig(**settings, **_targets(model)), seed)


def _vera(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    from peft import VeraConfig

    _peft(model, VeraConfig(**settings, projection_prng_key=seed, **_targets(model)), seed)


def _bitfit(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.rpartition(".")[2] == "bias"


def _probe(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    """Leave the body as it is."""


def _full(model: nn.Module, settings: Mapping[str, Any], seed: int) -> None:
    model.requires_grad_()


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "snnk",
            "SNNK adapter (Mercer)",
            (1e-3, 2e-3, 4e-3, 8e-3),
            {
                "features_per_width": _FEATURES_PER_WIDTH,
                "bottleneck": _SNNK_BOTTLENECK,
                "activation": "gelu",
            },
            _snnk,
        ),
        Method(
            "lora",
            f"LoRA, r = {_RANK}",
            (1e-3, 2e-3, 4e-3, 8e-3),
            {"r": _RANK, "lora_alpha": _ALPHA},
            _lora,
        ),
        Method(
            "vera", f"VeRA, r = {_VERA_RANK}", (5e-3, 1e-2, 2e-2, 4e-2), {"r": _VERA_RANK}, _vera
        ),
        Method(
            "bottleneck",
            f"bottleneck, r = {_BOTTLENECK}",
            (1e-3, 2e-3, 4e-3, 8e-3),
            {"where": "both", "rank": _BOTTLENECK},
            _bottleneck,
        ),
        Method("bitfit", "BitFit", (1e-3, 2e-3, 4e-3, 8e-3), {}, _bitfit),
        Method("probe", "linear probe", (3e-3, 1e-2, 3e-2, 1e-1), {}, _probe),
        Method("full", "full fine-tuning", (5e-5, 1e-4, 2e-4, 4e-4), {}, _full),
    )
}


def prepare(
    model: nn.Module,
    method: str,
    *,
    head: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Prepared:
    """Change a model in place so that one method's parameters and the head train.

    Parameters
    ----------
    model : Module
        A classifier of transformers, or a module around one.
    method : str
        One of `METHODS`.
    head : sequence of str, optional
        Names of modules or parameters that are the head; None asks the model.
    settings : mapping, optional
        Replaces settings of the method by name.
    seed : int, default 0
        Of what is drawn; torch's global random state stays as it is.

    Returns
    -------
    Prepared
        The model and what trains in it.

    Raises
    ------
    ValueError
        If the method is unknown or the model has no place for it.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    names = head_of(model) if head is None else list(head)
    before = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    model.requires_grad_(False)
    chosen.insert(model, {**chosen.settings, **(settings or {})}, seed)
    trained: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if any(name == head or name.startswith(head + ".") for head in names):
            heads[name] = parameter.requires_grad_()
        elif parameter.requires_grad:
            trained[name] = parameter
    frozen = {
        tensor.data_ptr(): (name, tensor)  # shared ones once
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if not tensor.requires_grad and tensor.data_ptr() not in before
    }
    return Prepared(model, method, trained, heads, dict(frozen.values()))


def stored_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of a safetensors file that holds these tensors."""
    from safetensors.torch import save

    return len(save({name: t.detach().contiguous().clone() for name, t in tensors.items()}))
