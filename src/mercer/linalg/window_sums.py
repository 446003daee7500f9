"""Sums of product kernels that vanish beyond a window, exactly, by counting or by sorting."""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from .._core.config import block_rows
from .product_profiles import ProductProfile

_CANCELS = 1e5  # factor on rounding that expanded polynomials may bring

# Maps columns (q, n), the shifts of the targets in bandwidths (d,) and which of them are strict to
# sums (q, ...) over the points at or below, or strictly below, the shifted targets.
Below = Callable[[Tensor, list[float], list[bool]], Tensor]


def cancellation(profile: ProductProfile, extent: Tensor) -> float:
    """Estimate the factor on rounding of expanding about the middle, for extents (d,)."""
    degree = len(profile.coefficients) - 1
    # One power more for the small part of all weight that a window holds.
    return float((1 + extent / 2).pow(degree + 1).prod()) if degree > 0 else 1.0


def expands(profile: ProductProfile, extent: Tensor) -> bool:
    """Whether expanding keeps enough digits."""
    return cancellation(profile, extent) <= _CANCELS


def expanded_sums(
    profile: ProductProfile, x: Tensor, z: list[Tensor], columns: Tensor, below: Below
) -> Tensor:
    r"""Sum a compact kernel as few sums over orthants with shifted corners.

    .. math:: \kappa(u) = \sum_e 1\{x \le z + e\} \, P_e(z - x), \qquad
        (z - x)^p = \sum_a \binom{p}{a} z^{p-a} (-x)^a.

    Parameters
    ----------
    profile : ProductProfile
        The kernel.
    x : Tensor of shape (n, d)
        Points in bandwidths, around zero.
    z : list of d Tensors
        Coordinates of the targets in the same units; their shapes broadcast to that of the sums.
    columns : Tensor of shape (q, n)
        Weights.
    below : callable
        Sums over orthants.

    Returns
    -------
    Tensor of shape (q, ...)
        The sums; exactly zero where no point is in the window.
    """
    d = x.shape[1]
    pieces = _pieces(profile)
    basis_x = [_sources(profile, x[:, k]) for k in range(d)]  # each (terms, n)
    found = torch.zeros(())
    inside = torch.zeros(())
    for corner in product(pieces, repeat=d):
        sources = columns.new_ones(1, len(x))
        for values in basis_x:
            sources = (sources.unsqueeze(1) * values).flatten(0, 1)  # (terms ** k, n)
        laid = torch.cat(
            ((sources.unsqueeze(1) * columns).flatten(0, 1), torch.ones_like(x[:, :1].mT))
        )
        sums = below(laid, [piece[0] for piece in corner], [piece[1] for piece in corner])
        if all(piece[3] for piece in corner):  # the two ends of the window: its count, exactly
            inside = inside + math.prod(piece[3] for piece in corner) * sums[-1]
        sums = sums[:-1].unflatten(0, (-1, len(columns)))
        factors = torch.ones(()).to(columns)
        for k, piece in enumerate(corner):
            factors = (factors.unsqueeze(0) if k == 0 else factors.unsqueeze(1)) * piece[2](z[k])
            factors = factors if k == 0 else factors.flatten(0, 1)
        found = found + (sums * factors.unsqueeze(1)).sum(0)
    return torch.where(inside.round() > 0, found, 0.0)


def _pieces(profile: ProductProfile) -> list[tuple[float, bool, Callable[[Tensor], Tensor], int]]:
    """List shift, strictness, factors (terms, ...) of targets, and sign in the count."""
    if profile.even:
        return [
            (1.0, False, lambda z: _targets(profile, profile.coefficients, z), 1),
            (-1.0, True, lambda z: -_targets(profile, profile.coefficients, z), -1),
        ]
    left = profile.coefficients  # of z - x >= 0
    right = tuple(-c if p % 2 else c for p, c in enumerate(left))
    change = tuple(a - b for a, b in zip(left, right, strict=True))
    return [
        (1.0, False, lambda z: _targets(profile, right, z), 1),
        (0.0, False, lambda z: _targets(profile, change, z), 0),
        (-1.0, True, lambda z: -_targets(profile, left, z), -1),
    ]


def _sources(profile: ProductProfile, x: Tensor) -> Tensor:
    """Compute what a point brings to each term, (terms, n)."""
    if not profile.coefficients:  # cos(a - b) = cos a cos b + sin a sin b
        return torch.stack((torch.cos(x * (math.pi / 2)), torch.sin(x * (math.pi / 2))))
    return torch.stack([(-x) ** a for a in range(len(profile.coefficients))])


def _targets(profile: ProductProfile, coefficients: tuple[float, ...], z: Tensor) -> Tensor:
    """Compute what a target makes of each term, (terms, ...)."""
    if not profile.coefficients:
        return torch.stack((torch.cos(z * (math.pi / 2)), torch.sin(z * (math.pi / 2))))
    found = []
    for a in range(len(coefficients)):
        value = torch.zeros_like(z)
        for p in reversed(range(a, len(coefficients))):
            value = value * z + coefficients[p] * math.comb(p, a)
        found.append(value)
    return torch.stack(found)


def paired_sums(profile: ProductProfile, x: Tensor, z: Tensor, columns: Tensor) -> Tensor:
    """Sum pair by pair: points (n, d) and targets (m, d) in bandwidths, columns (q, n) to (q, m).

    For a compact kernel only the points in the window of the first coordinate are looked at.
    """
    extent = x.amax(0) - x.amin(0)
    first = int(extent.argmax())
    order, place = x[:, first].argsort(), z[:, first].argsort()
    x, z, columns = x[order], z[place], columns[:, order]
    found = columns.new_zeros(len(columns), len(z))
    step = block_rows(8 * 4 * len(x), most=max(16, min(512, 2**20 // max(len(x), 1))))
    for start in range(0, len(z), step):
        part = z[start : start + step]
        a, b = 0, len(x)
        if not profile.rate:
            low, high = (part[[0, -1], first] + part.new_tensor([-1.0, 1.0]) * (1 + 1e-9)).split(1)
            a = int(torch.searchsorted(x[:, first].contiguous(), low))
            b = int(torch.searchsorted(x[:, first].contiguous(), high, right=True))
        value = torch.ones(()).to(part)
        for k in range(x.shape[1]):
            value = value * profile((part[:, k : k + 1] - x[a:b, k]).abs())  # (m, b - a)
        found[:, place[start : start + step]] = columns[:, a:b] @ value.mT
    return found
