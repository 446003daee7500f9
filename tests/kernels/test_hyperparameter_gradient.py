"""Gradients of kernel matrices by hyperparameters, tile by tile, beside autograd's in one piece."""

import pytest
import torch
from torch import nn

from mercer.infinite import NNGP
from mercer.kernels import (
    RBF,
    Constant,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    RationalQuadratic,
    SpectralMixture,
    White,
)
from mercer.kernels.hyperparameter_gradient import diagonal_gradient, hyperparameter_gradient

KERNELS = {
    "rbf": RBF(1.3),
    "ard": RBF([1.0, 2.0, 0.5]),
    "matern12": 1.5 * Matern(1.0, nu=0.5),
    "matern32": 1.5 * Matern([1.0, 2.0, 0.5], nu=1.5) + White(0.3),
    "matern52": White(0.3) + 1.5 * Matern([1.0, 2.0, 0.5], nu=2.5),
    "mixture": RationalQuadratic(1.5, alpha=0.7) * Matern(2.0, nu=0.5) + 0.4,
    "laplacian": Laplacian([1.0, 2.0, 3.0]) * Constant(2.0),
    "season": 3.0 * Periodic(1.0, period=3.0) * RBF(4.0),
    "dot products": Polynomial(2, lengthscale=2.0) + Linear(3.0),
    "spectral": SpectralMixture(
        [1.0, 0.5], [[0.1, 0.1, 0.2], [0.2, 0.3, 0.1]], [[0.1] * 3, [0.2] * 3]
    ),
    "network": NNGP(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))),
}
_SHARED = RBF(1.2)
KERNELS["one kernel twice"] = _SHARED * _SHARED + _SHARED


def _points(n, offset=3.0):
    source = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, generator=source, dtype=torch.float64) + offset


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("rectangular", [False, True])
def test_tiles_are_the_formula_in_one_piece(name, rectangular):
    kernel = KERNELS[name]
    x, y = _points(530), _points(90) if rectangular else None
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(530, 90 if rectangular else 530, generator=source, dtype=torch.float64)
    if not rectangular:
        weight = weight + weight.mT
    named = dict(kernel.named_parameters())
    whole = (kernel._naive(x, y) * weight).sum()
    expected = torch.autograd.grad(whole, list(named.values()), allow_unused=True)
    found = hyperparameter_gradient(kernel, x, lambda r, c: weight[r, c].clone(), y)
    assert found.keys() == named.keys()
    for (key, parameter), value in zip(named.items(), expected, strict=True):
        wanted = torch.zeros_like(parameter) if value is None else value
        scale = max(float(wanted.abs().max()), 1.0)
        assert found[key].shape == parameter.shape
        assert float((found[key] - wanted).abs().max()) <= 1e-10 * scale, key


def test_where_rows_coincide():
    x = torch.cat([_points(40)] * 2)
    weight = torch.ones(80, 80, dtype=torch.float64)
    for nu in (0.5, 1.5, 2.5):
        kernel = Matern([1.0, 2.0, 0.5], nu=nu)
        (expected,) = torch.autograd.grad(kernel._naive(x, None).sum(), kernel.raw_lengthscale)
        found = hyperparameter_gradient(kernel, x, lambda r, c: weight[r, c].clone())
        torch.testing.assert_close(found["raw_lengthscale"], expected, rtol=1e-10, atol=1e-10)


def test_the_kernel_and_its_gradients_are_left_alone():
    kernel = 2.0 * RBF(1.0)
    kernel.kernel.raw_lengthscale.requires_grad_(False)
    x = _points(20)
    found = hyperparameter_gradient(kernel, x, lambda r, c: torch.ones(20, 20).double())
    assert set(found) == {"raw_scale", "kernel.raw_lengthscale"}
    assert all(p.grad is None for p in kernel.parameters())
    assert not kernel.kernel.raw_lengthscale.requires_grad
    weights = torch.arange(20.0).double()
    diagonal = diagonal_gradient(kernel, x, weights)
    assert set(diagonal) == {"raw_scale"}
    assert float(diagonal["raw_scale"]) == pytest.approx(2.0 * float(weights.sum()))
