import math

import pytest
import torch

from mercer.features import MonomialFeatures, PolynomialSketch
from mercer.kernels import RBF, Polynomial
from tests.contracts.feature_map import FeatureMapContract

SHEET = "core-scalable-neural-network-kernels"


class TestCubic(FeatureMapContract):
    def make(self, **factory):
        return PolynomialSketch(Polynomial(3, lengthscale=2.0), 6, 10, **factory)


class TestHomogeneousOddScaled(FeatureMapContract):
    def make(self, **factory):
        kernel = 0.5 * Polynomial(2, offset=0.0, lengthscale=[1.0, 2.0, 1.5, 1.0, 0.9, 3.0])
        return PolynomialSketch(kernel, 6, 11, **factory)


@pytest.mark.parametrize("num_features", [1, 2, 9, 16])
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_equals_tensor_sketch_by_fast_transforms(num_features, degree):
    phi = PolynomialSketch(
        2.0 * Polynomial(degree, offset=0.5), 5, num_features, generator=0, dtype=torch.float64
    )
    x = torch.randn(7, 5, dtype=torch.float64)
    full = torch.cat([x, torch.full((7, 1), math.sqrt(0.5), dtype=torch.float64)], -1)
    spectrum = torch.ones(7, num_features // 2 + 1, dtype=torch.complex128)
    for buckets, signs in zip(phi.buckets, phi.signs, strict=True):
        sketch = torch.zeros(7, num_features, dtype=torch.float64)
        sketch.index_add_(1, buckets, full * signs)
        spectrum = spectrum * torch.fft.rfft(sketch)
    reference = math.sqrt(2.0) * torch.fft.irfft(spectrum, n=num_features)
    torch.testing.assert_close(phi(x) @ phi(x).mT, reference @ reference.mT)


@pytest.mark.parametrize("in_features", [5, 200])
@pytest.mark.parametrize("num_features", [301, 300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_blocks_equal_the_plain_formula(in_features, num_features, dtype):
    kernel = 0.5 * Polynomial(3, lengthscale=in_features**0.5)
    phi = PolynomialSketch(kernel, in_features, num_features, generator=0, dtype=dtype)
    x = torch.randn(3, 400, in_features, dtype=dtype)
    plain = phi(x.clone().requires_grad_()).detach()
    error = (phi(x) - plain).abs().max() / plain.abs().max()
    assert float(error) <= {torch.float64: 1e-13, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]


def estimates(kernel, num_features: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    points = torch.randn(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = points / points.norm(dim=-1, keepdim=True)
    points[1] = (points[0] + points[1]) / 1.5
    phi = PolynomialSketch(kernel, 6, num_features, dtype=torch.float64)
    found = []
    for _ in range(count):
        phi.reset_parameters(source)
        a, b = phi(points)
        found.append(a @ b)
    return torch.stack(found), kernel(points[:1], points[1:])[0, 0].detach()


@pytest.mark.slow
@pytest.mark.paper(
    SHEET, kind="exact", claim="Polynomial sketches are unbiased: ten thousand draws."
)
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_unbiased(degree, evidence):
    found, expected = estimates(Polynomial(degree), 16, 10_000)
    off = float((found.mean() - expected).abs() / found.std()) * 100
    evidence(required="<= 4 standard errors", measured=off)
    assert off <= 4


@pytest.mark.paper(SHEET, kind="behaviour", claim="Errors of polynomial sketches fall as m^(-1/2).")
def test_error_falls_as_the_inverse_root(evidence):
    sizes = [16, 64, 256, 1024]
    errors = []
    for m in sizes:
        found, expected = estimates(Polynomial(3), m, 400)
        errors.append(float((found - expected).square().mean().log() / 2))
    logs = torch.tensor(sizes).double().log()
    centred = logs - logs.mean()
    slope = float(centred @ torch.tensor(errors).double() / centred.square().sum())
    evidence(required="in [-0.6, -0.4]", measured=slope)
    assert -0.6 <= slope <= -0.4


def test_the_mean_over_draws_comes_near_the_exact_features():
    kernel = Polynomial(2).requires_grad_(False)
    x = torch.randn(4, 3, dtype=torch.float64)
    exact = MonomialFeatures(kernel, 3, dtype=torch.float64)(x)
    total = sum(
        z @ z.mT
        for s in range(300)
        for z in [PolynomialSketch(kernel, 3, 64, generator=s, dtype=torch.float64)(x)]
    )
    scale = float((exact @ exact.mT).abs().max())
    assert float((total / 300 - exact @ exact.mT).abs().max()) < 0.05 * scale


@pytest.mark.parametrize(
    ("error", "arguments", "match"),
    [
        (ValueError, (RBF(), 3, 8), "kernel: expected a Polynomial one"),
        (TypeError, ("poly", 3, 8), "kernel: expected a Kernel"),
        (ValueError, (Polynomial(), 3, 0), "num_features"),
        (ValueError, (Polynomial(lengthscale=[1.0, 2.0]), 3, 8), "2 entries"),
        (RuntimeError, (Polynomial(lengthscale="median"), 3, 8), "left to the data"),
    ],
)
def test_refuses(error, arguments, match):
    with pytest.raises(error, match=match):
        PolynomialSketch(*arguments)
