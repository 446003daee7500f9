import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.neighbors import KernelDensity as Peer

from mercer.machines import (
    KernelDensity,
    effective_neighbors,
    kde_phase,
    nearest_neighbor_bandwidth,
)
from tests.contracts.machine import MachineContract

ECDF_SHEET = "machines-fast-ecdf-kde"
PHASE_SHEET = "machines-kde-large-dimensions"
BOOK = "machines-introduction-to-ml"
RADIAL = ("gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine")
PRODUCTS = ("laplacian", "matern32", "matern52", "uniform", "triangular", "biweight", "triweight")


class TestKernelDensity(MachineContract):
    float32_tolerance = 1e-5

    def make(self, **params):
        return KernelDensity(**params)

    def estimators(self):
        return [
            KernelDensity(),
            KernelDensity(bandwidth="cv", standardize=True),
            KernelDensity(kernel="laplacian", bandwidth="scott"),
        ]

    def params(self):
        return {name: value for name, value in super().params().items() if name != "kernel"}


NO_TENSOR: Any = np.ones((3, 2))


def _data(n=300, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.paper(
    BOOK, kind="exact", claim="Log-densities are scikit-learn's, for its six kernels, weighted too."
)
# scikit-learn's cosine does not integrate to one in even dimensions.
@pytest.mark.parametrize(
    ("kernel", "d"), [(k, d) for k in RADIAL for d in (1, 2, 5, 40) if k != "cosine" or d % 2]
)
def test_equal_to_scikit_learn(kernel, d, evidence):
    x, z = _data(200, d), _data(50, d, 1)
    h = 1.7 * d**0.5
    worst = 0.0
    for w in (None, np.random.default_rng(2).uniform(0.1, 3, 200)):
        found = KernelDensity(bandwidth=h, kernel=kernel).fit(x, sample_weight=w).score_samples(z)
        expected = Peer(bandwidth=h, kernel=kernel).fit(x, sample_weight=w).score_samples(z)
        worst = max(worst, float(np.abs(found - expected).max()))
    evidence(required="<= 1e-8", measured=worst, what=f"{kernel}, d = {d}")
    assert worst <= 1e-8


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7])
def test_the_cosine_integrates_to_one_in_any_dimension(d):
    surface = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    radial = integrate.quad(lambda r: r ** (d - 1) * math.cos(math.pi * r / 2), 0, 1)[0]
    peak = KernelDensity(kernel="cosine").fit(np.zeros((1, d))).score_samples(np.zeros((1, d)))
    assert math.exp(peak[0]) * surface * radial == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_rules_are_scikit_learns(rule):
    x = _data(100, 3)
    expected = Peer(bandwidth=rule).fit(x)
    found = KernelDensity(bandwidth=rule).fit(x)
    assert found.bandwidth_ == pytest.approx(expected.bandwidth_, rel=1e-14)
    assert found.score(x) == pytest.approx(expected.score(x), rel=1e-12)


def test_standardised_it_is_scipys_with_a_diagonal_covariance():
    x = _data(200, 2) * [1.0, 30.0] + [5.0, -9.0]
    model = KernelDensity(bandwidth="scott", standardize=True).fit(x)
    h = x.std(0) * 200 ** (-1 / 6)
    np.testing.assert_allclose(model.bandwidth_, h, rtol=1e-12)
    normals = stats.norm.pdf(x[:9, None], x, h).prod(-1).mean(1)
    np.testing.assert_allclose(np.exp(model.score_samples(x[:9])), normals, rtol=1e-10)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("kernel", RADIAL + PRODUCTS)
def test_densities_integrate_to_one_and_draws_follow_them(kernel, product):
    x = np.array([[0.0, 0.0], [1.0, 0.5]])
    w = [1.0, 3.0]
    model = KernelDensity(kernel=kernel, product=product, bandwidth=[0.5, 0.8])
    model.fit(x, sample_weight=w)
    reach = 12.0 if model._kernel.name in ("exponential", "laplacian") else 6.0
    size = 1201 if model._kernel.name in ("tophat", "uniform") else 301  # for the jumps
    axes = [np.linspace(-reach, reach + 0.7, size), np.linspace(-reach, reach + 0.9, size)]
    grid = model.density_on_grid(axes)
    total = integrate.trapezoid(integrate.trapezoid(grid, axes[1]), axes[0])
    assert total == pytest.approx(1, abs=4e-3)
    draws = model.sample(20_000, random_state=0)
    assert draws.shape == (20_000, 2)
    for k in range(2):
        margin = integrate.trapezoid(grid, axes[1 - k], axis=1 - k)
        cdf = integrate.cumulative_trapezoid(margin, axes[k], initial=0)
        distance = stats.kstest(draws[:, k], lambda t, k=k, c=cdf: np.interp(t, axes[k], c))
        assert distance.statistic < 1.95 / 20_000**0.5 + 4e-3  # p = 0.001, and the grid's error


