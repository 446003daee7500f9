import math

import pytest
import torch

import mercer
from mercer.features import MonomialFeatures
from mercer.features.monomial import num_monomials
from mercer.kernels import RBF, Constant, Kernel, Linear, Polynomial
from tests.contracts.feature_map import FeatureMapContract


class TestQuadratic(FeatureMapContract):
    random = False

    def make(self, generator=None, **factory):
        return MonomialFeatures(Polynomial(2, lengthscale=2.0), 6, **factory)


class TestScaledLinear(FeatureMapContract):
    random = False

    def make(self, generator=None, **factory):
        return MonomialFeatures(2.0 * Linear([1.0, 2.0, 1.5, 1.0, 0.9, 3.0]), 6, **factory)


@pytest.mark.parametrize(
    ("kernel", "count"),
    [
        (Linear([1.0, 2.0, 3.0, 0.5]), 4),
        (Polynomial(1, offset=2.0), 5),
        (0.3 * Polynomial(3, offset=0.7, lengthscale=[1.0, 2.0, 3.0, 0.5]), math.comb(7, 3)),
        (Polynomial(4, offset=0.0), math.comb(7, 4)),
        (2.0 * Constant(3.0), 1),
        (0.0 * Linear(), 4),
    ],
)
def test_products_are_the_kernel(kernel: Kernel, count):
    x = torch.randn(7, 4, dtype=torch.float64)
    phi = MonomialFeatures(kernel, 4, dtype=torch.float64)
    assert phi.num_features == count == num_monomials(kernel, 4)
    torch.testing.assert_close(phi(x) @ phi(x).mT, kernel(x).detach())
    assert repr(phi.kernel) == repr(kernel)


def test_too_many_are_refused():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="PolynomialSketch"),
    ):
        MonomialFeatures(Polynomial(6), 100)


def test_refuses_other_kernels():
    with pytest.raises(ValueError, match="kernel: expected a Linear, Polynomial or Constant"):
        MonomialFeatures(RBF(), 3)
    with pytest.raises(ValueError, match="in_features"):
        MonomialFeatures(Linear(), 0)
