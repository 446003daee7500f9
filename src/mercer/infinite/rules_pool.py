"""Rules of pooling: fixed mixtures of positions."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .rules import rule
from .rules_linear import each_axis, padded
from .signal import Signal
from .tape import CHANNEL


def _pool_matrix(
    n: int, size: int, stride: int, padding: int, ceil: bool, include: bool
) -> list[list[float]]:
    out = (n + 2 * padding - size + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (out - 1) * stride >= n + padding:  # torch starts no window in the right padding
        out -= 1
    rows = []
    for o in range(out):
        start = o * stride - padding
        stop = min(start + size, n + padding)
        inside = range(max(start, 0), min(stop, n))
        divisor = stop - start if include else len(inside)
        rows.append([1 / divisor if i in inside else 0.0 for i in range(n)])
    return rows


def _pool(
    x: Signal,
    d: int,
    size: Any,
    stride: Any,
    padding: Any,
    ceil: bool,
    include: bool,
    override: int | None = None,
) -> Signal:
    sizes = each_axis(size, d)
    strides = sizes if stride is None else each_axis(stride, d)
    paddings = each_axis(padding, d)
    if x.ndim != d + 2:
        raise x.tape.refuse(f"expects a tensor with {d + 2} axes, got {x.shape_text}")
    factor = 1.0
    if override:
        for n in sizes:
            factor *= n
        include, factor = True, factor / override
    for axis in range(d):
        a = 2 + axis
        if sizes[axis] == strides[axis] == 1 and not paddings[axis]:
            continue
        matrix = _pool_matrix(x.shape[a], sizes[axis], strides[axis], paddings[axis], ceil, include)
        if not matrix:
            raise x.tape.refuse(f"a window of {sizes} does not fit {x.shape_text}")
        x = x.mixed(a, matrix)
    return x if factor == 1.0 else x * factor


@rule(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def average_pool(module: Any, x: Signal) -> Signal:
    """Average over windows of each input."""
    d = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}[type(module)]
    return _pool(
        x,
        d,
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        module.count_include_pad,
        getattr(module, "divisor_override", None),
    )


def _functional_pool(d: int) -> Any:
    def pool(
        input: Signal,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Signal:
        return _pool(
            input,
            d,
            kernel_size,
            stride or None,
            padding,
            ceil_mode,
            count_include_pad,
            divisor_override,
        )

    return pool


def _adaptive(x: Signal, d: int, output: Any) -> Signal:
    for axis, out in enumerate(each_axis(output, d)):
        a = 2 + axis
        n = x.shape[a]
        if out is None or out == n:
            continue
        rows = []
        for o in range(out):
            inside = range(o * n // out, -(-(o + 1) * n // out))
            rows.append([1 / len(inside) if i in inside else 0.0 for i in range(n)])
        x = x.mixed(a, rows)
    return x


@rule(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
def adaptive_pool(module: Any, x: Signal) -> Signal:
    """Average over windows of each input, as many as wanted."""
    d = {nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3}[type(module)]
    return _adaptive(x, d, module.output_size)


def _functional_adaptive(d: int) -> Any:
    def pool(input: Signal, output_size: Any) -> Signal:
        return _adaptive(input, d, output_size)

    return pool


_FUNCTIONS: Any = (
    (1, F.avg_pool1d, F.adaptive_avg_pool1d),
    (2, F.avg_pool2d, F.adaptive_avg_pool2d),
    (3, F.avg_pool3d, F.adaptive_avg_pool3d),
)
for _d, _plain, _adapted in _FUNCTIONS:
    rule(_plain)(_functional_pool(_d))
    rule(_adapted)(_functional_adaptive(_d))


def _over(x: Signal, dim: Any, keepdim: bool, mean: bool) -> Signal:
    dims = range(1, x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in sorted((x.axis(d) for d in dims), reverse=True):
        n = x.shape[axis]
        x = x.mixed(axis, [[1 / n if mean else 1.0] * n], drop=not keepdim)
    return x


@rule(torch.mean, "mean")
def mean(x: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """Average over axes of positions."""
    return _over(x, dim, keepdim, True)


@rule(torch.sum, "sum")
def sum_(x: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    """Add up along axes of positions."""
    return _over(x, dim, keepdim, False)


@rule(F.pad)
def pad(input: Signal, pad: Any, mode: str = "constant", value: float | None = None) -> Signal:
    """Pad axes of positions, the last one first."""
    if mode == "constant" and value:
        raise input.tape.refuse(f"padding by {value:g} has no rule; by zeros it has")
    for i in range(len(pad) // 2):
        sides = (pad[2 * i], pad[2 * i + 1])
        axis = input.ndim - 1 - i
        if not input.is_data and input.settled().roles[axis] == CHANNEL and any(sides):
            raise input.tape.refuse("pads the channels")
        input = padded(input if input.is_data else input.settled(), axis, sides, mode)
    return input


def _pad_module(mode: str) -> Any:
    def pad_positions(module: Any, x: Signal) -> Signal:
        return pad(x, module.padding, mode)

    return pad_positions


for _mode, _kinds in {
    "constant": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
}.items():
    rule(*_kinds)(_pad_module(_mode))


@rule(nn.Upsample)
def upsample(module: nn.Upsample, x: Signal) -> Signal:
    """Repeat positions."""
    if module.mode != "nearest":
        raise x.tape.refuse(f"upsampling by {module.mode!r} has no rule; by 'nearest' it has")
    d = x.ndim - 2
    for axis in range(d):
        n = x.shape[2 + axis]
        if module.size is not None:
            out = each_axis(module.size, d)[axis]
        else:
            out = int(n * each_axis(module.scale_factor, d)[axis])
        x = x.picked(2 + axis, [i * n // out for i in range(out)])
    return x
