import itertools

import pytest
import torch
from scipy.stats import chisquare

from mercer.linalg import volume_sampling

DRAWS = 2000


def _factor(n, p, seed=0):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _laws(a, k):
    """Probability of every subset of k rows, by enumeration."""
    subsets = list(itertools.combinations(range(len(a)), k))
    wide = k < a.shape[1]
    volumes = torch.stack(
        [
            torch.linalg.det(a[list(s)] @ a[list(s)].mT if wide else a[list(s)].mT @ a[list(s)])
            for s in subsets
        ]
    )
    return subsets, volumes.clamp_min(0.0) / volumes.clamp_min(0.0).sum()


def _draws(a, k, draws=DRAWS):
    source = torch.Generator().manual_seed(0)
    return [tuple(volume_sampling(a, size=k, generator=source).tolist()) for _ in range(draws)]


@pytest.mark.parametrize(("n", "p", "k"), [(6, 3, 2), (6, 3, 3), (6, 2, 4), (7, 2, 6), (4, 2, 4)])
def test_frequencies_equal_volumes(n, p, k):
    a = _factor(n, p)
    a[0] *= 3  # unlike the others
    subsets, laws = _laws(a, k)
    found = _draws(a, k, DRAWS if k < n else 5)
    counts = [found.count(s) for s in subsets]
    if len(subsets) == 1:
        assert counts == [5]
        return
    assert chisquare(counts, (laws * len(found)).tolist()).pvalue > 1e-4


def test_least_squares_is_unbiased():
    n, p, k = 8, 2, 4
    a, y = _factor(n, p), _factor(n, 1, seed=5).squeeze(1).exp()
    subsets, laws = _laws(a, k)
    solutions = torch.stack([torch.linalg.lstsq(a[list(s)], y[list(s)]).solution for s in subsets])
    exact = torch.linalg.lstsq(a, y).solution
    torch.testing.assert_close(laws @ solutions, exact)  # what the law promises, by enumeration
    place = {s: i for i, s in enumerate(subsets)}
    drawn = solutions[[place[s] for s in _draws(a, k)]]
    error = drawn.std(0) / DRAWS**0.5
    assert bool(((drawn.mean(0) - exact).abs() <= 4 * error).all())


def test_rank_deficient_and_ill_conditioned():
    a = _factor(6, 2)
    wide = torch.cat([a, a @ _factor(2, 2, seed=1)], 1)  # four columns, of rank two
    subsets, laws = _laws(a, 4)
    found = _draws(wide, 4, 2000)
    counts = [found.count(s) for s in subsets]
    assert chisquare(counts, (laws * 2000).tolist()).pvalue > 1e-4
    stretched = a * torch.tensor([1.0, 1e-9]).double()  # the law knows the span only
    assert _draws(stretched, 4, 50) == _draws(a, 4, 50)


def test_many_rows():
    # A row that alone holds a direction is always kept; the others are alike.
    n = 3000
    a = torch.cat([_factor(n, 8), torch.zeros(n, 1)], 1)
    a[17, 8] = 1.0
    for seed in range(3):
        rows = volume_sampling(a, size=40, generator=seed)
        assert len(rows) == 40 and bool((rows.diff() > 0).all()) and 17 in rows.tolist()


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    a = _factor(20, 3)
    one = volume_sampling(a.float(), size=6, generator=3)
    assert torch.equal(one, volume_sampling(a.float(), size=6, generator=3))


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "factor", {"factor": [[1.0]]}),
        (ValueError, "factor", {"factor": torch.zeros(4, 2)}),
        (ValueError, "factor.*NaN", {"factor": torch.full((4, 2), torch.nan)}),
        (ValueError, "factor", {"factor": torch.ones(4)}),
        (ValueError, "size", {"size": 5}),
        (ValueError, "size", {"size": 0}),
        (TypeError, "size", {"size": 2.0}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        volume_sampling(**{"factor": torch.eye(4, 2), "size": 2, **kwargs})
