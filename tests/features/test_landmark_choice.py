import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.features import Nystroem, choose_landmarks
from mercer.features.landmark_choice import LANDMARK_CHOICES
from mercer.kernels import RBF, Kernel, Linear, Polynomial
from mercer.linalg import pivoted_cholesky, ridge_leverage_scores

RANDOM = ("kmeans", "leverage", "kdpp", "uniform")


def _clustered(n, share, seed=0):
    """Draw N(0, I) in the plane, a share of the points in one tight cluster beside the others."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cluster = x[: int(share * n)]
    cluster.mul_(0.02).add_(3.0)
    return x


def _rbf(lengthscale=1.0) -> Kernel:
    return RBF(lengthscale).requires_grad_(False)  # gamma = 0.5 at lengthscale 1


def _error(kernel, x, landmarks):
    """Spectral norm of K minus its Nystroem approximation, by power iteration."""
    z = Nystroem(kernel, landmarks)(x)
    residual = kernel(x) - z @ z.mT
    v = residual.diagonal().clone()
    for _ in range(60):
        v = residual @ (v / v.norm().clamp_min(1e-300))
    return float(v.norm())


def _against_uniform(evidence, kernel, draws, methods):
    """Measure the median errors of methods over those of uniform landmarks, for (x, k, ridge)."""
    errors = {method: [] for method in (*methods, "uniform")}
    for seed, (x, k, ridge) in enumerate(draws):
        for method, found in errors.items():
            chosen = choose_landmarks(kernel, x, k, method=method, ridge=ridge, generator=seed)
            found.append(_error(kernel, x, chosen))
    medians = {method: float(torch.tensor(found).median()) for method, found in errors.items()}
    for method in methods:
        ratio = medians[method] / medians["uniform"]
        evidence(
            required="<= 0.67",
            measured=ratio,
            what=f"{method}: {medians[method]:.3g} against {medians['uniform']:.3g}",
        )
    return [medians[method] / medians["uniform"] for method in methods]


@pytest.mark.parametrize("share", [0.5, 0.95], ids=["half", "95 %"])
@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="With a share of the points in one tight cluster (n = 600, 1.5 landmarks an effective "
    "dimension, ridge 1) landmarks chosen by leverage, and the other choices, leave at most "
    "0.67 of the error of uniform ones.",
)
def test_beats_uniform_on_clustered_data(evidence, share):
    kernel, draws = _rbf(), []
    for seed in range(20):
        x = _clustered(600, share, seed)
        dimension = float(ridge_leverage_scores(kernel(x), ridge=1.0).sum())
        draws.append((x, round(1.5 * dimension), 1.0))
    ratios = _against_uniform(evidence, kernel, draws, ("leverage", "greedy", "kdpp", "kmeans"))
    assert max(ratios) <= 0.67


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="The same with scores that are estimated from few columns (n = 2,000).",
)
def test_beats_uniform_with_estimated_scores(evidence):
    draws = [(_clustered(2000, 0.9, seed), 60, None) for seed in range(3)]
    assert max(_against_uniform(evidence, _rbf(0.5), draws, ("leverage", "kdpp"))) <= 0.67


@pytest.mark.parametrize("method", LANDMARK_CHOICES)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 40), data=st.data(), seed=st.integers(0, 1000))
def test_gives_what_is_asked_for(method, n, data, seed):
    k = data.draw(st.integers(1, n))
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = choose_landmarks(_rbf(), x, k, method=method, generator=seed)
    assert found.shape == (k, 3) and found.dtype == x.dtype
    if method != "kmeans":  # points of the data, each once
        rows = {tuple(row) for row in found.tolist()}
        assert len(rows) == k and rows <= {tuple(row) for row in x.tolist()}


@pytest.mark.parametrize("method", LANDMARK_CHOICES)
def test_few_different_points(method):
    x = torch.tensor([[0.0], [1.0], [5.0]]).repeat(20, 1)
    found = choose_landmarks(_rbf(), x, 10, method=method, generator=0)
    assert found.shape == (10, 1) and found.dtype == torch.float32
    assert set(found.flatten().tolist()) <= {0.0, 1.0, 5.0}
    if method != "uniform":
        assert len(set(found.flatten().tolist())) == 3
    z = Nystroem(_rbf(), found)(x)
    assert torch.isfinite(z).all()


@pytest.mark.parametrize("method", LANDMARK_CHOICES)
@pytest.mark.parametrize("kernel", [Linear(), Polynomial(degree=2)], ids=repr)
def test_kernels_of_low_rank(method, kernel):
    kernel.requires_grad_(False)
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = choose_landmarks(kernel, x, 12, method=method, generator=0)
    # Of rank 2 or 6: twelve landmarks span it, whichever they are.
    assert _error(kernel, x, found) <= 1e-6 * float(kernel(x).trace())


@pytest.mark.parametrize("method", RANDOM)
def test_draws_come_from_the_generator(method, global_state_unchanged):
    x = _clustered(200, 0.5)
    one, two, other = (
        choose_landmarks(_rbf(), x, 15, method=method, generator=seed)
        for seed in (0, torch.Generator().manual_seed(0), 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("method", RANDOM)
def test_without_a_generator_they_come_from_the_default_one(method):
    x = _clustered(200, 0.5)
    torch.manual_seed(3)
    one = choose_landmarks(_rbf(), x, 15, method=method)
    torch.manual_seed(3)
    assert torch.equal(choose_landmarks(_rbf(), x, 15, method=method), one)


@pytest.mark.parametrize("method", LANDMARK_CHOICES)
def test_the_default_device_does_not_matter(method):
    kernel, x = _rbf(), _clustered(200, 0.5)
    expected = choose_landmarks(kernel, x, 15, method=method, generator=0)
    with torch.device("meta"):
        found = choose_landmarks(kernel, x, 15, method=method, generator=0)
        phi = Nystroem(kernel, found)
    assert torch.equal(found, expected)
    assert torch.isfinite(phi(x)).all()


def test_greedy_takes_the_pivots():
    x = _clustered(300, 0.5)
    found = choose_landmarks(_rbf(), x, 10, method="greedy")
    assert torch.equal(found, x[pivoted_cholesky(_rbf()(x), rank=10).pivots])


def test_leverage_includes_with_the_probability_of_the_score():
    x = torch.cat([torch.zeros(30, 1), torch.tensor([[9.0], [-9.0]])]).double()
    found = [
        choose_landmarks(_rbf(), x, 2, method="leverage", ridge=1.0, generator=seed)
        for seed in range(300)
    ]
    # Scores: 1/2 of the two alone, 1/31 each of the thirty; two draws of 61/31 in all.
    share = torch.cat(found).eq(9.0).double().sum() / 300
    expected = 2 * (1 / 2) / (1 + 30 / 31)
    assert abs(float(share) - expected) <= 4 * math.sqrt(0.25 / 300)


def test_candidates_of_a_kdpp_do_not_shift_its_inclusion(monkeypatch):
    # Three clusters of 180, 15 and 5 points: through 60 candidates drawn by leverage, the small
    # one is in the sample as often as through all points.
    from mercer.features import landmark_choice

    x = torch.cat([torch.zeros(180, 1), 3 * torch.ones(15, 1), 6 * torch.ones(5, 1)]).double()
    x = x + 0.5 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
    counts = {}
    for name, limit in (("all", 1500), ("few", 60)):
        monkeypatch.setattr(landmark_choice, "_KDPP_CANDIDATES", (limit, 4))
        drawn = [
            choose_landmarks(_rbf(0.7), x, 4, method="kdpp", generator=seed) for seed in range(150)
        ]
        counts[name] = torch.stack([(d > 4.5).sum() for d in drawn]).double().mean()
    assert abs(float(counts["all"] - counts["few"])) <= 4 * math.sqrt(2 * 0.25 / 150)


def test_kmeans_finds_the_centres():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]]).double()
    x = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2).double()
    found = choose_landmarks(_rbf(), x, 4, method="kmeans", generator=0)
    nearest = torch.cdist(centres, found).min(-1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3]
    assert float(nearest.values.max()) < 0.1


@pytest.mark.parametrize("method", LANDMARK_CHOICES)
def test_many_points_in_little_memory(method):
    n = 120_000
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0)).float()
    budget = mercer._core.config.resident_memory() + 2**28  # n x n would be 53 GiB
    with mercer.config.override(memory_budget=budget):
        found = choose_landmarks(_rbf(), x, 16, method=method, generator=0)
    assert found.shape == (16, 2)


def test_hyperparameters_left_to_the_data_are_set_in_a_copy():
    kernel, x = RBF("median"), 50 * _clustered(200, 0.0)
    found = choose_landmarks(kernel, x, 10, method="greedy")
    fitted = RBF("median").fit(x).requires_grad_(False)
    assert torch.equal(found, choose_landmarks(fitted, x, 10, method="greedy"))
    with pytest.raises(RuntimeError, match="left to the data"):
        kernel(x)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "kernel", {"kernel": "rbf"}),
        (TypeError, "x: ", {"x": [[1.0]]}),
        (ValueError, r"x: .*\(5,\)", {"x": torch.ones(5)}),
        (ValueError, "x: 1 of 2", {"x": torch.tensor([[0.0], [math.nan]])}),
        (ValueError, r"num_landmarks: .*9 points.*\(9, 2\), got 10", {"num_landmarks": 10}),
        (TypeError, "num_landmarks", {"num_landmarks": 2.5}),
        (ValueError, "method", {"method": "best"}),
        (ValueError, "ridge", {"ridge": -1.0}),
        (TypeError, "generator", {"generator": "0"}),
    ],
)
def test_errors(error, match, changes):
    arguments = {"kernel": RBF(), "x": torch.ones(9, 2), "num_landmarks": 3, **changes}
    with pytest.raises(error, match=match):
        choose_landmarks(**arguments)