@pytest.mark.parametrize("kernel", PRODUCTS)
def test_products_at_points_are_those_on_a_grid(kernel):
    x = _data(150, 2)
    model = KernelDensity(kernel=kernel, bandwidth=0.7).fit(x)
    axes = [np.linspace(-3, 3, 7), np.linspace(-2, 2, 5)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    np.testing.assert_allclose(
        np.exp(model.score_samples(nodes)).reshape(7, 5), model.density_on_grid(axes), atol=1e-12
    )


@pytest.mark.paper(
    ECDF_SHEET, kind="exact", claim="In one dimension it is KernelDensity(kernel='exponential')."
)
def test_laplacian_is_exponential_in_one_dimension(evidence):
    x, z = _data(3000, 1), np.linspace(-4, 4, 500)[:, None]
    found = np.exp(KernelDensity(kernel="laplacian", bandwidth=0.1).fit(x).score_samples(z))
    expected = np.exp(-np.abs(z - x[:, 0]) / 0.1).mean(1) / 0.2
    peer = Peer(kernel="exponential", bandwidth=0.1, rtol=0, atol=0).fit(x).score_samples(z)
    error = float(np.abs(found / expected - 1).max())
    evidence(required="<= 1e-13 relative", measured=error, what="against the direct sum")
    # scikit-learn adds logarithms one by one, and loses another digit.
    other = float(np.abs(found / np.exp(peer) - 1).max())
    evidence(required="<= 1e-11 relative", measured=other, what="against scikit-learn")
    assert error <= 1e-13 and other <= 1e-11


@pytest.mark.paper(
    ECDF_SHEET,
    kind="exact",
    claim="In two dimensions scikit-learn's manhattan metric is normalised as if Euclidean: 2/pi.",
)
def test_manhattan_of_scikit_learn_is_not_normalised(evidence):
    x, z = _data(1000, 2), _data(50, 2, 1)
    found = KernelDensity(kernel="laplacian", bandwidth=0.3).fit(x).score_samples(z)
    peer = Peer(kernel="exponential", metric="manhattan", bandwidth=0.3, rtol=0).fit(x)
    ratio = np.exp(peer.score_samples(z) - found)
    error = float(np.abs(ratio / (2 / math.pi) - 1).max())
    evidence(required="ratio 2/pi, to 1e-10", measured=error)
    assert error <= 1e-10


def test_far_queries_keep_their_logarithms():
    x, far = _data(50, 1), np.array([[5000.0]])
    found = KernelDensity(kernel="laplacian").fit(x).score_samples(far)
    expected = np.logaddexp.reduce(-np.abs(far - x)[:, 0]) - math.log(50 * 2)
    assert found[0] == pytest.approx(expected, rel=1e-14)
    gaussian = KernelDensity().fit(x).score_samples(far)
    assert np.isfinite(gaussian).all() and gaussian[0] < -1e7
    assert KernelDensity(kernel="uniform").fit(x).score_samples(far)[0] == -np.inf


@pytest.mark.parametrize("rule", [0.4, "scott", "nn", "cv"])
@pytest.mark.parametrize("kernel", ["gaussian", "matern32"])
def test_weights_are_repeated_rows(rule, kernel):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(60, 2)), rng.integers(0, 4, 60)
    weighted = KernelDensity(bandwidth=rule, kernel=kernel, standardize=True)
    weighted.fit(x, sample_weight=w)
    repeated = KernelDensity(bandwidth=rule, kernel=kernel, standardize=True).fit(x.repeat(w, 0))
    np.testing.assert_allclose(weighted.bandwidth_, repeated.bandwidth_, rtol=1e-12)
    z = rng.normal(size=(20, 2))
    np.testing.assert_allclose(weighted.score_samples(z), repeated.score_samples(z), rtol=1e-10)


def test_cross_validated_bandwidth_is_the_best_of_a_fine_grid():
    x = _data(80, 1)
    model = KernelDensity(bandwidth="cv").fit(x)

    def left_out(h):
        gap = (x - x[:, 0]) / h
        weight = np.exp(-(gap**2) / 2)
        np.fill_diagonal(weight, 0)
        return np.log(weight.sum(1) / (79 * h * (2 * np.pi) ** 0.5)).mean()

    grid = np.geomspace(0.02, 2, 4000)
    best = grid[np.argmax([left_out(h) for h in grid])]
    assert model.bandwidth_ == pytest.approx(best, rel=2e-3)


