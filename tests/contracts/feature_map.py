"""What every feature map must do."""

from typing import Any

import pytest
import torch

from mercer.features import FeatureMap, TwoSidedFeatureMap

from .module import ModuleContract


class FeatureMapContract(ModuleContract):
    """Tests that every `FeatureMap` passes; `make` builds one for `in_features` inputs."""

    def out_size(self, module: Any) -> int:
        return module.num_features

    def test_num_features_is_honest(self):
        phi = self.build()
        assert isinstance(phi, FeatureMap)
        assert phi.in_features == self.in_features
        assert phi(self.input(3)).shape == (3, phi.num_features)
        assert f"num_features={phi.num_features}" in phi.extra_repr()

    def test_nothing_trains_and_something_is_stored(self):
        phi = self.build()
        assert not list(phi.parameters())
        assert phi.state_dict().keys() == dict(phi.named_buffers()).keys()


class TwoSidedFeatureMapContract(FeatureMapContract):
    """Tests that every `TwoSidedFeatureMap` passes, besides those of `FeatureMapContract`."""

    def neurons(self, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
        source = torch.Generator().manual_seed(2)
        weight = torch.randn(5, self.in_features, generator=source, dtype=torch.float64)
        bias = torch.randn(5, generator=source, dtype=torch.float64)
        return (self.scale * weight).to(dtype), (self.scale * bias).to(dtype)

    def test_dual_has_a_row_for_each_neuron(self):
        phi = self.build()
        assert isinstance(phi, TwoSidedFeatureMap)
        weight, bias = self.neurons()
        psi = phi.dual(weight, bias)
        assert psi.shape == (5, phi.num_features) and psi.dtype == weight.dtype
        rows = [phi.dual(weight[i : i + 1], bias[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(psi, torch.cat(rows))
        torch.testing.assert_close(phi.dual(weight), phi.dual(weight, torch.zeros(5)))
        assert phi.dual(weight[:0], bias[:0]).shape == (0, phi.num_features)

    def test_dual_gradcheck(self):
        phi = self.build(dtype=torch.float64)
        weight, bias = (t.requires_grad_() for t in self.neurons(torch.float64))
        assert torch.autograd.gradcheck(phi.dual, (weight, bias))

    @pytest.mark.parametrize("shapes", [((5, 7), (5,)), ((5, 6), (4,)), ((6,), (1,))])
    def test_dual_names_the_shapes(self, shapes):
        weight, bias = (torch.zeros(shape) for shape in shapes)
        with pytest.raises(ValueError, match=r"(weight|bias): expected") as caught:
            self.build().dual(weight, bias)
        assert any(str(shape) in str(caught.value) for shape in shapes)
