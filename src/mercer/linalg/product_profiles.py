"""Profiles of product kernels whose sums over many points have fast exact forms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.checks import check_choice, check_real, check_tensor

FARTHEST = 1e4
"""A distance whose exponential is zero in any precision, and whose powers are finite."""


@dataclass(frozen=True)
class ProductProfile:
    r"""One factor :math:`\kappa(|u|)` of a product kernel, with :math:`\kappa(0) = 1`.

    Attributes
    ----------
    name : str
        Its name.
    coefficients : tuple of float
        Of a polynomial in :math:`t = |u|`, constant first; empty for the cosine.
    rate : float
        :math:`\lambda` of a factor :math:`e^{-\lambda t}`; then the polynomial is one in
        :math:`\lambda t`. Zero for a kernel that vanishes beyond t = 1.
    integral : float
        :math:`\int \kappa(|u|) \, du`.
    """

    name: str
    coefficients: tuple[float, ...]
    rate: float
    integral: float

    @property
    def even(self) -> bool:
        """Whether the polynomial has even powers only, and so one piece around zero."""
        return not any(self.coefficients[1::2])

    def __call__(self, t: Tensor) -> Tensor:
        """Evaluate at t >= 0, distances in bandwidths."""
        if self.name == "cosine":
            return torch.where(t <= 1, torch.cos(t * (math.pi / 2)), 0.0)
        # Far out an exponential is zero, and a polynomial must not be infinite.
        s = (self.rate * t).clamp_max(FARTHEST) if self.rate else t
        value = torch.full_like(s, self.coefficients[-1])
        for c in reversed(self.coefficients[:-1]):
            value = value * s + c
        return value * torch.exp(-s) if self.rate else torch.where(t <= 1, value, 0.0)


PROFILES = {
    profile.name: profile
    for profile in (
        ProductProfile("laplacian", (1.0,), 1.0, 2.0),
        ProductProfile("matern32", (1.0, 1.0), 3**0.5, 4 / 3**0.5),
        ProductProfile("matern52", (1.0, 1.0, 1 / 3), 5**0.5, 16 / (3 * 5**0.5)),
        ProductProfile("uniform", (1.0,), 0.0, 2.0),
        ProductProfile("triangular", (1.0, -1.0), 0.0, 1.0),
        ProductProfile("epanechnikov", (1.0, 0.0, -1.0), 0.0, 4 / 3),
        ProductProfile("biweight", (1.0, 0.0, -2.0, 0.0, 1.0), 0.0, 16 / 15),
        ProductProfile("triweight", (1.0, 0.0, -3.0, 0.0, 3.0, 0.0, -1.0), 0.0, 32 / 35),
        ProductProfile("cosine", (), 0.0, 4 / math.pi),
    )
}


def resolve_profile(kernel: Any) -> ProductProfile:
    """Find a profile by name."""
    if kernel in ("gaussian", "rbf"):
        raise ValueError(
            "kernel: a Gaussian is no polynomial times an exponential of |u| and has no fast exact "
            f"sums; expected one of {sorted(PROFILES)}, or take mercer.features for approximations"
        )
    return PROFILES[check_choice("kernel", kernel, PROFILES)]


def resolve_bandwidth(bandwidth: float | Tensor | Sequence[float], points: Tensor) -> Tensor:
    """Return one positive bandwidth (d,) in float64 for each dimension."""
    d = points.shape[1]
    if isinstance(bandwidth, Tensor) and bandwidth.ndim:
        check_tensor("bandwidth", bandwidth, ndim=1)
        numbers = bandwidth.tolist()
    elif isinstance(bandwidth, Tensor):
        numbers = [check_real("bandwidth", bandwidth.item(), above=0.0)] * d
    elif isinstance(bandwidth, Sequence) and not isinstance(bandwidth, str):
        numbers = list(bandwidth)
    else:
        numbers = [bandwidth] * d
    if len(numbers) != d:
        raise ValueError(f"bandwidth: expected a number or {d} of them, got {len(numbers)}")
    checked = [check_real("bandwidth", number, above=0.0) for number in numbers]
    return torch.tensor(checked, dtype=torch.float64, device=points.device)
