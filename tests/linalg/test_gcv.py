import pytest
import torch

from mercer.linalg import GCVCurve


def _curve(eigenvalues, loadings, residual=1.0, count=20.0, free=1.0):
    return GCVCurve(
        torch.tensor(eigenvalues).double(), torch.tensor(loadings).double(), residual, count, free
    )


def test_limits():
    curve = _curve([4.0, 1.0], [8.0, 1.0])
    # No ridge: plain least squares. Infinite ridge: the mean alone, whose RSS is the total.
    assert curve(0.0) == pytest.approx(20 * 1.0 / (20 - 3) ** 2)
    assert curve(1e15) == pytest.approx(20 * (1.0 + 8 / 4 + 1 / 1) / 19**2)
    assert curve.effective_dof(0.0) == 3.0
    assert curve.effective_dof(1e15) == pytest.approx(1.0)


def test_small_ridges_of_an_interpolating_fit_have_the_finite_limit():
    # n = rank + 1: both RSS and (n - dof)^2 fall as ridge^2.
    curve = _curve([4.0, 1.0], [8.0, 1.0], residual=0.0, count=3.0)
    limit = 3 * (8 / 64 + 1.0) / (1 / 4 + 1.0) ** 2
    assert curve(1e-12) == pytest.approx(limit, rel=1e-9)
    assert curve(0.0) == float("inf")


def test_minimise_finds_a_known_minimum():
    # One eigenvalue s, n = 2, no free parameter, residual r: RSS = r + t^2 g/s and
    # n - dof = 1 + t with t = ridge/(s + ridge); the derivative vanishes at t = r s / g.
    s, g, r = 2.0, 5.0, 1.0
    t = r * s / g
    ridge, grid, path = _curve([s], [g], residual=r, count=2.0, free=0.0).minimise(s)
    assert ridge == pytest.approx(s * t / (1 - t), rel=1e-3)
    assert grid.shape == path.shape == (57,)
    assert float(grid[0]) == pytest.approx(2e-10)


def test_minimise_at_the_edges():
    # All signal: the smallest ridge. All noise, loadings as large as a residual: the largest.
    assert _curve([1.0], [1e6], residual=0.0).minimise(1.0)[0] == pytest.approx(1e-10)
    assert _curve([1.0], [0.0], residual=1.0).minimise(1.0)[0] == pytest.approx(1e4)
    # A flat curve takes the largest ridge too.
    assert _curve([], [], residual=1.0).minimise(1.0)[0] == pytest.approx(1e4)
