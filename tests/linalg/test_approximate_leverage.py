import math

import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import approximate_leverage_scores, ridge_leverage_scores
from mercer.linalg.approximate_leverage import (
    inclusion_probabilities,
    ridge_of_dimension,
    systematic_sample,
)


def _clustered(n, share, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=source, dtype=torch.float64)
    x[: int(share * n)] *= 0.02
    return x


def _rbf(x, gamma=0.5):
    return torch.exp(-gamma * torch.cdist(x, x).square())


def _estimate(k, **kwargs):
    return approximate_leverage_scores(lambda i, j: k[i][:, j], k.diagonal(), **kwargs)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 30), seed=st.integers(0, 1000), ridge=st.floats(1e-3, 10.0))
def test_exact_where_all_points_are_landmarks(n, seed, ridge):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = _rbf(x)
    found = _estimate(k, num_landmarks=n, ridge=ridge, generator=seed)
    assert torch.allclose(found.scores, ridge_leverage_scores(k, ridge=ridge), atol=1e-10)
    assert torch.equal(found.probabilities, torch.ones(n).double())


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="exact",
    claim="With every point in the dictionary the estimator returns the leverage scores.",
)
def test_limit_of_all_points(evidence):
    k = _rbf(_clustered(400, 0.5))
    found = _estimate(k, num_landmarks=400, ridge=2.0, generator=0)
    error = float((found.scores - ridge_leverage_scores(k, ridge=2.0)).abs().max())
    evidence(required="<= 1e-8", measured=error)
    assert error <= 1e-8


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="Estimates from a dictionary are within a factor of the exact scores, not "
    "one-sided, and closer with more landmarks (0.66 to 1.5 was seen at 12 d_eff).",
)
def test_near_the_exact_scores(evidence, share):
    n, ridge = 1500, 1.0
    k = _rbf(_clustered(n, share))
    exact = ridge_leverage_scores(k, ridge=ridge)
    for times, low, high in ((3, 0.3, 10.0), (12, 0.6, 2.2)):
        count = round(times * float(exact.sum()))
        ratios = torch.cat(
            [
                _estimate(k, num_landmarks=count, ridge=ridge, generator=seed).scores / exact
                for seed in range(5)
            ]
        )
        middle = [float(ratios.quantile(q)) for q in (0.005, 0.995)]
        evidence(
            required=f"99 % in [{low}, {high}]",
            measured=f"[{middle[0]:.2f}, {middle[1]:.2f}]",
            what=f"{times} landmarks an effective dimension",
        )
        assert low <= middle[0] and middle[1] <= high


def test_asks_for_few_columns():
    n, s, most = 5000, 60, 0
    x, asked = _clustered(n, 0.5), 0

    def entries(i, j):
        nonlocal asked, most
        asked += len(i) * len(j)
        most = max(most, len(j))
        return torch.exp(-0.5 * torch.cdist(x[i], x[j]).square())

    found = approximate_leverage_scores(
        entries, torch.ones(n).double(), num_landmarks=s, ridge=1.0, generator=0
    )
    assert most <= s and len(found.landmarks) <= s
    assert asked <= 3.2 * n * s  # n s for the scores, twice that on the way
    assert asked <= n * n / 25


def test_isolated_points_stand_out():
    x = torch.cat([0.01 * torch.randn(3000, 1).double(), torch.tensor([[50.0], [99.0]]).double()])
    found = approximate_leverage_scores(
        lambda i, j: torch.exp(-(x[i] - x[j].mT).square()),
        torch.ones(3002).double(),
        num_landmarks=30,
        ridge=1.0,
        generator=0,
    )
    # Alone, a point has k / (k + ridge) = 1 / 2.
    assert torch.allclose(found.scores[-2:], torch.full((2,), 0.5).double(), atol=1e-6)
    assert float(found.scores[:-2].max()) < 0.01
    assert {3000, 3001} <= set(found.landmarks.tolist())


def test_ridge_left_to_the_library():
    k = _rbf(_clustered(1000, 0.3))
    found = _estimate(k, num_landmarks=120, generator=0)
    dimension = float(ridge_leverage_scores(k, ridge=found.ridge).sum())
    assert 30 / 1.3 <= dimension <= 30 * 1.3


@pytest.mark.parametrize("share", [0.0, 0.95])
def test_as_many_landmarks_as_the_data_ask_for(share):
    k = _rbf(_clustered(2000, share))
    exact = ridge_leverage_scores(k, ridge=1.0)
    dimension = float(exact.sum())
    found = _estimate(k, oversampling=10.0, ridge=1.0, generator=0)
    assert len(found.landmarks) == pytest.approx(max(10 * dimension, 64), rel=0.35)
    assert found.effective_dimension == pytest.approx(float(found.scores.sum()))
    assert found.effective_dimension == pytest.approx(dimension, rel=0.25)
    ratio = found.scores / exact
    assert float(ratio.quantile(0.005)) >= 0.5 and float(ratio.quantile(0.995)) <= 2.5
    few = _estimate(k[:40, :40], oversampling=1.0, ridge=1.0, generator=0)  # all are landmarks
    torch.testing.assert_close(few.scores, ridge_leverage_scores(k[:40, :40], ridge=1.0))


