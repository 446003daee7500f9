"""What a module is made of: its layers with weights, and its activation."""

from torch import nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def affine_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the layers that have weights, in the order in which the module holds them."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, _LAYERS)]
    if not layers:
        raise ValueError(
            f"module: {type(module).__name__} holds none of nn.Linear, nn.Conv1d to nn.Conv3d"
        )
    return layers  # pyright: ignore[reportReturnType]


def activation_of(module: nn.Module) -> nn.Module:
    """Return the only kind of activation that a module holds."""
    home = nn.modules.activation
    found = {
        repr(part).replace("inplace=True", "inplace=False"): part
        for part in module.modules()
        if type(part).__module__ == home.__name__ and not isinstance(part, nn.MultiheadAttention)
    }
    if len(found) != 1:
        raise ValueError(
            f"activation: expected one kind of activation module in {type(module).__name__}, "
            f"found {sorted(found) or 'none'}; name it"
        )
    return next(iter(found.values()))
