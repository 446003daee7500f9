import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import torch

from mercer.features import ArcCosineFeatures
from tests.contracts.feature_map import TwoSidedFeatureMapContract


class TestOrder1(TwoSidedFeatureMapContract):
    def make(self, **factory):
        return ArcCosineFeatures(6, 8, **factory)


class TestOrder2Hadamard(TwoSidedFeatureMapContract):
    def make(self, **factory):
        return ArcCosineFeatures(6, 11, order=2, draw="hadamard", **factory)


class TestOrder0Sobol(TwoSidedFeatureMapContract):
    # A step that rounding moves is an error of one feature: the seeds here have none.
    def make(self, **factory):
        return ArcCosineFeatures(6, 8, order=0, draw="sobol", **factory)


def by_quadrature(order: int, u: np.ndarray, v: np.ndarray) -> float:
    """The defining integral, over the plane that holds u and v.

    There g is (r cos a, r sin a) with density r exp(-r^2/2) / (2 pi).
    """
    lu, lv = np.linalg.norm(u), np.linalg.norm(v)
    theta = np.arccos(np.clip(u @ v / (lu * lv), -1, 1))

    def angular(a: float) -> float:
        p, q = lu * np.cos(a), lv * np.cos(a - theta)
        return float(p > 0 and q > 0) * (p * q) ** order

    kinks = {-np.pi, np.pi, -np.pi / 2, np.pi / 2, theta - np.pi / 2, theta + np.pi / 2}
    pieces = sorted(a for a in kinks if -np.pi <= a <= np.pi)
    angle = sum(
        scipy.integrate.quad(angular, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(pieces)
    )
    radius = scipy.integrate.quad(lambda r: r ** (2 * order + 1) * np.exp(-(r**2) / 2), 0, 40)[0]
    return angle * radius / (2 * np.pi)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_closed_form_is_the_defining_integral(order, bias):
    phi = ArcCosineFeatures(3, 1, order=order, bias=bias, generator=0, dtype=torch.float64)
    x, w = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    b = torch.randn(5, dtype=torch.float64) if bias else None
    found = phi.expected(x, w, b)
    for i in range(4):
        for j in range(5):
            u = np.append(x[i], 1.0) if b is not None else x[i].numpy()
            v = np.append(w[j], b[j]) if b is not None else w[j].numpy()
            assert found[i, j].item() == pytest.approx(by_quadrature(order, u, v), rel=1e-8)


def test_closed_form_at_known_angles():
    x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    w = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0]], dtype=torch.float64)

    def at(order: int) -> list[float]:
        phi = ArcCosineFeatures(2, 1, order=order, bias=False, generator=0)
        return phi.expected(x, w)[0].tolist()

    # Angles 0, pi/2, pi; the moments of a half-Gaussian at angle 0: 1/2, 1/2, 3/2.
    assert at(0) == pytest.approx([1 / 2, 1 / 4, 0], abs=1e-15)
    assert at(1) == pytest.approx([6 / 2, 6 / (2 * math.pi), 0], abs=1e-14)
    assert at(2) == pytest.approx([36 * 3 / 2, 36 / 4, 0], abs=1e-13)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("draw", ["gaussian", "orthogonal"])
