"""Weights of points by their distance from a query: what densities and local averages share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .._core.checks import check_real
from ..kernels import Kernel
from ..kernels.distance import differences, squared_distance
from ..linalg.product_profiles import PROFILES, ProductProfile

# What the radial kernels of scikit-learn are called as products over the dimensions.
_AS_PRODUCTS = {
    "tophat": "uniform",
    "exponential": "laplacian",
    "linear": "triangular",
    "epanechnikov": "epanechnikov",
    "cosine": "cosine",
}


def _finite_log(value: Tensor) -> Tensor:
    return value.clamp_min(0.0).log()


# Logarithms of kernels of the squared distance in bandwidths, with value one at zero.
RADIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda s: -s / 2,
    "rbf": lambda s: -s / 2,
    "exponential": lambda s: -s.sqrt(),
    "tophat": lambda s: torch.where(s < 1, 0.0, -torch.inf).to(s),
    "epanechnikov": lambda s: _finite_log(1 - s),
    "linear": lambda s: _finite_log(1 - s.sqrt()),
    "cosine": lambda s: torch.where(
        s < 1, _finite_log(torch.cos(s.sqrt() * math.pi / 2)), -torch.inf
    ),
}
_FEW = 32  # dimensions in which differences are cheap


@final
@dataclass(frozen=True, eq=False)
class LocalKernel:
    """A kernel between queries and points, with a bandwidth in each dimension.

    Attributes
    ----------
    name : str
        A key of `RADIAL` or `PROFILES`, or ``"own"``.
    product : bool
        Whether it is a product over the dimensions.
    bandwidth : Tensor of shape (d,)
        Bandwidths, float64.
    own : Kernel or None
        A kernel of Mercer's; then rows are divided by the bandwidths before it sees them.
    """

    name: str
    product: bool
    bandwidth: Tensor
    own: Kernel | None = None

    @property
    def profile(self) -> ProductProfile:
        """The factor of a product kernel."""
        return PROFILES[self.name]

    def with_bandwidth(self, bandwidth: Tensor) -> "LocalKernel":
        """Return the same kernel at another bandwidth."""
        return LocalKernel(self.name, self.product, bandwidth, self.own)

    def log(self, z: Tensor, x: Tensor) -> Tensor:
        """Compute logarithms (m, n) of the kernel between queries and points, float64."""
        z, x = z.double(), x.double()
        if self.own is None and len(x):
            # Distances alone matter: around a point they keep the digits that an offset takes.
            z, x = z - x[:1], x - x[:1]
        a, b = z / self.bandwidth, x / self.bandwidth
        if self.own is not None:
            value = self.own(a, b)
            if bool((value < 0).any()):
                raise ValueError(
                    f"kernel: expected one without negative values for weights, {self.own!r} has "
                    f"{float(value.min()):.3g}"
                )
            return value.log()
        if not self.product:
            few = a.shape[1] <= _FEW
            return RADIAL[self.name](differences(a, b) if few else squared_distance(a, b))
        if self.name == "laplacian":
            return torch.cdist(a, b, p=1.0).neg_()
        total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
        for k in range(a.shape[1]):
            total += self._log_factor((a[:, k : k + 1] - b[:, k]).abs())
        return total

    def _log_factor(self, t: Tensor) -> Tensor:
        """Compute the logarithm of one factor, without underflow."""
        profile = self.profile
        if not profile.rate:
            return _finite_log(profile(t))
        s = profile.rate * t
        value, near = torch.full_like(s, profile.coefficients[-1]), s.clamp_max(1e100)
        for c in reversed(profile.coefficients[:-1]):
            value = value * near + c
        return value.log() - s


def make_local_kernel(kernel: Any, product: bool, d: int, *, own: bool) -> LocalKernel:
    """Resolve a kernel by name, or one of Mercer's where ``own``; bandwidths are one."""
    if not isinstance(product, bool):
        raise TypeError(f"product: expected True or False, got {product!r}")
    ones = torch.ones(d, dtype=torch.float64)
    names = sorted({*RADIAL, *PROFILES})
    if own and isinstance(kernel, Kernel):
        if product:
            raise ValueError("product: only kernels with a name are made products")
        return LocalKernel("own", False, ones, kernel)  # as it came: the caller fits a copy
    if not isinstance(kernel, str):
        raise TypeError(f"kernel: expected one of {names}, got {type(kernel).__name__}")
    if kernel in ("gaussian", "rbf"):
        return LocalKernel("gaussian", False, ones)  # a product as well
    if product and kernel in _AS_PRODUCTS:
        return LocalKernel(_AS_PRODUCTS[kernel], True, ones)
    if kernel in RADIAL and not product:
        return LocalKernel(kernel, False, ones)
    if kernel in PROFILES:
        return LocalKernel(kernel, True, ones)
    raise ValueError(f"kernel: expected one of {names}, got {kernel!r}")


def check_bandwidth(bandwidth: Any, d: int, rules: Sequence[str]) -> Tensor | str:
    """Return one of the rules, or bandwidths (d,) in float64."""
    if isinstance(bandwidth, str):
        if bandwidth in rules:
            return bandwidth
        raise ValueError(
            f"bandwidth: expected a number, {d} of them or one of {rules}, got {bandwidth!r}"
        )
    if isinstance(bandwidth, Tensor):
        bandwidth = bandwidth.detach().cpu().numpy()
    if isinstance(bandwidth, np.ndarray | Sequence):
        if np.ndim(bandwidth) != 1 or len(bandwidth) != d:
            raise ValueError(
                f"bandwidth: expected a number or one for each of {d} dimensions, got shape "
                f"{np.shape(bandwidth)}"
            )
        numbers = [check_real("bandwidth", number, above=0.0) for number in bandwidth]
    else:
        numbers = [check_real("bandwidth", bandwidth, above=0.0)] * d
    return torch.tensor(numbers, dtype=torch.float64)
