"""Positions of wide networks against plain loops over all pairs of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NTK
from tests.infinite.rule_networks import Net

W2, B2 = 1.3**2, 0.3**2
Pair = tuple[np.ndarray, np.ndarray | None]
"""S and T of two inputs, each of shape (*positions, *positions)."""


def padded(n: int, low: int, high: int, mode: str) -> list[int]:
    """Which position each padded one is; -1 is zero."""
    names: dict[str, Any] = {"zeros": "constant", "circular": "wrap", "replicate": "edge"}
    there = np.pad(np.arange(n) + 1, (low, high), mode=names.get(mode, mode))
    return [int(i) - 1 for i in there]


class Loops:
    """All covariances of two inputs, in loops: nothing is left out as not needed."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        # (channels, *positions)
        self.pairs: list[Pair] = []
        for a, b in ((x, x), (y, y), (x, y)):
            s = np.tensordot(a, b, axes=(0, 0)) / len(a)
            self.pairs.append((s, None))

    def each(self, function: Callable[[np.ndarray], np.ndarray]) -> "Loops":
        self.pairs = [(function(s), None if t is None else function(t)) for s, t in self.pairs]
        return self

    def affine(self) -> "Loops":
        pairs = []
        for s, t in self.pairs:
            new = W2 * s + B2
            pairs.append((new, new if t is None else W2 * t + new))
        self.pairs = pairs
        return self

    def windows(self, size: Any, stride: Any, dilation: Any, padding: Any, mode: str) -> "Loops":
        def mean(s: np.ndarray) -> np.ndarray:
            d = s.ndim // 2
            index = [padded(n, p, p, mode) for n, p in zip(s.shape[:d], padding, strict=True)]
            out = tuple(
                (len(i) - e * (k - 1) - 1) // j + 1
                for i, k, j, e in zip(index, size, stride, dilation, strict=True)
            )
            found = np.zeros((*out, *out))
            for place in np.ndindex(*out, *out):
                for offset in np.ndindex(*size):
                    one, two = (
                        tuple(
                            index[a][half[a] * stride[a] + offset[a] * dilation[a]]
                            for a in range(d)
                        )
                        for half in (place[:d], place[d:])
                    )
                    if min(*one, *two) >= 0:
                        found[place] += s[(*one, *two)] / math.prod(size)
            return found

        return self.each(mean)

    def relu(self) -> "Loops":
        d = self.pairs[0][0].ndim // 2
        sizes = self.pairs[0][0].shape[:d]
        own = [
            np.array([s[(*p, *p)] for p in np.ndindex(*sizes)]).reshape(sizes)
            for s, _ in self.pairs[:2]
        ]
        pairs = []
        for (s, t), (i, j) in zip(self.pairs, ((0, 0), (1, 1), (0, 1)), strict=True):
            value, slope = np.zeros_like(s), np.zeros_like(s)
            for place in np.ndindex(*sizes, *sizes):
                root = math.sqrt(own[i][place[:d]] * own[j][place[d:]])
                angle = math.acos(min(max(s[place] / root, -1.0), 1.0))
                slope[place] = (math.pi - angle) / (2 * math.pi)
                value[place] = root * math.sin(angle) / (2 * math.pi) + s[place] * slope[place]
            pairs.append((value, None if t is None else slope * t))
        self.pairs = pairs
        return self

    def mean(self, axis: int) -> "Loops":
        return self.each(lambda s: s.mean((axis, axis + s.ndim // 2)))

    def flatten(self, axis: int) -> "Loops":
        def same(s: np.ndarray) -> np.ndarray:
            return np.diagonal(s, axis1=axis, axis2=axis + s.ndim // 2).mean(-1)

        return self.each(same)

    def take(self, axis: int, index: list[int]) -> "Loops":
        return self.each(lambda s: np.take(np.take(s, index, axis), index, axis + s.ndim // 2))


CONVOLUTIONS: list[tuple[Any, Any, Any, Any, str]] = [
    ((2, 3), (2, 1), (1, 1), (1, 2), "zeros"),
    ((3, 2), (1, 2), (1, 2), (1, 1), "circular"),
    ((2, 2), (1, 1), (2, 1), (1, 1), "reflect"),
    ((3, 3), (2, 2), (1, 1), (2, 0), "replicate"),
]
HEADS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Loops], Loops]]] = {
    "flatten": (lambda m, h: h.flatten(1), lambda s: s.flatten(0).flatten(0)),
    "mean": (lambda m, h: h.mean((2, 3)), lambda s: s.mean(0).mean(0)),
    "rows averaged": (lambda m, h: h.mean(2).flatten(1), lambda s: s.mean(0).flatten(0)),
    "columns averaged": (lambda m, h: h.mean(3).flatten(1), lambda s: s.mean(1).flatten(0)),
    "tokens": (
        lambda m, h: F.relu(m.mix(h.permute(0, 3, 2, 1).flatten(1, 2))).mean(1),
        lambda s: s.affine().relu().mean(0).mean(0),
    ),
    "tokens with the rows as channels": (
        lambda m, h: F.relu(m.mix(h.permute(0, 3, 1, 2).flatten(2))).flatten(1),
        lambda s: s.flatten(0).affine().relu().flatten(0),
    ),
    "two rows, turned around": (
        lambda m, h: F.relu(m.mix(h[:, :, :2].flip(2).permute(0, 2, 3, 1))).mean(2).flatten(1),
        lambda s: s.take(0, [1, 0]).affine().relu().mean(1).flatten(0),
    ),
    "one column and the mean of them": (
        lambda m, h: F.relu(m.mix(h[..., -1].transpose(1, 2))).mean(1),
        lambda s: s.take(1, [-1]).mean(1).affine().relu().mean(0),
    ),
}
ENTRIES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "flatten": lambda h, w: (0, 8 * h * w),
    "rows averaged": lambda h, w: (0, 8 * w),
    "columns averaged": lambda h, w: (0, 8 * h),
    "tokens with the rows as channels": lambda h, w: (8 * h, 8 * w),
    "two rows, turned around": lambda h, w: (8, 16),
}


def points() -> Tensor:
    source = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 4, 5, generator=source, dtype=torch.float64)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=lambda c: c[-1])
