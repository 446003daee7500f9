import math

import pytest
import torch

from mercer.features import PositiveFeatures, RandomFourier
from mercer.features.positive import optimal_damping, relative_moment
from mercer.kernels import RBF, Exponential, Linear
from tests.contracts.feature_map import FeatureMapContract

SHEET = "core-scalable-neural-network-kernels"
DRAWS = ["gaussian", "orthogonal", "sobol", "fastfood"]


class TestExponential(FeatureMapContract):
    scale = 0.5

    def make(self, **factory):
        return PositiveFeatures(Exponential([1.0, 2.0, 1.5, 1.0, 0.9, 3.0]), 6, 10, **factory)


class TestGaussianHadamard(FeatureMapContract):
    scale = 0.5

    def make(self, **factory):
        return PositiveFeatures(3.0 * RBF(1.5), 6, 9, paired=False, draw="hadamard", **factory)


class TestUndampedFastfood(FeatureMapContract):
    scale = 0.5

    def make(self, **factory):
        return PositiveFeatures(Exponential(), 6, 12, damping=0.0, draw="fastfood", **factory)


def pair(norm: float, in_features: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, in_features, generator=source, dtype=torch.float64)
    return norm * x / x.norm(), norm * y / y.norm()


def estimates(phi: PositiveFeatures, count: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the estimate of k(x, y) of each of `count` independent draws."""
    source = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        phi.reset_parameters(source)
        found.append(phi(x) @ phi(y))
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Positive features of the exponential and the Gaussian kernel are unbiased for every "
    "draw but the Hadamard one: ten thousand draws.",
)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("kernel", [Exponential(1.2), 2.0 * RBF(1.2)], ids=["exp", "rbf"])
def test_unbiased(kernel, paired, draw, evidence):
    kernel.requires_grad_(False)
    phi = PositiveFeatures(kernel, 8, 16, paired=paired, draw=draw, dtype=torch.float64)
    x, y = pair(1.0)
    found = estimates(phi, 10_000, x, y)
    error = (found.mean() - kernel(x[None], y[None])[0, 0]).abs()
    off = float(error / found.std()) * 100
    evidence(required="<= 4 standard errors", measured=off)
    assert off <= 4


@pytest.mark.parametrize("damping", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("paired", [True, False])
def test_moments_against_simulation(damping, paired):
    x, y = pair(0.8, 4)
    phi = PositiveFeatures(
        Exponential(), 4, 2, paired=paired, damping=damping, draw="gaussian", dtype=torch.float64
    )
    big = PositiveFeatures(
        Exponential(),
        4,
        800_000,
        paired=paired,
        damping=damping,
        draw="gaussian",
        generator=0,
        dtype=torch.float64,
    )
    terms = (big(x) * big(y)) * 800_000 / torch.exp(x @ y)
    if paired:
        terms = (terms[:400_000] + terms[400_000:]) / 2
    assert float(terms.mean()) == pytest.approx(1, abs=4 * float(terms.std()) / len(terms) ** 0.5)
    square = (x + y).square().sum()
    moment = relative_moment(square, damping, 4, paired=paired)
    spread = float(terms.square().std()) / len(terms) ** 0.5
    assert float(terms.square().mean()) == pytest.approx(float(moment), abs=4 * spread)
    count = 1 if paired else 2
    expected = math.sqrt((float(moment) - 1) / count)
    assert float(phi.relative_error(x, y)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("in_features", [1, 8, 64])
@pytest.mark.parametrize("square", [0.3, 2.0, 20.0])
def test_the_damping_is_the_published_one(square, in_features):
    # OPRF: A = (1 - 1 / rho) / 8 with rho in closed form; here M = -A.
    d = in_features
    rho = (math.sqrt((2 * square + d) ** 2 + 8 * d * square) - 2 * square - d) / (4 * square)
    damping = optimal_damping(square, d, paired=False)
    assert damping == pytest.approx(-(1 - 1 / rho) / 8, rel=1e-9)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("square", [0.0, 0.5, 4.0, 30.0])
def test_the_damping_is_the_best_one(square, paired):
    best = optimal_damping(square, 8, paired=paired)
    s = torch.tensor(square, dtype=torch.float64)
    grid = torch.linspace(0, 3, 30001, dtype=torch.float64)
    least = relative_moment(s, grid, 8, paired=paired).min()
    found = relative_moment(s, best, 8, paired=paired)
    assert float(found) == pytest.approx(float(least), rel=1e-6)
    assert float(found) <= float(relative_moment(s, 0.0, 8, paired=paired)) * (1 + 1e-12)


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="The optimal damping of positive features lowers their error where norms are large.",
)
def test_damping_helps(evidence):
    x, y = pair(1.6)
    kernel = Exponential()
    truth = torch.exp(x @ y)
    errors = []
    for damping in (0.0, None):
        phi = PositiveFeatures(
            kernel, 8, 64, damping=damping, norms=(1.6, 1.6), draw="gaussian", dtype=torch.float64
        )
        errors.append(float((estimates(phi, 2000, x, y) / truth - 1).square().mean().sqrt()))
    evidence(required="ratio < 0.8", measured=errors[1] / errors[0])
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.paper(
    SHEET, kind="behaviour", claim="The error of positive features falls as m^(-1/2)."
)
def test_error_falls_as_the_inverse_root(evidence):
    x, y = pair(1.0)
    sizes = [16, 64, 256, 1024]
    errors = []
    for m in sizes:
        phi = PositiveFeatures(Exponential(), 8, m, draw="gaussian", dtype=torch.float64)
        found = estimates(phi, 600, x, y)
        errors.append(float((found - torch.exp(x @ y)).square().mean().log() / 2))
    logs = torch.tensor(sizes).double().log()
    centred = logs - logs.mean()
    slope = float(centred @ torch.tensor(errors).double() / centred.square().sum())
    evidence(required="in [-0.6, -0.4]", measured=slope)
    assert -0.6 <= slope <= -0.4


def test_features_are_positive_and_finite_whatever_comes():
    phi = PositiveFeatures(Exponential(), 5, 64, generator=0)
    x = 100 * torch.randn(50, 5)
    z = phi(x)
    assert bool((z >= 0).all()) and bool(torch.isfinite(z @ z.mT).all())
    small = phi(x / 100)
    assert bool((small > 0).all())
    torch.testing.assert_close(phi.log_features(x / 100).exp(), small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_equal_the_plain_formula(dtype):
    phi = PositiveFeatures(RBF(2.0), 5, 300, generator=0, dtype=dtype)
    x = torch.randn(4, 500, 5, dtype=dtype)
    plain = phi(x.clone().requires_grad_()).detach()
    torch.testing.assert_close(phi(x), plain)


def test_gaussian_features_are_no_better_than_waves_close_by():
    # What the docstring says: near pairs are the business of plane waves.
    x = torch.tensor([0.4, 0.1, -0.3], dtype=torch.float64)
    y = torch.tensor([0.3, 0.3, -0.2], dtype=torch.float64)
    kernel = RBF().requires_grad_(False)
    truth = kernel(x[None], y[None])[0, 0]
    errors = []
    for phi in (
        PositiveFeatures(kernel, 3, 32, draw="gaussian", dtype=torch.float64),
        RandomFourier(kernel, 3, 32, draw="gaussian", dtype=torch.float64),
    ):
        errors.append(float((estimates(phi, 500, x, y) - truth).square().mean()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("error", "options", "match"),
    [
        (ValueError, {"kernel": Linear()}, "kernel: expected an Exponential or RBF"),
        (TypeError, {"kernel": "rbf"}, "kernel: expected a Kernel, got str"),
        (RuntimeError, {"kernel": RBF("median")}, "left to the data"),
        (ValueError, {"num_features": 7}, "num_features: expected an even number.*7"),
        (ValueError, {"damping": -0.1}, "damping"),
        (ValueError, {"norms": (1.0,)}, "norms: expected two numbers"),
        (ValueError, {"norms": (1.0, 1.0), "like": torch.ones(2, 3)}, "norms: expected None"),
        (ValueError, {"like": torch.ones(2, 4)}, r"like: expected shape \(\.\.\., 3\)"),
        (ValueError, {"like": torch.full((2, 3), math.nan)}, "like"),
        (ValueError, {"draw": "halton"}, "draw"),
        (ValueError, {"kernel": RBF([1.0, 2.0])}, "lengthscale of 2 entries"),
    ],
)
def test_refuses(error, options, match):
    arguments = {"kernel": Exponential(), "in_features": 3, "num_features": 8, **options}
    with pytest.raises(error, match=match):
        PositiveFeatures(**arguments)
