"""Rules of layers with weights."""

import math
from typing import Any

from torch import nn
from torch.nn import functional as F

from .rules import rule
from .signal import Signal
from .weight import Weight

Sizes = tuple[int, ...]


def each_axis(value: Any, count: int) -> Sizes:
    """Repeat one number for every axis."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count


def _trained(parameter: Any) -> bool:
    return parameter is not None and parameter.requires_grad


@rule(nn.Linear)
def linear(module: nn.Linear, x: Signal) -> Signal:
    """Mix the channels, which lie along the last axis."""
    _expect(x, -1, module.in_features)
    return x.affine(
        module.out_features,
        bias=module.bias is not None,
        trains_weight=_trained(module.weight),
        trains_bias=_trained(module.bias),
    )


def _expect(x: Signal, axis: int, channels: int) -> None:
    if x.ndim < 2 or x.shape[axis] != channels:
        raise x.tape.refuse(f"expects {channels} channels along axis {axis}, got {x.shape_text}")


def _named(x: Signal, weight: Any, bias: Any) -> dict[str, Any]:
    if not isinstance(weight, Weight) or not (bias is None or isinstance(bias, Weight)):
        raise x.tape.refuse("its weight must be a parameter of the module")
    return {
        "bias": bias is not None,
        "trains_weight": _trained(weight.tensor),
        "trains_bias": bias is not None and _trained(bias.tensor),
        "name": weight.name,
    }


@rule(F.linear)
def functional_linear(input: Signal, weight: Any, bias: Any = None) -> Signal:
    """Mix the channels by a parameter of the module."""
    named = _named(input, weight, bias)
    _expect(input, -1, weight.tensor.shape[1])
    return input.affine(weight.tensor.shape[0], **named)


def _convolution(
    x: Signal,
    channels: tuple[int, int],
    size: Sizes,
    stride: Sizes,
    padding: Any,
    dilation: Sizes,
    groups: int,
    mode: str,
    options: dict[str, Any],
) -> Signal:
    d = len(size)
    if x.ndim != d + 2:
        raise x.tape.refuse(f"expects a tensor with {d + 2} axes, got {x.shape_text}")
    _expect(x, 1, channels[0])
    x = x.with_channels(1)
    for axis in range(d):
        total = dilation[axis] * (size[axis] - 1)
        if padding == "same":
            sides = (total // 2, total - total // 2)
        elif padding == "valid":
            sides = (0, 0)
        else:
            side = each_axis(padding, d)[axis]
            sides = (side, side)
        x = padded(x, 2 + axis, sides, mode)
    # The positions of the covariances may be in another order than the tensor's.
    order = [0] * d
    for axis in range(d):
        role = x.roles[2 + axis]
        assert isinstance(role, int)
        order[role] = axis
    size, stride, dilation = (tuple(v[a] for a in order) for v in (size, stride, dilation))
    share = channels[0] // groups
    alike = groups == 1 or x.settled().alike
    return x.windowed(size, stride, dilation).affine(
        channels[1],
        axis=1,
        fan_in=share * math.prod(size),
        # Groups of data have covariances of their own; a depthwise sum has few terms.
        wide=groups == 1 or share > 1,
        alike=alike,
        **options,
    )


def padded(x: Signal, axis: int, sides: tuple[int, int], mode: str = "zeros") -> Signal:
    """Pad an axis of positions."""
    low, high = sides
    if not (low or high):
        return x
    n = x.shape[axis]
    if low < 0 or high < 0:
        x = x.picked(axis, range(max(-low, 0), n - max(-high, 0)))
        return padded(x, axis, (max(low, 0), max(high, 0)), mode)
    outer = [*range(-low, 0), *range(n), *range(n, n + high)]
    if mode in ("zeros", "constant"):
        index = [i if 0 <= i < n else -1 for i in outer]
    elif mode == "circular":
        index = [i % n for i in outer]
    elif mode == "replicate":
        index = [min(max(i, 0), n - 1) for i in outer]
    elif mode == "reflect":
        index = [n - 1 - abs(n - 1 - abs(i)) for i in outer]
    else:
        raise x.tape.refuse(f"padding mode {mode!r} has no rule")
    return x.picked(axis, index)


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module: Any, x: Signal) -> Signal:
    """Gather windows, and mix them."""
    return _convolution(
        x,
        (module.in_channels, module.out_channels),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.padding_mode,
        {
            "bias": module.bias is not None,
            "trains_weight": _trained(module.weight),
            "trains_bias": _trained(module.bias),
        },
    )


def _functional_convolution(d: int) -> Any:
    def convolve(
        input: Signal,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Signal:
        named = _named(input, weight, bias)
        out, share, *size = weight.tensor.shape
        return _convolution(
            input,
            (share * groups, out),
            tuple(size),
            each_axis(stride, d),
            padding,
            each_axis(dilation, d),
            groups,
            "zeros",
            named,
        )

    return convolve


for _d, _function in ((1, F.conv1d), (2, F.conv2d), (3, F.conv3d)):
    rule(_function)(_functional_convolution(_d))


@rule(nn.Unfold)
def unfold(module: nn.Unfold, x: Signal) -> Signal:
    """Gather windows as channels, with their positions in one axis."""
    return functional_unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)


@rule(F.unfold)
def functional_unfold(
    input: Signal, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Signal:
    """Gather windows as channels, with their positions in one axis."""
    size, dilation, padding, stride = (
        each_axis(v, 2) for v in (kernel_size, dilation, padding, stride)
    )
    x = input.with_channels(1)
    for axis in range(2):
        x = padded(x, 2 + axis, (padding[axis],) * 2)
    channels = x.channels
    x = x.windowed(size, stride, dilation)
    n, _, h, w = x.shape
    x = x.reshaped((n, channels, h * w))
    return x.widened(1, channels * math.prod(size))