@pytest.mark.slow
@pytest.mark.paper(
    PHASE_SHEET,
    kind="behaviour",
    claim="Held-out likelihood chooses h near the nearest-neighbour rule: d = 20, n = 3,000.",
)
def test_best_bandwidth_in_many_dimensions(evidence):
    x, z = _data(3000, 20), _data(1500, 20, 1)
    grid = np.arange(0.6, 1.1, 0.025)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the best one is a lookup
        likelihood = [KernelDensity(bandwidth=h).fit(x).score(z) for h in grid]
    held_out = grid[int(np.argmax(likelihood))]
    by_rule = nearest_neighbor_bandwidth(torch.from_numpy(x))
    by_cv = KernelDensity(bandwidth="cv").fit(x).bandwidth_
    asymptotic = kde_phase(3000, 20, held_out).h_opt
    evidence(required="0.825 +- 0.025", measured=held_out, what="held-out likelihood")
    evidence(required="within 5 % of it", measured=by_cv, what="leave-one-out")
    evidence(required="within 8 % of it", measured=by_rule, what="nearest neighbours")
    evidence(required="within 20 % of it", measured=asymptotic, what="asymptotic formula")
    assert held_out == pytest.approx(0.825, abs=0.0251)
    assert by_cv == pytest.approx(held_out, rel=0.05)
    assert by_rule == pytest.approx(held_out, rel=0.08)
    assert asymptotic == pytest.approx(held_out, rel=0.2)


def test_few_neighbours_are_told():
    x = _data(250, 20)
    with pytest.warns(UserWarning, match="rests on"):
        model = KernelDensity(bandwidth=0.6).fit(x)
    expected = effective_neighbors(torch.from_numpy(x), bandwidth=0.6).median()
    assert model.effective_neighbors_ == pytest.approx(float(expected), rel=1e-10)
    assert model.effective_neighbors_ < 10
    KernelDensity(bandwidth="nn").fit(x)  # chosen for that
    assert KernelDensity(bandwidth=4.0).fit(x).effective_neighbors_ > 50


def test_one_row_and_constant_columns():
    one = KernelDensity(bandwidth="cv").fit([[1.0, 2.0]])
    assert one.bandwidth_ == 1.0
    assert one.score_samples([[1.0, 2.0]])[0] == pytest.approx(-math.log(2 * math.pi))
    x = np.column_stack([_data(30, 1), np.full(30, 7.0)])
    model = KernelDensity(bandwidth="scott", standardize=True).fit(x)
    assert np.isfinite(model.score_samples(x)).all()
    same = KernelDensity(bandwidth="nn").fit(np.ones((9, 2)))
    assert np.isfinite(same.score_samples(np.zeros((1, 2)))).all()


@pytest.mark.parametrize(
    ("params", "error", "name"),
    [
        ({"kernel": "quartic"}, ValueError, "kernel"),
        ({"kernel": 3}, TypeError, "kernel"),
        ({"bandwidth": 0.0}, ValueError, "bandwidth"),
        ({"bandwidth": "best"}, ValueError, "bandwidth"),
        ({"bandwidth": [1.0]}, ValueError, "bandwidth"),
        ({"bandwidth": None}, TypeError, "bandwidth"),
        ({"product": 1}, TypeError, "product"),
    ],
)
def test_bad_parameters(params, error, name):
    with pytest.raises(error, match=name):
        KernelDensity(**params).fit(np.zeros((4, 2)))


def test_bad_input():
    model = KernelDensity().fit(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)
    with pytest.raises(ValueError, match="axes"):
        model.density_on_grid([[0.0]])
    with pytest.raises(ValueError, match="two different rows"):
        nearest_neighbor_bandwidth(torch.ones(3, 2))
    with pytest.raises(ValueError, match="x"):
        nearest_neighbor_bandwidth(torch.ones(3))
    with pytest.raises(TypeError, match="x"):
        nearest_neighbor_bandwidth(NO_TENSOR)
    with pytest.raises(ValueError, match="x: expected shape"):
        effective_neighbors(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(TypeError, match="queries"):
        effective_neighbors(NO_TENSOR)
    with pytest.raises(ValueError, match="bandwidth"):
        effective_neighbors(torch.ones(3, 2), bandwidth=-1.0)


@pytest.mark.parametrize(("kernel", "product"), [("gaussian", True), ("epanechnikov", False)])
def test_an_offset_takes_no_digits(kernel, product):
    source = np.random.default_rng(0)
    X, new = source.integers(-64, 64, (30, 2)) / 64, source.integers(-64, 64, (20, 2)) / 64
    model = KernelDensity(bandwidth=[3.0, 0.7], kernel=kernel, product=product)
    near = model.fit(X).score_samples(new)
    far = model.fit(X + 2.0**26).score_samples(new + 2.0**26)  # exact: multiples of 1 / 64
    np.testing.assert_allclose(far, near, rtol=1e-12)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_distances_beyond_float64_are_named(size):
    X = size * np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match=r"X: squared distances of different rows are (inf|0)"):
        KernelDensity(bandwidth="cv").fit(X)
