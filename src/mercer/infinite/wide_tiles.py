"""Tiles of NNGP and NTK matrices: the fast twin of `propagate`, in memory that is used again.

Each input's covariances with itself are computed once. A tile then carries covariances between
some rows and some columns through the network, in place, in scratch memory of its thread.

Where positions are averaged over an axis (global pooling), all pairs of positions matter, but
convolutions only tie pairs at the same distance: the tile goes through the network once for each
distance along that axis and adds up, so that an axis of length p costs memory p instead of p^2,
and all of it stays in the cache.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import torch
from torch import Tensor

from .._core.precision import working_dtype
from ..kernels.activations import ErfActivation, PowerActivation
from ..kernels.dense import fill_matrices
from ..kernels.dual_closed_forms import closed_form
from ..kernels.tiles import Spare, plan_tiles
from .layout import Full, both_axes, restrict, spread, take
from .operations import (
    Affine,
    Attention,
    Concatenate,
    Input,
    Mix,
    Normalize,
    Operation,
    Pointwise,
    Product,
    Select,
    State,
    Sum,
    Window,
)
from .propagate import Plan, Scales, Selves, join
from .wide_kernel import WideKernel

Fill = Callable[[slice, slice], State]
"""Compute S and T between rows and columns; hand them back to the pool when they are used."""

_CHANNELS = 8  # up to which a sum of outer products beats a product of matrices


# -- which way ------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Stream:
    """An average over an axis that is taken distance by distance.

    Attributes
    ----------
    node : int
        The operation that averages.
    length : int
        Positions along the axis.
    axes : dict of int to int
        For each operation before it: which of its position axes that is.
    strides : dict of int to int
        For each operation before it: by how much a distance at the average grows there.
    """

    node: int
    length: int
    axes: dict[int, int]
    strides: dict[int, int]


def find_stream(operations: Sequence[Operation]) -> Stream | None:
    """Find the first average over a whole axis whose operations before keep distances."""
    for node, operation in enumerate(operations):
        if not isinstance(operation, Mix):
            continue
        (below,) = operation.inputs
        row = operation.matrix[0]
        if len(operation.matrix) > 1 or len(set(row)) > 1 or len(row) < 3:
            return None
        axes, strides = {below: operation.axis}, {below: 1}
        for i in reversed(range(below + 1)):
            if i not in axes:
                continue
            found = _distances(operations[i], axes[i])
            if found is None:
                return None
            axis, stride = found
            for n in operations[i].inputs:
                wanted = (axis, strides[i] * stride)
                if (axes.setdefault(n, axis), strides.setdefault(n, wanted[1])) != wanted:
                    return None
        return Stream(node, len(row), axes, strides)
    return None


def _distances(operation: Operation, axis: int) -> tuple[int, int] | None:
    """Return the input's axis and stride, if positions at one distance depend on such alone."""
    if isinstance(operation, Input | Affine | Pointwise | Sum | Product | Concatenate):
        return axis, 1
    if isinstance(operation, Window):
        return axis, operation.stride[axis]
    if isinstance(operation, Select) and not operation.drop:
        if operation.axis != axis:
            return axis, 1
        return (axis, 1) if _padding(operation) is not None else None
    if isinstance(operation, Normalize) and not operation.axes:
        return axis, 1
    return None


def _padding(operation: Select) -> tuple[int, int] | None:
    """Return how many zeros a selection puts on both sides, if it does nothing else."""
    index = operation.index
    inside = [i for i in index if i >= 0]
    if not inside or inside != list(range(len(inside))):
        return None
    low = index.index(0)
    if list(index[low : low + len(inside)]) != inside:
        return None
    return low, len(index) - low - len(inside)


