"""Tiles of a kernel matrix, written in place: the fast twin of `Kernel._evaluate`.

A tile plan prepares both sets of points once (centred, scaled, with the column of squared
lengths that turns a squared distance into one matrix product), and then fills any tile with two
or three passes over memory that is still in cache. Nothing here is differentiated.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor

from .arc_cosine import ArcCosine, of_chord
from .base import Kernel
from .compiled import inner_loop
from .composition import Product, Scaled, Sum
from .constant import Constant, White
from .cosine_similarity import CosineSimilarity, _normalized
from .distance import centred, differences
from .dot_product import DotProduct
from .laplacian import Laplacian, laplacian_tile
from .periodic import Periodic
from .rbf import gaussian
from .stationary import Radial


class Spare:
    """Scratch tiles of one thread: fresh memory costs more than what is done with it."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._next: Spare | None = None

    def tile(self, like: Tensor) -> Tensor:
        """Return a tile of the same shape and dtype, with any numbers in it."""
        if self._buffer is None or len(self._buffer) < like.numel():
            self._buffer = like.new_empty(like.numel())
        return self._buffer[: like.numel()].view(like.shape)

    @property
    def next(self) -> "Spare":
        """Another one, for whoever works while this one is in use."""
        if self._next is None:
            self._next = Spare()
        return self._next


Fill = Callable[[slice, slice, Tensor, Spare], None]
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
        ``fill(rows, columns, out, spare)``; for a kernel without a plan of its own, its formula.
    """

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
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
        self.line = x.shape[-1] < 2
        if self.line or not x.numel():
            return
        self.xx = self.x.square().sum(-1)  # (n,)
        self.yy = self.xx if same else self.y.square().sum(-1)  # (m,)
        # A row that is NaN or out of range must not hide what is doubtful among the others.
        self.longest_x, self.longest_y = (v.nan_to_num(0.0, 0.0) for v in (self.xx, self.yy))
        one_x, one_y = torch.ones_like(self.xx), torch.ones_like(self.yy)
        # |x|^2 + |y|^2 - 2 x.y as one matrix product, (n, d + 2) by (d + 2, m).
        self.left = torch.cat([-2 * self.x, self.xx[:, None], one_x[:, None]], -1)
        self.right = torch.cat([self.y, one_y[:, None], self.yy[:, None]], -1).mT.contiguous()

    def fill(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the squared distances of a tile."""
        x, y = self.x[rows], self.y[columns]
        if not x.shape[-1]:  # points without coordinates are all the same
            out.zero_()
            return
        if self.line:  # differences are cheaper than a matrix product
            torch.sub(x, y.mT, out=out).square_()
            return
        torch.mm(self.left[rows], self.right[:, columns], out=out)
        lengths = float(self.longest_x[rows].max() + self.longest_y[columns].max())
        doubtful = _doubtful_share(out.dtype) * lengths
        if float(out.min()) >= doubtful:  # false where a row is NaN or out of range
            return
        i, j = (out >= doubtful).logical_not_().nonzero(as_tuple=True)
        if len(i) * 16 > out.numel():
            out.copy_(differences(x, y))
        else:
            out[i, j] = (x[i] - y[j]).square().sum(-1)


@plan_tiles.register
def _radial(kernel: Radial, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    distances = SquaredDistances(a, a if x is y else kernel._scale(y))
    evaluate = kernel.inplace()

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        distances.fill(rows, columns, out)
        evaluate(out, spare.tile(out))

    return fill


@plan_tiles.register
def _laplacian(kernel: Laplacian, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    b = (a if x is y else kernel._scale(y)).mT.contiguous()  # (d, m)
    evaluate = inner_loop(laplacian_tile, len(x) * len(y) * x.shape[-1], x.device)

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        evaluate(out, a[rows], b[:, columns])

    return fill


@plan_tiles.register
def _periodic(kernel: Periodic, x: Tensor, y: Tensor) -> Fill:
    same = x is y
    x, y = centred(x, y)
    a = kernel._circles(x)
    distances = SquaredDistances(a, a if same else kernel._circles(y))

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        distances.fill(rows, columns, out)
        gaussian(out, spare.tile(out))

    return fill


@plan_tiles.register
def _dot_product(kernel: DotProduct, x: Tensor, y: Tensor) -> Fill:
    a = kernel._scale(x)
    b = (a if x is y else kernel._scale(y)).mT.contiguous()  # (d, m)
    evaluate = kernel.inplace()

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        torch.mm(a[rows], b[:, columns], out=out)
        evaluate(out, spare.tile(out))

    return fill


@plan_tiles.register
def _cosine_similarity(kernel: CosineSimilarity, x: Tensor, y: Tensor) -> Fill:
    a = _normalized(x)
    b = (a if x is y else _normalized(y)).mT.contiguous()  # (d, m)

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        torch.mm(a[rows], b[:, columns], out=out)

    return fill


@plan_tiles.register
def _arc_cosine(kernel: ArcCosine, x: Tensor, y: Tensor) -> Fill:
    a = _normalized(x)
    distances = SquaredDistances(a, a if x is y else _normalized(y))
    left = torch.linalg.vector_norm(x, dim=-1).unsqueeze(-1)  # (n, 1)
    right = torch.linalg.vector_norm(y, dim=-1)  # (m,)
    some_zero = bool((left == 0).any() or (right == 0).any())

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        distances.fill(rows, columns, out)
        if some_zero:  # a zero row has no direction: a right angle to all others
            zero = (left[rows] == 0) != (right[columns] == 0)
            out.masked_fill_(zero, 2.0)
        of_chord(out, spare.tile(out), spare.next.tile(out), kernel.order)
        if kernel.order:
            out.mul_(left[rows] ** kernel.order).mul_(right[columns] ** kernel.order)

    return fill


@plan_tiles.register
def _constant(kernel: Constant, x: Tensor, y: Tensor) -> Fill:
    value = float(kernel.value)

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        out.fill_(value)

    return fill


@plan_tiles.register
def _white(kernel: White, x: Tensor, y: Tensor) -> Fill:
    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        out.zero_()

    return fill


def _pair(left: Fill, right: Fill, combine: Callable[[Tensor, Tensor], Tensor]) -> Fill:
    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        left(rows, columns, out, spare)
        other = spare.tile(out)
        right(rows, columns, other, spare.next)
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

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        inner(rows, columns, out, spare)
        out.mul_(scale)

    return fill
