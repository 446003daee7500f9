import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg.lapack import dpstrf

import mercer
from mercer.linalg import pivoted_cholesky


def _psd(n, p, seed=0):
    a = torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT


def _rbf(n, lengthscale=0.1):
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    return torch.exp(-(x[:, None] - x).square() / (2 * lengthscale**2))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 15), p=st.integers(1, 15), seed=st.integers(0, 1000))
def test_full_rank_factor_is_exact(n, p, seed):
    k = _psd(n, p, seed)
    found = pivoted_cholesky(k, rank=n)
    assert torch.allclose(found.factor @ found.factor.mT, k, atol=1e-10)
    assert found.exhausted
    assert len(found.pivots) == min(n, p)
    assert found.trace_error <= 1e-10


def test_equals_lapack():
    k = _psd(20, 20)
    lapack, pivots, _, info = dpstrf(k.numpy(), lower=1)
    found = pivoted_cholesky(k, rank=8)
    assert info == 0
    assert found.pivots.tolist() == (pivots[:8] - 1).tolist()
    expected = torch.from_numpy(lapack).tril()[:, :8]
    assert torch.allclose(found.factor[pivots - 1], expected, atol=1e-12)


def test_residual_is_the_schur_complement():
    k = _psd(25, 12)
    found = pivoted_cholesky(k, rank=5)
    s = found.pivots
    schur = k - k[:, s] @ torch.linalg.solve(k[s][:, s], k[s])
    assert torch.allclose(k - found.factor @ found.factor.mT, schur, atol=1e-11)
    assert torch.allclose(found.residual_diagonal, schur.diagonal(), atol=1e-11)
    assert found.trace_error == pytest.approx(float(schur.trace()), rel=1e-11)
    assert torch.equal(found.residual_diagonal[s], torch.zeros(5).double())
    assert not found.exhausted


def test_callable_equals_matrix_and_sees_the_pivots_only():
    k, asked = _rbf(200), []

    def columns(idx):
        asked.extend(idx.tolist())
        return k[:, idx]

    found = pivoted_cholesky(columns, torch.ones(200).double(), rank=9)
    same = pivoted_cholesky(k, rank=9)
    assert asked == found.pivots.tolist() == same.pivots.tolist()
    assert torch.equal(found.factor, same.factor)


def test_stops_at_the_tolerance():
    k = _rbf(300)
    found = pivoted_cholesky(k, rank=300, tolerance=1e-3)
    assert found.exhausted
    assert found.trace_error <= 1e-3 * 300
    shorter = pivoted_cholesky(k, rank=len(found.pivots) - 1)
    assert shorter.trace_error > 1e-3 * 300


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_stops_at_the_numerical_rank(dtype):
    found = pivoted_cholesky(_psd(50, 6).to(dtype), rank=50)
    assert found.exhausted
    assert len(found.pivots) == 6
    assert found.factor.dtype == found.residual_diagonal.dtype == dtype
    zero = pivoted_cholesky(torch.zeros(4, 4), rank=2)
    assert zero.exhausted
    assert zero.factor.shape == (4, 0)


def test_ill_conditioned_residuals_stay_non_negative():
    k = _rbf(400, lengthscale=0.5)
    found = pivoted_cholesky(k, rank=400)
    assert len(found.pivots) < 40
    assert float(found.residual_diagonal.min()) >= 0.0
    assert float((k - found.factor @ found.factor.mT).abs().max()) <= 400 * 2.3e-16 * 10


def _not_psd(idx):
    return torch.full((3, len(idx)), 2.0)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "columns", ([[1.0]],), {"rank": 1}),
        (TypeError, "diagonal", (_not_psd,), {"rank": 1}),
        (ValueError, "diagonal", (_not_psd, -torch.ones(3)), {"rank": 1}),
        (ValueError, "diagonal", (_not_psd, torch.ones(0)), {"rank": 1}),
        (ValueError, "diagonal", (_not_psd, torch.full((3,), torch.nan)), {"rank": 1}),
        (ValueError, "columns.*semi-definite", (_not_psd, torch.ones(3)), {"rank": 2}),
        (ValueError, "columns.*shape", (lambda idx: torch.ones(3), torch.ones(3)), {"rank": 1}),
        (
            ValueError,
            "columns.*NaN",
            (lambda idx: torch.full((3, 1), torch.nan), torch.ones(3)),
            {"rank": 1},
        ),
        (ValueError, "columns.*square", (torch.ones(3, 2),), {"rank": 1}),
        (ValueError, "columns.*symmetric", (torch.ones(3, 3).triu(),), {"rank": 1}),
        (ValueError, "rank", (torch.eye(3),), {"rank": 0}),
        (ValueError, "rank", (torch.eye(3),), {"rank": 4}),
        (TypeError, "rank", (torch.eye(3),), {"rank": 1.0}),
        (ValueError, "tolerance", (torch.eye(3),), {"rank": 1, "tolerance": -1.0}),
    ],
)
def test_errors(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        pivoted_cholesky(*args, **kwargs)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="smaller rank"),
    ):
        pivoted_cholesky(lambda idx: torch.ones(1000, 1), torch.ones(1000), rank=100)
