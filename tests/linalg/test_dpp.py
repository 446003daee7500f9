import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from mercer.linalg import projection_dpp, sample_kdpp
from mercer.linalg.dpp import _choose_eigenvectors, _log_symmetric_polynomials, project

DRAWS = 20_000


def _psd(n, p, seed=0):
    a = torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT


def _orthonormal(n, k, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=g, dtype=torch.float64))[0]


def _minors(matrix, k):
    """Determinants of all principal minors of size k, by subset."""
    return {
        s: float(torch.linalg.det(matrix[list(s)][:, list(s)]))
        for s in itertools.combinations(range(len(matrix)), k)
    }


def _chi_square(samples, minors):
    counts = dict.fromkeys(minors, 0)
    for s in samples.tolist():
        counts[tuple(s)] += 1
    total = sum(minors.values())
    expected = [len(samples) * minor / total for minor in minors.values()]
    return chisquare(list(counts.values()), expected).pvalue


def _draw_many(eigenvalues, vectors, size, draws, generator):
    """The steps of sample_kdpp on a whole batch of draws."""
    chosen = _choose_eigenvectors(eigenvalues.log(), size, draws, generator)
    return project(vectors[:, chosen].movedim(1, 0), generator)


def test_kdpp_frequencies_equal_determinants():
    matrix = _psd(6, 6)
    samples = _draw_many(*torch.linalg.eigh(matrix), 3, DRAWS, torch.Generator().manual_seed(0))
    assert samples.shape == (DRAWS, 3)
    assert _chi_square(samples, _minors(matrix, 3)) > 1e-4


def test_sample_kdpp_is_one_draw_of_the_batch():
    matrix = _psd(9, 9)
    spectrum = torch.linalg.eigh(matrix)
    for seed in range(20):
        batch = _draw_many(*spectrum, 4, 1, torch.Generator().manual_seed(seed))
        assert torch.equal(sample_kdpp(matrix, size=4, generator=seed), batch[0])


def test_factor_frequencies_equal_determinants():
    a = torch.randn(5, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    samples = torch.stack([sample_kdpp(factor=a, size=2, generator=generator) for _ in range(2000)])
    assert _chi_square(samples, _minors(a @ a.mT, 2)) > 1e-4


def test_projection_frequencies_and_inclusion_probabilities():
    basis = _orthonormal(6, 3)
    samples = projection_dpp(basis.expand(DRAWS, 6, 3), generator=0)
    assert _chi_square(samples, _minors(basis @ basis.mT, 3)) > 1e-4
    inclusion = torch.nn.functional.one_hot(samples, 6).sum(1).double().mean(0)
    expected = basis.square().sum(-1)
    error = (expected * (1 - expected) / DRAWS).sqrt()
    assert bool(((inclusion - expected).abs() <= 4 * error).all())


def test_projection_leading_axes():
    basis = torch.stack([_orthonormal(10, 4, seed) for seed in range(6)]).view(2, 3, 10, 4)
    points = projection_dpp(basis.float(), generator=0)
    assert points.shape == (2, 3, 4)
    assert bool((points.diff(dim=-1) > 0).all())


@pytest.mark.parametrize("decades", [0.0, 12.0])
def test_symmetric_polynomials_equal_brute_force(decades):
    values = torch.rand(8, dtype=torch.float64) * torch.logspace(0, -decades, 8).double()
    table = _log_symmetric_polynomials(values.log(), 5)
    assert table.shape == (9, 6)
    for j in range(9):
        for size in range(6):
            subsets = itertools.combinations(values[:j].tolist(), size)
            brute = math.fsum(math.prod(s) for s in subsets)
            assert math.exp(table[j, size]) == pytest.approx(brute, rel=1e-12)


def test_symmetric_polynomials_of_a_geometric_sequence_are_gaussian_binomials():
    # e_k(1, q, ..., q^(n-1)) = q^(k(k-1)/2) [n choose k]_q, here over twelve decades.
    n, k = 1536, 768
    log_q = -12 * math.log(10) / (n - 1)
    table = _log_symmetric_polynomials(log_q * torch.arange(n, dtype=torch.float64), k)
    expected = log_q * k * (k - 1) / 2 + sum(
        math.log(math.expm1(log_q * (n - i)) / math.expm1(log_q * (i + 1))) for i in range(k)
    )
    assert float(table[-1, -1]) == pytest.approx(expected, rel=1e-12)


def test_large_and_ill_conditioned():
    # Each of 768 points comes twice, so that a draw of 768 has exactly one of each pair.
    k = 768
    vectors = _orthonormal(k, k)
    half = (vectors * torch.logspace(0, -11, k, dtype=torch.float64)) @ vectors.mT
    matrix = ((half + half.mT) / 2).repeat(2, 2)  # (1536, 1536)
    points = sample_kdpp(matrix, size=k, generator=0)
    assert points.dtype == torch.long
    assert (points % k).sort().values.tolist() == list(range(k))
    assert 300 < int((points < k).sum()) < 468  # which of the two is a fair coin


def test_a_factor_of_any_condition_has_the_law_of_its_span():
    # With as many points as columns only the span matters: det(A_S) = det(Q_S) det(R). The
    # eigenvalues of A A^T are 24 decades apart, which no n x n matrix could hold.
    basis = _orthonormal(6, 3)
    mix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1e-6, 3e-7], [0.0, 0.0, 1e-12]]).double()
    generator = torch.Generator().manual_seed(0)
    samples = torch.stack(
        [sample_kdpp(factor=basis @ mix, size=3, generator=generator) for _ in range(2000)]
    )
    assert _chi_square(samples, _minors(basis @ basis.mT, 3)) > 1e-4


