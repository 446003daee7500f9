import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mercer.features import FeatureMap, NeuronFeatures, WithInput
from tests.contracts.feature_map import FeatureMapContract


class TestNeuronFeatures(FeatureMapContract):
    def make(self, **factory):
        return NeuronFeatures.random(6, 5, "gelu", **factory)


class TestNeuronFeaturesHadamardWithoutBias(FeatureMapContract):
    def make(self, **factory):
        return NeuronFeatures.random(6, 9, nn.ELU(0.5), draw="hadamard", bias=False, **factory)


class TestWithInput(FeatureMapContract):
    def make(self, **factory):
        return WithInput(NeuronFeatures.random(6, 5, "tanh", draw="gaussian", **factory))


class TestGiven:
    layer: ClassVar[nn.Linear] = nn.Linear(4, 7)

    def test_is_the_layer_itself(self):
        phi = NeuronFeatures(self.layer.weight, self.layer.bias, "silu")
        x = torch.randn(3, 4)
        assert torch.equal(phi(x), F.silu(self.layer(x)))

    def test_rows_are_copied(self):
        weight = torch.randn(3, 4)
        phi = NeuronFeatures(weight, None, "relu")
        expected = phi(torch.ones(4))
        weight.zero_()
        assert torch.equal(phi(torch.ones(4)), expected)
        assert phi.bias is None

    def test_reset_forgets_them_for_the_rows_that_random_draws(self):
        phi = NeuronFeatures(self.layer.weight, self.layer.bias, "relu")
        phi.reset_parameters(4)
        assert torch.equal(phi.weight, NeuronFeatures.random(4, 7, "relu", generator=4).weight)

    @pytest.mark.parametrize(
        ("weight", "bias", "error", "match"),
        [
            (torch.zeros(3), None, ValueError, r"weight: expected 2 axes, got shape \(3,\)"),
            (torch.zeros(0, 3), None, ValueError, r"weight.shape\[0\]"),
            (torch.zeros(2, 3), torch.zeros(3), ValueError, r"bias: .*\(2,\).*\(2, 3\).*\(3,\)"),
            (torch.tensor([[math.nan]]), None, ValueError, "weight: 1 of 1"),
            (torch.zeros(2, 3), torch.tensor([0.0, math.inf]), ValueError, "bias: 1 of 2"),
            (torch.zeros(2, 3, dtype=torch.int64), None, TypeError, "weight"),
            ([[1.0]], None, TypeError, "weight"),
        ],
    )
    def test_refuses(self, weight, bias, error, match):
        with pytest.raises(error, match=match):
            NeuronFeatures(weight, bias, "relu")

    def test_a_callable_works_but_says_why_it_cannot_be_saved(self, tmp_path):
        phi = NeuronFeatures(self.layer.weight, None, lambda z: z.clamp(-1, 1))
        assert phi(torch.ones(4)).shape == (7,)
        with pytest.raises(ValueError, match="activation"):
            phi.save_pretrained(tmp_path / "saved")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("draw", ["orthogonal", "gaussian", "hadamard", "sobol"])
def test_scale_of_random_neurons(draw):
    # G x ~ N(0, |x|^2 / d) and c ~ U(-1, 1) / sqrt(d): variances 1 and 1 / (3 d) at |x|^2 = d.
    d, m = 32, 1024
    phi = NeuronFeatures.random(d, m, "identity", draw=draw, generator=0, dtype=torch.float64)
    x = torch.ones(d, dtype=torch.float64)
    variance = phi(x).square().mean().item()
    # Squares of N(0, 1) have variance 2: four standard errors at m of them.
    assert abs(variance - 1 - 1 / (3 * d)) <= 4 * math.sqrt(2 / m)
    assert phi.bias is not None
    assert phi.bias.abs().max() <= d**-0.5
    assert phi.bias.square().mean().item() == pytest.approx(1 / (3 * d), rel=0.15)
    lengths = phi.weight.norm(dim=-1).square()
    assert lengths.mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / d / m))


def test_with_input_adds_the_linear_kernel():
    inner = NeuronFeatures.random(5, 8, "relu", generator=0)
    x, y = torch.randn(3, 5), torch.randn(4, 5)
    phi = WithInput(inner)
    torch.testing.assert_close(phi(x) @ phi(y).mT, inner(x) @ inner(y).mT + x @ y.mT)


def test_with_input_refuses_other_modules():
    with pytest.raises(TypeError, match="features: expected a FeatureMap, got Linear"):
        WithInput(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_a_map_is_found_again_by_its_base_class(tmp_path):
    phi = WithInput(NeuronFeatures.random(5, 8, "relu", generator=0))
    phi.save_pretrained(tmp_path / "saved")
    loaded = FeatureMap.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, WithInput)
    x = torch.randn(2, 5)
    assert torch.equal(loaded(x), phi(x))
