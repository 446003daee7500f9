import math

import pytest
import torch
from torch import Tensor

from mercer.features import Fastfood, RandomFourier
from mercer.kernels import (
    RBF,
    Cosine,
    Kernel,
    Laplacian,
    Matern,
    Periodic,
    RationalQuadratic,
    SpectralMixture,
)
from tests.contracts.feature_map import FeatureMapContract

SHEET = "core-scalable-neural-network-kernels"
ARD = [0.8, 1.0, 1.5, 2.0, 0.7, 1.2]


class TestOrthogonal(FeatureMapContract):
    def make(self, **factory):
        return RandomFourier(Matern(ARD, nu=2.5), 6, 10, **factory)


class TestSobolSum(FeatureMapContract):
    def make(self, **factory):
        kernel = 2.0 * RBF(3.0) * Periodic(2.0, period=5.0) + 0.5 * Cosine(6.0) + 0.1
        return RandomFourier(kernel, 6, 16, draw="sobol", **factory)


class TestHadamard(FeatureMapContract):
    def make(self, **factory):
        return RandomFourier(0.5 * RationalQuadratic(2.0), 6, 22, draw="hadamard", **factory)


class TestFastfood(FeatureMapContract):
    def make(self, **factory):
        return Fastfood(RBF(2.0), 6, 22, **factory)


STATIONARY: dict[str, Kernel] = {
    "rbf": RBF([0.7, 1.5, 1.0, 2.0]),
    "matern12": Matern(1.3, nu=0.5),
    "matern32": Matern([0.7, 1.5, 1.0, 2.0]),
    "matern52": Matern(nu=2.5),
    "rational_quadratic": RationalQuadratic(1.2, alpha=0.8),
    "laplacian": Laplacian([2.0, 3.0, 1.0, 4.0]),
    "periodic": Periodic([1.0, 2.0, 0.7, 3.0], period=[2.0, 1.0, 3.0, 1.5]),
    "spectral_mixture": SpectralMixture(
        [0.5, 1.5], means=[[0.1, 0.0, 0.3, 0.2]] * 2, scales=[[0.2] * 4, [0.05, 0.1, 0.2, 0.1]]
    ),
    "scaled": 3.0 * RBF(2.0),
    "product": RBF(2.0) * Laplacian(4.0),
    "sum": 0.3 * RBF(0.5) + 2.0 * Matern(3.0) * Cosine(4.0) + 0.4,
}
STRUCTURED = ("rbf", "matern12", "matern32", "matern52", "rational_quadratic", "scaled")
PAIR = torch.tensor([[0.3, -0.2, 0.5, 0.1], [-0.4, 0.3, 0.2, 0.6]], dtype=torch.float64)


def estimates(kernel: Kernel, draw: str, count: int, size: int, seed: int = 0) -> Tensor:
    """Return k(x, y) as `count` independent small maps estimate it."""
    phi = RandomFourier(kernel, 4, size, draw=draw, dtype=torch.float64, generator=seed)
    source = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        phi.reset_parameters(source)
        a, b = phi(PAIR)
        found.append(a @ b)
    return torch.stack(found)


def standard_errors(found: Tensor, expected: Tensor) -> float:
    deviation = found.std() / math.sqrt(len(found))
    return float((found.mean() - expected.detach()).abs() / deviation.clamp_min(1e-12))


CASES = [
    (name, draw)
    for name in STATIONARY
    for draw in ("gaussian", "orthogonal", "sobol", "fastfood")
    if draw != "fastfood" or name in STRUCTURED
]


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Random Fourier features are unbiased for every stationary kernel and every draw "
    "but the Hadamard one: ten thousand draws.",
)
@pytest.mark.parametrize(("name", "draw"), CASES)
def test_unbiased(name, draw, evidence):
    kernel = STATIONARY[name]
    off = standard_errors(estimates(kernel, draw, 10_000, 12), kernel(*PAIR[:, None])[0, 0])
    evidence(required="<= 4 standard errors", measured=off)
    assert off <= 4


@pytest.mark.parametrize(("name", "draw"), CASES)
def test_close_to_the_kernel_on_average(name, draw):
    kernel = STATIONARY[name]
    off = standard_errors(estimates(kernel, draw, 200, 12), kernel(*PAIR[:, None])[0, 0])
    assert off <= 4.5
