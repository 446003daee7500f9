import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import chisquare

import mercer
from mercer._core.config import resident_memory
from mercer.linalg import (
    ChristoffelDensity,
    optimal_design,
    rescaled_volume_sampling,
    weighted_least_squares,
)
from tests.linalg.test_christoffel import gauss, legendre, uniform

KINDS = ("iid", "volume", "repeated_dpp")
SHEET = "machines-dpp-weighted-least-squares"


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def _runge(x):
    return 1 / (1 + 5 * x.square())


def _rms(errors):
    return float(errors.square().mean().sqrt())


# -- the law, by enumeration ---------------------------------------------------------------------


def _enumerate(a, nu, k):
    """All sequences of k rows with their probabilities under rescaled volume sampling."""
    n, p = a.shape
    designs = torch.tensor(list(itertools.product(range(n), repeat=k)))  # (n^k, k)
    rows = a[designs] / nu[designs].sqrt().unsqueeze(-1)  # (n^k, k, p)
    moments = rows.mT @ rows
    scale = math.factorial(k - p) / math.factorial(k) / float(torch.linalg.det(a.mT @ a))
    return designs, scale * torch.linalg.det(moments) * nu[designs].prod(1), moments


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Generalised volume sampling (7 points, 2 features, any proposal), all designs "
    "enumerated: probabilities sum to one, weighted least squares is unbiased, the inverse "
    "moments are below I / (n - m + 1), and the draws have that law.",
)
def test_volume_sampling_by_enumeration(evidence, k):
    a, values = _random(7, 2), _random(7, seed=1).exp()
    nu = _random(7, seed=2).exp()
    nu = nu / nu.sum()
    designs, law, moments = _enumerate(a, nu, k)
    total = abs(float(law.sum()) - 1)
    evidence(required="<= 1e-12", measured=total, what="total probability less one")
    assert total <= 1e-12
    some = law > 1e-14
    solutions = torch.stack(
        [
            weighted_least_squares(a[d], values[d], 1 / nu[d]).coefficients
            for d in designs[some].unbind()
        ]
    )
    exact = torch.linalg.lstsq(a, values).solution
    bias = float((law[some] @ solutions - exact).abs().max())
    evidence(required="<= 1e-12", measured=bias, what="bias of the coefficients")
    assert bias <= 1e-12
    inverse = (law[some, None, None] * torch.linalg.inv(moments[some])).sum(0)
    root = torch.linalg.cholesky(a.mT @ a)
    above = float(torch.linalg.eigvalsh(root.mT @ inverse @ root * (k - 1))[-1])
    evidence(required="<= 1 + 1e-9", measured=above, what="(n - m + 1) E[inverse], largest")
    assert above <= 1 + 1e-9
    source, draws = torch.Generator().manual_seed(0), 1500
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        drawn = rescaled_volume_sampling(a, size=k, proposal=nu, generator=source)
        key = tuple(sorted(drawn.tolist()))
        counts[key] = counts.get(key, 0) + 1
    laws: dict[tuple[int, ...], float] = {}
    for d, p in zip(designs.tolist(), law.tolist(), strict=True):
        laws[tuple(sorted(d))] = laws.get(tuple(sorted(d)), 0.0) + max(p, 0.0)
    often = [key for key, p in laws.items() if p * draws >= 5]
    seen = [counts.get(key, 0) for key in often]
    expected = [laws[key] * draws for key in often]
    p = float(chisquare([*seen, draws - sum(seen)], [*expected, draws - sum(expected)]).pvalue)
    evidence(required="p > 1e-4", measured=p, what="chi-square of 1,500 draws")
    assert p > 1e-4


