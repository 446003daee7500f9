import logging

import pytest
import torch

from mercer.features import (
    Fastfood,
    MonomialFeatures,
    Nystroem,
    PolynomialSketch,
    PositiveFeatures,
    QuadratureFeatures,
    RandomFourier,
    kernel_features,
    register_feature_method,
)
from mercer.features.choose import FEATURE_METHODS
from mercer.kernels import (
    RBF,
    Constant,
    Cosine,
    CosineSimilarity,
    Exponential,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    SpectralMixture,
    White,
)


def data(in_features: int, count: int = 300, dtype=torch.float64) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(count, in_features, generator=source, dtype=torch.float64)
    return (x / in_features**0.5).to(dtype)


# The tolerance is on the root mean square of the error, in units of the largest entry; that of
# random waves is 1 / sqrt(m) = 0.05.
CASES = [
    (Linear(2.0), 10, MonomialFeatures, 1e-12),
    (2.0 * Polynomial(2), 10, MonomialFeatures, 1e-12),
    (Constant(3.0), 10, MonomialFeatures, 1e-12),
    (Cosine(3.0) + 0.5, 10, RandomFourier, 1e-12),
    (Polynomial(3), 20, Nystroem, 0.05),
    (Exponential(), 10, Nystroem, 0.05),
    (RBF("median"), 2, QuadratureFeatures, 1e-6),
    (Periodic(period=4.0), 1, QuadratureFeatures, 1e-12),
    (RBF(), 10, RandomFourier, 0.1),
    (Matern("median") * RBF(3.0) + 0.1, 10, RandomFourier, 0.1),
    (Laplacian(), 10, RandomFourier, 0.1),
    (CosineSimilarity(), 10, Nystroem, 1e-6),
    (RBF(2.0) + Linear(), 10, Nystroem, 1e-2),
]


@pytest.mark.parametrize(("kernel", "in_features", "kind", "tolerance"), CASES)
def test_the_choice(kernel, in_features, kind, tolerance):
    x = data(in_features)
    before = repr(kernel)
    phi = kernel.features(400 if kind is not Nystroem else 150, like=x, generator=0)
    assert type(phi) is kind
    assert repr(kernel) == before  # a median lengthscale is set in a copy
    z = phi(x)
    assert z.dtype == x.dtype and z.shape == (300, phi.num_features)
    assert phi.num_features <= 400
    truth = phi.kernel(x)
    rms = float((z @ z.mT - truth).square().mean().sqrt() / truth.abs().max())
    assert rms <= tolerance


@pytest.mark.parametrize(
    ("method", "kernel", "kind"),
    [
        ("exact", Linear(), MonomialFeatures),
        ("random_fourier", RBF(), RandomFourier),
        ("quadrature", RBF(), QuadratureFeatures),
        ("fastfood", Matern(), Fastfood),
        ("polynomial_sketch", Polynomial(), PolynomialSketch),
        ("positive", RBF(), PositiveFeatures),
        ("nystroem", Polynomial(), Nystroem),
    ],
)
def test_methods_by_name(method, kernel, kind, global_state_unchanged):
    x = data(3, dtype=torch.float32)
    phi = kernel.features(51, like=x, method=method, generator=0)
    assert type(phi) is kind and 3 <= phi.num_features <= 51
    again = kernel.features(51, like=x, method=method, generator=torch.Generator().manual_seed(0))
    assert torch.equal(phi(x), again(x))
    assert all(b.dtype == torch.float32 for b in phi.buffers() if b.is_floating_point() and b.ndim)


@pytest.mark.parametrize(
    ("kernel", "kind"), [(Polynomial(3), PolynomialSketch), (Exponential(), PositiveFeatures)]
)
def test_more_features_than_landmarks(kernel, kind):
    x = data(30)
    phi = kernel.features(1000, like=x, generator=0)
    assert type(phi) is kind and phi.num_features == 1000
    error = phi(x) @ phi(x).mT - phi.kernel(x)
    assert float(error.norm() / phi.kernel(x).norm()) <= 0.3


def test_options_reach_the_map():
    x = data(3)
    assert RBF().features(20, like=x, draw="gaussian").draw == "gaussian"
    assert RBF().features(20, like=x, method="positive", norms=(0.1, 0.1)).damping < 0.1
    with pytest.raises(TypeError, match="draws"):
        RBF().features(20, like=x, draws="sobol")


@pytest.mark.parametrize(
    ("in_features", "num_features", "draw"),
    [(8, 256, "sobol"), (8, 100, "orthogonal"), (16, 1000, "sobol"), (17, 1000, "orthogonal")],
)
def test_the_draw_follows_the_sizes(in_features, num_features, draw):
    assert RBF().features(num_features, like=data(in_features)).draw == draw


def test_a_name_will_do():
    phi = kernel_features("rbf", 20, like=data(9))
    assert "median" not in repr(phi.kernel) and isinstance(phi, RandomFourier)


def test_the_log_says_which(caplog):
    with caplog.at_level(logging.INFO, logger="mercer"):
        RBF().features(20, like=data(9))
    assert "random_fourier for RBF(): 20 features by RandomFourier" in caplog.text


def test_methods_can_be_added():
    @register_feature_method("first_rows")
    def first_rows(kernel, num_features, like, generator):
        return Nystroem(kernel, like[:num_features])

    try:
        phi = RBF().features(5, like=data(3), method="first_rows")
        assert torch.equal(phi.landmarks, data(3)[:5])
    finally:
        del FEATURE_METHODS["first_rows"]


def test_few_rows_and_few_features():
    x = data(5, count=1)
    assert RBF().features(10, like=x).num_features == 10
    assert CosineSimilarity().features(10, like=x).num_features == 1
    mixture = SpectralMixture([1.0], means=[[0.1]], scales=[[0.1]]) + RBF()
    assert isinstance(mixture.features(3, like=data(1)), Nystroem)


@pytest.mark.parametrize(
    ("error", "arguments", "match"),
    [
        (TypeError, {"kernel": 3.0}, "kernel"),
        (TypeError, {"method": 3}, "method"),
        (ValueError, {"kernel": "gauss"}, "kernel: expected one of"),
        (ValueError, {"num_features": 0}, "num_features"),
        (ValueError, {"method": "fourier"}, "method: expected one of"),
        (ValueError, {"method": "exact"}, "no finite number"),
        (ValueError, {"kernel": Polynomial(3), "method": "exact"}, "20 features are exact"),
        (ValueError, {"kernel": RBF() + White()}, "noise has no features"),
        (ValueError, {"like": torch.ones(3)}, r"like: expected shape \(n, in_features\)"),
        (ValueError, {"like": torch.ones(0, 3)}, "like"),
        (ValueError, {"like": torch.full((4, 3), torch.nan)}, "like: 12 of 12"),
        (TypeError, {"like": [[1.0]]}, "like: expected a torch.Tensor"),
        (ValueError, {"kernel": Linear(), "method": "random_fourier"}, "stationary"),
    ],
)
def test_refuses(error, arguments, match):
    given = {"kernel": RBF(), "num_features": 8, "like": torch.ones(4, 3), **arguments}
    with pytest.raises(error, match=match):
        kernel_features(given.pop("kernel"), given.pop("num_features"), **given)
