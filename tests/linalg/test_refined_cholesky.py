import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import solve_psd, solve_refined
from mercer.linalg.blocked_cholesky import multiply, multiply_upper


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rbf(n, lengthscale=3.0, d=10, seed=0):
    x = _randn(n, d, seed=seed)
    return torch.exp(-torch.cdist(x, x).square() / (2 * lengthscale**2))


def _left(k, ridge, x, b):
    return (b - k @ x - ridge * x).norm(dim=0) / b.norm(dim=0)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 60), r=st.integers(1, 4), seed=st.integers(0, 1000))
def test_equals_the_direct_solution(n, r, seed):
    k, b = _rbf(n, seed=seed), _randn(n, r, seed=seed + 1)
    found = solve_refined(k, b, ridge=0.1)
    exact = torch.linalg.solve(k + 0.1 * torch.eye(n, dtype=torch.float64), b)
    assert found.converged and found.method == "float32"
    assert torch.allclose(found.solution, exact, atol=1e-10)
    one = solve_refined(k, b[:, 0], ridge=0.1)
    assert one.solution.shape == (n,) and one.residual.shape == ()
    assert torch.allclose(one.solution, exact[:, 0], atol=1e-10)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("ridge", "method", "most"),
    [(1.0, "float32", 2e-14), (1e-2, "float32", 1e-12), (1e-5, "float64", 5e-9)],
)
def test_reaches_what_float64_reaches(ridge, method, most, overwrite):
    # Two blocks of columns and a part, so that panels and blocks are taken in every way.
    k, b = _rbf(1100, 6.0 if method == "float32" else 30.0), _randn(1100, 2)
    found = solve_refined(k.clone(), b, ridge=ridge, overwrite=overwrite)
    plain = solve_psd(k, b, ridge=ridge)
    assert found.converged and found.method == method and found.jitter == 0.0
    assert bool((found.residual <= most).all())
    assert bool((_left(k, ridge, found.solution, b) <= 8 * plain.residual + 1e-14).all())
    # The fit, as the coefficients themselves are as uncertain as the matrix is badly conditioned.
    assert torch.allclose(k @ found.solution, k @ plain.solution, atol=1e-7)


def test_the_residual_is_below_that_of_a_plain_factorisation():
    k, b = _rbf(1500, 6.0), _randn(1500, 1)
    found, plain = solve_refined(k, b, ridge=1e-2), solve_psd(k, b, ridge=1e-2)
    assert float(found.residual) <= 0.7 * float(plain.residual)


def test_products_are_symmetric_and_accurate():
    k, v = _rbf(1100, 8.0), _randn(1100, 2)
    v = v - v.mean(0)  # so that terms cancel
    spoilt = k.triu(1) + 7.0 * torch.ones_like(k).tril()
    a, b = multiply(k, 0.3, v), multiply_upper(spoilt, k.diagonal() + 0.3, v)
    long = (k.numpy().astype("g") @ v.numpy().astype("g")).astype("d")  # 80 bits
    expected = torch.from_numpy(long) + 0.3 * v
    plain = float((k @ v + 0.3 * v - expected).norm())
    assert float((a - expected).norm()) <= 0.7 * plain
    assert float((b - expected).norm()) <= 2 * plain


def test_the_matrix_is_left_alone_unless_it_may_be_overwritten():
    k, b = _rbf(600, 30.0), _randn(600)
    before = k.clone()
    for ridge in (0.1, 1e-10):
        solve_refined(k, b, ridge=ridge)
        assert torch.equal(k, before)
    strided = torch.cat([before, before], -1)[:, :600]
    found = solve_refined(strided, b, ridge=1e-10, overwrite=True)
    assert torch.equal(strided, before) and found.method == "float64"


def test_singular_matrices_take_a_jitter_and_say_so():
    factor = _randn(700, 5)
    k, b = factor @ factor.mT, factor.sum(-1)
    for overwrite in (False, True):
        found = solve_refined(k.clone(), b, overwrite=overwrite)
        assert found.method == "float64"
        assert 0 < found.jitter <= 1e-6 * float(k.diagonal().mean())
        assert float(_left(k, 0.0, found.solution.unsqueeze(-1), b.unsqueeze(-1))) <= 1e-8


def test_scale_does_not_matter():
    # float32 alone would underflow or overflow here.
    k, b = _rbf(200), _randn(200)
    plain = solve_refined(k, b, ridge=0.1)
    for scale in (1e-30, 1e30):
        found = solve_refined(scale * k, b / scale, ridge=0.1 * scale)
        assert found.converged
        assert torch.allclose(scale**2 * found.solution, plain.solution, rtol=1e-9)
    huge = solve_refined(1e60 * k, b, ridge=1e59)
    assert huge.converged and huge.method == "float64"
    nothing = solve_refined(k, torch.zeros(200).double(), ridge=0.1)
    assert torch.equal(nothing.solution, torch.zeros(200).double()) and nothing.converged


def test_dtype_in_is_dtype_out():
    k, b = _rbf(300), _randn(300, 2)
    exact = solve_refined(k, b, ridge=0.5)
    low = solve_refined(k.float(), b.float(), ridge=0.5)
    assert low.solution.dtype == torch.float32 and low.residual.dtype == torch.float64
    assert low.converged and bool((low.residual <= 1e-5).all())
    assert torch.allclose(low.solution.double(), exact.solution, atol=1e-5)


def test_is_deterministic_and_draws_nothing(global_state_unchanged):
    k, b = _rbf(300), _randn(300)
    one, two = (solve_refined(k, b, ridge=1e-3) for _ in range(2))
    assert torch.equal(one.solution, two.solution)


K, B = torch.eye(3).double(), torch.ones(3).double()


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "matrix", ([[1.0]], torch.ones(1)), {}),
        (TypeError, "rhs", (K, [1.0]), {}),
        (ValueError, r"matrix: .*3 rows.*\(2, 2\)", (torch.eye(2), B), {}),
        (ValueError, "matrix: 1 of 9", (torch.diag(torch.tensor([1.0, math.nan, 1.0])), B), {}),
        (ValueError, "matrix: expected a symmetric", (K + torch.ones(3, 3).triu(1), B), {}),
        (ValueError, "matrix: .*diagonal entry", (-K, B), {}),
        (
            ValueError,
            "matrix: .*semi-definite.*row 1",
            (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), B[:2]),
            {},
        ),
        (ValueError, "matrix: expected a nonzero", (0 * K, B), {}),
        (ValueError, "ridge", (K, B), {"ridge": -1.0}),
        (ValueError, "tolerance", (K, B), {"tolerance": 0.0}),
        (TypeError, "overwrite", (K, B), {"overwrite": 1}),
        (ValueError, "rhs: 1 of 3", (K, torch.tensor([1.0, math.nan, 1.0])), {}),
    ],
)
def test_errors(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        solve_refined(*args, **kwargs)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="conjugate_gradient"),
    ):
        solve_refined(torch.eye(500), torch.ones(500))
