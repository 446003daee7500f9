"""Threads that compute tiles: what they inherit from the caller."""

import pytest
import torch

from mercer.kernels import RBF, Polynomial


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["random_fourier", "nystroem", "quadrature", "fastfood"])
def test_features_in_inference_mode(method):
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    phi = RBF().features(128, like=x, method=method, generator=0)
    expected = phi(x)
    with torch.inference_mode():
        assert torch.equal(phi(x.clone()), expected)


def test_kernels_in_inference_mode():
    x = torch.randn(1500, 2, generator=torch.Generator().manual_seed(0)).double()
    kernel = (RBF() + Polynomial(2)).requires_grad_(False)
    matrix, v = kernel(x), torch.ones(1500, 2, dtype=torch.float64)
    with torch.inference_mode():
        inside = kernel(x.clone())
        assert torch.equal(inside, matrix)
        assert torch.equal(kernel(x, x[:900].clone()), kernel(x, x[:900]))
        assert (kernel.gram(x) @ v - matrix @ v).abs().max() < 1e-9 * matrix.abs().sum(1).max()
        assert inside.is_inference()
    kernel.requires_grad_(True)(x).sum().backward()  # and training goes on
    assert all(p.grad is not None for p in kernel.parameters())
