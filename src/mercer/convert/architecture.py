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
    if kind.__module__.startswith("transformers.") and hasattr(model, "config"):
        config: Any = model.config
        return {
            "library": "transformers",
            "class": kind.__name__,
            "config": config.to_dict(),
            "attention": getattr(config, "_attn_implementation", None),
        }
    if kind is nn.Sequential:
        layers = _describe_sequential(model, "", placed)
        if layers is not None:
            return {"library": "torch", "layers": layers}
    return {"library": None, "class": f"{kind.__module__}.{kind.__qualname__}"}


def _describe_sequential(
    model: nn.Module, prefix: str, placed: set[str]
) -> list[dict[str, Any]] | None:
    layers: list[dict[str, Any]] = []
    for key, module in model.named_children():
        name, kind = f"{prefix}{key}", type(module)
        if name in placed:
            layer: dict[str, Any] = {"class": "Identity", "arguments": {}}
        elif kind is nn.Sequential:
            inner = _describe_sequential(module, f"{name}.", placed)
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
            return _build_sequential(description["layers"])
    raise ValueError(
        f"folder: it holds the numbers of a {description['class']}, which Mercer cannot build; "
        "pass such a model (dense, of the same sizes) as load(folder, model=...)"
    )


def _build_transformers(description: dict[str, Any]) -> nn.Module:
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this folder holds a Transformers model: pip install 'mercer[hf]'"
        ) from None
    kind = getattr(transformers, description["class"], None)
    base = transformers.PreTrainedModel
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(
            f"folder: this version of transformers has no model {description['class']!r}"
        )
    config = kind.config_class.from_dict(description["config"])
    if description["attention"] is not None:
        config._attn_implementation = description["attention"]
    return kind(config)


def _build_sequential(layers: list[dict[str, Any]]) -> nn.Sequential:
    model = nn.Sequential()
    for layer in layers:
        if layer["class"] == "Sequential":
            module: nn.Module | None = _build_sequential(layer["layers"])
        elif layer["class"] == "activation":
            module = from_module_text(layer["text"])
        elif layer["class"] in _LEAVES:
            module = getattr(nn, layer["class"])(**layer["arguments"])
        else:
            module = None
        if module is None:
            raise ValueError(f"folder: unknown layer {layer}")
        model.add_module(layer["name"], module)
    return model
