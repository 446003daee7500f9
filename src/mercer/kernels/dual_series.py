"""Duals of any activation by Hermite series, with panels of quadrature where they are slow.

With a_n(s) = E[f(s Z) h_n(Z)] and normalised Hermite polynomials h_n,

    E[f(u) g(v)] = sum_n a_n(s1) b_n(s2) rho^n.

The coefficients belong to the diagonals alone, so a matrix costs a few products an entry and term.
Parseval bounds what is left out: |rho|^N times the roots of E[f^2] - sum a_n^2 and of the same for
g. Entries whose bound is too large (kinks, nearly collinear inputs) go to `pair_mean`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dual_mesh import Mesh, Profile, make_mesh, panel_nodes
from .dual_quadrature import density, diagonal_edges, jump_terms, pair_mean, reach_for

TOLERANCE = 1e-13  # of the product of the two norms
_TERMS = (48, 160, 512, 1536)
_BLOCK = 2**16
_REACH = 16.0
_LEAST = 1e-4  # deviation below which divided differences stand for derivatives


@dataclass(frozen=True)
class Side:
    """An activation by its derivatives: order 0 itself, order 1 its slope or a surrogate of it."""

    profile: Profile
    surrogate: Profile | None = None

    def mesh(self, order: int, reach: float) -> Mesh:
        """Make the mesh of the function of an order."""
        chosen = self.surrogate if order and self.surrogate else self.profile
        return make_mesh(chosen, reach)

    def jumps(self, reach: float) -> tuple[tuple[float, float], ...]:
        """Find where the derivative is no function, with the heights; a surrogate always is."""
        return () if self.surrogate else make_mesh(self.profile, reach).jumps

    def function(self, order: int) -> Callable[[Tensor], Tensor]:
        """Choose the function of an order, as far as it is one: 0 or 1."""
        if order == 0:
            return self.profile
        return self.profile.slope if self.surrogate is None else self.surrogate


def _hermite_coefficients(
    function: Callable[[Tensor], Tensor], edges: tuple[float, ...], s: Tensor, terms: int
) -> tuple[Tensor, Tensor]:
    """Coefficients (terms, n) and second moments (n,) of a function at deviations (n,)."""
    count = 33 if terms <= 512 else 65  # panels short enough for the waves of h_n
    found, norms = [], []
    size = max(1, 2**19 // (24 * (count + len(edges))))
    for part in s.split(size):
        z, w = panel_nodes(diagonal_edges(edges, part, _REACH, count))  # (b, nodes)
        values = function(part.unsqueeze(-1) * z)
        weighted = values * density(z) * w
        norm = (values * weighted).sum(-1)
        if bool((values.abs().amax(-1) * math.exp(-(_REACH**2) / 4) > 1e-13 * norm.sqrt()).any()):
            raise ValueError(
                "activation: grows too fast for these variances; its values "
                f"{_REACH:g} deviations out still count"
            )
        before, here = torch.zeros_like(z), torch.ones_like(z)
        rows = []
        for n in range(terms):
            rows.append((weighted * here).sum(-1))
            after = z * here
            after.add_(before, alpha=-math.sqrt(n)).mul_(1 / math.sqrt(n + 1))
            before, here = here, after
        found.append(torch.stack(rows))
        norms.append(norm)
    return torch.cat(found, -1), torch.cat(norms)


def _coefficients(
    side: Side, order: int, s: Tensor, terms: int, reach: float
) -> tuple[Tensor, Tensor | None]:
    """Coefficients of the derivative of an order; the norms where it is a function."""
    last = 0 if side.jumps(reach) else 1
    base = min(order, last)
    shift = order - base
    mesh = side.mesh(base, reach)
    if shift == 0:
        return _hermite_coefficients(side.function(order), mesh.edges, s, terms)
    # By parts: E[f'(s Z) h_n] = sqrt(n + 1) E[f(s Z) h_(n+1)] / s.
    s = s.clamp(min=_LEAST)
    found, _ = _hermite_coefficients(side.function(base), mesh.edges, s, terms + shift)
    for _ in range(shift):
        n = torch.arange(1, len(found), dtype=s.dtype, device=s.device)
        found = found[1:] * n.sqrt().unsqueeze(-1) / s
    return found, None


def _unexpanded(q: Tensor) -> Tensor:
    """Undo broadcasting: axes that repeat the same numbers become axes of one."""
    for axis, (size, stride) in enumerate(zip(q.shape, q.stride(), strict=True)):
        if size > 1 and stride == 0:
            q = q.narrow(axis, 0, 1)
    return q


def _limits(tails: Tensor) -> Tensor:
    """Largest |rho| for which the first n terms are enough, from bounds (terms + 1,)."""
    n = torch.arange(len(tails), dtype=tails.dtype, device=tails.device).clamp(min=1)
    return (TOLERANCE / tails.clamp(min=TOLERANCE)).pow(1 / n)


def _tails(found: Tensor, norms: Tensor) -> Tensor:
    """Relative norm of what the first n terms leave, the worst over the deviations."""
    sums = torch.cat([torch.zeros_like(found[:1]), found.square().cumsum(0)])
    # Rounding hides a rest of this size: taken for zero, the other side's rest would go unseen.
    left = (1 - sums / torch.where(norms > 0, norms, 1.0)).clamp(min=1e-15)
    return left.sqrt().amax(-1)


def _horner(a: Tensor, b: Tensor, i: Tensor, j: Tensor, rho: Tensor, terms: int) -> Tensor:
    """Sum a_n[i] b_n[j] rho^n, in one block."""
    value = torch.zeros_like(rho)
    for n in reversed(range(terms)):
        value.mul_(rho).addcmul_(a[n][i], b[n][j])
    return value


def _blocks(
    a: Tensor, b: Tensor, i: Tensor, j: Tensor, rho: Tensor, limits: Tensor | None
) -> Tensor:
    """`_horner` in blocks that stay in the cache, each with as many terms as it needs."""
    if rho.numel() > _BLOCK and rho.dim():
        axis = max(range(rho.dim()), key=lambda k: rho.shape[k])
        half = max(1, rho.shape[axis] * _BLOCK // rho.numel())
        parts = []
        for start in range(0, rho.shape[axis], half):
            size = min(half, rho.shape[axis] - start)
            i1, j1 = (t if t.shape[axis] == 1 else t.narrow(axis, start, size) for t in (i, j))
            parts.append(_blocks(a, b, i1, j1, rho.narrow(axis, start, size), limits))
        return torch.cat(parts, axis)
    terms = len(a)
    if limits is not None and rho.numel():
        size = rho.abs()
        within = size[size <= limits[-1]]
        most = float(within.max()) if len(within) else 0.0
        terms = min(terms, int((limits < most).nonzero().amax()) + 2 if most > limits[0] else 1)
    return _horner(a, b, i, j, rho.contiguous(), max(terms, 1))


def series_moment(
    left: Side, right: Side, orders: tuple[int, int], q11: Tensor, q22: Tensor, q12: Tensor
) -> Tensor:
    """Mean of the product of two derivatives, in double precision, for tensors of one shape."""
    variances = [_unexpanded(q.detach().double()).clamp(min=0) for q in (q11, q22)]
    q12 = q12.detach().double()
    if q12.numel() == 0:
        return q12
    if not all(bool(q.isfinite().all()) for q in (*variances, q12)):
        raise ValueError("q11, q22, q12: NaN or infinity among them")
    (s1, i), (s2, j) = (v.sqrt().unique(return_inverse=True) for v in variances)
    d1, d2 = s1[i], s2[j]
    scale = d1 * d2
    rho = torch.where(scale > 0, q12 / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1)
    # Rounding of the inputs must not part what is one.
    rho = torch.where(1 - rho.abs() < 4e-16, rho.sign(), rho)
    reach = reach_for(float(max(s1.max(), s2.max())))
    a = b = rho
    limits = None
    slow = torch.zeros_like(rho, dtype=torch.bool)
    by_panels = max(orders) <= 1 or sorted(orders) == [0, 2]  # higher ones are left to the series
    for terms in _TERMS:
        a, first = _coefficients(left, orders[0], s1, terms, reach)
        same = left == right and orders[0] == orders[1] and torch.equal(s1, s2)
        b, second = (a, first) if same else _coefficients(right, orders[1], s2, terms, reach)
        if first is not None and second is not None:
            limits = _limits(_tails(a, first) * _tails(b, second)).cummax(0).values
            slow = rho.abs() > limits[-1]
        else:
            # A derivative that is no function has no norm: by how far the terms have fallen.
            size = a.abs().amax(-1) * b.abs().amax(-1)
            fallen = float(size[-terms // 4 :].sum()) <= 1e-13 * float(size.sum())
            slow = rho.abs() > (1.0 if fallen else 1e-14 ** (1 / terms))
        # Seconds, roughly: a millisecond an entry by panels against the next step's terms.
        sides = len(s1) if same else len(s1) + len(s2)
        longer = 3.2 * terms * (2e-6 * sides + 1e-9 * rho.numel())
        apart = int((slow & (rho.abs() < 1)).sum())  # on the line an entry is one cheap integral
        cheap = by_panels and 1e-3 * apart <= longer
        if cheap or not bool(slow.any()) or (limits is None and terms == _TERMS[-2]):
            break
    value = _blocks(a, b, i, j, rho, limits)
    if by_panels and bool(slow.any()):
        entries = [t.expand_as(rho)[slow] for t in (d1, d2, rho)]
        value[slow] = _by_panels(left, right, orders, reach, *entries)
    return value


def _by_panels(
    left: Side,
    right: Side,
    orders: tuple[int, int],
    reach: float,
    s1: Tensor,
    s2: Tensor,
    rho: Tensor,
) -> Tensor:
    """Do the same by quadrature for entries (n,), for orders up to one, and two with zero."""
    if orders[0] < orders[1]:  # the right one may be of order two
        left, right, s1, s2 = right, left, s2, s1
        orders = (orders[1], orders[0])
    if orders == (2, 0):
        # By parts: q11 E[f''(u) g(v)] = E[u f'(u) g(v)] - q12 E[f'(u) g'(v)].
        slope, other = left.function(1), right.function(0)
        meshes = left.mesh(1, reach), right.mesh(0, reach)
        edges = meshes[0].edges, meshes[1].edges
        first = pair_mean(lambda u: u * slope(u), other, edges, meshes[1].kinks, s1, s2, rho)
        jumps = [(place, place * height) for place, height in left.jumps(reach)]
        if jumps:
            first = first + jump_terms(slope, other, edges, (jumps, ()), s1, s2, rho)
        second = _by_panels(left, right, (1, 1), reach, s1, s2, rho)
        return (first - s1 * s2 * rho * second) / s1.clamp(min=_LEAST).square()
    meshes = left.mesh(orders[0], reach), right.mesh(orders[1], reach)
    functions = left.function(orders[0]), right.function(orders[1])
    edges = meshes[0].edges, meshes[1].edges
    value = pair_mean(*functions, edges, meshes[1].kinks, s1, s2, rho)
    if orders == (1, 1):
        jumps = left.jumps(reach), right.jumps(reach)
        if jumps[0] or jumps[1]:
            value = value + jump_terms(*functions, edges, jumps, s1, s2, rho)
    return value


class _Moment(torch.autograd.Function):
    """A mean whose derivatives are means of derivatives (Price's theorem)."""

    @staticmethod
    def forward(left: Side, right: Side, orders: tuple[int, int], *qs: Tensor) -> Tensor:
        return series_moment(left, right, orders, *qs).to(qs[-1].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule = inputs[:3]
        ctx.save_for_backward(*inputs[3:])
        ctx.save_for_forward(*inputs[3:])

    @staticmethod
    def _slopes(ctx: Any, wanted: tuple[bool, ...]) -> list[Any]:
        left, right, (m, n) = ctx.rule
        orders = ((m + 2, n), (m, n + 2), (m + 1, n + 1))
        factors = (0.5, 0.5, 1.0)
        found = []
        for order, factor, want in zip(orders, factors, wanted, strict=True):
            value = _Moment.apply(left, right, order, *ctx.saved_tensors) if want else None
            # Infinite where jumps coincide: taken as zero there.
            found.append(None if value is None else factor * value.nan_to_num(0.0, 0.0, 0.0))  # pyright: ignore
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        slopes = _Moment._slopes(ctx, ctx.needs_input_grad[3:])
        return None, None, None, *(None if s is None else grads[0] * s for s in slopes)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        moving = tangents[3:]
        slopes = _Moment._slopes(ctx, tuple(t is not None for t in moving))
        return sum(s * t for s, t in zip(slopes, moving, strict=True) if s is not None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, left: Side, right: Side, orders: Any, *qs: Tensor) -> Any:
        moved = [
            q.expand(info.batch_size, *q.shape) if dim is None else q.movedim(dim, 0)
            for q, dim in zip(qs, in_dims[3:], strict=True)
        ]
        return _Moment.apply(left, right, orders, *moved), 0


def series_dual(
    left: Side, right: Side, q11: Tensor, q22: Tensor, q12: Tensor
) -> tuple[Tensor, Tensor]:
    """K of the left activation with itself, and Kdot of the left one with the right one."""
    qs = torch.broadcast_tensors(q11, q22, q12)
    plain = Side(left.profile)
    return _Moment.apply(plain, plain, (0, 0), *qs), _Moment.apply(left, right, (1, 1), *qs)  # pyright: ignore
