import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mercer.features.fourier_extension import _whole_shares, fit_fourier_extension
from mercer.features.gaussian_trick import best_damping, log_excess


def at_norms(norm: float, d: int = 16):
    """The cost of a frequency for an orthogonal pair of one norm."""

    def cost(omega: torch.Tensor) -> torch.Tensor:
        squares = 2 * norm**2 * omega
        return log_excess(best_damping(squares, d), squares, d)

    return cost


def nearly_free(omega: torch.Tensor) -> torch.Tensor:
    return torch.full_like(omega, -20.0)


def objective(extension, function, num_draws, cost):
    """Truncation and variance, with the allocation that the extension has."""
    z = ((torch.arange(2048) + 0.5).double() / 1024 - 1) * 6
    truncation = (function(z) - extension(z)).square().mean()
    square = extension.coefficients.square().sum(-1)
    variance = (cost(extension.frequencies).exp() * square / extension.counts).sum() / 2
    return float(truncation), float(variance)


def relaxed_optimum(function, num_draws, cost, harmonics=12):
    """The least possible objective with real-valued shares: a convex problem, given to SciPy.

    The squared group lasso is a maximum over its dual ball; here it is smoothed by 1e-6 instead,
    and L-BFGS-B started from the ordinary least-squares solution.
    """
    z = ((np.arange(512) + 0.5) / 256 - 1) * 6
    omega = math.pi / 12 * np.arange(1, harmonics + 1)
    basis = np.concatenate(
        [np.stack([z, np.ones_like(z)]), np.cos(np.outer(omega, z)), np.sin(np.outer(omega, z))]
    ).T
    target = function(torch.from_numpy(z)).numpy()
    root_v = cost(torch.from_numpy(omega)).div(2).exp().numpy()

    def value(a):
        residual = basis @ a - target
        c, s = a[2 : 2 + harmonics], a[2 + harmonics :]
        size = np.sqrt(c**2 + s**2 + 1e-12)
        total = root_v @ size
        gradient = 2 * basis.T @ residual / len(z)
        outer = total / num_draws * root_v / size
        gradient[2 : 2 + harmonics] += outer * c
        gradient[2 + harmonics :] += outer * s
        return residual @ residual / len(z) + total**2 / (2 * num_draws), gradient

    start = np.linalg.lstsq(basis, target, rcond=1e-3)[0]
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9}
    return scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=options).fun


@pytest.mark.parametrize("function", [F.gelu, torch.tanh, F.softplus], ids=lambda f: f.__name__)
@pytest.mark.parametrize("num_draws", [128, 4096])
def test_objective_reaches_the_convex_optimum(function, num_draws):
    cost = at_norms(0.5)
    extension = fit_fourier_extension(function, 6.0, num_draws, cost, harmonics=12)
    reached = sum(objective(extension, function, num_draws, cost))
    optimum = relaxed_optimum(function, num_draws, cost)
    # Whole numbers of draws cost a little more than real-valued shares; nothing costs less.
    assert (1 - 1e-3) * optimum <= reached <= (1.002 if num_draws > 1000 else 1.02) * optimum


@pytest.mark.parametrize("function", [F.gelu, F.relu, F.silu, F.softplus], ids=lambda f: f.__name__)
@pytest.mark.parametrize("num_draws", [1, 100, 5000])
def test_symmetric_functions_have_slope_one_half(function, num_draws):
    # f(z) - z / 2 is even for all four.
    extension = fit_fourier_extension(function, 6.0, num_draws, at_norms(1.0))
    assert extension.slope == pytest.approx(0.5, abs=1e-12)
    assert extension.coefficients[:, 1].abs().max() < 1e-12
    z = torch.linspace(0, 6, 50).double()
    assert (extension(z) - extension(-z) - z).abs().max() < 1e-12


def test_odd_functions_stay_odd():
    extension = fit_fourier_extension(torch.tanh, 6.0, 500, at_norms(1.0))
    assert extension.intercept == 0
    assert torch.equal(extension.coefficients[:, 0], torch.zeros(len(extension.counts)).double())


