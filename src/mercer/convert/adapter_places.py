"""After which modules of a model adapters belong, and how wide those modules' outputs are."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from .calibration import Batch
from .linear import computes_linear, sizes_of
from .running import evaluating
from .watch_places import watch_places

# How common architectures call the last linear layer of a feed-forward block, by the end of the
# name: first those of Transformers, then of torch and of timm.
_FFN = (
    r"(?<!attention\.)output\.dense",  # BERT, RoBERTa, ELECTRA, ViT, DeiT
    r"ffn\.lin2",  # DistilBERT
    r"ffn_output",  # ALBERT
    r"mlp\.c_proj",  # GPT-2, GPT Neo
    r"mlp\.dense_4h_to_h",  # GPT NeoX, BLOOM, Falcon
    r"mlp\.fc_out",  # GPT-J
    r"mlp\.down_proj",  # Llama, Mistral, Qwen, Gemma
    r"mlp\.Wo",  # ModernBERT
    r"DenseReluDense\.wo",  # T5
    r"fc2",  # OPT, BART, CLIP; timm's mlp.fc2
    r"linear2",  # torch.nn.TransformerEncoderLayer
)
_ATTENTION = (
    r"attention\.output\.dense",  # BERT, RoBERTa, ELECTRA, ViT, DeiT
    r"attention\.o_proj",  # ViT of Transformers 5
    r"attention\.out_lin",  # DistilBERT
    r"(attention|attn)\.dense",  # ALBERT, GPT NeoX, BLOOM, Falcon, Phi
    r"attn\.c_proj",  # GPT-2
    r"(attn|attention)\.out_proj",  # OPT, BART, CLIP, GPT Neo, GPT-J
    r"attn\.o",  # MPNet
    r"attn\.o_proj",  # Llama, Mistral, Qwen, Gemma
    r"attn\.Wo",  # ModernBERT
    r"(SelfAttention|EncDecAttention)\.o",  # T5
    r"attn\.proj",  # timm
)
# What may stand before it: whole parts of the name; and of an attention, as in self_attn.
_START = {"ffn": r"(.*\.)?", "attention": r"(.*[._])?"}
_KINDS = {"ffn": _FFN, "attention": _ATTENTION}
_WORDS = {
    "ffn": "the last linear layer of a feed-forward block",
    "attention": "the output projection of an attention",
    "both": "the last linear layer of a feed-forward block or an attention's output projection",
}
_SIGNS = {
    "ffn": "an activation of another's output and led back to the width before that",
    "attention": "a product with attention weights",
}
_SIGNS["both"] = " or ".join(_SIGNS.values())


def choose_places(
    model: nn.Module, where: str | Iterable[str] | Callable[[str], bool], batch: Batch | None
) -> tuple[str, ...]:
    """Return the names of the modules that are meant, each module once, in the model's order.

    Raises
    ------
    ValueError
        If there is none, or a name is not one of the model's.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if isinstance(where, str) and where in _WORDS:
        if batch is not None:
            ends = watch_places(model, batch)
            found = {name for kind in _kinds(where) for name in ends[kind]}
            if not found:
                raise ValueError(
                    f"where: {where!r} looks for {_WORDS[where]}: no linear layer "
                    f"of {type(model).__name__} was called on {_SIGNS[where]} with this example; "
                    "name the modules"
                )
        else:
            found = _by_name(modules, where)
        if not found:
            patterns = [p for kind in _kinds(where) for p in _KINDS[kind]]
            raise ValueError(
                f"where: {where!r} looks for {_WORDS[where]} by name, and no linear layer of "
                f"{type(model).__name__} has a name that ends in one of {', '.join(patterns)}; "
                "pass example=, one batch, to find them in what the model computes, or the names "
                "of modules"
            )
    elif isinstance(where, str):
        pattern = compiled("where", where)
        found = {name for name in modules if pattern.fullmatch(name)}
        if not found:
            raise ValueError(
                f"where: no module's whole name matches {where!r}; the names are like "
                f"{_some(modules)}; 'ffn', 'attention' and 'both' find places themselves"
            )
    elif callable(where):
        found = {name for name in modules if where(name)}
        if not found:
            raise ValueError(f"where: the function chose none of the {len(modules)} modules")
    else:
        every = dict(model.named_modules(remove_duplicate=False))
        found = set()
        for name in check_names("where", where):
            if name not in every or not name:
                raise ValueError(
                    f"where: the model has no module {name!r}; its names are like {_some(modules)}"
                )
            found |= {first for first, module in modules.items() if module is every[name]}
        if not found:
            raise ValueError("where: expected at least one name, got none")
    for name in found:
        parent = name.rpartition(".")[0]
        if isinstance(model.get_submodule(parent), nn.MultiheadAttention):
            raise ValueError(
                f"where: {name!r} is never called: nn.MultiheadAttention reads its weight; name "
                f"{parent!r} instead"
            )
    return tuple(name for name in modules if name in found)


