"""Inputs of zeros where biases begin at zero but are trained: tiles against one piece."""

import pytest
import torch
from torch import nn

from mercer.infinite import NTK

ZEROS = [3, 7, 130, 211]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    ).double()


def inputs(n: int, seed: int) -> torch.Tensor:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[[i for i in ZEROS if i < n]] = 0.0
    return x


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_tiles_with_zero_inputs(parametrization: str):
    k = NTK(network(), parametrization=parametrization, b_std=0.0).requires_grad_(False)
    x, y = inputs(240, 0), inputs(220, 1)
    for other in (None, y):
        found, exact = k(x, other), k._naive(x, other)
        # Two rows of zeros, or one twice: a cosine near one, rounded, under an arc cosine.
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-7)


def test_two_zero_inputs_have_their_biases_tangents():
    """Nothing but biases moves them: T = 1, then 1 + w^2 / 2 T with half of the units active."""
    w2 = 1.5
    k = NTK(network(), parametrization="standard", w_std=w2**0.5, b_std=0.0).requires_grad_(False)
    x, y = inputs(240, 0), inputs(220, 1)
    second = 1 + w2 / 2
    third = 1 + w2 / 2 * second
    for whole in (k(x), k(x, y)):
        torch.testing.assert_close(
            whole[ZEROS][:, ZEROS], torch.full((4, 4), third, dtype=torch.float64)
        )
    torch.testing.assert_close(k.diag(x)[ZEROS], torch.full((4,), third, dtype=torch.float64))