def test_the_default_proposal_is_the_leverage():
    a, draws = _random(9, 3), 4000
    source = torch.Generator().manual_seed(0)
    drawn = torch.cat(
        [rescaled_volume_sampling(a, size=5, generator=source) for _ in range(draws // 5)]
    )
    law = torch.linalg.qr(a).Q.square().sum(1) / 3
    assert chisquare(torch.bincount(drawn, minlength=9).tolist(), (draws * law).tolist())[1] > 1e-4


# With a share from the measure, volume sampling is unbiased instead, see below.
@pytest.mark.parametrize(
    ("kind", "share"), [*((kind, 0.0) for kind in KINDS), ("iid", 0.5), ("repeated_dpp", 0.5)]
)
def test_moments_are_the_identity_on_average(kind, share):
    rows = _random(40, 3)
    density = ChristoffelDensity(lambda i: rows[i.long()], torch.arange(40).double())
    source = torch.Generator().manual_seed(0)
    grams = torch.stack(
        [
            optimal_design(density, 7, kind=kind, delta=None, uniform=share, generator=source).gram
            for _ in range(500)
        ]
    )
    error = grams.std(0) / 500**0.5
    assert bool(((grams.mean(0) - torch.eye(3)).abs() <= 4 * error + 1e-12).all())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_volume_designs_are_unbiased(share):
    rows, values = _random(12, 2), _random(12, seed=1).exp()
    density = ChristoffelDensity(lambda i: rows[i.long()], torch.arange(12).double())
    exact = torch.linalg.lstsq(rows, values).solution
    source, found = torch.Generator().manual_seed(0), []
    for _ in range(800):
        design = optimal_design(
            density, 4, kind="volume", delta=None, uniform=share, generator=source
        )
        assert design.index is not None
        fit = weighted_least_squares(rows[design.index], values[design.index], design.weights)
        found.append(fit.coefficients)
    solutions = torch.stack(found)
    error = solutions.std(0) / 800**0.5
    assert bool(((solutions.mean(0) - exact).abs() <= 4 * error).all())


# -- designs on an interval ------------------------------------------------------------------------


def _density(m=10):
    return ChristoffelDensity(
        lambda x: legendre(x, m), *gauss(), sampler=uniform, bound=float(m * m)
    )


def _errors(density, size, kind, repeats=200):
    nodes, masses = gauss()
    source = torch.Generator().manual_seed(0)
    errors, passed = [], []
    for _ in range(repeats):
        design = optimal_design(density, size, kind=kind, delta=None, generator=source)
        assert design.num_tries == 1
        features = density.features(design.points)
        fit = weighted_least_squares(features, _runge(design.points), design.weights)
        left = _runge(nodes) - density.features(nodes) @ fit.coefficients
        errors.append(float((masses * left.square()).sum().sqrt()))
        gap = torch.linalg.matrix_norm(design.gram - torch.eye(len(design.gram)), 2)
        passed.append(float(gap <= 0.9))
    return torch.tensor(errors), float(np.mean(passed))


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Legendre m = 10, f = 1 / (1 + 5 x^2), 200 designs: errors of repeated DPPs are below "
    "those of volume sampling, those below independent points; one DPP of 10 points has a median "
    "error of 0.021 against 0.139 of independent ones.",
)
def test_ordering_of_designs(evidence):
    density = _density()
    nodes, masses = gauss()
    basis = density.basis(nodes)
    left = _runge(nodes) - basis @ (basis.mT @ (masses * _runge(nodes)))
    best = float((masses * left.square()).sum().sqrt())
    evidence(required="0.0088", measured=round(best, 4), what="best error")
    assert best == pytest.approx(0.0088, abs=5e-5)
    shares = {20: (0.075, 0.355, 0.935), 30: (0.34, 0.555, 0.995)}
    for size in (20, 30):
        found = {kind: _errors(density, size, kind) for kind in KINDS}
        rms = [_rms(found[kind][0]) for kind in KINDS]
        medians = [float(found[kind][0].median()) for kind in KINDS]
        evidence(
            required="independent > volume > repeated, +- 10 %",
            measured=" > ".join(f"{e:.4f}" for e in rms),
            what=f"RMS error, {size} points (medians {medians[0]:.4f}, {medians[1]:.4f}, "
            f"{medians[2]:.4f})",
        )
        assert rms[0] >= 0.9 * rms[1] and rms[1] >= 0.9 * rms[2]
        assert medians[0] >= medians[1] >= medians[2] >= best
        evidence(
            required=f"{shares[size]} +- 0.12",
            measured=str(tuple(round(found[kind][1], 3) for kind in KINDS)),
            what=f"share of designs with |G - I| <= 0.9, {size} points",
        )
        for kind, share in zip(KINDS, shares[size], strict=True):
            assert found[kind][1] == pytest.approx(share, abs=0.12)
    single, independent = (
        float(_errors(density, 10, kind)[0].median()) for kind in ("repeated_dpp", "iid")
    )
    evidence(
        required="<= 0.025, >= 0.08",
        measured=f"{single:.3f}, {independent:.3f}",
        what="median error of 10 points, one DPP and independent",
    )
    assert single <= 0.025 and independent >= 0.08


def test_conditioning_and_the_bound_on_the_error():
    density = _density()
    nodes, masses = gauss()
    best = 0.008758337
    squares = []
    for seed in range(40):
        design = optimal_design(density, 20, delta=0.5, generator=seed)
        assert design.gram_min_eig >= 0.5
        fit = weighted_least_squares(design.basis, _runge(design.points), design.weights)
        left = _runge(nodes) - density.basis(nodes) @ fit.coefficients
        squares.append(float((masses * left.square()).sum()))
    # (1 + (1 - delta)^-2 / P * m / n) with P about 0.6
    assert np.mean(squares) <= (1 + 4 / 0.6 / 2) * best**2
    tries = [
        optimal_design(density, 20, kind=kind, delta=0.9, generator=5, max_tries=500).num_tries
        for kind in ("iid", "repeated_dpp")
    ]
    assert tries[1] <= 2


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="With half of the points from the measure and lambda_min(G) >= 1 - delta, the error is "
    "at most (1 + sqrt(2 / (1 - delta))) times the best uniform error, for every draw.",
)
def test_the_bound_in_the_uniform_norm(evidence):
    density, delta = _density(), 0.5
    nodes, masses = gauss()
    # The best uniform error on the nodes, a lower bound of that on the interval, by a linear
    # program: least e with |f - v| <= e.
    features, f = legendre(nodes, 10).numpy(), _runge(nodes).numpy()
    ones = np.ones((len(f), 1))
    program = linprog(
        [0.0] * 10 + [1.0],
        A_ub=np.block([[features, -ones], [-features, -ones]]),
        b_ub=np.concatenate([f, -f]),
        bounds=[(None, None)] * 11,
    )
    bound = (1 + (2 / (1 - delta)) ** 0.5) * program.fun
    for kind in KINDS:
        worst = 0.0
        for seed in range(40):
            design = optimal_design(
                density, 40, kind=kind, delta=delta, uniform=0.5, max_tries=500, generator=seed
            )
            assert float(design.weights.max()) <= 2 + 1e-9
            fit = weighted_least_squares(design.basis, _runge(design.points), design.weights)
            left = _runge(nodes) - density.basis(nodes) @ fit.coefficients
            worst = max(worst, float((masses * left.square()).sum().sqrt()))
        evidence(required=f"<= {bound:.4f}", measured=worst, what=f"worst of 40 designs, {kind}")
        assert worst <= bound


