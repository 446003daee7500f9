"""Pooling and padding of odd shapes, against the matrix that torch's own layer multiplies by."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NTK, Signal, rule
from tests.infinite.golden_networks import Apply, Pooled

OPTIONS: dict[str, Any] = {"w_std": 1.3, "b_std": 0.4}
CONV = {1: nn.Conv1d, 2: nn.Conv2d}
Layer = Callable[[Tensor], Tensor]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of(layer: Layer, grid: Sequence[int]) -> Tensor:
    """The matrix (out, in) of what a layer does to one channel's positions."""
    count = math.prod(grid)
    found = layer(torch.eye(count, dtype=torch.float64).reshape(count, 1, *grid))
    return found.reshape(count, -1).mT


def kernels_of_positions(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """S and T behind a first layer of 1 x 1 windows and a ReLU, (n, positions, m, positions)."""
    c, n, m = x.shape[1], len(x), len(y)
    count = math.prod(x.shape[2:])
    rows, columns = (z.flatten(2).mT.reshape(-1, c) for z in (x, y))
    dense = NTK(nn.Sequential(nn.Linear(c, 8), nn.ReLU(), nn.Linear(8, 1)), w_std=1.3, b_std=0.4)
    with torch.no_grad():
        s, t = dense.both(rows, columns)
    # Undo the read-out: S' = w^2 S + b^2, T' = w^2 T + S'.
    t, s = (t - s) / 1.3**2, (s - 0.4**2) / 1.3**2
    return s.reshape(n, count, m, count), t.reshape(n, count, m, count)


def check(layer: nn.Module, grid: tuple[int, ...]) -> None:
    """Compare a network with the layer between ReLU and a read-out, flat and averaged."""
    d, c = len(grid), 2
    x, y = draw(0, 4, c, *grid), draw(1, 3, c, *grid)
    matrix = matrix_of(layer, grid)  # (out, in)
    out = len(matrix)
    first = CONV[d](c, 8, 1)
    flat = nn.Sequential(first, nn.ReLU(), layer, nn.Flatten(), nn.Linear(8 * out, 1))
    axes = tuple(range(2, 2 + d))
    mean = Pooled(axes, first, nn.ReLU(), layer, head=nn.Linear(8, 1))
    parts = kernels_of_positions(x, y)
    for module, weights in ((flat, matrix / out**0.5), (mean, matrix.mean(0, keepdim=True))):
        k = NTK(module, example=torch.zeros(1, c, *grid), **OPTIONS).requires_grad_(False)
        s, t = (torch.einsum("oi,nimj,oj->nm", weights, q, weights) for q in parts)
        s = 1.3**2 * s + 0.4**2
        for found, exact in zip(k.both(x, y), (s, 1.3**2 * t + s), strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)


POOLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.AvgPool1d(3, 2), (8,)),
    "ceil": (nn.AvgPool1d(3, 2, ceil_mode=True), (8,)),
    # The last window would begin in the padding, and is left out.
    "ceil_into_padding": (nn.AvgPool1d(2, 2, padding=1, ceil_mode=True), (5,)),
    "ceil_into_padding_2d": (nn.AvgPool2d(2, 2, padding=1, ceil_mode=True), (5, 3)),
    # The last window reaches past the padding, and is divided by what is inside of that.
    "ceil_past_padding": (nn.AvgPool1d(4, 3, padding=1, ceil_mode=True), (7,)),
    "ceil_past_padding_2d": (nn.AvgPool2d((4, 2), (3, 2), (1, 0), ceil_mode=True), (7, 3)),
    "padding": (nn.AvgPool1d(3, 2, padding=1), (7,)),
    "padding_not_counted": (nn.AvgPool1d(3, 2, padding=1, count_include_pad=False), (7,)),
    "ceil_not_counted": (
        nn.AvgPool2d((4, 3), (3, 2), 1, ceil_mode=True, count_include_pad=False),
        (7, 4),
    ),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), (4, 6)),
    "strides": (nn.AvgPool2d((1, 2), (2, 1)), (5, 3)),
    "adaptive": (nn.AdaptiveAvgPool1d(3), (7,)),
    "adaptive_up": (nn.AdaptiveAvgPool1d(5), (3,)),
    "adaptive_2d": (nn.AdaptiveAvgPool2d((2, 3)), (5, 4)),
    "adaptive_one_axis": (nn.AdaptiveAvgPool2d((2, None)), (3, 2)),
    "function": (
        Apply(lambda z: F.avg_pool1d(z, 4, 3, 1, ceil_mode=True, count_include_pad=True)),
        (7,),
    ),
    "adaptive_function": (Apply(lambda z: F.adaptive_avg_pool2d(z, (3, 2))), (4, 3)),
    "upsample": (nn.Upsample(scale_factor=2), (3, 2)),
    "upsample_to": (nn.Upsample(size=(5,)), (3,)),
    "pad": (nn.ZeroPad2d((1, 0, 2, 1)), (3, 2)),
    "crop": (nn.ZeroPad1d((-1, 2)), (4,)),
    "reflect": (nn.ReflectionPad1d((1, 3)), (4,)),
    "replicate": (nn.ReplicationPad1d((2, 1)), (3,)),
    "circular": (nn.CircularPad1d((3, 1)), (4,)),
}


@pytest.mark.parametrize("name", POOLS)
def test_positions_are_mixed_as_by_torch(name: str):
    check(*POOLS[name])


class Spread(nn.Module):
    """Zeros between positions, as a transposed convolution puts them."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z, torch.zeros_like(z)], -1).flatten(-2)


@rule(Spread)
def spread(module: Spread, x: Signal) -> Signal:
    return x.picked(2, [i // 2 if i % 2 == 0 else -1 for i in range(2 * x.shape[2])])


def test_zeros_between_positions():
    check(Spread(), (4,))


# torch says, once a process, that it copies the input to pad it.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("size", [2, 4, 5])
def test_same_padding_puts_the_odd_zero_behind(size: int, dilation: int):
    total = dilation * (size - 1)
    grid = (5,)
    same = nn.Conv1d(2, 8, size, padding="same", dilation=dilation)
    apart = nn.Conv1d(2, 8, size, dilation=dilation)
    apart.load_state_dict(same.state_dict())
    sides = nn.ZeroPad1d((total // 2, total - total // 2))
    x, y = draw(2, 4, 2, *grid), draw(3, 3, 2, *grid)
    torch.testing.assert_close(same(x.float()), apart(sides(x.float())))  # what torch does
    one, two = (
        NTK(nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(40, 1)), **given)
        for given in [{**OPTIONS, "example": torch.zeros(1, 2, *grid)}]
        for layers in ((same,), (sides, apart))
    )
    with torch.no_grad():
        for found, exact in zip(one.both(x, y), two.both(x, y), strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)


def test_same_padding_of_uneven_windows():
    x, y = draw(4, 4, 2, 3, 4), draw(5, 3, 2, 3, 4)
    same = nn.Conv2d(2, 8, (2, 4), padding="same", dilation=(1, 2))
    sides, apart = nn.ZeroPad2d((3, 3, 0, 1)), nn.Conv2d(2, 8, (2, 4), dilation=(1, 2))
    heads = (nn.ReLU(), nn.Flatten(), nn.Linear(96, 1))
    example = torch.zeros(1, 2, 3, 4)
    one = NTK(nn.Sequential(same, *heads), example=example, **OPTIONS)
    two = NTK(nn.Sequential(sides, apart, *heads), example=example, **OPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(one(x, y), two(x, y), rtol=1e-12, atol=1e-13)
