"""Means over one normal variable that say what a wide layer does to single inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._core.checks import check_finite, check_tensor
from ..kernels.dual import dual
from ..kernels.dual_mesh import Mesh, Profile, make_mesh, panel_nodes
from ..kernels.dual_quadrature import density, diagonal_edges, reach_for

ActivationLike = str | nn.Module | Callable[[Tensor], Tensor]

_REACH = 16.0  # deviations
_BLOCK = 2**20  # nodes at a time
_LEAST = 1e-60  # variance that stands for zero


@dataclass(frozen=True, eq=False)
class GaussianMoments:
    """Means of an activation f at z ~ N(0, K), each of the shape of K, float64.

    Attributes
    ----------
    variance : Tensor of shape (...)
        K.
    first, second, fourth : Tensor of shape (...)
        E[f], E[f^2], E[f^4].
    gain : Tensor of shape (...)
        E[f'], by parts E[z f] / K.
    slope : Tensor of shape (...)
        E[f'^2], infinite where f jumps.
    cross, squared : Tensor of shape (...)
        E[z f^2] and E[z^2 f^2].
    growth : Tensor of shape (...)
        The derivative of E[f^2] by K.
    """

    variance: Tensor
    first: Tensor
    second: Tensor
    fourth: Tensor
    gain: Tensor
    slope: Tensor
    cross: Tensor
    squared: Tensor
    growth: Tensor


def gaussian_moments(
    activation: ActivationLike, variance: Tensor | float, *, strict: bool = True
) -> GaussianMoments:
    """Compute them by Gauss-Legendre panels between the kinks, as the duals' diagonals are.

    A mean to which values count that lie 16 deviations out is refused, or NaN if not strict; the
    fourth moment is NaN then in any case.
    """
    profile = dual(activation)._sides[0].profile
    q = torch.as_tensor(variance, dtype=torch.float64)
    check_finite("variance", q)
    flat = q.flatten().clamp(min=_LEAST)
    if len(flat) == 0:
        return GaussianMoments(q, *(q.clone() for _ in range(8)))
    reach = reach_for(float(flat.amax().sqrt()))
    mesh = make_mesh(profile, reach)
    jumps = _has_jumps(profile, mesh)
    found = []
    for part in flat.split(max(1, _BLOCK // (24 * (33 + len(mesh.edges))))):
        s = part.sqrt().unsqueeze(-1)
        u, w = panel_nodes(diagonal_edges(mesh.edges, s.squeeze(-1), _REACH, 33))  # (b, nodes)
        weight = density(u) * w
        # In units of the deviation, so that squares of tiny numbers do not vanish.
        f = profile(s * u) / s
        slope = profile.slope(s * u)
        f2 = f * f
        growth = (u * f * slope * weight).sum(-1)
        if jumps:  # the slope beside a jump says nothing about the jump
            growth = (f2 * (u * u - 1) * weight).sum(-1) / 2
        sums = [(t * weight).sum(-1) for t in (f, f2, f2 * f2, u * f, slope * slope)]
        sums += [(t * weight).sum(-1) for t in (u * f2, u * u * f2)]
        far = math.exp(-(_REACH**2) / 2)
        if bool((late := f2.amax(-1) * far > 1e-12 * sums[1]).any()):
            if strict:
                raise ValueError(
                    f"activation: grows too fast at variance {float(part[late].min()):.3g}; its "
                    f"values {_REACH:g} deviations out still count"
                )
            sums[4] = torch.where(late, torch.nan, sums[4])
        sums[2] = torch.where(f2.amax(-1).square() * far > 1e-12 * sums[2], torch.nan, sums[2])
        if jumps:
            sums[4] = torch.full_like(sums[4], torch.inf)
        found.append(torch.stack([*sums, growth]))
    first, second, fourth, gain, slope, cross, squared, growth = (
        row.reshape(q.shape) for row in torch.cat(found, -1)
    )
    k = q.clamp(min=_LEAST)
    return GaussianMoments(
        variance=q,
        first=first * k.sqrt(),
        second=second * k,
        fourth=fourth * k.square(),
        gain=gain,
        slope=slope,
        cross=cross * k * k.sqrt(),
        squared=squared * k.square(),
        growth=growth,
    )


def hermite_coefficients(activation: ActivationLike, terms: int) -> Tensor:
    """Return E[f(z) h_n(z)] for standard normal z and the first normalised Hermite polynomials."""
    profile = dual(activation)._sides[0].profile
    edges = make_mesh(profile, reach_for(1.0)).edges
    u, w = panel_nodes(diagonal_edges(edges, torch.ones(1, dtype=torch.float64), _REACH, 33))
    weighted = profile(u) * density(u) * w
    before, here = torch.zeros_like(u), torch.ones_like(u)
    found = []
    for n in range(terms):
        found.append((weighted * here).sum())
        before, here = here, (u * here - math.sqrt(n) * before) / math.sqrt(n + 1)
    return torch.stack(found)


def _has_jumps(profile: Profile, mesh: Mesh) -> bool:
    """Whether one of them is more than what a steep slope makes of a wave far out."""
    for place, height in mesh.jumps:
        step = 1e-9 * max(1.0, abs(place))
        beside = torch.tensor([place - step, place + step], dtype=torch.float64)
        if abs(height) > 100 * step * (1 + float(profile.slope(beside).abs().amax())):
            return True
    return False


def check_variance(name: str, value: float | Tensor) -> Tensor:
    """Return positive variances as a tensor in double precision."""
    if isinstance(value, Tensor):
        check_tensor(name, value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    q = torch.as_tensor(value, dtype=torch.float64).detach()
    check_finite(name, q)
    if bool((q <= 0).any()):
        raise ValueError(f"{name}: expected positive numbers, the least is {float(q.min()):g}")
    return q
