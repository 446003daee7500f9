import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.linalg import ResidualKernel, pivoted_cholesky, ridge_leverage_scores

ALL = torch.arange(40)
X = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = torch.exp(-8 * torch.cdist(X, X).square())


def _entries(i, j):
    return K[i][:, j]


def _diagonal(i):
    return K.diagonal()[i]


def _naive(items, weights, ridge):
    system = K[items][:, items] + ridge * torch.diag(torch.tensor(weights, dtype=torch.float64))
    return K - K[:, items] @ torch.linalg.solve(system, K[items])


@settings(max_examples=20, deadline=None)
@given(
    items=st.lists(st.integers(0, 39), unique=True, min_size=2, max_size=20),
    cut=st.integers(0, 20),
    seed=st.integers(0, 1000),
    ridge=st.floats(1e-4, 1.0),
)
def test_is_its_definition_while_items_join_and_leave(items, cut, seed, ridge):
    source = torch.Generator().manual_seed(seed)
    p = 0.05 + 0.95 * torch.rand(len(items), generator=source, dtype=torch.float64)
    cut = min(cut, len(items))
    kept = ResidualKernel(_entries, _diagonal, ridge=ridge)
    kept.append(torch.tensor(items[:cut], dtype=torch.long), p[:cut])
    kept.append(torch.tensor(items[cut:], dtype=torch.long), p[cut:])
    expected = _naive(items, p.tolist(), ridge)
    assert torch.allclose(kept.covariance(ALL), expected, atol=1e-10)
    assert torch.allclose(kept.covariance(ALL[:3], ALL[5:]), expected[:3, 5:], atol=1e-10)
    assert torch.allclose(kept.variance(ALL), expected.diagonal(), atol=1e-10)
    kept.remove([0])
    assert kept.items.tolist() == items[1:] and torch.equal(kept.probabilities, p[1:])
    expected = _naive(items[1:], p[1:].tolist(), ridge)
    assert torch.allclose(kept.variance(ALL), expected.diagonal(), atol=1e-9)
    kept.reweight(p[1:] / 2)
    expected = _naive(items[1:], (p[1:] / 2).tolist(), ridge)
    assert torch.allclose(kept.variance(ALL), expected.diagonal(), atol=1e-9)


def test_all_points_give_the_leverage_scores():
    kept = ResidualKernel(_entries, _diagonal, ridge=0.3).append(ALL)
    scores = kept.variance(ALL) / 0.3
    assert torch.allclose(scores, ridge_leverage_scores(K, ridge=0.3), atol=1e-12)


def test_without_a_ridge_it_is_what_a_pivoted_cholesky_leaves():
    found = pivoted_cholesky(K, rank=10)
    kept = ResidualKernel(_entries, _diagonal, ridge=0.0).append(found.pivots)
    assert torch.allclose(kept.variance(ALL), found.residual_diagonal, atol=1e-10)
    with pytest.raises(ValueError, match="add a ridge"):
        kept.append(found.pivots[:1])
    assert len(kept) == 10


def test_points_may_be_the_items_themselves():
    kept = ResidualKernel(
        lambda a, b: torch.exp(-8 * torch.cdist(a, b).square()),
        lambda a: a.new_ones(len(a)),
        ridge=0.1,
        capacity=8,
    )
    kept.append(X[:6]).append(X[6:7])
    index = ResidualKernel(_entries, _diagonal, ridge=0.1).append(ALL[:7])
    assert torch.equal(kept.items, X[:7])
    assert torch.allclose(kept.variance(X), index.variance(ALL), atol=1e-12)
    assert kept.factor.logdet() == pytest.approx(index.factor.logdet(), abs=1e-12)


def test_empty_dictionary_leaves_the_kernel():
    kept = ResidualKernel(_entries, _diagonal, ridge=0.1)
    assert torch.equal(kept.variance(ALL), K.diagonal()) and torch.equal(kept.covariance(ALL), K)
    assert len(kept) == 0 and len(kept.items) == 0 and kept.factor.logdet() == 0.0
    kept.append(ALL[:2]).remove([0, 1])
    assert torch.equal(kept.variance(ALL), K.diagonal())
    assert repr(kept.append(ALL[:3])) == "ResidualKernel(points=3, ridge=0.1)"
    assert kept.variance(ALL[:0]).shape == (0,)


def test_float32_comes_back_as_float32():
    low = K.float()
    kept = ResidualKernel(lambda i, j: low[i][:, j], lambda i: low.diagonal()[i], ridge=0.1)
    found = kept.append(ALL[:7]).variance(ALL)
    expected = ResidualKernel(_entries, _diagonal, ridge=0.1).append(ALL[:7]).variance(ALL)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)


def _made(**changes):
    return ResidualKernel(**{"entries": _entries, "diagonal": _diagonal, "ridge": 0.1, **changes})


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "entries", lambda: _made(entries=K)),
        (TypeError, "diagonal", lambda: _made(diagonal=K.diagonal())),
        (ValueError, "ridge", lambda: _made(ridge=-1.0)),
        (ValueError, "capacity", lambda: _made(capacity=-1)),
        (TypeError, "items", lambda: _made().append([1, 2])),
        (TypeError, "items", lambda: _made().append(torch.tensor(1))),
        (ValueError, "probabilities", lambda: _made().append(ALL[:2], torch.tensor([0.5, 0.0]))),
        (ValueError, "probabilities", lambda: _made().append(ALL[:2], torch.tensor([0.5]))),
        (ValueError, "probabilities", lambda: _made().append(ALL[:1], torch.tensor([math.nan]))),
        (ValueError, "positions", lambda: _made().append(ALL[:2]).remove(2)),
        (ValueError, "probabilities", lambda: _made().append(ALL[:2]).reweight(torch.ones(3))),
        (
            ValueError,
            r"entries: expected shape \(2, 2\)",
            lambda: _made(entries=lambda i, j: K[i]).append(ALL[:2]),
        ),
        (
            ValueError,
            r"diagonal: expected shape \(40,\)",
            lambda: _made(diagonal=lambda i: K[i]).variance(ALL),
        ),
        (
            ValueError,
            "entries: 4 of 4",
            lambda: _made(entries=lambda i, j: _entries(i, j) * math.nan).append(ALL[:2]),
        ),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
