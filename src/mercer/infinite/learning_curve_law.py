r"""The law of the learning curves, as functions of an effective ridge.

Letters: eigenvalues l_i of the kernel per point, power p_i = v_i^2 of the target on each
eigenfunction, n samples, k features, N points of the population (infinite for a distribution),
d the ridge, g the effective ridge gamma.

    e_i = l_i / (l_i + g),   z = sum e_i,   q = sum e_i^2
    kappa = g (1 - z/k),     d = kappa (n - z) / (1 - z/N)
    Q = (q (1 - 2 z/k) + z^2/k) / (1 - q/k)
    test = [sum (1 - e_i) (1 - e_i (1 - z/k) / (1 - q/k)) p_i + s^2]
           / [1 - Q/n - (2 z - Q - z^2/n) / N]
    train = (1 - z/n)^2 test

With N infinite this is Simon et al. (arXiv 2311.14646). The terms with N are Mercer's own, for a
spectrum that is known from N points only. There the n points that are trained on are drawn among
the N without replacement, and the test points are the N - n others. Let M = (K^-1 + D)^-1, where D
is 1/d on the points drawn and 0 on the others; the residual of ridge regression on all N points is
M K^-1 y. If the eigenvectors of K are free of the choice of points (as Haar-distributed ones are
for large N), M is on average (K^-1 + w 1)^-1, where w and its partner u solve

    w + u = 1/t,   t = tr (K^-1 + w)^-1 / N = (n/N) / (u + 1/d) + (1 - n/N) / u.

With w = 1 / (N kappa) this gives d as above; raising the entries of D on the points left out, or
on those drawn, and differentiating gives the sums of squares M P M on either. Features come first:
given n and d, the law is one in kappa for the eigenvalues of the k features, whose traces are those
of the kernel at g. For n = N the test error is the one of generalised cross-validation.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2**22  # entries of one block of (questions, modes)
_STEPS = 90  # bisections of a bracket in log gamma: beyond the last digit
_POLE = 1e-12  # where the denominator is rounding, the risk is infinite


class Moments(NamedTuple):
    """Sums over the modes at each gamma: z, q, and the target's power against 1 - e and its square.

    `flat` is sum (1 - e) p, `steep` is sum (1 - e)^2 p.
    """

    z: Tensor
    q: Tensor
    flat: Tensor
    steep: Tensor


def moments(eigenvalues: Tensor, power: Tensor, gamma: Tensor) -> Moments:
    """Sum over the modes, by blocks; gamma is (b,)."""
    parts = []
    for g in gamma.split(max(1, _BLOCK // len(eigenvalues))):
        g = g.unsqueeze(-1)
        total = eigenvalues + g  # (b, modes)
        left = g / total
        e = eigenvalues / total
        parts.append(
            torch.stack([e.sum(-1), e.square().sum(-1), left @ power, left.square() @ power])
        )
    return Moments(*torch.cat(parts, -1))


def effective_ridge(n: Tensor, k: Tensor, population: float, gamma: Tensor, z: Tensor):
    """Return kappa and the ridge that belong to a gamma."""
    kappa = gamma * (1 - z / k)
    return kappa, kappa * (n - z) / (1 - z / population)


def risks(
    m: Moments, n: Tensor, k: Tensor, population: float, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the test risk, the train risk and the overfitting coefficient."""
    z, q = m.z, m.q
    slope = (1 - z / k) / (1 - q / k)
    # sum (1 - e) (1 - e s) p = s sum (1 - e)^2 p + (1 - s) sum (1 - e) p
    bias = slope * m.steep + (1 - slope) * m.flat + noise
    spent = (q * (1 - 2 * z / k) + z.square() / k) / (1 - q / k)
    rest = 1 - spent / n - (2 * z - spent - z.square() / n) / population
    overfitting = torch.where(rest > _POLE, 1 / rest, torch.inf)
    test = bias * overfitting
    shrunk = (1 - z / n).clamp(min=0).square()
    train = torch.where(overfitting.isinf(), 0.0, shrunk * test)
    return test, train, overfitting


def solve_gamma(
    eigenvalues: Tensor, n: Tensor, k: Tensor, ridge: Tensor, population: float
) -> Tensor:
    """Find gamma for each question by bisection in its logarithm; all tensors are (b,).

    The ridge grows with gamma. Where ridge is zero, so must be the number of samples or features
    that are left over: z = min(n, k).
    """
    fewest = torch.minimum(n, k)
    positive = eigenvalues[eigenvalues > 0]
    # z(low) >= fewest without a ridge; ridge(low) <= ridge with one.
    spare = (len(positive) / fewest - 1).clamp(min=0)
    low = torch.maximum(positive.min() * spare, ridge / n) * 0.5
    high = torch.maximum(2 * positive.sum() / fewest, 4 * ridge / n) * 2
    low, high = low.log(), high.log()
    for _ in range(_STEPS):
        middle = (low + high) / 2
        gamma = middle.exp()
        z = _effective_dimension(positive, gamma)
        above = (z < fewest) & (effective_ridge(n, k, population, gamma, z)[1] > ridge)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high.exp()


def _effective_dimension(eigenvalues: Tensor, gamma: Tensor) -> Tensor:
    """Sum of l / (l + gamma) over the modes, (b,), by blocks."""
    size = max(1, _BLOCK // len(eigenvalues))
    return torch.cat(
        [(eigenvalues / (eigenvalues + g[:, None])).sum(-1) for g in gamma.split(size)]
    )
