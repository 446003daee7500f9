from mercer.features import UniversalFeatures
from tests.contracts.feature_map import TwoSidedFeatureMapContract


class TestGelu(TwoSidedFeatureMapContract):
    scale = 0.3

    def make(self, **factory):
        return UniversalFeatures("gelu", 6, 16, **factory)


class TestSinHadamard(TwoSidedFeatureMapContract):
    scale = 0.3

    def make(self, **factory):
        return UniversalFeatures("sin", 6, 10, draw="hadamard", norms=(0.7, 0.9), **factory)


class TestGaussianSobol(TwoSidedFeatureMapContract):
    scale = 0.3

    def make(self, **factory):
        return UniversalFeatures("gaussian", 6, 8, draw="sobol", **factory)
