"""What every layer must do."""

from typing import Any

import torch

from .module import ModuleContract


class LayerContract(ModuleContract):
    """Tests that every layer of `mercer.nn` passes; `make` builds one for `in_features` inputs."""

    def out_size(self, module: Any) -> int:
        return module.out_features

    def test_sizes_are_readable(self):
        layer = self.build()
        assert layer.in_features == self.in_features
        assert f"out_features={layer.out_features}" in layer.extra_repr()

    def test_gradients_reach_every_parameter(self):
        layer = self.build()
        layer(self.input(16)).square().sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.requires_grad, name
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_training_lowers_the_loss(self):
        layer, x = self.build(), self.input(64)
        target = self.build(generator=1)(x).detach()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (layer(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