def test_a_function_of_the_space_is_found_whatever_the_design():
    density = _density(5)
    exact = _random(5)
    for kind in KINDS:
        for size in (5, 13):
            design = optimal_design(density, size, kind=kind, delta=0.999, generator=1)
            assert design.points.shape == (size,) and design.index is None
            fit = weighted_least_squares(
                legendre(design.points, 5), legendre(design.points, 5) @ exact, design.weights
            )
            torch.testing.assert_close(fit.coefficients, exact, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(design.weights, density.weights(design.points))


def test_never_reached():
    with pytest.raises(ValueError, match=r"size: 10 points.*3 designs.*best had"):
        optimal_design(_density(), 10, kind="iid", delta=0.1, max_tries=3, generator=0)


# -- the solve -------------------------------------------------------------------------------------


def test_weighted_least_squares_against_numpy_and_repetition():
    a, b = _random(30, 4), _random(30, 2, seed=1)
    times = torch.arange(30) % 4
    fit = weighted_least_squares(a, b, times.double())
    repeated = np.linalg.lstsq(
        a.repeat_interleave(times, 0).numpy(), b.repeat_interleave(times, 0).numpy(), rcond=None
    )[0]
    np.testing.assert_allclose(fit.coefficients, repeated, atol=1e-12)
    assert fit.rank == 4
    plain = weighted_least_squares(a, b[:, 0])
    np.testing.assert_allclose(
        plain.coefficients, np.linalg.lstsq(a.numpy(), b[:, 0].numpy(), rcond=None)[0], atol=1e-12
    )


def test_far_better_than_normal_equations():
    # Condition 1e10: its square is beyond float64.
    q, _ = torch.linalg.qr(_random(50, 4))
    r, _ = torch.linalg.qr(_random(4, 4, seed=1))
    a = q * torch.tensor([1.0, 1e-3, 1e-6, 1e-10]).double() @ r
    exact = torch.ones(4).double()
    fit = weighted_least_squares(a, a @ exact)
    assert fit.rank == 4 and float((fit.coefficients - exact).abs().max()) <= 1e-4


def test_scales_of_columns_do_not_matter_and_dependent_ones_share():
    a = _random(30, 3)
    scale = torch.tensor([1e-12, 1.0, 1e12]).double()
    b = _random(30, seed=1)
    fit = weighted_least_squares(a * scale, b)
    torch.testing.assert_close(
        fit.coefficients * scale, weighted_least_squares(a, b).coefficients, rtol=1e-10, atol=0
    )
    twice = torch.cat([a, a[:, :1], torch.zeros(30, 1)], 1)
    fit = weighted_least_squares(twice, b)
    assert fit.rank == 3
    assert float(fit.coefficients[0]) == pytest.approx(float(fit.coefficients[3]))
    assert float(fit.coefficients[4]) == 0.0
    few = weighted_least_squares(a[:2], b[:2])
    torch.testing.assert_close(a[:2] @ few.coefficients, b[:2])
    assert few.rank == 2


def test_float32_is_kept():
    fit = weighted_least_squares(_random(9, 2).float(), _random(9).float())
    assert fit.coefficients.dtype == torch.float32


def test_memory():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**10),
        pytest.raises(MemoryError, match="fewer rows"),
    ):
        weighted_least_squares(_random(1000, 3), _random(1000))


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "features", {"features": None}),
        (ValueError, "features", {"features": torch.zeros(3)}),
        (ValueError, "features", {"features": torch.zeros(4, 0)}),
        (ValueError, "features", {"features": torch.full((4, 2), torch.nan)}),
        (ValueError, "values", {"values": torch.zeros(3)}),
        (ValueError, "values", {"values": torch.full((4,), torch.inf)}),
        (TypeError, "values", {"values": torch.zeros(4).long()}),
        (ValueError, "weights", {"weights": torch.zeros(3)}),
        (ValueError, "weights", {"weights": -torch.ones(4)}),
    ],
)
def test_errors_of_least_squares(error, match, kwargs):
    with pytest.raises(error, match=match):
        weighted_least_squares(**{"features": torch.eye(4, 2), "values": torch.zeros(4), **kwargs})


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "density", {"density": legendre}),
        (ValueError, "size", {"size": 9}),
        (TypeError, "size", {"size": 20.0}),
        (ValueError, "kind", {"kind": "other"}),
        (ValueError, "delta", {"delta": 1.0}),
        (ValueError, "delta", {"delta": 0.0}),
        (ValueError, "max_tries", {"max_tries": 0}),
        (ValueError, "uniform", {"uniform": 1.0}),
        (ValueError, "uniform: expected a share that leaves 10 of 20", {"uniform": 0.6}),
        (TypeError, "uniform", {"uniform": None}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_errors_of_designs(error, match, kwargs):
    with pytest.raises(error, match=match):
        optimal_design(**{"density": _density(), "size": 20, **kwargs})


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (ValueError, "factor", {"factor": torch.zeros(4, 2)}),
        (ValueError, "size", {"size": 1}),
        (TypeError, "size", {"size": 2.5}),
        (ValueError, "proposal", {"proposal": torch.ones(3)}),
        (ValueError, "proposal", {"proposal": torch.tensor([0.0, 1.0, 0.0, 0.0])}),
        (ValueError, "proposal", {"proposal": -torch.ones(4)}),
        (TypeError, "proposal", {"proposal": [1.0]}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_errors_of_rescaled_volume_sampling(error, match, kwargs):
    with pytest.raises(error, match=match):
        rescaled_volume_sampling(**{"factor": torch.eye(4, 2), "size": 3, **kwargs})
