"""A layer of one's own, by a rule: windows whose weights differ from place to place."""

import pytest
import torch
from torch import Tensor, nn

from mercer.infinite import NTK, monte_carlo, rule


class LocallyConnected(nn.Module):
    """Windows of 3 positions, each place with weights of its own."""

    def __init__(self, channels: int, width: int, places: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(places, width, channels, 3) / (3 * channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        places = len(self.weight)
        windows = torch.stack([x[..., j : j + places] for j in range(3)], -1)
        return torch.einsum("ncpk,pock->nop", windows, self.weight)  # (n, width, places)


@rule(LocallyConnected)
def locally_connected(module, x):
    """Gather windows, and mix them by weights that places do not share."""
    places, width, channels, size = module.weight.shape
    assert x.shape[-1] - size + 1 == places
    gathered = x.with_channels(1).windowed((size,), (1,), (1,))
    return gathered.affine(
        width, axis=1, fan_in=channels * size, bias=False, torch_weight=1.0, shared=False
    )


class Net(nn.Module):
    """Two such layers, then the mean over places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = LocallyConnected(2, width, 4), LocallyConnected(width, width, 2)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean(-1))


@pytest.fixture
def inputs():
    return torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_against_finite_networks(inputs):
    rows = []
    for width in (24, 48):
        k = NTK(Net(width), parametrization="torch", example=inputs).requires_grad_(False)
        found = monte_carlo(Net, width, 300, inputs, parametrization="torch", generator=1)
        exact = k.both(inputs)
        rows.append(
            [
                (
                    (getattr(found, name) - value) / value.abs().max(),
                    getattr(found, f"{name}_error"),
                )
                for name, value in zip(("nngp", "ntk"), exact, strict=True)
            ]
        )
    for (narrow, e), (wide, f), value in zip(*rows, exact, strict=True):
        error = (e.square() + 4 * f.square()).sqrt() / value.abs().max()
        assert float(((2 * wide - narrow).abs() / error).max()) < 4  # less the bias of c / width


def test_places_do_not_share(inputs):
    """With a global average, shared weights add what different places have in common."""
    local = NTK(Net(8), parametrization="torch", example=inputs).nngp

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv1d(2, 8, 3, bias=False), nn.Conv1d(8, 8, 3, bias=False)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean(-1))

    shared = NTK(Shared(), parametrization="ntk", w_std=1.0, b_std=0.0, example=inputs).nngp
    with torch.no_grad():
        gap = (local(inputs) - shared(inputs)).abs().max()
    assert float(gap) > 1e-3
