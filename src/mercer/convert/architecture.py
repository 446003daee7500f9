"""Describe a model in plain values, so that loading it runs no code from the folder."""

import importlib
import inspect
from typing import Any

import torch
from torch import nn

from .._core.activation import from_module_text

# Leaf modules of an nn.Sequential that are described by their constructor's arguments.
_LEAVES: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "Dropout": ("p", "inplace"),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "Identity": (),
}
_KERNEL_KEYS = ("attn", "attention", "implementation")


def describe_model(model: nn.Module, placed: set[str]) -> dict[str, Any]:
    """Describe a model, but for the modules that bundling placed into it.

    Parameters
    ----------
    model : Module
        A Transformers model, an ``nn.Sequential`` of ordinary layers, or anything else.
    placed : set of str
        Names of modules that are described elsewhere.

    Returns
    -------
    dict
        With ``"library"``: ``"transformers"``, ``"torch"``, or None where only the user can
        build the model again.
    """
    kind = type(model)
    if kind.__module__.startswith("transformers.") and kind is _from_transformers(kind.__name__):
        config: Any = model.config
        generation: Any = getattr(model, "generation_config", None)
        return {
            "library": "transformers",
            "class": kind.__name__,
            "config": config.to_dict(),
            "attention": getattr(config, "_attn_implementation", None),
            "generation": None if generation is None else generation.to_dict(),
        }
    if kind is nn.Sequential:
        layers = _describe_sequential(model, "", placed, {})
        if layers is not None:
            return {"library": "torch", "layers": layers}
    return {"library": None, "class": f"{kind.__module__}.{kind.__qualname__}"}


def _describe_sequential(
    model: nn.Module, prefix: str, placed: set[str], seen: dict[nn.Module, str]
) -> list[dict[str, Any]] | None:
    layers: list[dict[str, Any]] = []
    for key, module in model._modules.items():  # named_children leaves out what comes again
        assert module is not None
        name, kind = f"{prefix}{key}", type(module)
        first = seen.setdefault(module, name)
        if first != name:
            layer: dict[str, Any] = {"class": "again", "first": first}
        elif name in placed:
            layer = {"class": "Identity", "arguments": {}}
        elif kind is nn.Sequential:
            inner = _describe_sequential(module, f"{name}.", placed, seen)
            if inner is None:
                return None
            layer = {"class": "Sequential", "layers": inner}
        elif kind.__name__ in _LEAVES and getattr(nn, kind.__name__) is kind:
            arguments = {key: getattr(module, key) for key in _LEAVES[kind.__name__]}
            if "bias" in inspect.signature(kind).parameters:
                arguments["bias"] = getattr(module, "bias", None) is not None
            layer = {"class": kind.__name__, "arguments": arguments}
        elif from_module_text(repr(module)) is not None and not list(module.parameters()):
            layer = {"class": "activation", "text": repr(module)}
        else:
            return None
        layers.append({"name": key, **layer})
    return layers


def build_model(description: dict[str, Any]) -> nn.Module:
    """Build a model of the shapes that `describe_model` noted.

    Raises
    ------
    ValueError
        If the description names a class that this installation does not have, or that only
        the user can build.
    """
    library = description["library"]
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that loading replaces
        if library == "transformers":
            return _build_transformers(description)
        if library == "torch":
            return _build_sequential(description["layers"], nn.Sequential(), "")
    raise ValueError(
        f"folder: it holds the numbers of a {description['class']}, which Mercer cannot build; "
        "pass such a model (dense, of the same sizes) as load(folder, model=...)"
    )


def _build_transformers(description: dict[str, Any]) -> nn.Module:
    try:
        kind = _from_transformers(description["class"])
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this folder holds a Transformers model: pip install 'mercer[hf]'"
        ) from None
    if kind is None:
        raise ValueError(
            f"folder: this version of transformers has no model {description['class']!r}"
        )
    _refuse_kernels(description)
    config = kind.config_class.from_dict(description["config"])
    if description["attention"] is not None:
        config._attn_implementation = description["attention"]
    model = kind(config)
    if description.get("generation") is not None:
        generation = importlib.import_module("transformers").GenerationConfig
        model.generation_config = generation.from_dict(description["generation"])
    return model


def _from_transformers(name: str) -> Any:
    """Return the model class of that name which transformers exports, or None."""
    transformers = importlib.import_module("transformers")
    kind = getattr(transformers, name, None)
    is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    return kind if is_model and getattr(kind, "config_class", None) is not None else None


def _refuse_kernels(values: Any) -> None:
    """Raise if a config asks for an attention that transformers would fetch from a hub, as code."""
    for key, value in values.items():
        if isinstance(value, dict):
            _refuse_kernels(value)
        elif any(word in key for word in _KERNEL_KEYS) and "/" in str(value):
            raise ValueError(f"folder: its config asks for code from elsewhere, {key} {value!r}")


def _build_sequential(
    layers: list[dict[str, Any]], model: nn.Sequential, prefix: str
) -> nn.Sequential:
    """Add layers to a model, which holds under its full names what was built before them."""
    for layer in layers:
        name = f"{prefix}{layer['name']}"
        owner = model.get_submodule(prefix.rstrip("."))
        if layer["class"] == "Sequential":
            owner.add_module(layer["name"], nn.Sequential())
            _build_sequential(layer["layers"], model, f"{name}.")
            continue
        if layer["class"] == "again":
            module: nn.Module | None = model.get_submodule(layer["first"])
        elif layer["class"] == "activation":
            module = from_module_text(layer["text"])
        elif layer["class"] in _LEAVES:
            module = getattr(nn, layer["class"])(**layer["arguments"])
        else:
            module = None
        if module is None:
            raise ValueError(f"folder: unknown layer {layer}")
        owner.add_module(layer["name"], module)
    return model
