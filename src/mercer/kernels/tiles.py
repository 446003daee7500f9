"""Tiles of a kernel matrix, written in place: the fast twin of `Kernel._evaluate`.

A tile plan prepares both sets of points once (centred, scaled, with the column of squared
lengths that turns a squared distance into one matrix product), and then fills any tile with two
or three passes over memory that is still in cache. Nothing here is differentiated.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor

from .base import Kernel
from .composition import Product, Scaled, Sum
from .constant import Constant, White
from .cosine_similarity import CosineSimilarity, _normalized
from .distance import centred, differences
from .dot_product import DotProduct
from .laplacian import Laplacian
from .periodic import Periodic
from .stationary import Radial

Fill = Callable[[slice, slice, Tensor], None]
"""Write the kernel between rows and columns into a tensor of that shape."""


@singledispatch
def plan_tiles(kernel: Kernel, x: Tensor, y: Tensor) -> Fill:
    """Prepare the tiles of a kernel between two sets of points.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    x : Tensor of shape (n, *event)
        Points of the rows, in the dtype to compute in.
    y : Tensor of shape (m, *event)
        Points of the columns.

    Returns
    -------
    callable
        ``fill(rows, columns, out)``; for a kernel without a plan of its own, its formula.
    """

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        out.copy_(kernel._evaluate(x[rows], y[columns]))

    return fill


# Entries below this share of |x|^2 + |y|^2 are taken again from differences: the matrix product
# has lost half of their digits or more, and rows that agree must come out as zero.
def _doubtful_share(dtype: torch.dtype) -> float:
    return 16 * torch.finfo(dtype).eps ** 0.5


class SquaredDistances:
    """Squared distances between rows of x and of y, tile by tile.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.
    y : Tensor of shape (m, d)
        Rows.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        same = x is y
        self.x, self.y = centred(x, y)
        if same:
            self.y = self.x
        self.line = x.shape[-1] == 1
        if self.line or not x.numel():
            return
        self.xx = self.x.square().sum(-1)  # (n,)
        self.yy = self.xx if same else self.y.square().sum(-1)  # (m,)
        one_x, one_y = torch.ones_like(self.xx), torch.ones_like(self.yy)
        # |x|^2 + |y|^2 - 2 x.y as one matrix product, (n, d + 2) by (d + 2, m).
        self.left = torch.cat([-2 * self.x, self.xx[:, None], one_x[:, None]], -1)
        self.right = torch.cat([self.y, one_y[:, None], self.yy[:, None]], -1).mT.contiguous()

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the squared distances of a tile."""
        x, y = self.x[rows], self.y[columns]
        if self.line:  # differences are cheaper than a matrix product
            torch.sub(x, y.mT, out=out).square_()
            return
        torch.mm(self.left[rows], self.right[:, columns], out=out)
        lengths = float(self.xx[rows].max() + self.yy[columns].max())
        doubtful = _doubtful_share(out.dtype) * lengths
        if not float(out.min()) < doubtful:
            return
        i, j = (out < doubtful).nonzero(as_tuple=True)
        if len(i) * 16 > out.numel():
            out.copy_(differences(x, y))
        else:
            out[i, j] = (x[i] - y[j]).square().sum(-1)


@plan_tiles.register
def _radial(kernel: Radial, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    distances = SquaredDistances(a, a if x is y else kernel._scale(y))

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        distances.fill(rows, columns, out)
        kernel.profile_(out)

    return fill


@plan_tiles.register
def _laplacian(kernel: Laplacian, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    b = a if x is y else kernel._scale(y)

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        torch.neg(torch.cdist(a[rows], b[columns], p=1.0), out=out).exp_()

    return fill


@plan_tiles.register
def _periodic(kernel: Periodic, x: Tensor, y: Tensor) -> Fill:
    same = x is y
    x, y = centred(x, y)
    a = kernel._circles(x)
    distances = SquaredDistances(a, a if same else kernel._circles(y))

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        distances.fill(rows, columns, out)
        out.mul_(-0.5).exp_()

    return fill


@plan_tiles.register
def _dot_product(kernel: DotProduct, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    b = (a if x is y else kernel._scale(y)).mT.contiguous()  # (d, m)

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        torch.mm(a[rows], b[:, columns], out=out)
        kernel.profile_(out)

    return fill


@plan_tiles.register
def _cosine_similarity(kernel: CosineSimilarity, x: Tensor, y: Tensor) -> Fill:
    a = _normalized(x)
    b = (a if x is y else _normalized(y)).mT.contiguous()  # (d, m)

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        torch.mm(a[rows], b[:, columns], out=out)

    return fill


@plan_tiles.register
def _constant(kernel: Constant, x: Tensor, y: Tensor) -> Fill:
    value = float(kernel.value)

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        out.fill_(value)

    return fill


@plan_tiles.register
def _white(kernel: White, x: Tensor, y: Tensor) -> Fill:
    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        out.zero_()

    return fill


def _pair(left: Fill, right: Fill, combine: Callable[[Tensor, Tensor], Tensor]) -> Fill:
    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        left(rows, columns, out)
        other = torch.empty(out.shape, dtype=out.dtype, device=out.device)
        right(rows, columns, other)
        combine(out, other)

    return fill


@plan_tiles.register
def _sum(kernel: Sum, x: Tensor, y: Tensor) -> Fill:
    return _pair(plan_tiles(kernel.left, x, y), plan_tiles(kernel.right, x, y), Tensor.add_)


@plan_tiles.register
def _product(kernel: Product, x: Tensor, y: Tensor) -> Fill:
    return _pair(plan_tiles(kernel.left, x, y), plan_tiles(kernel.right, x, y), Tensor.mul_)


@plan_tiles.register
def _scaled(kernel: Scaled, x: Tensor, y: Tensor) -> Fill:
    inner = plan_tiles(kernel.kernel, x, y)
    scale = float(kernel.scale)

    def fill(rows: slice, columns: slice, out: Tensor) -> None:
        inner(rows, columns, out)
        out.mul_(scale)

    return fill
