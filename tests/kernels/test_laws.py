"""Every kernel under the contract of the laws."""

import torch

from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    CosineSimilarity,
    Exponential,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    Product,
    RationalQuadratic,
    Scaled,
    SpectralMixture,
    Sum,
    White,
)
from tests.contracts.kernel import KernelContract


class TestRBF(KernelContract):
    stationary = True

    def make(self):
        return RBF(0.8)


class TestRBFWithOneLengthscaleADimension(KernelContract):
    stationary = True

    def make(self):
        return RBF([0.8, 1.5, 3.0])


class TestMaternInManyDimensions(KernelContract):
    stationary, in_features = True, 40

    def make(self):
        return Matern(5.0, nu=2.5)


class TestMatern12(KernelContract):
    stationary, smooth = True, False

    def make(self):
        return Matern(0.8, nu=0.5)


class TestMatern32(KernelContract):
    stationary = True

    def make(self):
        return Matern([0.8, 2.0, 1.5], nu=1.5)


class TestMatern52(KernelContract):
    stationary = True

    def make(self):
        return Matern(1.3, nu=2.5)


class TestRationalQuadratic(KernelContract):
    stationary = True

    def make(self):
        return RationalQuadratic(1.2, alpha=0.7)


class TestLaplacian(KernelContract):
    stationary, smooth = True, False

    def make(self):
        return Laplacian([1.2, 2.0, 0.7])


class TestPeriodic(KernelContract):
    stationary = True

    def make(self):
        return Periodic([1.2, 0.9, 2.0], period=2.5)


class TestCosine(KernelContract):
    stationary = True

    def make(self):
        return Cosine([3.0, 5.0, 4.0])


class TestSpectralMixture(KernelContract):
    stationary = True

    def make(self):
        return SpectralMixture(
            [1.0, 0.5], means=[[0.1, 0.0, 0.2], [0.3, -0.1, 0.0]], scales=[[0.1] * 3, [0.2] * 3]
        )


class TestLinear(KernelContract):
    def make(self):
        return Linear(1.5)


class TestPolynomial(KernelContract):
    def make(self):
        return Polynomial(3, offset=0.5, lengthscale=[1.0, 1.5, 2.0])


class TestExponential(KernelContract):
    def make(self):
        return Exponential(2.0)


class TestCosineSimilarity(KernelContract):
    def make(self):
        return CosineSimilarity()


class TestArcCosine0(KernelContract):
    smooth = False

    def make(self):
        return ArcCosine(0)


class TestArcCosine1(KernelContract):
    smooth = False

    def make(self):
        return ArcCosine(1)


class TestArcCosine2(KernelContract):
    def make(self):
        return ArcCosine(2)


class TestConstant(KernelContract):
    uses_points = False

    def make(self):
        return Constant(0.3)


class TestWhite(KernelContract):
    smooth, uses_points = False, False

    def make(self):
        return White(0.3)


class TestSum(KernelContract):
    smooth = False

    def make(self):
        return Sum(RBF(0.8), White(0.1))


class TestProduct(KernelContract):
    def make(self):
        return Product(Matern(0.8, nu=2.5), Linear() + 1.0)


class TestScaled(KernelContract):
    stationary = True

    def make(self):
        return Scaled(RBF(0.8), 2.5)


def test_contract_points_are_distinct():
    x = TestRBF().points(50)
    assert float(torch.pdist(x).min()) > 0.05