def test_against_loops_over_all_pairs(convolution, head):
    size, stride, dilation, padding, mode = convolution
    x = points()
    conv = nn.Conv2d(
        3, 8, size, stride=stride, dilation=dilation, padding=padding, padding_mode=mode
    )
    two = nn.Conv2d(8, 8, (1, 2))
    rows, columns = two(conv(x[:1].float())).shape[2:]
    read, loops = HEADS[head]
    width, last = ENTRIES.get(head, lambda h, w: (8, 8))(rows, columns)
    net = Net(
        lambda m, x: m.head(read(m, F.relu(m.two(F.relu(m.conv(x)))))),
        conv=conv,
        two=two,
        mix=nn.Linear(width or 1, 8),
        head=nn.Linear(last, 1),
    )
    one = Loops(*x.numpy()).windows(size, stride, dilation, padding, mode).affine().relu()
    one = one.windows((1, 2), (1, 1), (1, 1), (0, 0), "zeros").affine().relu()
    one = loops(one).affine()
    with torch.no_grad():
        found = NTK(net, example=x, w_std=W2**0.5, b_std=B2**0.5).both(x)
    for matrix, which in zip(found, (0, 1), strict=True):
        expected = [[one.pairs[0][which], one.pairs[2][which]], [0.0, one.pairs[1][which]]]
        for i, j in ((0, 0), (0, 1), (1, 1)):
            assert float(matrix[i, j]) == pytest.approx(float(expected[i][j]), rel=1e-9)  # pyright: ignore


@pytest.mark.parametrize("shape", [((2,), (2,)), ((2, 1), (3,)), ((), (2, 2))])
@pytest.mark.parametrize("head", ["flatten", "mean", "columns averaged"])
def test_leading_axes_of_images(shape, head):
    a, b = shape
    source = torch.Generator().manual_seed(1)
    x = torch.randn(*a, 2, 2, 3, 3, generator=source, dtype=torch.float64)
    y = torch.randn(*b, 3, 2, 3, 3, generator=source, dtype=torch.float64)
    read = HEADS[head][0]
    net = Net(
        lambda m, x: m.head(read(m, F.relu(m.conv(x)))),
        conv=nn.Conv2d(2, 8, 2),
        head=nn.Linear(ENTRIES.get(head, lambda h, w: (8, 8))(2, 2)[1], 1),
    )
    k = NTK(net, example=x[..., 0, :, :, :].reshape(-1, 2, 3, 3)).requires_grad_(False)
    found = k(x, y)
    lead = torch.broadcast_shapes(a, b)
    xs = x.expand(*lead, *x.shape[-4:]).reshape(-1, *x.shape[-4:])
    ys = y.expand(*lead, *y.shape[-4:]).reshape(-1, *y.shape[-4:])
    each = torch.stack([k(p, q) for p, q in zip(xs, ys, strict=True)])
    torch.testing.assert_close(found.reshape(each.shape), each, rtol=1e-12, atol=1e-12)
    assert k.diag(x).shape == (*a, 2) and k(x).shape == (*a, 2, 2)
    torch.testing.assert_close(k(x).diagonal(dim1=-2, dim2=-1), k.diag(x), rtol=1e-13, atol=0)
