"""Normalisers of kernels as densities, and draws from them."""

import math

import numpy as np
import torch

from .local_kernel import LocalKernel


def _log_ball(d: int) -> float:
    """Logarithm of the volume of the unit ball."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)


def _log_sphere(d: int) -> float:
    """Logarithm of the surface of the unit ball in d dimensions."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def log_integral(kernel: LocalKernel) -> float:
    """Logarithm of the kernel's integral over all of space, bandwidths included."""
    d = len(kernel.bandwidth)
    scale = float(kernel.bandwidth.log().sum())
    if kernel.product:
        return scale + d * math.log(kernel.profile.integral)
    if kernel.name == "gaussian":
        return scale + d / 2 * math.log(2 * math.pi)
    if kernel.name == "exponential":
        return scale + _log_sphere(d) + math.lgamma(d)
    if kernel.name == "tophat":
        return scale + _log_ball(d)
    if kernel.name == "epanechnikov":
        return scale + _log_ball(d) + math.log(2 / (d + 2))
    if kernel.name == "linear":
        return scale + _log_ball(d) - math.log(d + 1)
    # The cosine, by quadrature: its closed form is an alternating sum.
    nodes, weights = np.polynomial.legendre.leggauss(32 + d)
    r = (nodes + 1) / 2
    log_value = (d - 1) * np.log(r) + np.log(np.cos(np.pi * r / 2)) + np.log(weights / 2)
    return scale + _log_sphere(d) + float(np.logaddexp.reduce(log_value))


def draw(kernel: LocalKernel, count: int, rng: np.random.RandomState) -> torch.Tensor:
    """Draw offsets (count, d) from the kernel as a density."""
    d = len(kernel.bandwidth)
    if kernel.name == "gaussian":
        unit = rng.normal(size=(count, d))
    elif kernel.product:
        size = _radii(kernel.name, 1, count * d, rng, kernel).reshape(count, d)
        unit = size * rng.choice([-1.0, 1.0], size=(count, d))
    else:
        direction = rng.normal(size=(count, d))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        unit = direction * _radii(kernel.name, d, count, rng, kernel)[:, None]
    return torch.from_numpy(unit) * kernel.bandwidth.cpu()


def _radii(
    name: str, d: int, count: int, rng: np.random.RandomState, kernel: LocalKernel
) -> np.ndarray:
    """Draw distances from zero: the density is the kernel times r^(d-1)."""
    if kernel.product and kernel.profile.rate:
        # A mixture of gamma laws, one for each power of the polynomial.
        parts = np.array([c * math.factorial(p) for p, c in enumerate(kernel.profile.coefficients)])
        shape = 1 + rng.choice(len(parts), size=count, p=parts / parts.sum())
        return rng.gamma(shape) / kernel.profile.rate
    if name == "exponential":
        return rng.gamma(d, size=count)
    if name in ("tophat", "uniform"):
        return rng.uniform(size=count) ** (1 / d)
    powers = {"epanechnikov": 2, "biweight": 3, "triweight": 4}
    if name in powers:  # of 1 - r^2
        return np.sqrt(rng.beta(d / 2, powers[name], size=count))
    if name in ("linear", "triangular"):
        return rng.beta(d, 2, size=count)
    # The cosine is at most pi / 2 times 1 - r, from which it is taken by rejection.
    found = np.empty(0)
    while len(found) < count:
        r = rng.beta(d, 2, size=2 * count + 16)
        keep = rng.uniform(size=len(r)) * (math.pi / 2) * (1 - r) <= np.cos(math.pi * r / 2)
        found = np.concatenate([found, r[keep]])
    return found[:count]
