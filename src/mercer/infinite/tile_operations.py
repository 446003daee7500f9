"""What operations do to the covariances of a tile, in place where that pays."""

import math
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from ..kernels.activations import ErfActivation, PowerActivation
from ..kernels.dual_closed_forms import closed_form
from .layout import Full, both_axes, spread, take
from .operations import Affine, Input, Operation, Pointwise, State, Sum, Window
from .tile_memory import Pool, hand_over, is_pooled
from .tile_sides import TilePlace

_CHANNELS = 8  # up to which a sum of outer products beats a product of matrices


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
    found = list(operation.apply(given, place))
    for (s, t), mine in zip(given, owned, strict=True):
        for old in (s, t):
            if old is None or not (mine is False or is_pooled(old)):
                continue
            views = [k for k, q in enumerate(found) if q is not None and _same_memory(q, old)]
            for k in views:
                q = found[k]
                assert q is not None
                # What somebody else needs may be written over before this is read.
                found[k] = hand_over(old, q) if mine else _writable(q, False, pool)
            if mine and not views:
                pool.back(old)
    s, t = found
    assert s is not None
    return s, t


def _same_memory(one: Tensor, two: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def _writable(t: Tensor | None, owned: bool, pool: Pool) -> Tensor | None:
    if t is None or (owned and is_pooled(t)):
        return t
    copy = pool.like(t)
    return hand_over(copy, copy.copy_(t))


@advance.register
def _affine(
    operation: Affine, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    ((s, t),) = given
    w2, b2, own = place.affine(operation)
    share = place.rows.sides.plan.shares.get(place.node, 1.0)  # of a window's mean
    w2, own = w2 * share, own * share
    s = _writable(s, owned[0], pool)
    t = _writable(t, owned[0], pool)
    assert s is not None
    bias = b2 if operation.bias else 0.0
    wanted = place.rows.sides.tangents
    trains = (
        wanted and operation.trains_weight,
        wanted and operation.bias and operation.trains_bias,
    )
    if trains[0] and place.rows.scales.parametrization == "ntk" and (trains[1] or not bias):
        # Weights and biases together add what the output's covariance is.
        s = _scaled(s, w2, bias)
        if t is None:
            t = pool.like(s)
            return s, hand_over(t, t.copy_(s))
        torch.add(s, t, alpha=w2, out=t)
        return s, t
    if trains[0]:
        if t is None:
            t = pool.like(s)
            torch.mul(s, own, out=t)
        else:
            t.mul_(w2).add_(s, alpha=own)
    elif t is not None:
        t.mul_(w2)
    if trains[1]:
        added = b2 if place.rows.scales.parametrization == "ntk" else 1.0
        t = pool.like(s).fill_(added) if t is None else t.add_(added)
    return _scaled(s, w2, bias), t


def _scaled(s: Tensor, factor: float, shift: float) -> Tensor:
    if factor != 1:
        s.mul_(factor)
    return s.add_(shift) if shift else s


@advance.register
def _pointwise(
    operation: Pointwise, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    form = closed_form(operation.activation)
    rule: Any = None
    if isinstance(form, PowerActivation) and form.order == 1:
        rule = _rectified
    elif isinstance(form, ErfActivation):
        rule = _erf
    if rule is None or operation.gains:
        return advance.dispatch(Operation)(operation, given, owned, place, pool)
    s = _writable(given[0][0], owned[0], pool)
    t = _writable(given[0][1], owned[0], pool)
    assert s is not None
    rule(form, s, t, operation.inputs[0], place, pool)
    return s, t


def _rectified(
    form: PowerActivation, s: Tensor, t: Tensor | None, node: int, place: TilePlace, pool: Pool
) -> None:
    """K = p (c sin + k cos) with k = (a^2 + b^2) / 2 - c angle, all in place."""
    half = (form.positive**2 + form.negative**2) / 2
    c = (form.positive + form.negative) ** 2 / (2 * math.pi)
    scale = place.outer("inverse", node, s, pool)
    s.mul_(scale).clamp_(-1, 1)  # the cosine; of a zero input, zero
    sides = place.rows.sides, place.columns.sides
    if node in sides[0].zeros and node in sides[1].zeros:
        zero = [v.inverse(node) == 0 for v in (place.rows, place.columns)]
        both = spread(zero[0], place.full, 0) & spread(zero[1], place.full, 1)
        s.masked_fill_(both, 1.0)  # two zero inputs are the same
    slope = scale  # the same memory
    torch.acos(s, out=slope)
    slope.mul_(-c).add_(half)
    sine = pool.like(s)
    torch.mul(s, s, out=sine)
    s.mul_(slope).add_(sine.neg_().add_(1).sqrt_(), alpha=c)
    pool.back(sine)
    scale = place.outer("root", node, s, pool)
    s.mul_(scale)
    if t is not None:
        t.mul_(slope)
    pool.back(slope, scale)


def _erf(
    form: ErfActivation, s: Tensor, t: Tensor | None, node: int, place: TilePlace, pool: Pool
) -> None:
    """K = (2 a^2 / pi) asin(c) + d^2 with c = 2 m^2 q12 / sqrt(B11 B22), all in place."""
    m2, a2 = form.slope**2, form.scale**2
    r1, r2 = ((1 + 2 * m2 * q).rsqrt() for q in place.variances(node, place.full))
    scale = pool.like(s)
    torch.mul(2 * m2 * r1, r2, out=scale)
    s.mul_(scale).clamp_(-1, 1)
    if t is not None:
        slope = pool.like(s)
        torch.mul(s, s, out=slope)
        t.mul_(slope.neg_().add_(1).rsqrt_().mul_(scale).mul_(2 * a2 / math.pi))
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
            t = pool.like(t2).copy_(t2).mul_(factor**2)
        if mine:
            pool.back(s2, t2)
    return s, t


@advance.register
def _window(
    operation: Window, given: list[State], owned: list[bool], place: TilePlace, pool: Pool
) -> State:
    plan = place.rows.sides.plan
    pads = plan.pads[place.node]
    found = []
    for q in given[0]:
        mine = owned[0]
        for axis in range(len(operation.size)):
            if q is None:
                break
            if operation.size[axis] == operation.stride[axis] == 1 and pads[axis] == (0, 0):
                continue
            total = _slide(operation, axis, pads[axis], q, place.full, pool)
            if mine:
                pool.back(q)
            q, mine = total, True
        if q is not None:
            q = _writable(q, mine, pool)
            assert q is not None
            if math.prod(operation.size) > 1 and place.node not in plan.unscaled:
                q.mul_(1 / math.prod(operation.size))
        found.append(q)
    return found[0], found[1]


def _slide(
    operation: Window, axis: int, pads: tuple[int, int], q: Tensor, full: Full, pool: Pool
) -> Tensor:
    """Add shifted copies along an axis; outside there are zeros."""
    size, stride, dilation = (
        v[axis] for v in (operation.size, operation.stride, operation.dilation)
    )
    axes = both_axes(axis, full)
    length = q.shape[axes[0]]  # shorter than planned where the axis is streamed
    out = max((length + sum(pads) - dilation * (size - 1) - 1) // stride + 1, 0)
    shape = list(q.shape)
    for a in axes:
        shape[a] = out
    total = pool.like(q, shape)
    parts = []
    for j in range(size):
        shift = j * dilation - pads[0]  # output o reads position o * stride + shift
        first = max(-(shift // stride), 0)
        last = min((length - 1 - shift) // stride, out - 1)
        if first <= last:
            parts.append((first, last + 1, first * stride + shift))
    parts.sort(key=lambda p: p[0] - p[1])  # the longest first: it may cover all
    if not parts or parts[0][1] - parts[0][0] < out:
        total.zero_()
    for k, (first, last, start) in enumerate(parts):
        part = take(q, axes, slice(start, start + (last - first - 1) * stride + 1, stride))
        if k == 0 and last - first == out:
            total.copy_(part)
        else:
            take(total, axes, slice(first, last)).add_(part)
    return total


def first_covariance(operation: Input, node: int, place: TilePlace, pool: Pool) -> Tensor:
    """Mean products of the data's channels."""
    a, b = place.rows.data(node), place.columns.data(node)  # (channels, *positions, n)
    full = place.full
    n, m, share = a.shape[-1], b.shape[-1], 1 / operation.channels
    if not operation.positions:
        out = pool.empty((n, m), (0, 1), a)
        torch.mm(a.mT, b, out=out)
        return out.mul_(share) if share != 1 else out
    # In memory (*positions, n, *positions again, m): then numbers of rows and of columns multiply
    # along long runs.
    k, f = len(full), sum(full)
    sizes = (*a.shape[1:-1], *(s for s, both in zip(b.shape[1:-1], full, strict=True) if both))
    out = pool.empty((*sizes, n, m), (*range(k), k + f, *range(k, k + f), k + f + 1), a)
    if operation.channels <= _CHANNELS:
        for channel in range(operation.channels):
            one, two = spread(a[channel] * share, full, 0), spread(b[channel], full, 1)
            if channel == 0:
                torch.mul(one, two, out=out)
            else:
                out.addcmul_(one, two)
        return out
    return hand_over(out, out.copy_(operation.covariance(a.movedim(0, -1), b.movedim(0, -1), full)))
