"""A Cholesky factorisation in place, block by block, that leaves the upper triangle as it was."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from .._core.workers import in_order

BLOCK = 512  # columns at once


def factorise_in_place(a: Tensor) -> int:
    """Write L of A = L L^T over the lower triangle of A (n, n), in its own precision.

    Each block of columns takes what the columns before it explain off itself by one product, which
    is where nearly all of the work is; above the diagonal nothing is read or written.

    Returns
    -------
    int
        0, or the number, counted from 1, of the pivot that is not positive. Then the columns
        before its block are done, and those from it on are spoilt.
    """
    n = len(a)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        if start:
            before = a[start:stop, :start]  # (b, start)
            # The square on the diagonal apart: what stands above the diagonal must stay.
            corner = a[start:stop, start:stop].tril().addmm_(before, before.mT, alpha=-1.0)
            a[stop:, start:stop].addmm_(a[stop:, :start], before.mT, alpha=-1.0)
        else:
            corner = a[:stop, :stop].tril()
        factor, info = torch.linalg.cholesky_ex(corner)  # reads the lower triangle only
        if int(info):
            return start + int(info)
        _write_lower(a[start:stop, start:stop], factor)
        if stop < n:
            panel = a[stop:, start:stop]  # (n - stop, b)
            panel.copy_(torch.linalg.solve_triangular(factor, panel.mT, upper=False).mT)
    return 0


def solve_in_place(a: Tensor, rhs: Tensor) -> Tensor:
    """Write (L L^T)^-1 b over b (n, r), with L in the lower triangle of A (n, n)."""
    n = len(a)
    starts = range(0, n, BLOCK)
    for start in starts:
        stop = min(start + BLOCK, n)
        part = rhs[start:stop]  # (b, r)
        part -= a[start:stop, :start] @ rhs[:start]
        part.copy_(torch.linalg.solve_triangular(a[start:stop, start:stop], part, upper=False))
    for start in reversed(starts):
        stop = min(start + BLOCK, n)
        part = rhs[start:stop]
        part -= a[stop:, start:stop].mT @ rhs[stop:]
        part.copy_(torch.linalg.solve_triangular(a[start:stop, start:stop].mT, part, upper=True))
    return rhs


def copy_lower(a: Tensor, out: Tensor) -> None:
    """Copy the lower triangle of A (n, n), and little more, in the precision of ``out``."""
    for start in range(0, len(a), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a)))
        out[rows, : rows.stop] = a[rows, : rows.stop]


def restore_lower(a: Tensor, diagonal: Tensor) -> None:
    """Make A (n, n) symmetric again from what stands above its diagonal, and that (n,)."""
    for start in range(0, len(a), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a)))
        a[rows.stop :, rows] = a[rows, rows.stop :].mT
        _write_lower(a[rows, rows], a[rows, rows].mT.tril())
    a.diagonal().copy_(diagonal)


def multiply(a: Tensor, ridge: float, v: Tensor) -> Tensor:
    """Return (A + ridge I) v for v (n, r), with less rounding than one long product has.

    What is added up over 64 columns has few roundings; those sums are added with the roundings
    kept apart. Where A v is much smaller than its terms, as near the solution of a system with a
    small ridge, this is what limits the residual.
    """
    found = torch.empty_like(v)
    # Each thread takes rows of its own, as these many short products are too small to share.
    size = max(BLOCK, -(-len(v) // torch.get_num_threads()))

    def work(block: int, check: Callable[[], None]) -> None:
        rows = slice(block * size, (block + 1) * size)
        total = CompensatedSum(v[rows])
        for columns, part in zip(a[rows].split(64, 1), v.split(64), strict=True):
            total.add(columns @ part)
        total.add(ridge * v[rows])
        found[rows] = total.value()

    for _ in in_order(range(-(-len(v) // size)), work, v.device):
        pass
    return found


def multiply_upper(a: Tensor, diagonal: Tensor, v: Tensor) -> Tensor:
    """Return a symmetric matrix, given by what is above its diagonal and that, times v (n, r)."""
    total = CompensatedSum(v)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(a), BLOCK)]
    for i, rows in enumerate(blocks):
        inner = a[rows, rows].triu(1)  # (b, b)
        total.add(inner @ v[rows] + inner.mT @ v[rows], rows)
        for columns in blocks[i + 1 :]:
            total.add(a[rows, columns] @ v[columns], rows)
            total.add(a[rows, columns].mT @ v[rows], columns)
    total.add(diagonal.unsqueeze(-1) * v)
    return total.value()


@final
class CompensatedSum:
    """A sum of tensors of one shape, with what each addition rounds off added up beside it."""

    def __init__(self, like: Tensor) -> None:
        self._total, self._lost = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, term: Tensor, rows: slice = slice(None)) -> None:
        """Add a term to the given rows."""
        before = self._total[rows]
        after = before + term
        back = after - before
        self._lost[rows] += (before - (after - back)) + (term - back)
        self._total[rows] = after

    def value(self) -> Tensor:
        """Return the sum, rounded once."""
        return self._total + self._lost


def _write_lower(block: Tensor, lower: Tensor) -> None:
    """Write the lower triangle of a block (b, b), and leave what is above it."""
    block.copy_(block.triu(1) + lower)