def test_unbiased(order, draw):
    # One map of many independent blocks: 6 rows are orthogonal to each other, and no more.
    blocks, size = 800, 6
    x, w = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    b = torch.randn(4, dtype=torch.float64)
    phi = ArcCosineFeatures(
        5, blocks * size, order=order, draw=draw, generator=0, dtype=torch.float64
    )
    z = phi(x).unflatten(-1, (blocks, size))  # (3, blocks, size)
    psi = phi.dual(w, b).unflatten(-1, (blocks, size))  # (4, blocks, size)
    estimates = blocks * torch.einsum("ibk,jbk->bij", z, psi)
    error = (estimates.mean(0) - phi.expected(x, w, b)).abs()
    assert (error <= 4 * estimates.std(0) / math.sqrt(blocks)).all()


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("draw", ["hadamard", "sobol"])
def test_structured_draws_come_close(order, draw):
    x, w = torch.randn(20, 31, dtype=torch.float64), torch.randn(20, 31, dtype=torch.float64)
    b = torch.randn(20, dtype=torch.float64)
    errors = {}
    for kind in (draw, "gaussian"):
        squares = []
        for seed in range(6):
            phi = ArcCosineFeatures(
                31, 1024, order=order, draw=kind, generator=seed, dtype=torch.float64
            )
            error = phi(x) @ phi.dual(w, b).mT - phi.expected(x, w, b)
            squares.append(error.square().mean())
        errors[kind] = torch.stack(squares).mean().sqrt().item()
    assert errors[draw] <= 1.15 * errors["gaussian"]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_error_falls_as_the_root_of_the_number_of_features(order):
    x, w = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, 8, dtype=torch.float64)
    sizes = [64, 256, 1024, 4096]
    errors = []
    for m in sizes:
        squares = []
        for seed in range(12):
            phi = ArcCosineFeatures(
                8, m, order=order, draw="gaussian", generator=seed, dtype=torch.float64
            )
            squares.append((phi(x) @ phi.dual(w).mT - phi.expected(x, w)).square().mean())
        errors.append(torch.stack(squares).mean().sqrt().item())
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.06)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_gradients_of_the_closed_form(order):
    phi = ArcCosineFeatures(3, 1, order=order, generator=0, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(phi.expected, (x, w, b))
    assert torch.autograd.gradgradcheck(phi.expected, (x, w, b))


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_gradients_are_finite_at_collinear_and_zero_vectors(order, factor):
    phi = ArcCosineFeatures(3, 1, order=order, bias=False, generator=0, dtype=torch.float64)
    x = torch.tensor([[0.3, -1.2, 0.7]], dtype=torch.float64)
    w = (factor * x).requires_grad_()
    x.requires_grad_()
    value = phi.expected(x, w)
    gradients = torch.autograd.grad(value.sum(), (x, w), create_graph=True)
    second = torch.autograd.grad(
        sum(g.square().sum() for g in gradients), (x, w), allow_unused=True
    )
    assert all(torch.isfinite(g).all() for g in (value, *gradients))
    assert all(g is None or torch.isfinite(g).all() for g in second)
    if factor > 0 and order == 1:
        # k = |x||w|/2 to first order around collinear vectors.
        torch.testing.assert_close(gradients[0], w.detach() / 2)
        torch.testing.assert_close(value, x.norm() * w.norm() / 2 * torch.ones(1, 1).double())


def test_zero_vectors_have_the_kernel_zero():
    phi = ArcCosineFeatures(3, 8, order=0, bias=False, generator=0)
    x, w = torch.zeros(1, 3), torch.ones(1, 3)
    assert phi.expected(x, w).item() == 0
    assert (phi(x) @ phi.dual(w).mT).item() == 0


def test_float32_near_collinear():
    # In float32 inner products the sine of a small angle drowns; here they are in float64.
    phi = ArcCosineFeatures(4, 1, order=0, bias=False, generator=0)
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    w = torch.tensor([[1.0, 1e-4, 0.0, 0.0]])
    angle = math.pi - 2 * math.pi * phi.expected(x.double(), w.double()).item()
    assert angle == pytest.approx(1e-4, rel=1e-3)
    assert phi.expected(x, w).dtype == torch.float32


def test_only_the_hadamard_draw_stores_little():
    dense = ArcCosineFeatures(255, 512, generator=0)
    structured = ArcCosineFeatures(255, 512, draw="hadamard", generator=0)
    assert sum(b.numel() for b in dense.buffers()) == 512 * 256
    # Three signs (one byte each) and one length a feature.
    assert sum(b.numel() for b in structured.buffers()) == 3 * 512 + 512


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((0, 4), {}, "in_features"),
        ((4, 0), {}, "num_features"),
        ((4, 4), {"order": 3}, "order: expected 0, 1 or 2, got 3"),
        ((4, 4), {"order": -1}, "order"),
        ((4, 4), {"draw": "halton"}, "kind"),
    ],
)
def test_refuses(arguments, options, match):
    with pytest.raises(ValueError, match=match):
        ArcCosineFeatures(*arguments, **options)


def test_a_bias_needs_a_map_with_bias():
    phi = ArcCosineFeatures(4, 4, bias=False, generator=0)
    with pytest.raises(ValueError, match="bias"):
        phi.dual(torch.zeros(2, 4), torch.zeros(2))
