"""Put modules into a model by name, and describe them so that they can be put there again."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..features.base import FeatureMap


def attribute(model: nn.Module, name: str) -> Any:
    """Return what a dotted path leads to: a module, or a function kept as an attribute."""
    parent, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(parent), leaf)


def place(model: nn.Module, name: str, module: Any) -> None:
    """Replace what is at ``name``, wherever the model holds that same module.

    Parameters
    ----------
    model : Module
        Changed in place.
    name : str
        Dotted path.
    module : Module or callable
        What to put there.
    """
    old = attribute(model, name)
    names = [name]
    if isinstance(old, nn.Module):
        names = [n for n, m in model.named_modules(remove_duplicate=False) if m is old]
    for each in names:
        parent_name, _, leaf = each.rpartition(".")
        parent = model.get_submodule(parent_name)
        if isinstance(old, nn.Module) and not isinstance(module, nn.Module):
            delattr(parent, leaf)  # torch refuses a function where a module was
        setattr(parent, leaf, module)
        if isinstance(parent, nn.TransformerEncoderLayer) and leaf == "activation":
            unfuse(model, parent)


def unfuse(model: nn.Module, layer: nn.TransformerEncoderLayer) -> None:
    """Keep torch from its fused path, which reads the weights of two linear layers."""
    layer.activation_relu_or_gelu = 0
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and layer in list(encoder.layers):
            encoder.use_nested_tensor = False  # only the fused path can read those


def fused_paths(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return the attributes by which torch's encoders choose their fused path."""
    return [
        (module, name, vars(module)[name])
        for module in model.modules()
        for name in ("activation_relu_or_gelu", "use_nested_tensor")
        if name in vars(module)
    ]


def describe_placed(model: nn.Module, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Say in plain values what was placed under each name."""
    return {name: describe(attribute(model, name)) for name in names}


def describe(module: nn.Module) -> dict[str, Any]:
    """Say in plain values what `rebuild` needs to make a module of the same shapes."""
    if isinstance(module, FeatureMap):
        return {"kind": "features", **module.to_config()}
    if isinstance(module, nn.Linear):
        return {
            "kind": "linear",
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias": module.bias is not None,
        }
    return {"kind": "identity"}


def rebuild(description: dict[str, Any]) -> nn.Module:
    """Make a module of the shapes that `describe` noted, with numbers yet to be loaded."""
    kind = description["kind"]
    if kind == "features":
        return FeatureMap.build(description)
    if kind == "linear":
        sizes = {key: description[key] for key in ("in_features", "out_features", "bias")}
        return nn.Linear(**sizes, device="meta").to_empty(device=torch.device("cpu"))
    return nn.Identity()
