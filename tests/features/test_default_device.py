"""Maps draw and prepare on the CPU, whatever the default device is."""

import pytest
import torch

from mercer.features import (
    ArcCosineFeatures,
    Fastfood,
    MonomialFeatures,
    NeuronFeatures,
    PolynomialSketch,
    PositiveFeatures,
    QuadratureFeatures,
    RandomFourier,
    UniversalFeatures,
)
from mercer.kernels import (
    RBF,
    Cosine,
    Exponential,
    Laplacian,
    Matern,
    Periodic,
    Polynomial,
    RationalQuadratic,
    SpectralMixture,
)

MIXTURE = SpectralMixture([1.0], means=[[0.1, 0.2, 0.3]], scales=[[0.1, 0.2, 0.3]])
SUM = 2.0 * RBF(3.0) * Periodic(2.0) + Cosine(2.0) + 0.1
CASES = {
    "matern": (RandomFourier, Matern([0.8, 1.0, 1.5]), {"generator": 0}),
    "laplacian": (RandomFourier, Laplacian(), {"generator": 0, "draw": "gaussian"}),
    "mixture": (RandomFourier, MIXTURE, {"generator": 0}),
    "sum": (RandomFourier, SUM, {"generator": 0, "draw": "sobol"}),
    "hadamard": (RandomFourier, RationalQuadratic(), {"generator": 0, "draw": "hadamard"}),
    "fastfood": (Fastfood, RBF(), {"generator": 0}),
    "positive": (PositiveFeatures, Exponential(), {"generator": 0, "draw": "hadamard"}),
    "sketch": (PolynomialSketch, Polynomial(), {"generator": 0}),
    "quadrature": (QuadratureFeatures, 2.0 * Matern([1.0, 2.0, 1.0]) + Periodic(), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_maps_of_kernels(name):
    kind, kernel, options = CASES[name]
    x = torch.randn(4, 3)
    expected = kind(kernel, 3, 40, **options)(x)
    with torch.device("meta"):
        phi = kind(kernel, 3, 40, device="cpu", **options)
        assert all(b.is_meta for b in kind(kernel, 3, 40, **options).buffers())
    assert torch.equal(phi(x), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda **factory: NeuronFeatures.random(3, 5, "relu", generator=0, **factory),
        lambda **factory: ArcCosineFeatures(3, 5, draw="hadamard", generator=0, **factory),
        lambda **factory: UniversalFeatures("gelu", 3, 10, generator=0, **factory),
    ],
)
def test_maps_of_networks(make):
    x = torch.randn(4, 3)
    expected = make()(x)
    with torch.device("meta"):
        phi = make(device="cpu")
    assert torch.equal(phi(x), expected)


def test_monomials():
    kernel, x = Polynomial(), torch.randn(4, 3)
    expected = MonomialFeatures(kernel, 3)(x)
    with torch.device("meta"):
        phi = MonomialFeatures(kernel, 3, device="cpu")
    assert torch.equal(phi(x), expected)