@final
class TilePlan:
    """In which layouts tiles are computed, and how large they are.

    Parameters
    ----------
    operations : sequence of Operation
        The network.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self.plan = Plan(operations)
        self.stream = find_stream(operations)
        last = len(self.operations) - 1
        needed: dict[int, Full] = {last: ()}
        for i in reversed(range(last + 1)):
            if i not in needed:
                continue
            operation = self.operations[i]
            wanted = list(operation.wants(needed[i]))
            if self.stream is not None and i == self.stream.node:
                (full,) = wanted
                axis = self.stream.axes[operation.inputs[0]]
                wanted = [(*full[:axis], False, *full[axis + 1 :])]
            for node, full in zip(operation.inputs, wanted, strict=True):
                join(needed, node, full)
        self.layouts = tuple(needed.get(i) for i in range(last + 1))
        self.last_use = {n: i for i, op in enumerate(self.operations) for n in op.inputs}

    @property
    def entries(self) -> int:
        """The largest number of covariances of one pair of inputs that are held at once."""
        most = 1
        for operation, full in zip(self.operations, self.layouts, strict=True):
            if full is not None:
                sizes = operation.positions
                both = (n for n, f in zip(sizes, full, strict=True) if f)
                most = max(most, math.prod(sizes) * math.prod(both))
        return most


# -- each input with itself -----------------------------------------------------------------------


@final
class Sides:
    """What tiles need of each input: variances, means, own covariances, and the data.

    Parameters
    ----------
    plan : TilePlan
        The plan.
    scales : Scales
        The values of the hyperparameters.
    x : Tensor of shape (n, *event)
        Inputs.
    """

    def __init__(self, plan: TilePlan, scales: Scales, x: Tensor) -> None:
        self.plan, self.scales, self.dtype = plan, scales, x.dtype
        needed: dict[str, set[int]] = {"variance": set(), "mean": set(), "whole": set()}
        for i, operation in enumerate(plan.operations):
            if plan.layouts[i] is None:
                continue
            if isinstance(operation, Attention):
                needed["whole"].update(operation.inputs)
            elif isinstance(operation, Pointwise | Normalize):
                needed["variance"].update(operation.inputs)
            if isinstance(operation, Sum) and (operation.shift or len(operation.inputs) > 1):
                needed["mean"].update(operation.inputs)
            if isinstance(operation, Normalize) and operation.centre:
                needed["mean"].update(operation.inputs)
        found: dict[tuple[str, int], list[Tensor | None]] = {}
        own = [
            math.prod(op.positions) * math.prod(n for n, f in zip(op.positions, full, strict=True) if f)
            for op, full in zip(plan.operations, plan.plan.selves, strict=True)
            if full is not None
        ]
        step = max(1, 2**22 // max(own, default=1))
        for part in x.split(step) if len(x) else (x,):
            selves = Selves(plan.plan, scales, part)
            for kind, nodes in needed.items():
                for node in nodes:
                    found.setdefault((kind, node), []).append(getattr(selves, kind)(node))
        self.known: dict[tuple[str, int], Tensor | None] = {}
        for key, parts in found.items():
            kept = [p for p in parts if p is not None]
            self.known[key] = torch.cat(kept, -1).contiguous() if kept else None
        self.data = {
            # Channels in front, inputs behind: (channels, *positions, n)
            i: op.arrange(x).movedim(-1, 0).contiguous()
            for i, op in enumerate(plan.operations)
            if isinstance(op, Input)
        }
        self.like = x[:0]
        self.affines: dict[int, tuple[float, float, float]] = {}


@final
class View:
    """Some of the inputs, at some distance along the streamed axis.

    Parameters
    ----------
    sides : Sides
        All inputs.
    index : slice
        Which of them.
    """

    def __init__(self, sides: Sides, index: slice) -> None:
        self.sides, self.index = sides, index
        self.scales = sides.scales
        self.shift = 0  # a distance, positive or negative; rows have none
        self._whole: dict[Any, Any] = {}
        self._moved: dict[Any, Any] = {}

    def at(self, shift: int) -> None:
        """Look from a distance along the streamed axis."""
        self.shift = shift
        self._moved.clear()

    def _values(self, kind: str, node: int) -> Tensor | None:
        key = (kind, node)
        if key not in self._moved:
            if key not in self._whole:
                values = self.sides.data[node] if kind == "data" else self.sides.known[key]
                self._whole[key] = None if values is None else values[..., self.index]
            values = self._whole[key]
            stream = self.sides.plan.stream
            if values is not None and self.shift and stream is not None and node in stream.axes:
                axis = stream.axes[node] + (kind == "data")
                values = self.cut(values, axis, self.shift * stream.strides[node])
            self._moved[key] = values
        return self._moved[key]

    def cut(self, values: Tensor, axis: int, shift: int) -> Tensor:
        """Keep the positions that have a partner at the distance."""
        size = max(values.shape[axis] - abs(shift), 0)
        return values.narrow(axis, min(max(shift, 0), values.shape[axis] - size), size)

    def variance(self, node: int) -> Tensor:
        """Variances at each position, (*positions, n)."""
        found = self._values("variance", node)
        assert found is not None
        return found

    def mean(self, node: int) -> Tensor | None:
        """Means at each position, (*positions, n); None is zero."""
        return self._values("mean", node)

    def whole(self, node: int) -> Tensor:
        """Covariances of all positions of each input, (*positions, *positions, n)."""
        found = self._values("whole", node)
        assert found is not None
        return found

    def data(self, node: int) -> Tensor:
        """The arranged data, (channels, *positions, n)."""
        found = self._values("data", node)
        assert found is not None
        return found


@final
@dataclass(frozen=True)
class TilePlace:
    """Where an operation maps the covariances of a tile."""

    rows: View
    columns: View
    full: Full
    same: bool = False

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        one, two = self.rows.variance(node), self.columns.variance(node)
        return spread(one, full, 0), spread(two, full, 1)

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        one, two = self.rows.mean(node), self.columns.mean(node)
        if one is None or two is None:
            return None
        return spread(one, full, 0), spread(two, full, 1)

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves."""
        return self.rows.whole(node), self.columns.whole(node)

    def affine(self, operation: Affine) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        known = self.rows.sides.affines
        if operation.layer not in known:
            found = self.rows.scales.affine(operation, self.rows.sides.like)
            known[operation.layer] = tuple(float(v) for v in found)
        return known[operation.layer]

    def attention(self, operation: Attention) -> tuple[Any, Any, Any]:
        """Variances of the keys, of values times outputs, and of the biases."""
        return self.rows.scales.attention(operation, self.rows.sides.like)


