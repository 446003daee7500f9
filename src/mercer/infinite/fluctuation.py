"""What finite width adds, layer by layer: three-point and four-point functions of one input."""

import math

from torch import Tensor

from .gaussian_moments import GaussianMoments
from .susceptibility import of_moments


def advance(
    m: GaussianMoments, weight: float, residual: float, four: Tensor, three: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Take V and T, times the width, through one layer.

    V is the connected part of E[z_i^2 z_j^2] and T that of E[z_i z_j^2]; the latter is there only
    under a skip connection around an activation that is not odd.
    """
    parallel = of_moments(m, weight, residual).parallel
    fresh = weight * weight * (m.fourth - m.second.square())
    kept = 2 * residual**2 * weight * (m.squared - m.variance * m.second)
    # E[(f^2)'] = E[z f^2] / K
    mixed = 2 * parallel * weight * (m.cross / m.variance) * three
    after = parallel.square() * four + fresh + kept + mixed
    return after, residual * (parallel * three + weight * m.cross)


def rate_at(m: GaussianMoments, weight: float, residual: float) -> Tensor:
    """Growth of V / K^2 a layer at a critical fixed point, far from the first layer."""
    three = residual * weight * m.cross / (1 - residual)
    after, _ = advance(m, weight, residual, 0 * three, three)
    return after / m.variance.square()


def local_rate(up: float, down: float, residual: float) -> float:
    """Do the same for a function that is linear on each side of zero, in closed form."""
    rest = 1 - residual**2
    second = (up**2 + down**2) / 2
    fourth = 3 * (up**4 + down**4) / 2
    odd = rest / second * (up**2 - down**2) * math.sqrt(2 / math.pi)
    plain = rest * (rest * (fourth / second**2 - 1) + 4 * residual**2)
    return plain + 2 * odd * residual * odd / (1 - residual)
