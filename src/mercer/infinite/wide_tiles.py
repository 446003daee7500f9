"""Tiles of NNGP and NTK matrices: the fast twin of `propagate`, in memory that is used again.

Each input's covariances with itself are computed once. A tile then carries covariances between
some rows and some columns through the network, in place, in scratch memory of its thread.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._core.precision import working_dtype
from ..kernels.dense import fill_matrices
from ..kernels.tiles import Spare, plan_tiles
from .layout import restrict
from .operations import Input, Mix, State
from .tile_memory import Pool, hand_over
from .tile_operations import advance, first_covariance
from .tile_plan import TilePlan
from .tile_sides import Sides, TilePlace, View
from .wide_kernel import WideKernel

Fill = Callable[[slice, slice], State]
"""Compute S and T between rows and columns; hand them back to the pool when they are used."""


@torch.no_grad()
def tile_filler(kernel: WideKernel, x: Tensor, y: Tensor, tangents: bool) -> tuple[Fill, Pool]:
    """Prepare tiles between two sets of inputs.

    Parameters
    ----------
    kernel : WideKernel
        The kernel.
    x : Tensor of shape (n, *event)
        Inputs of the rows.
    y : Tensor of shape (m, *event)
        Inputs of the columns.
    tangents : bool
        Whether T is wanted.

    Returns
    -------
    tuple of callable and Pool
        ``fill(rows, columns)`` gives S and T of shape (rows, columns); T is None where nothing
        is trained or wanted. Memory goes back to the pool.
    """
    plan = kernel.network.tile_plan
    kernel._check_event("x", x)
    kernel._check_event("y", y)
    rows = Sides(plan, kernel._scales(), x, tangents)
    columns = rows if x is y else Sides(plan, kernel._scales(), y, tangents)
    pool = Pool()

    def fill(i: slice, j: slice) -> State:
        pair = View(rows, i), View(columns, j)
        states: dict[int, State] = {}
        start = 0
        if plan.stream is not None:
            start = plan.stream.node
            states[start] = _streamed(plan, *pair, pool)
            for view in pair:
                view.at(0)
        return _walk(plan, range(start, len(plan.operations)), states, *pair, pool)

    return fill, pool


@plan_tiles.register
def _wide(kernel: WideKernel, x: Tensor, y: Tensor) -> Callable[..., None]:
    which = kernel.output
    evaluate, pool = tile_filler(kernel, x, y, tangents=which == 1)

    def fill(rows: slice, columns: slice, out: Tensor, spare: Spare) -> None:
        found = evaluate(rows, columns)
        chosen = found[which]
        out.zero_() if chosen is None else out.copy_(chosen)
        pool.back(*found)

    return fill


@torch.no_grad()
def fill_both(kernel: WideKernel, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Evaluate the NNGP kernel and the NTK between all rows, tile by tile."""
    work = working_dtype(x.dtype)
    a = x.to(work)
    b = a if y is None else y.to(work)
    evaluate, pool = tile_filler(kernel, a, b, tangents=True)

    def fill(rows: slice, columns: slice, outs: Sequence[Tensor], spare: Spare) -> None:
        found = evaluate(rows, columns)
        for out, q in zip(outs, found, strict=True):
            out.zero_() if q is None else out.copy_(q)
        pool.back(*found)

    def diagonals(rows: slice) -> tuple[Tensor, Tensor]:
        return kernel.diagonals(a[rows])

    one, two = fill_matrices(kernel, x, y, fill, diagonals, 2)
    return one, two


def _walk(
    plan: TilePlan, nodes: range, states: dict[int, State], rows: View, columns: View, pool: Pool
) -> State:
    """Carry covariances through some operations, and return those of the last."""
    borrowed: set[int] = set()
    for i in nodes:
        full = plan.layouts[i]
        if full is None or i in states:
            continue
        operation = plan.operations[i]
        place = TilePlace(rows, columns, full, i)
        if isinstance(operation, Input):
            states[i] = first_covariance(operation, i, place, pool), None
            continue
        if i in plan.skipped:  # the window that follows reads zeros outside
            (below,) = operation.inputs
            states[i] = states[below]
            if plan.last_use[below] == i and below not in borrowed:
                del states[below]
            else:
                borrowed.add(i)  # somebody else needs what it stands for
            continue
        given, owned = [], []
        wanted = operation.wants(full)
        for node, want in zip(operation.inputs, wanted, strict=True):
            have = plan.layouts[node]
            assert have is not None
            s, t = states[node]
            mine = (
                plan.last_use[node] == i
                and operation.inputs.count(node) == 1
                and node not in borrowed
            )
            if have != want:
                cut = [None if q is None else restrict(q, have, want) for q in (s, t)]
                for old, new in zip((s, t), cut, strict=True) if mine else ():
                    if old is not None and new is not None:
                        hand_over(old, new)
                s, t = cut
                assert s is not None
            given.append((s, t))
            owned.append(mine)
        s, t = advance(operation, given, owned, place, pool)
        if t is not None and not rows.sides.tangents:
            pool.back(t)
            t = None
        states[i] = s, t
        for node in set(operation.inputs):
            if plan.last_use[node] == i:
                del states[node]
    return states[nodes[-1]]


def _streamed(plan: TilePlan, rows: View, columns: View, pool: Pool) -> State:
    """Go through the network once for each distance along the averaged axis, and add up."""
    stream = plan.stream
    assert stream is not None
    operation = plan.operations[stream.node]
    assert isinstance(operation, Mix)
    (below,) = operation.inputs
    axis = stream.axes[below]
    before = range(below + 1)
    total: list[Tensor | None] = [None, None]
    for distance in range(1 - stream.length, stream.length):
        rows.at(-distance)
        columns.at(distance)
        states: dict[int, State] = {}
        found = _walk(plan, before, states, rows, columns, pool)
        for k, q in enumerate(found):
            if q is None:
                continue
            part = q.sum(axis, keepdim=not operation.drop)
            total[k] = part if total[k] is None else total[k].add_(part)  # pyright: ignore
            pool.back(q)
    scale = operation.matrix[0][0] ** 2
    s, t = (None if q is None else q.mul_(scale) for q in total)
    assert s is not None
    return s, t
