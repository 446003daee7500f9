import numpy as np
import pytest
import torch

from mercer.features import QuadratureFeatures, RandomFourier
from mercer.kernels import (
    RBF,
    Cosine,
    Kernel,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    RationalQuadratic,
    SpectralMixture,
)
from tests.contracts.feature_map import FeatureMapContract

SHEET = "core-scalable-neural-network-kernels"


class TestGaussian(FeatureMapContract):
    random = False

    def make(self, generator=None, **factory):
        return QuadratureFeatures(RBF(2.0), 6, 130, **factory)


class TestSum(FeatureMapContract):
    random = False
    in_features = 2

    def make(self, generator=None, **factory):
        kernel = 2.0 * Matern([1.0, 2.0]) + Periodic() * Cosine(3.0) + 0.5
        like = 2 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        return QuadratureFeatures(kernel, 2, 41, like=like, **factory)

    def test_wrong_last_axis_names_the_shapes(self):
        with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 2\), got \(3, 7\)"):
            self.build()(torch.zeros(3, 7))


def largest_error(phi, kernel: Kernel, x: torch.Tensor) -> float:
    return float((phi(x) @ phi(x).mT - kernel(x).detach()).abs().max())


@pytest.mark.paper(
    SHEET, kind="exact", claim="Quadrature features are exact to rounding in one dimension."
)
@pytest.mark.parametrize(
    ("kernel", "num_features"),
    [(RBF(0.7), 60), (2.0 * Periodic(0.8, period=1.3), 30), (RBF(2.0) + 0.5 * Cosine(2.0), 60)],
    ids=["rbf", "periodic", "sum"],
)
def test_exact_in_one_dimension(kernel, num_features, evidence):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(-1)
    phi = QuadratureFeatures(kernel, 1, num_features, like=x, dtype=torch.float64)
    error = largest_error(phi, kernel, x)
    evidence(required="<= 1e-12", measured=error)
    assert phi.num_features <= num_features
    assert error <= 1e-12


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Up to four dimensions quadrature features have a far smaller error than random ones.",
)
@pytest.mark.parametrize(("in_features", "factor"), [(2, 1e4), (3, 100), (4, 5)])
def test_beats_random_features(in_features, factor, evidence):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(200, in_features, generator=source, dtype=torch.float64) * 2.5
    kernel = RBF().requires_grad_(False)
    errors = []
    for phi in [
        QuadratureFeatures(kernel, in_features, 500, dtype=torch.float64),
        *[
            RandomFourier(kernel, in_features, 500, generator=s, dtype=torch.float64)
            for s in range(8)
        ],
    ]:
        errors.append(float((phi(x) @ phi(x).mT - kernel(x)).square().mean()))
    ratio = (sum(errors[1:]) / 8 / errors[0]) ** 0.5
    evidence(required=f"error of random ones >= {factor:g} times as large", measured=ratio)
    assert ratio >= factor


@pytest.mark.parametrize(
    "kernel",
    [RBF(), Matern(nu=2.5), Matern(nu=0.5), RationalQuadratic(), Laplacian(), Periodic(period=4.0)],
    ids=lambda k: type(k).__name__,
)
@pytest.mark.parametrize("in_features", [1, 3, 7])
def test_no_worse_than_orthogonal_draws(kernel, in_features):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(150, in_features, generator=source, dtype=torch.float64) * 2
    truth = kernel(x).detach()
    fixed = QuadratureFeatures(kernel, in_features, 300, dtype=torch.float64)
    squares = []
    for seed in range(10):
        z = RandomFourier(kernel, in_features, 300, generator=seed, dtype=torch.float64)(x)
        squares.append(float((z @ z.mT - truth).square().mean()))
    z = fixed(x)
    assert float((z @ z.mT - truth).square().mean()) <= sum(squares) / 10


def test_the_error_is_that_at_the_points_given():
    x = torch.rand(23, 2, dtype=torch.float64) * 4
    kernel = RBF([1.0, 0.5])
    phi = QuadratureFeatures(kernel, 2, 100, like=x, dtype=torch.float64)
    worst = largest_error(phi, kernel, x)
    assert 0.2 * worst <= float(phi.largest_error) <= worst * (1 + 1e-9)


def test_grids_against_a_product_rule():
    # With all of a grid kept, the rule is the product of one-dimensional ones.
    q, scale = 5, torch.tensor([0.7, 2.0], dtype=torch.float64)
    phi = QuadratureFeatures(RBF(scale), 2, q * q + 1, rules=[(1, q)], dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(q)
    d = torch.tensor([0.4, -1.1], dtype=torch.float64)
    waves = np.exp(1j * np.add.outer(nodes * float(d[0]) / 0.7, nodes * float(d[1]) / 2))
    expected = float((np.outer(weights, weights) / (2 * np.pi) * waves).sum().real)
    z = phi(torch.stack([torch.zeros_like(d), d]))
    assert float(z[0] @ z[1]) == pytest.approx(expected, abs=1e-14)


def test_blocks_equal_the_plain_formula():
    phi = QuadratureFeatures(Matern(), 2, 300)
    x = torch.randn(4, 500, 2)
    torch.testing.assert_close(phi(x), phi(x.clone().requires_grad_()).detach())


def test_high_dimensions_fall_back_to_sobol_points():
    phi = QuadratureFeatures(RBF(30.0), 900, 64)
    assert phi.rules == [(0, 0)]
    mixture = SpectralMixture([1.0], means=[[0.3]], scales=[[0.1]])
    assert QuadratureFeatures(mixture, 1, 64).rules == [(0, 0)]


@pytest.mark.parametrize(
    ("error", "options", "match"),
    [
        (ValueError, {"kernel": Linear()}, "kernel: expected a stationary one"),
        (TypeError, {"kernel": "rbf"}, "kernel: expected a Kernel"),
        (RuntimeError, {"kernel": RBF("median")}, "left to the data"),
        (ValueError, {"num_features": 1}, "num_features: expected at least 2"),
        (ValueError, {"rules": [(1, 2), (0, 0)]}, "rules: expected a pair"),
        (ValueError, {"rules": [(1,)]}, "rules: expected a pair"),
        (ValueError, {"kernel": Laplacian(), "rules": [(1, 4)]}, "no grid"),
        (ValueError, {"like": torch.zeros(1, 3)}, "like: expected two rows"),
        (ValueError, {"like": torch.zeros(4, 2)}, "like: expected shape"),
        (ValueError, {"in_features": 22000}, "sobol"),
    ],
)
def test_refuses(error, options, match):
    arguments = {"kernel": RBF(), "in_features": 3, "num_features": 8, **options}
    with pytest.raises(error, match=match):
        QuadratureFeatures(**arguments)
