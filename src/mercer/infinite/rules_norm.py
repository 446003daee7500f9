"""Rules of normalisation, dropout and attention."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .rules import rule
from .signal import Signal
from .tape import CHANNEL


def _trained(parameter: Any) -> bool:
    return parameter is not None and parameter.requires_grad


def _over_last(x: Signal, count: int, centre: bool, eps: float, weight: Any, bias: Any) -> Signal:
    axes = list(range(x.ndim - count, x.ndim))
    if x.is_data:
        raise x.tape.refuse("normalises data; do that before they come into the network")
    found = x.settled()
    if CHANNEL not in [found.roles[a] for a in axes]:
        raise x.tape.refuse(
            f"normalises over axes {axes} of {x.shape_text}, without the channels: each channel "
            "would have a random scale of its own"
        )
    positions = [a for a in axes if found.roles[a] != CHANNEL]
    return found.normalized(
        positions,
        centre=centre,
        eps=eps,
        trains_weight=_trained(weight),
        trains_bias=_trained(bias),
        own_positions=bool(positions),
    )


@rule(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, x: Signal) -> Signal:
    """Divide by the deviation over channels, and positions where they are normalised too."""
    return _over_last(x, len(module.normalized_shape), True, module.eps, module.weight, module.bias)


@rule(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, x: Signal) -> Signal:
    """Divide by the root of the mean square."""
    eps = torch.finfo(torch.float32).eps if module.eps is None else module.eps
    return _over_last(x, len(module.normalized_shape), False, eps, module.weight, None)


@rule(F.layer_norm)
def functional_layer_norm(
    input: Signal, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Signal:
    """Do the same as a function."""
    parameters = (getattr(p, "tensor", None) for p in (weight, bias))
    return _over_last(input, len(normalized_shape), True, eps, *parameters)


@rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, x: Signal) -> Signal:
    """Divide by the deviation over a group's channels and all positions."""
    if x.is_data:
        raise x.tape.refuse("normalises data; do that before they come into the network")
    if module.num_groups == module.num_channels:
        raise x.tape.refuse("normalises each channel on its own: its scale is random at any width")
    found = x.with_channels(1).settled()
    if module.num_groups > 1 and not found.alike:
        raise x.tape.refuse(
            "normalises groups of channels that differ (data, or signals beside each other), whose "
            "covariances are kept together; use one group, or put a layer with weights before"
        )
    return found.normalized(
        range(2, x.ndim),
        centre=True,
        eps=module.eps,
        trains_weight=_trained(module.weight),
        trains_bias=_trained(module.bias),
    )


@rule(nn.Dropout, nn.AlphaDropout)
def dropout(module: Any, x: Signal) -> Signal:
    """Drop channels in training; nothing in evaluation."""
    if isinstance(module, nn.AlphaDropout) and module.training and module.p:
        raise x.tape.refuse("alpha dropout has no rule in training; call eval() on it")
    return functional_dropout(x, module.p, module.training)


@rule(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
def feature_dropout(module: Any, x: Signal) -> Signal:
    """Do nothing in evaluation."""
    if module.training and module.p:
        raise x.tape.refuse("drops whole channels in training, which has no rule; call eval()")
    return x


@rule(F.dropout)
def functional_dropout(
    input: Signal, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Signal:
    """Drop channels in training; nothing in evaluation."""
    if not training or not p:
        return input
    if p >= 1:
        raise input.tape.refuse("drops every channel")
    if input.is_data:
        raise input.tape.refuse("drops entries of data, which have few channels")
    return input.dropped(p)
