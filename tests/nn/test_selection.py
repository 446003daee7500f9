import itertools
import math

import pytest
import scipy.optimize
import scipy.stats
import torch

from mercer.linalg.approximate_leverage import ridge_of_dimension
from mercer.nn import select_neurons

METHODS = ["leverage", "dpp", "greedy"]


def activations(rows: int = 400, neurons: int = 12, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=source, dtype=torch.float64)
    w = torch.randn(5, neurons, generator=source, dtype=torch.float64)
    return torch.relu(x @ w)


def covariance(**options) -> torch.Tensor:
    h = activations(**options)
    return h.mT @ h / len(h)


def test_leverage_takes_the_largest_scores_at_that_ridge():
    c, m = covariance(), 5
    ridge = ridge_of_dimension(torch.linalg.eigvalsh(c), m, positive=False)
    scores = torch.linalg.solve(c + ridge * torch.eye(12).double(), c).diagonal()
    assert scores.sum().item() == pytest.approx(m, rel=1e-9)
    assert select_neurons(c, m).tolist() == sorted(scores.topk(m).indices.tolist())


def test_leverage_at_a_ridge_of_ones_own():
    c = covariance()
    # Far above the spectrum the scores are the diagonal.
    expected = sorted(c.diagonal().topk(4).indices.tolist())
    assert select_neurons(c, 4, ridge=1e9).tolist() == expected


def test_greedy_leaves_the_least_residual_at_each_step():
    c, m = covariance(), 5
    chosen: list[int] = []
    for _ in range(m):
        if chosen:
            part = c[:, chosen]
            residual = c - part @ torch.linalg.solve(c[chosen][:, chosen], part.mT)
        else:
            residual = c
        chosen.append(int(residual.diagonal().argmax()))
    assert select_neurons(c, m, method="greedy").tolist() == sorted(chosen)


def test_dpp_samples_by_the_determinant():
    c, draws = covariance(neurons=5), 2000
    source = torch.Generator().manual_seed(0)
    sets = list(itertools.combinations(range(5), 2))
    counts = dict.fromkeys(sets, 0)
    for _ in range(draws):
        counts[tuple(select_neurons(c, 2, method="dpp", generator=source).tolist())] += 1
    volumes = torch.stack([torch.linalg.det(c[list(s)][:, list(s)]) for s in sets])
    expected = draws * volumes / volumes.sum()
    observed = [counts[s] for s in sets]
    assert scipy.stats.chisquare(observed, expected.tolist()).pvalue > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_output_weight_scales_the_neurons(method):
    c, v = covariance(), torch.randn(7, 12, dtype=torch.float64)
    d = torch.diag(v.norm(dim=0))
    options = {"method": method, "generator": 3}
    weighed = select_neurons(c, 4, output_weight=v, **options)
    assert torch.equal(weighed, select_neurons(d @ c @ d, 4, **options))


def test_a_neuron_that_nobody_reads_is_not_chosen():
    v = torch.ones(3, 12)
    v[:, [0, 4, 11]] = 0
    for method in METHODS:
        chosen = select_neurons(covariance(), 9, method=method, output_weight=v, generator=0)
        assert chosen.tolist() == [1, 2, 3, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 6, 12])
def test_ascending_distinct_and_of_the_size_asked_for(method, size, global_state_unchanged):
    chosen = select_neurons(covariance(), size, method=method, generator=0)
    assert chosen.dtype == torch.int64 and chosen.shape == (size,)
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert torch.equal(chosen, select_neurons(covariance(), size, method=method, generator=0))


@pytest.mark.parametrize("method", METHODS)
def test_scale_does_not_matter(method):
    c = covariance()
    options = {"method": method, "generator": 1}
    assert torch.equal(select_neurons(c, 5, **options), select_neurons(2.0**40 * c, 5, **options))


@pytest.mark.parametrize("method", METHODS)
def test_more_than_the_rank(method):
    # Three inputs: rank three, and one dead neuron; the rest is filled up.
    h = activations(rows=3)
    h[:, 5] = 0
    chosen = select_neurons(h.mT @ h / 3, 8, method=method, generator=0)
    assert len(set(chosen.tolist())) == 8
    assert 5 not in chosen.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_choose_by(method):
    assert select_neurons(torch.zeros(6, 6), 4, method=method, generator=0).shape == (4,)


@pytest.mark.parametrize("method", ["dpp", "greedy"])
def test_twins_are_not_both_chosen(method):
    h = activations(neurons=6)
    twins = torch.cat([h, h], dim=1)
    chosen = select_neurons(twins.mT @ twins / len(h), 6, method=method, generator=0)
    assert sorted(i % 6 for i in chosen.tolist()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((torch.zeros(3, 4), 2), {}, ValueError, r"covariance: .*\(3, 4\)"),
        ((torch.eye(3) * math.nan, 2), {}, ValueError, "covariance"),
        ((-torch.eye(3), 2), {}, ValueError, "covariance"),
        (([[1.0]], 1), {}, TypeError, "covariance"),
        ((torch.eye(3), 0), {}, ValueError, "num_features"),
        ((torch.eye(3), 4), {}, ValueError, "num_features: expected at most the 3 neurons"),
        ((torch.eye(3), 2.0), {}, TypeError, "num_features"),
        ((torch.eye(3), 2), {"method": "magnitude"}, ValueError, "method"),
        ((torch.eye(3), 2), {"ridge": -1.0}, ValueError, "ridge"),
        ((torch.eye(3), 2), {"output_weight": torch.ones(2, 4)}, ValueError, r"output_weight.*3"),
        (
            (torch.eye(3), 2),
            {"output_weight": torch.full((2, 3), math.inf)},
            ValueError,
            "output_weight",
        ),
    ],
)
def test_refuses(arguments, options, error, match):
    with pytest.raises(error, match=match):
        select_neurons(*arguments, **options)