def test_marginals_of_ten_points_by_enumeration():
    matrix = _psd(10, 10)
    minors = _minors(matrix, 4)
    total = sum(minors.values())
    law = [sum(p for s, p in minors.items() if i in s) / total for i in range(10)]
    samples = _draw_many(*torch.linalg.eigh(matrix), 4, DRAWS, torch.Generator().manual_seed(0))
    share = torch.bincount(samples.flatten(), minlength=10) / DRAWS
    for i in range(10):
        assert abs(float(share[i]) - law[i]) <= 4 * (law[i] * (1 - law[i]) / DRAWS) ** 0.5
    assert _chi_square(samples, minors) > 1e-4


def test_all_points_and_degenerate_spectra():
    assert sample_kdpp(torch.eye(5), size=5, generator=0).tolist() == [0, 1, 2, 3, 4]
    samples = _draw_many(*torch.linalg.eigh(torch.eye(5).double()), 2, DRAWS, None)
    assert _chi_square(samples, _minors(torch.eye(5), 2)) > 1e-4  # uniform
    blocks = torch.block_diag(torch.ones(4, 4), torch.ones(3, 3))
    for seed in range(20):  # one point of each block of duplicates
        first, second = sample_kdpp(blocks, size=2, generator=seed).tolist()
        assert first < 4 <= second


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    matrix = _psd(8, 8)
    a = sample_kdpp(matrix, size=3, generator=7)
    b = sample_kdpp(matrix, size=3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(a, b)


def test_without_generator_the_global_seed_decides():
    matrix = _psd(30, 30)
    torch.manual_seed(5)
    a = sample_kdpp(matrix, size=10)
    torch.manual_seed(5)
    assert torch.equal(sample_kdpp(matrix, size=10), a)
    assert not torch.equal(sample_kdpp(matrix, size=10), a)


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "matrix, factor", {}),
        (TypeError, "matrix, factor", {"matrix": torch.eye(3), "factor": torch.eye(3)}),
        (ValueError, "numerical rank 2 of the factor, got 3", {"factor": torch.rand(5, 2)}),
        (ValueError, "numerical rank 1 of the matrix, got 3", {"matrix": torch.ones(5, 5)}),
        (ValueError, "numerical rank 0", {"matrix": torch.zeros(5, 5)}),
        (ValueError, "matrix.*symmetric", {"matrix": torch.ones(5, 5).triu()}),
        (ValueError, "matrix.*NaN", {"matrix": torch.full((5, 5), torch.nan)}),
        (ValueError, "size", {"matrix": torch.eye(5), "size": 0}),
        (TypeError, "size", {"matrix": torch.eye(5), "size": 2.0}),
        (TypeError, "generator", {"matrix": torch.eye(5), "generator": "seed"}),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        sample_kdpp(**{"size": 3, **kwargs})


@pytest.mark.parametrize(
    ("error", "match", "basis"),
    [
        (ValueError, "basis.*orthonormal", torch.ones(3, 2)),
        (ValueError, "basis.*orthonormal", torch.eye(3)[:2]),
        (ValueError, "basis", torch.ones(3)),
        (ValueError, "basis", torch.ones(3, 0)),
        (ValueError, "basis.*NaN", torch.full((3, 2), torch.nan)),
        (TypeError, "basis", torch.eye(3).long()),
    ],
)
def test_projection_errors(error, match, basis):
    with pytest.raises(error, match=match):
        projection_dpp(basis)