def test_affine_functions_are_exact():
    extension = fit_fourier_extension(lambda z: 3 * z - 2, 4.0, 7, at_norms(1.0))
    assert extension.slope == pytest.approx(3, abs=1e-13)
    assert extension.intercept == pytest.approx(-2, abs=1e-13)
    assert extension.error < 1e-12
    assert extension.coefficients.tolist() == [[0, 0]] and extension.counts.tolist() == [7]


def test_free_waves_find_a_band_limited_function():
    # omega_3 and omega_8 of the period 4 T = 24.
    waves = lambda z: 0.7 * torch.cos(math.pi / 4 * z) - 0.2 * torch.sin(2 * math.pi / 3 * z)
    extension = fit_fourier_extension(lambda z: waves(z) + 0.1 * z, 6.0, 1000, nearly_free)
    assert extension.error < 1e-4
    z = torch.linspace(-6, 6, 7).double()
    assert (extension(z) - waves(z) - 0.1 * z).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("function", "error"), [(F.gelu, 1e-3), (torch.tanh, 1e-3), (F.relu, 2e-2)]
)
def test_expansion_converges_where_waves_are_cheap(function, error):
    extension = fit_fourier_extension(function, 6.0, 10**6, lambda w: nearly_free(w) + w / 10)
    assert extension.error < error


@pytest.mark.parametrize("function", [F.gelu, F.relu, torch.tanh, torch.exp])
def test_more_draws_lower_both_errors(function):
    cost, last = at_norms(0.7), (math.inf, math.inf)
    for num_draws in (8, 64, 512, 4096, 32768):
        extension = fit_fourier_extension(function, 6.0, num_draws, cost)
        now = objective(extension, function, num_draws, cost)
        assert now[0] < last[0] and now[1] < last[1]
        last = now


def test_error_is_the_largest_on_the_domain():
    extension = fit_fourier_extension(F.gelu, 3.0, 64, at_norms(1.0))
    z = torch.linspace(-3, 3, 20001).double()
    error = (extension(z) - F.gelu(z)).abs().max()
    assert extension.error == pytest.approx(float(error), rel=1e-4)


def test_allocation_follows_the_cost():
    cost, num_draws = at_norms(0.5), 4096
    extension = fit_fourier_extension(F.gelu, 6.0, num_draws, cost)
    assert extension.counts.sum() == num_draws and extension.counts.min() >= 1
    ideal = cost(extension.frequencies).div(2).exp() * extension.coefficients.norm(dim=-1)
    ideal = ideal * num_draws / ideal.sum()
    large = extension.counts > 40
    assert (extension.counts[large] / ideal[large] - 1).abs().max() < 0.05
    # Costlier inputs afford fewer and lower frequencies.
    costly = fit_fourier_extension(F.gelu, 6.0, num_draws, at_norms(2.0))
    assert costly.frequencies.max() < extension.frequencies.max()


def test_unaffordable_waves_leave_the_affine_part():
    extension = fit_fourier_extension(F.relu, 6.0, 64, lambda w: torch.full_like(w, 600.0))
    assert extension.coefficients.abs().max() < 1e-100
    # Least squares on the interval: |z| / 2 by a constant.
    assert extension.intercept == pytest.approx(1.5, rel=1e-6)
    assert extension.error == pytest.approx(1.5, rel=1e-6)


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=70),
    total=st.integers(1, 500),
)
def test_whole_shares_add_up(shares, total):
    share = torch.tensor(shares, dtype=torch.float64)
    share = share / share.sum() if share.sum() > 1e-6 else torch.zeros_like(share)
    counts = _whole_shares(share, total)
    assert counts.sum() == total and (counts >= 0).all()
    assert torch.equal(counts, counts.round())
    worth_it = share * total >= 0.5
    assert ((counts == 0) | worth_it).all() or not worth_it.any()


def test_largest_remainders():
    share = torch.tensor([0.50, 0.26, 0.20, 0.04], dtype=torch.float64)
    assert _whole_shares(share, 10).tolist() == [5, 3, 2, 0]
    assert _whole_shares(share, 2).tolist() == [1, 1, 0, 0]
    assert _whole_shares(torch.zeros(3).double(), 5).tolist() == [5, 0, 0]


def test_a_function_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"activation: not finite everywhere on \[-6, 6\]"):
        fit_fourier_extension(torch.log, 6.0, 10, at_norms(1.0))
