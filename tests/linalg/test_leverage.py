import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import effective_dimension, ridge_leverage_scores


def _factor(n, p, seed=0, decades=0.0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, p, generator=g, dtype=torch.float64)
    return a * torch.logspace(0, -decades, p, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 20),
    p=st.integers(1, 20),
    log_ridge=st.floats(-3, 3),
    seed=st.integers(0, 1000),
)
def test_definition_and_effective_dimension(n, p, log_ridge, seed):
    a, ridge = _factor(n, p, seed), 10.0**log_ridge
    k = a @ a.mT
    expected = torch.linalg.solve(k + ridge * torch.eye(n).double(), k).diagonal()
    from_matrix = ridge_leverage_scores(k, ridge=ridge)
    from_factor = ridge_leverage_scores(factor=a, ridge=ridge)
    assert torch.allclose(from_matrix, expected, rtol=1e-9, atol=1e-10)
    assert torch.allclose(from_factor, expected, rtol=1e-9, atol=1e-10)
    eigenvalues = torch.linalg.svdvals(a).square()
    dimension = float((eigenvalues / (eigenvalues + ridge)).sum())
    assert float(from_factor.sum()) == pytest.approx(dimension, rel=1e-10)
    assert effective_dimension(k, ridge=ridge) == pytest.approx(dimension, rel=1e-8)
    assert effective_dimension(factor=a, ridge=ridge) == pytest.approx(dimension, rel=1e-10)
    assert 0 <= float(from_factor.min()) <= float(from_factor.max()) <= 1


@pytest.mark.parametrize(("n", "p"), [(30, 7), (7, 30)])
def test_without_ridge_the_diagonal_of_the_projection(n, p):
    a = _factor(n, p)
    a[3] = 2 * a[1]  # rank deficient where n < p
    expected = (a @ torch.linalg.pinv(a, rtol=1e-10)).diagonal()
    assert torch.allclose(ridge_leverage_scores(factor=a, ridge=0), expected, atol=1e-11)
    assert torch.allclose(ridge_leverage_scores(a @ a.mT, ridge=0), expected, atol=1e-9)


def test_repeated_columns_and_zeros():
    a = _factor(20, 3).repeat(1, 2)
    scores = ridge_leverage_scores(factor=a, ridge=0)
    assert float(scores.sum()) == pytest.approx(3.0, abs=1e-12)
    zeros = torch.zeros(4, 4)
    assert torch.equal(ridge_leverage_scores(zeros, ridge=0), torch.zeros(4))
    assert torch.equal(ridge_leverage_scores(factor=zeros, ridge=1.0), torch.zeros(4))


def test_small_scores_keep_their_digits():
    # Orthogonal rows of norms 1 and 1e-9: scores 1/(1 + ridge) and 1e-18/(1e-18 + ridge).
    a = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert float(ridge_leverage_scores(factor=a, ridge=1.0)[1]) == pytest.approx(1e-18, rel=1e-12)


def test_ill_conditioned_factor():
    # K has eigenvalues over 20 decades, the factor over 10: the factor keeps them apart.
    a, ridge = _factor(40, 6, decades=10), 1e-18
    q = torch.linalg.qr(torch.cat([a, ridge**0.5 * torch.eye(6).double()])).Q
    expected = q[:40].square().sum(-1)
    assert torch.allclose(ridge_leverage_scores(factor=a, ridge=ridge), expected, atol=1e-6)


def test_dtype_in_is_dtype_out():
    a = _factor(10, 3).float()
    exact = ridge_leverage_scores(factor=a.double(), ridge=0.1)
    scores = ridge_leverage_scores(a @ a.mT, ridge=0.1)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores.double(), exact, atol=1e-5)
    assert float(ridge_leverage_scores(a @ a.mT, ridge=0).sum()) == pytest.approx(3.0, abs=1e-4)


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "matrix, factor.*neither", {}),
        (TypeError, "matrix, factor.*both", {"matrix": torch.eye(3), "factor": torch.eye(3)}),
        (ValueError, "matrix.*square", {"matrix": torch.ones(3, 2)}),
        (ValueError, "matrix.*square", {"matrix": torch.ones(0, 0)}),
        (ValueError, "matrix.*symmetric", {"matrix": torch.eye(3) + torch.ones(3, 3).triu(1)}),
        (ValueError, "matrix.*NaN", {"matrix": torch.full((3, 3), torch.nan)}),
        (ValueError, "matrix.*semi-definite", {"matrix": torch.eye(3) - torch.ones(3, 3) * 0.9}),
        (ValueError, "matrix.*diagonal", {"matrix": -torch.eye(3)}),
        (ValueError, "matrix", {"matrix": torch.ones(3)}),
        (TypeError, "matrix", {"matrix": torch.eye(3).long()}),
        (ValueError, "factor.*NaN", {"factor": torch.full((3, 3), torch.inf)}),
        (ValueError, "factor", {"factor": torch.ones(3, 0)}),
        (ValueError, "ridge", {"matrix": torch.eye(3), "ridge": -1e-3}),
        (TypeError, "ridge", {"matrix": torch.eye(3), "ridge": "gcv"}),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        ridge_leverage_scores(**{"ridge": 1.0, **kwargs})


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="factor"),
    ):
        ridge_leverage_scores(factor=torch.ones(1000, 10), ridge=1.0)


def test_effective_dimension_without_ridge_is_the_rank():
    assert effective_dimension(factor=_factor(9, 4), ridge=0) == 4.0
    assert effective_dimension(torch.zeros(5, 5), ridge=0.0) == 0.0


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "matrix, factor", {"ridge": 1.0}),
        (ValueError, "ridge", {"matrix": torch.eye(3), "ridge": -1.0}),
        (TypeError, "ridge", {"matrix": torch.eye(3), "ridge": None}),
        (
            ValueError,
            "semi-definite",
            {"matrix": torch.ones(2, 2) - 2 * torch.eye(2), "ridge": 1.0},
        ),
    ],
)
def test_errors_of_the_effective_dimension(error, match, kwargs):
    with pytest.raises(error, match=match):
        effective_dimension(**kwargs)