def test_low_rank_and_zero_matrices():
    a = torch.randn(300, 3, dtype=torch.float64)
    k = a @ a.mT
    found = _estimate(k, num_landmarks=20, generator=0)
    assert bool(torch.isfinite(found.scores).all())
    exact = ridge_leverage_scores(k, ridge=1e-3)
    found = _estimate(k, num_landmarks=60, ridge=1e-3, generator=0)
    assert float(found.scores.sum()) == pytest.approx(float(exact.sum()), rel=0.5)
    nothing = _estimate(torch.zeros(9, 9), num_landmarks=4, ridge=0.1, generator=0)
    assert torch.equal(nothing.scores, torch.zeros(9))


def test_draws_come_from_the_generator(global_state_unchanged):
    k = _rbf(_clustered(300, 0.5))
    one, two, other = (_estimate(k, num_landmarks=20, generator=seed) for seed in (0, 0, 1))
    assert torch.equal(one.scores, two.scores)
    assert not torch.equal(one.scores, other.scores)


def test_float32():
    k = _rbf(_clustered(500, 0.5))
    found = _estimate(k.float(), num_landmarks=200, ridge=1.0, generator=0)
    assert found.scores.dtype == torch.float32
    double = _estimate(k, num_landmarks=200, ridge=1.0, generator=0)
    assert torch.allclose(found.scores.double(), double.scores, rtol=0.5, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda s: max(s) > 0),
    size=st.integers(1, 30),
)
def test_probabilities_add_up(scores, size):
    size = min(size, len(scores))
    values = torch.tensor(scores, dtype=torch.float64)
    p = inclusion_probabilities(values, size)
    assert float(p.sum()) == pytest.approx(size, rel=1e-9)
    assert bool(((p >= 0) & (p <= 1)).all())
    free = (p < 1) & (values > 1e-9)
    factors = p[free] / values[free]
    assert torch.allclose(factors, factors.mean().expand_as(factors)) or not len(factors)


def test_systematic_draws_have_their_probabilities():
    p = torch.tensor([1.0, 0.5, 0.25, 0.25, 0.9, 0.1], dtype=torch.float64)
    source, draws = torch.Generator().manual_seed(0), 4000
    counts = torch.zeros(6)
    for _ in range(draws):
        found = systematic_sample(p, source)
        assert len(found) == 3
        counts[found] += 1
    error = (p * (1 - p) / draws).sqrt()
    assert bool(((counts / draws - p).abs() <= 4 * error + 1e-12).all())


GOOD = {"entries": lambda i, j: torch.eye(5)[i][:, j], "diagonal": torch.ones(5)}


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "entries: expected a callable", {"entries": torch.eye(5)}),
        (ValueError, r"entries: .*\(2, 2\).*\(3,\)", {"entries": lambda i, j: torch.ones(3)}),
        (ValueError, "entries: 4 of 4", {"entries": lambda i, j: torch.full((2, 2), math.nan)}),
        (TypeError, "diagonal", {"diagonal": [1.0]}),
        (ValueError, "diagonal: .*1 below zero", {"diagonal": torch.tensor([1.0, -1.0])}),
        (ValueError, "diagonal: 1 of 2", {"diagonal": torch.tensor([1.0, math.inf])}),
        (ValueError, "num_landmarks: expected at most the 5 points, got 6", {"num_landmarks": 6}),
        (ValueError, "num_landmarks", {"num_landmarks": 0}),
        (TypeError, "num_landmarks", {"num_landmarks": 2.0}),
        (TypeError, "num_landmarks, oversampling: .*neither", {"num_landmarks": None}),
        (TypeError, "num_landmarks, oversampling: .*both", {"oversampling": 2.0}),
        (ValueError, "oversampling", {"num_landmarks": None, "oversampling": 0.0}),
        (TypeError, "ridge", {"num_landmarks": None, "oversampling": 2.0, "ridge": None}),
        (ValueError, "ridge", {"ridge": 0.0}),
        (TypeError, "generator", {"generator": "0"}),
        (ValueError, "semi-definite", {"entries": lambda i, j: 1.0 - 2.0 * (i[:, None] == j)}),
    ],
)
def test_errors(error, match, changes):
    arguments = {**GOOD, "num_landmarks": 2, "ridge": 0.1, "generator": 0, **changes}
    with pytest.raises(error, match=match):
        approximate_leverage_scores(**arguments)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="fewer landmarks"),
    ):
        approximate_leverage_scores(
            lambda i, j: torch.ones(len(i), len(j)), torch.ones(1000), num_landmarks=500
        )


@pytest.mark.parametrize("dimension", [1, 3, 7.5, 11])
def test_ridge_of_dimension_against_scipy(dimension):
    values = torch.linspace(0.1, 4, 12, dtype=torch.float64).square()
    expected = scipy.optimize.brentq(
        lambda r: float((values / (values + r)).sum()) - dimension, 1e-12, 1e6, xtol=1e-14
    )
    for positive in (False, True):
        found = ridge_of_dimension(values, dimension, positive=positive)
        assert found == pytest.approx(expected, rel=1e-9)


def test_ridge_of_dimension_within_the_rank():
    values = torch.tensor([2.0, 1.0, 0.0, 1e-30])
    assert ridge_of_dimension(values, 2, positive=False) == 0
    assert 0 < ridge_of_dimension(values, 2) <= 4 * 2 * torch.finfo(torch.float32).eps
    assert ridge_of_dimension(torch.zeros(3), 1, positive=False) == 0
    assert ridge_of_dimension(torch.zeros(3), 1) == 1.0


def test_ridge_of_dimension_spans_twelve_decades():
    values = torch.logspace(-12, 0, 50, dtype=torch.float64)
    ridge = ridge_of_dimension(values, 45)
    assert float((values / (values + ridge)).sum()) == pytest.approx(45, abs=1e-9)