# -- memory ---------------------------------------------------------------------------------------


@final
class Pool(threading.local):
    """Buffers of one thread, handed out and taken back."""

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor with any numbers in it."""
        count = math.prod(shape)
        fits = [t for t in self.free if len(t) >= count and t.dtype == like.dtype]
        if fits:
            flat = min(fits, key=len)
            self.free = [t for t in self.free if t is not flat]
        else:
            if len(self.free) > 8:  # too small by now
                self.free.pop(0)
            flat = like.new_empty(count + count // 8 + 64)
        found = flat[:count].view(shape)
        found._flat = flat  # type: ignore[attr-defined]
        return found

    def back(self, *tensors: Tensor | None) -> None:
        """Take buffers back."""
        for t in tensors:
            flat = getattr(t, "_flat", None)
            if flat is not None:
                self.free.append(flat)
                del t._flat  # type: ignore[union-attr]


def _keep(old: Tensor, new: Tensor) -> Tensor:
    """Let a view take over the buffer of what it views."""
    if new is not old and getattr(old, "_flat", None) is not None:
        new._flat = old._flat  # type: ignore[attr-defined]
        del old._flat  # type: ignore[attr-defined]
    return new


# -- operations in place ----------------------------------------------------------------------------


@singledispatch
def advance(
    operation: Operation, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    """Map covariances; states that are owned may be written over.

    Parameters
    ----------
    operation : Operation
        What to do.
    given : list of (Tensor, Tensor or None)
        S and T of its inputs.
    owned : list of bool
        Which of them nobody else needs.
    place : TilePlace
        Where.
    pool : Pool
        Memory.

    Returns
    -------
    tuple of Tensor
        S and T.
    """
    found = operation.apply(given, place)
    kept = [id(t.untyped_storage()) for t in found if t is not None]
    for (s, t), mine in zip(given, owned, strict=True):
        for old in (s, t) if mine else ():
            if old is not None and id(old.untyped_storage()) not in kept:
                pool.back(old)
            elif old is not None:
                for new in found:
                    if new is not None and new.untyped_storage() is old.untyped_storage():
                        _keep(old, new)
    return found


def _writable(t: Tensor | None, owned: bool, pool: Pool) -> Tensor | None:
    if t is None or (owned and getattr(t, "_flat", None) is not None):
        return t
    copy = pool.empty(t.shape, t)
    return copy.copy_(t)


@advance.register
def _affine(
    operation: Affine, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    ((s, t),) = given
    w2, b2, own = place.affine(operation)
    ntk = place.rows.scales.parametrization == "ntk"
    s = _writable(s, owned[0], pool)
    t = _writable(t, owned[0], pool)
    assert s is not None
    trains = operation.trains_weight, operation.bias and operation.trains_bias
    if trains[0] and not ntk:
        t = pool.empty(s.shape, s).copy_(s).mul_(own) if t is None else t.mul_(w2).add_(s, alpha=own)
    elif t is not None:
        t.mul_(w2)
    if w2 != 1:
        s.mul_(w2)
    if trains[0] and ntk and not (operation.bias and not trains[1] and b2):
        # Weights and biases together add what the output's covariance is.
        if operation.bias and b2:
            s.add_(b2)
        t = pool.empty(s.shape, s).copy_(s) if t is None else t.add_(s)
        return s, t
    if trains[0] and ntk:
        t = pool.empty(s.shape, s).copy_(s) if t is None else t.add_(s)
    if operation.bias:
        if b2:
            s.add_(b2)
        if trains[1]:
            value = b2 if ntk else 1.0
            t = pool.empty(s.shape, s).fill_(value) if t is None else t.add_(value)
    return s, t


@advance.register
def _pointwise(
    operation: Pointwise, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    form = closed_form(operation.activation)
    rule = None
    if isinstance(form, PowerActivation) and form.order == 1:
        rule = _rectified
    elif isinstance(form, ErfActivation):
        rule = _erf
    if rule is None or operation.gains:
        return advance.dispatch(Operation)(operation, given, owned, place, pool)
    s = _writable(given[0][0], owned[0], pool)
    t = _writable(given[0][1], owned[0], pool)
    assert s is not None
    q11, q22 = place.variances(operation.inputs[0], place.full)
    rule(form, s, t, q11, q22, pool)
    return s, t


def _rectified(
    form: PowerActivation, s: Tensor, t: Tensor | None, q11: Tensor, q22: Tensor, pool: Pool
) -> None:
    """K = p (c sin + k cos) with k = (a^2 + b^2) / 2 - c angle, all in place."""
    half = (form.positive**2 + form.negative**2) / 2
    c = (form.positive + form.negative) ** 2 / (2 * math.pi)
    r1, r2 = (torch.where(q > 0, q, torch.inf).rsqrt() for q in (q11, q22))
    # Passes that broadcast cost most: one for both directions.
    slope, sine = pool.empty(s.shape, s), pool.empty(s.shape, s)
    torch.mul(r1, r2, out=sine)
    s.mul_(sine).clamp_(-1, 1)  # the cosine; of a zero input, zero
    none = (r1 == 0, r2 == 0)
    if bool(none[0].any()) and bool(none[1].any()):
        s.masked_fill_(none[0] & none[1], 1.0)  # two zero inputs are the same
    torch.acos(s, out=slope)
    slope.mul_(-c).add_(half)
    torch.mul(s, s, out=sine)
    sine.neg_().add_(1).sqrt_()
    s.mul_(slope).add_(sine, alpha=c)
    torch.mul(q11.clamp(min=0).sqrt(), q22.clamp(min=0).sqrt(), out=sine)
    s.mul_(sine)
    if t is not None:
        t.mul_(slope)
    pool.back(slope, sine)


def _erf(
    form: ErfActivation, s: Tensor, t: Tensor | None, q11: Tensor, q22: Tensor, pool: Pool
) -> None:
    """K = (2 a^2 / pi) asin(c) + d^2 with c = 2 m^2 q12 / sqrt(B11 B22), all in place."""
    m2, a2 = form.slope**2, form.scale**2
    r1, r2 = ((1 + 2 * m2 * q).rsqrt() for q in (q11, q22))
    scale = pool.empty(s.shape, s)
    torch.mul(2 * m2 * r1, r2, out=scale)
    s.mul_(scale).clamp_(-1, 1)
    if t is not None:
        slope = pool.empty(s.shape, s)
        torch.mul(s, s, out=slope)
        slope.neg_().add_(1).rsqrt_().mul_(scale)
        t.mul_(slope.mul_(2 * a2 / math.pi))
        pool.back(slope)
    pool.back(scale)
    s.asin_().mul_(2 * a2 / math.pi)
    if form.offset:
        s.add_(form.offset**2)


@advance.register
def _sum(
    operation: Sum, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    if operation.shift or sum(place.rows.mean(n) is not None for n in operation.inputs) > 1:
        return advance.dispatch(Operation)(operation, given, owned, place, pool)
    s = _writable(given[0][0], owned[0], pool)
    t = _writable(given[0][1], owned[0], pool)
    assert s is not None
    factor = operation.factors[0] ** 2
    if factor != 1:
        s.mul_(factor)
        t = None if t is None else t.mul_(factor)
    rest = zip(operation.factors[1:], given[1:], owned[1:], strict=True)
    for factor, (s2, t2), mine in rest:
        s.add_(s2, alpha=factor**2)
        if t2 is not None and t is not None:
            t.add_(t2, alpha=factor**2)
        elif t2 is not None:
            t = pool.empty(t2.shape, t2).copy_(t2).mul_(factor**2)
        if mine:
            pool.back(s2, t2)
    return s, t


@advance.register
def _window(
    operation: Window, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    found = []
    scale = 1 / math.prod(operation.size)
    for q in given[0]:
        if q is None:
            found.append(None)
            continue
        mine = owned[0]
        for axis, size in enumerate(operation.size):
            stride, dilation = operation.stride[axis], operation.dilation[axis]
            if size == 1 and stride == 1:
                continue
            axes = both_axes(axis, place.full)
            # Fewer than planned where the axis is streamed.
            out = max((q.shape[axes[0]] - dilation * (size - 1) - 1) // stride + 1, 0)
            shape = list(q.shape)
            for a in axes:
                shape[a] = out if len(axes) == 1 else operation.positions[axis]
            total = pool.empty(shape, q)
            stop = stride * (shape[axes[0]] - 1) + 1 if shape[axes[0]] else 0
            for j in range(size):
                part = take(q, axes, slice(j * dilation, j * dilation + stop, stride))
                if j == 0:
                    torch.mul(part, scale, out=total) if axis == 0 else total.copy_(part)
                else:
                    total.add_(part, alpha=scale if axis == 0 else 1)
            if mine:
                pool.back(q)
            q, mine = total, True
        if operation.size[0] == 1 and operation.stride[0] == 1 and scale != 1:
            q = q.mul_(scale) if mine else q * scale
        found.append(q)
    return found[0], found[1]


@advance.register
def _select(
    operation: Select, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    sides = _padding(operation)
    if sides is None or operation.drop:
        return advance.dispatch(Operation)(operation, given, owned, place, pool)
    axes = both_axes(operation.axis, place.full)
    found = []
    for q in given[0]:
        if q is None:
            found.append(None)
            continue
        mine = owned[0]
        for axis in axes:
            shape = list(q.shape)
            # At a distance longer than the axis nothing is left but padding.
            shape[axis] = max(q.shape[axis] + sum(sides), 0)
            padded = pool.empty(shape, q)
            padded.narrow(axis, 0, sides[0]).zero_()
            padded.narrow(axis, shape[axis] - sides[1], sides[1]).zero_()
            padded.narrow(axis, sides[0], q.shape[axis]).copy_(q)
            if mine:
                pool.back(q)
            q, mine = padded, True
        found.append(q)
    return found[0], found[1]


def _input(
    operation: Input, node: int, place: TilePlace, pool: Pool
) -> Tensor:
    a, b = place.rows.data(node), place.columns.data(node)  # (channels, *positions, n)
    full = place.full
    if not operation.positions:
        out = pool.empty((a.shape[-1], b.shape[-1]), a)
        torch.mm(a.mT, b, out=out)
        return out.mul_(1 / operation.channels)
    if operation.channels <= _CHANNELS:
        total = None
        for channel in range(operation.channels):
            one, two = spread(a[channel], full, 0), spread(b[channel], full, 1)
            if total is None:
                total = pool.empty(torch.broadcast_shapes(one.shape, two.shape), a)
                torch.mul(one / operation.channels, two, out=total)
            else:
                total.addcmul_(one, two, value=1 / operation.channels)
        assert total is not None
        return total
    found = operation.covariance(a.movedim(0, -1), b.movedim(0, -1), full)
    out = pool.empty(found.shape, a)
    return out.copy_(found)


# -- a tile -------------------------------------------------------------------------------------


@torch.no_grad()
def tile_filler(kernel: WideKernel, x: Tensor, y: Tensor) -> tuple[Fill, Pool]:
    """Prepare tiles between two sets of inputs.

    Parameters
    ----------
    kernel : WideKernel
        The kernel.
    x : Tensor of shape (n, *event)
        Inputs of the rows.
    y : Tensor of shape (m, *event)
        Inputs of the columns.

    Returns
    -------
    tuple of callable and Pool
        ``fill(rows, columns)`` gives S and T of shape (rows, columns); T is None where nothing
        is trained. Memory goes back to the pool.
    """
    plan = kernel.network.tile_plan
    kernel._check_event("x", x)
    kernel._check_event("y", y)
    rows = Sides(plan, kernel._scales(), x)
    columns = rows if x is y else Sides(plan, kernel._scales(), y)
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
    evaluate, pool = tile_filler(kernel, x, y)
    which = kernel.output

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
    evaluate, pool = tile_filler(kernel, a, b)

    def fill(rows: slice, columns: slice, outs: Sequence[Tensor], spare: Spare) -> None:
        found = evaluate(rows, columns)
        for out, q in zip(outs, found, strict=True):
            out.zero_() if q is None else out.copy_(q)
        pool.back(*found)

    def diagonals(rows: slice) -> State:
        return kernel.diagonals(a[rows])

    one, two = fill_matrices(kernel, x, y, fill, diagonals, 2)
    return one, two


def _walk(
    plan: TilePlan, nodes: range, states: dict[int, State], rows: View, columns: View, pool: Pool
) -> State:
    """Carry covariances through some operations, and return those of the last."""
    for i in nodes:
        full = plan.layouts[i]
        if full is None or i in states:
            continue
        operation = plan.operations[i]
        place = TilePlace(rows, columns, full)
        if isinstance(operation, Input):
            states[i] = _input(operation, i, place, pool), None
            continue
        given, owned = [], []
        wanted = operation.wants(full)
        for node, want in zip(operation.inputs, wanted, strict=True):
            have = plan.layouts[node]
            assert have is not None
            s, t = states[node]
            mine = plan.last_use[node] == i and operation.inputs.count(node) == 1
            if have != want:
                s, t = (
                    None if q is None else _keep(q, restrict(q, have, want)) if mine else restrict(q, have, want)
                    for q in (s, t)
                )
            given.append((s, t))
            owned.append(mine)
        states[i] = advance(operation, given, owned, place, pool)
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