def compiled(argument: str, pattern: str) -> re.Pattern[str]:
    """Compile a regular expression that a user gave."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{argument}: {pattern!r} is no regular expression: {error}") from None


def check_names(argument: str, names: Any) -> list[str]:
    """Return a list of names if it is one."""
    if not isinstance(names, Iterable):
        raise TypeError(
            f"{argument}: expected names or a regular expression, got {type(names).__name__}"
        )
    listed = list(names)
    for each in listed:
        if not isinstance(each, str):
            raise TypeError(f"{argument}: expected names, got {type(each).__name__} {each!r}")
    return listed


def _kinds(where: str) -> tuple[str, ...]:
    return tuple(_KINDS) if where == "both" else (where,)


def _some(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    step = max(len(listed) // most, 1)
    return ", ".join(repr(name) for name in listed[step - 1 :: step][:most]) or "none"


def _by_name(modules: dict[str, nn.Module], where: str) -> set[str]:
    """Find places by what common architectures call them."""
    found = set()
    whole = [f"{n}." for n, m in modules.items() if isinstance(m, nn.MultiheadAttention)]
    for kind in _kinds(where):
        ends = re.compile(_START[kind] + "(" + "|".join(_KINDS[kind]) + ")")
        found |= {n for n, m in modules.items() if computes_linear(m) and ends.fullmatch(n)}
    # Torch's own attention is called as a whole; its output projection is only read.
    found = {name for name in found if not name.startswith(tuple(whole))}
    return found | ({n.rstrip(".") for n in whole} if "attention" in _kinds(where) else set())


def output_widths(model: nn.Module, names: Iterable[str], batch: Batch | None) -> dict[str, int]:
    """Return the lengths of the vectors that modules return: from their sizes, or measured.

    Raises
    ------
    ValueError
        If a width is not known without an example, or the example does not reach a module.
    """
    names = tuple(names)
    if batch is not None:
        return _measured_widths(model, names, batch)
    widths = {}
    for name in names:
        module = model.get_submodule(name)
        width = stated_width(module)
        if width is None:
            raise ValueError(
                f"where: the width of what {name!r}, a {type(module).__name__}, returns is not "
                "known; pass example=, one batch that the model can be called with"
            )
        widths[name] = width
    return widths


def stated_width(module: nn.Module) -> int | None:
    """Return the length of the vectors that a module says it returns."""
    if computes_linear(module):
        return sizes_of(module)[1]
    for name in ("out_features", "embed_dim", "embedding_dim"):
        if isinstance(getattr(module, name, None), int):
            return getattr(module, name)
    shape = getattr(module, "normalized_shape", None)
    return shape[-1] if isinstance(shape, tuple) else None


def _measured_widths(model: nn.Module, names: tuple[str, ...], batch: Batch) -> dict[str, int]:
    widths: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor) and first.ndim:
                widths[name] = first.shape[-1]

        return leave

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with evaluating(model):
            batch.call(model)
    finally:
        for hook in hooks:
            hook.remove()
    for name in names:
        if name not in widths:
            raise ValueError(
                f"where: with this example {name!r} did not run, or returned no tensor first"
            )
    return widths
