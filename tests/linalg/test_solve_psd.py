import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import conjugate_gradient, solve_psd


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), r=st.integers(1, 4), seed=st.integers(0, 1000))
def test_equals_lu(n, r, seed):
    a, b = _randn(n, n, seed=seed), _randn(n, r, seed=seed + 1)
    k = a @ a.mT
    found = solve_psd(k, b, ridge=0.5)
    system = k + 0.5 * torch.eye(n, dtype=torch.float64)
    assert torch.allclose(found.solution, torch.linalg.solve(system, b), atol=1e-10)
    assert found.jitter == 0.0 and found.iterations == 0 and found.converged
    left = (b - system @ found.solution).norm(dim=0) / b.norm(dim=0)
    assert torch.allclose(found.residual, left, atol=1e-13)


def test_agrees_with_conjugate_gradients_field_by_field():
    a, b = _randn(30, 40), _randn(30)
    k = a @ a.mT
    direct = solve_psd(k, b)
    iterative = conjugate_gradient(lambda v: k @ v, b, tolerance=1e-13)
    assert type(direct) is type(iterative)
    assert direct.solution.shape == iterative.solution.shape == (30,)
    assert direct.residual.shape == iterative.residual.shape == ()
    assert torch.allclose(direct.solution, iterative.solution, rtol=1e-7)


def test_jitter_only_where_it_is_needed_and_no_more():
    x = torch.linspace(0, 1, 200, dtype=torch.float64)
    k = torch.exp(-(x[:, None] - x).square() / 2)  # of numerical rank 13 or so
    b = k @ torch.sin(7 * x)
    found = solve_psd(k, b)
    assert 0 < found.jitter <= 1e-11
    assert found.converged and float(found.residual) <= 1e-9
    true = (b - k @ found.solution).norm() / b.norm()
    assert float(found.residual) == pytest.approx(float(true), rel=1e-3)
    assert solve_psd(k, b, ridge=1e-6).jitter == 0.0
    # Ten times less would not have gone through.
    below = k + found.jitter / 10 * torch.eye(200)
    factor, info = torch.linalg.cholesky_ex(below)
    assert int(info) or float(factor.diagonal().min()) ** 2 < 1e-14


def test_outside_the_range_of_a_singular_matrix_it_says_that_it_failed():
    found = solve_psd(torch.ones(3, 3).double(), torch.tensor([1.0, 0.0, -1.0]).double())
    assert not found.converged and float(found.residual) > 0.5


def test_points_of_very_different_scales_need_no_jitter():
    scale = torch.logspace(0, -9, 10, dtype=torch.float64)
    k = scale[:, None] * (torch.eye(10) + 0.5).double() * scale
    found = solve_psd(k, k.sum(-1))
    assert found.jitter == 0.0
    assert torch.allclose(found.solution, torch.ones(10).double(), atol=1e-6)


def test_zero_right_hand_side():
    found = solve_psd(torch.eye(3), torch.zeros(3, 2))
    assert torch.equal(found.residual, torch.zeros(2).double()) and found.converged


def test_float32_is_factorised_in_float64():
    a = _randn(50, 60)
    k, b = a @ a.mT, _randn(50)
    found = solve_psd(k.float(), b.float())
    assert found.solution.dtype == torch.float32 and found.converged
    exact = torch.linalg.solve(k.float().double(), b.float().double())
    assert torch.allclose(found.solution.double(), exact, rtol=1e-5, atol=1e-7)
    # Entries rounded to float32 make it indefinite; the jitter covers just that.
    x = torch.linspace(0, 1, 500)
    rbf = torch.exp(-(x[:, None] - x).square())
    assert 0 < solve_psd(rbf, rbf @ torch.ones(500)).jitter <= 10 * 500**0.5 * 2.0**-23


@pytest.mark.parametrize(
    ("error", "match", "matrix", "rhs", "ridge"),
    [
        (TypeError, "matrix", [[1.0]], torch.ones(1), 0.0),
        (ValueError, r"matrix: .*square.*\(2, 3\)", torch.ones(2, 3), torch.ones(2), 0.0),
        (ValueError, "matrix: .*symmetric", torch.ones(3, 3).triu(), torch.ones(3), 0.0),
        (ValueError, "matrix: .*NaN", torch.full((2, 2), math.nan), torch.ones(2), 0.0),
        (ValueError, "matrix: .*nonzero", torch.zeros(2, 2), torch.ones(2), 0.0),
        (
            ValueError,
            "matrix: .*semi-definite.*eigenvalue, ridge included, is -0.5",
            torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double(),
            torch.ones(2).double(),
            0.5,
        ),
        (TypeError, "rhs", torch.eye(2), [1.0, 1.0], 0.0),
        (ValueError, r"rhs: expected 2 rows.*\(2, 2\).*\(3,\)", torch.eye(2), torch.ones(3), 0.0),
        (ValueError, "ridge", torch.eye(2), torch.ones(2), -1.0),
    ],
)
def test_errors(error, match, matrix, rhs, ridge):
    with pytest.raises(error, match=match):
        solve_psd(matrix, rhs, ridge=ridge)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError),
    ):
        solve_psd(torch.eye(1000), torch.ones(1000))
