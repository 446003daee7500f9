import itertools

import pytest
import torch
from scipy.stats import chisquare

from mercer.linalg import effective_dimension, ridge_leverage_scores, sample_dpp, sample_kdpp

DRAWS = 3000


def _psd(n, p, seed=0):
    a = torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT / p


def _minor(matrix, s):
    return float(torch.linalg.det(matrix[list(s)][:, list(s)])) if s else 1.0


def _subsets(n):
    return [s for k in range(n + 1) for s in itertools.combinations(range(n), k)]


def _counts(draw, n, draws=DRAWS):
    source = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(_subsets(n), 0)
    for _ in range(draws):
        counts[tuple(draw(source).tolist())] += 1
    return counts


def _chi_square(counts, laws):
    """Compare with probabilities; what is expected less than five times is put together."""
    total = sum(counts.values())
    seen, expected, rare = [], [], [0.0, 0.0]
    for s, p in laws.items():
        if p * total < 5:
            rare = [rare[0] + counts[s], rare[1] + p * total]
        else:
            seen.append(counts[s])
            expected.append(p * total)
    if rare[1] > 1e-6:
        seen.append(rare[0])
        expected.append(rare[1])
    else:
        assert rare[0] == 0
    return float(chisquare(seen, expected).pvalue)


@pytest.mark.paper(
    "machines-dpp-weighted-least-squares",
    kind="exact",
    claim="Frequencies of DPP draws are the determinants of all subsets (chi-square, enumeration).",
)
def test_ensemble_frequencies_equal_enumeration(evidence):
    matrix = 3 * _psd(5, 5)
    laws = {s: _minor(matrix, s) for s in _subsets(5)}
    total = float(torch.linalg.det(torch.eye(5) + matrix))
    assert sum(laws.values()) == pytest.approx(total, rel=1e-12)
    counts = _counts(lambda g: sample_dpp(matrix, generator=g), 5)
    p = _chi_square(counts, {s: law / total for s, law in laws.items()})
    evidence(required="p > 1e-4", measured=p, what="L-ensemble of 5 points, 32 subsets")
    assert p > 1e-4
    source = torch.Generator().manual_seed(1)
    big = 2 * _psd(10, 10)
    draws = torch.stack(
        [
            torch.zeros(10).index_fill(0, sample_dpp(big, generator=source), 1.0)
            for _ in range(DRAWS)
        ]
    )
    marginal = big @ torch.linalg.inv(torch.eye(10) + big)
    expected = marginal.diagonal()
    wrong = (
        (draws.double().mean(0) - expected) * (DRAWS / (expected * (1 - expected))).sqrt()
    ).abs()
    evidence(
        required="<= 4 standard errors",
        measured=float(wrong.max()),
        what="inclusion of 10 points",
    )
    assert float(wrong.max()) <= 4
    pairs = draws.double().mT @ draws.double() / DRAWS
    joint = expected.outer(expected) - marginal.square()
    joint.fill_diagonal_(0.5)
    pairs.fill_diagonal_(0.5)
    z = ((pairs - joint) * (DRAWS / (joint * (1 - joint))).sqrt()).abs()
    evidence(required="<= 4.5 standard errors", measured=float(z.max()), what="pairs of 10 points")
    assert float(z.max()) <= 4.5


def test_marginal_kernel_frequencies_equal_enumeration():
    q, _ = torch.linalg.qr(_psd(4, 4))
    kernel = (q * torch.tensor([1.0, 0.7, 0.4, 0.0]).double()) @ q.mT
    kernel = (kernel + kernel.mT) / 2
    # P(S) = |det(K - I_(complement of S))|
    laws = {}
    for s in _subsets(4):
        outside = torch.ones(4).double()
        outside[list(s)] = 0.0
        laws[s] = abs(float(torch.linalg.det(kernel - torch.diag(outside))))
    assert sum(laws.values()) == pytest.approx(1.0)
    counts = _counts(lambda g: sample_dpp(kernel, kind="marginal", generator=g), 4)
    assert counts[()] == 0  # an eigenvalue of one is always drawn
    assert _chi_square(counts, laws) > 1e-4


def test_factor_is_the_same_law():
    a = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    matrix = a @ a.mT
    total = float(torch.linalg.det(torch.eye(5) + matrix))
    laws = {s: max(_minor(matrix, s), 0.0) / total if len(s) < 3 else 0.0 for s in _subsets(5)}
    counts = _counts(lambda g: sample_dpp(factor=a, generator=g), 5, 2000)
    assert _chi_square(counts, laws) > 1e-4


def test_expected_size_is_the_effective_dimension_and_inclusion_the_leverage():
    matrix, ridge, draws = _psd(30, 30), 0.5, 600
    source = torch.Generator().manual_seed(0)
    sets = [sample_dpp(matrix / ridge, generator=source) for _ in range(draws)]
    sizes = torch.tensor([float(len(s)) for s in sets])
    scores = ridge_leverage_scores(matrix, ridge=ridge)
    dimension = effective_dimension(matrix, ridge=ridge)
    assert dimension == pytest.approx(float(scores.sum()))
    assert abs(float(sizes.mean()) - dimension) <= 4 * float(sizes.std()) / draws**0.5
    included = torch.bincount(torch.cat(sets), minlength=30) / draws
    z = (included - scores) * (draws / (scores * (1 - scores))).sqrt()
    assert float(z.abs().max()) <= 4.5


def test_given_its_size_it_is_a_kdpp():
    matrix = _psd(4, 4, seed=2)
    counts = _counts(lambda g: sample_dpp(matrix, generator=g), 4)
    pairs = list(itertools.combinations(range(4), 2))
    minors = [_minor(matrix, s) for s in pairs]
    ours = [counts[s] for s in pairs]
    expected = [sum(ours) * minor / sum(minors) for minor in minors]
    assert chisquare(ours, expected).pvalue > 1e-4
    by_size = _counts(lambda g: sample_kdpp(matrix, size=2, generator=g), 4, 1000)
    assert (
        chisquare(
            [by_size[s] for s in pairs], [1000 * minor / sum(minors) for minor in minors]
        ).pvalue
        > 1e-4
    )


def test_limits():
    assert sample_dpp(torch.zeros(4, 4), generator=0).tolist() == []
    assert sample_dpp(1e12 * torch.eye(4).double(), generator=0).tolist() == [0, 1, 2, 3]
    assert sample_dpp(torch.eye(4), kind="marginal", generator=0).tolist() == [0, 1, 2, 3]
    for seed in range(20):  # duplicates never come together
        assert len(sample_dpp(1e9 * torch.ones(6, 6).double(), generator=seed)) == 1


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    matrix = _psd(8, 8)
    a = sample_dpp(matrix, generator=7)
    assert torch.equal(a, sample_dpp(matrix, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "matrix, factor", {}),
        (TypeError, "matrix, factor", {"matrix": torch.eye(3), "factor": torch.eye(3)}),
        (ValueError, "matrix.*eigenvalues", {"matrix": 2 * torch.eye(3), "kind": "marginal"}),
        (ValueError, "factor.*eigenvalues", {"factor": 2 * torch.eye(3), "kind": "marginal"}),
        (ValueError, "matrix.*semi-definite", {"matrix": torch.ones(2, 2) - 2 * torch.eye(2)}),
        (ValueError, "kind", {"matrix": torch.eye(3), "kind": "other"}),
        (ValueError, "matrix.*NaN", {"matrix": torch.full((5, 5), torch.nan)}),
        (TypeError, "generator", {"matrix": torch.eye(5), "generator": "seed"}),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        sample_dpp(**kwargs)
