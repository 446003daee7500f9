"""Means over one or two normal variables by Gauss-Legendre panels between the kinks.

The naive twin of the series, and what takes over where a series converges too slowly: inputs that
are nearly collinear under an activation with kinks.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .dual_mesh import NODES, panel_nodes

_OUTER = 10.0  # the weight there is e^-50
_INNER = 9.0
_MOST_NODES = 2**21
_ENTRIES = 1024  # at a time

Function = Callable[[Tensor], Tensor]


def density(z: Tensor) -> Tensor:
    """Evaluate the standard normal density."""
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


@functools.cache
def _gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the standard normal weight, float64, from the Jacobi matrix."""
    off = torch.arange(1, count, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0].square()


def normal_mean(function: Function, edges: Sequence[float], mean: Tensor, spread: Tensor) -> Tensor:
    """``E[f(mean + spread Z)]`` for means and spreads of one shape."""
    shape, mean, spread = mean.shape, mean.flatten(), spread.flatten()
    e = _column(edges, mean)
    first = torch.searchsorted(e, mean - _INNER * spread, right=True)  # (n,)
    inside = torch.searchsorted(e, mean + _INNER * spread) - first
    value = torch.empty_like(mean)
    # Under the bell lies one panel, a polynomial of a degree that this rule integrates exactly.
    free = inside <= 0
    z, w = (t.to(mean.device) for t in _gauss_hermite(NODES // 2))
    m, s = mean[free].unsqueeze(-1), spread[free].unsqueeze(-1)
    value[free] = function(m + s * z) @ w
    if bool((~free).any()):
        m, s = mean[~free].unsqueeze(-1), spread[~free].unsqueeze(-1)
        first, most = first[~free].unsqueeze(-1), int(inside.max())
        # Only the edges that lie under the bell of this entry.
        pick = (first + torch.arange(most, device=m.device)).clamp(max=len(e) - 1)
        near = ((e[pick] - m) / s).clamp(-_INNER, _INNER)
        base = _column([-_INNER, -_INNER / 3, _INNER / 3, _INNER], m).expand(len(m), 4)
        z, w = panel_nodes(torch.cat([base, near], -1).sort(-1).values)  # (k, nodes)
        value[~free] = (function(m + s * z) * density(z) * w).sum(-1)
    return value.reshape(shape)


def pair_mean(
    left: Function,
    right: Function,
    edges: tuple[Sequence[float], Sequence[float]],
    kinks: Sequence[float],
    s1: Tensor,
    s2: Tensor,
    rho: Tensor,
) -> Tensor:
    """``E[f(u) g(v)]`` for deviations and correlations of shape (n,), kinks those of g.

    The outer panels end at the edges of f and narrow down to where v meets a kink of g; the
    inner ones end at the edges of g.
    """
    if len(rho) == 0:
        return rho
    rest = (1 - rho.square()).clamp(min=0).sqrt()  # (n,)
    line = rest == 0
    if bool(line.any()):
        value = torch.empty_like(rho)
        value[line] = _line_mean(left, right, edges, s1[line], s2[line] * rho[line])
        entries = [t[~line] for t in (s1, s2, rho)]
        value[~line] = pair_mean(left, right, edges, kinks, *entries)
        return value
    if len(rho) > _ENTRIES:
        pieces = zip(*(t.split(_ENTRIES) for t in (s1, s2, rho)), strict=True)
        return torch.cat([pair_mean(left, right, edges, kinks, *one) for one in pieces])
    slope = torch.where(rho == 0, 1.0, s2 * rho)
    tiny = torch.finfo(s1.dtype).tiny
    at = [_column(edges[0], s1) / s1.clamp(min=tiny).unsqueeze(-1)]
    if kinks:
        middle = _column(kinks, s1) / torch.where(slope == 0, tiny, slope).unsqueeze(-1)
        width = (rest / torch.where(rho == 0, 1.0, rho).abs()).view(-1, 1, 1)
        steps = _column([-8.0, -3.0, 0.0, 3.0, 8.0], s1)
        at.append((middle.unsqueeze(-1) + width * steps).flatten(1))
    base = torch.linspace(-_OUTER, _OUTER, 11, dtype=s1.dtype, device=s1.device)
    found = torch.cat(at, -1).nan_to_num().clamp(-_OUTER, _OUTER)
    found = found[:, (found.abs() < _OUTER).any(0)]
    edge = torch.cat([base.expand(len(rho), -1), found], -1).sort(-1).values
    z, w = panel_nodes(edge)  # (n, outer)
    size = max(1, _MOST_NODES // (z.shape[1] * 120))
    parts = []
    for i in range(0, len(rho), size):
        one = slice(i, i + size)
        spread = (s2 * rest)[one].unsqueeze(-1).expand_as(z[one])
        mean = (s2 * rho)[one].unsqueeze(-1) * z[one]
        inner = normal_mean(right, edges[1], mean, spread)
        values = left(s1[one].unsqueeze(-1) * z[one]) * inner
        parts.append((values * density(z[one]) * w[one]).sum(-1))
    return torch.cat(parts)


def _line_mean(
    left: Function,
    right: Function,
    edges: tuple[Sequence[float], Sequence[float]],
    s1: Tensor,
    s2: Tensor,
) -> Tensor:
    """``E[f(s1 Z) g(s2 Z)]`` for factors of either sign, shape (n,)."""
    parts = []
    for one, two in zip(s1.split(512), s2.split(512), strict=True):
        base = diagonal_edges(edges[0], one, _OUTER, 21)
        more = (
            diagonal_edges(edges[1], two.abs(), _OUTER, 2)
            * torch.where(two < 0, -1.0, 1.0)[:, None]
        )
        z, w = panel_nodes(torch.cat([base, more], -1).sort(-1).values)
        values = left(one.unsqueeze(-1) * z) * right(two.unsqueeze(-1) * z)
        parts.append((values * density(z) * w).sum(-1))
    return torch.cat(parts)


def diagonal_edges(edges: Sequence[float], spread: Tensor, reach: float, count: int) -> Tensor:
    """Edges in units of the spread, (n, e): those of the function and ``count`` even ones."""
    base = torch.linspace(-reach, reach, count, dtype=spread.dtype, device=spread.device)
    tiny = torch.finfo(spread.dtype).tiny
    found = (_column(edges, spread) / spread.clamp(min=tiny).unsqueeze(-1)).clamp(-reach, reach)
    found = found[:, (found.abs() < reach).any(0)]
    return torch.cat([base.expand(len(spread), -1), found], -1).sort(-1).values


def pair_density(s1: Tensor, s2: Tensor, rho: Tensor, a: float, b: float) -> Tensor:
    """Density of (u, v) at (a, b); infinite where both are one and the point lies on their line."""
    x, y = a / s1, b / s2
    squared = (1 - rho) * (1 + rho)
    safe = torch.where(squared > 0, squared, 1.0)
    # x^2 - 2 rho x y + y^2, without cancellation where rho is near one and x near y
    form = (x - y).square() * (1 + rho) / 2 + (x + y).square() * (1 - rho) / 2
    value = torch.exp(-form / (2 * safe)) / (2 * math.pi * s1 * s2 * safe.sqrt())
    on_line = torch.where((x - rho * y).abs() <= 1e-12 * (1 + x.abs()), math.inf, 0.0)
    value = torch.where(squared > 0, value, on_line)
    return torch.where((s1 > 0) & (s2 > 0), value, 0.0)


def jump_terms(
    left: Function,
    right: Function,
    edges: tuple[Sequence[float], Sequence[float]],
    jumps: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]],
    s1: Tensor,
    s2: Tensor,
    rho: Tensor,
) -> Tensor:
    """Sum what jumps add to ``E[f(u) g(v)]``, with f and g the slopes beside them."""
    rest = (1 - rho.square()).clamp(min=0).sqrt()
    total = torch.zeros_like(rho)
    for (a, here), (b, there) in ((x, y) for x in jumps[0] for y in jumps[1]):
        total = total + here * there * pair_density(s1, s2, rho, a, b)
    for found, own, other, function, line in (
        (jumps[0], s1, s2, right, edges[1]),
        (jumps[1], s2, s1, left, edges[0]),
    ):
        for place, height in found:
            safe = torch.where(own > 0, own, 1.0)
            mean = rho * other * (place / safe)
            at = torch.where(own > 0, density(place / safe) / safe, 0.0)
            total = total + height * at * normal_mean(function, line, mean, rest * other)
    return total


def reach_for(deviation: float) -> float:
    """Choose the power of two that meshes for deviations up to this one reach."""
    if deviation > 1e12:
        raise ValueError(
            f"q11, q22: expected deviations of at most 1e12 for quadrature, got {deviation:.1e}; "
            "scale the inputs or the weights"
        )
    return 2.0 ** max(4, math.ceil(math.log2(max(16 * deviation, 1.0))))
