"""Gaussian process regression beside scikit-learn's, finite differences and dense formulas."""

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor as Peer
from sklearn.gaussian_process import kernels as peers

from mercer.kernels import RBF, Laplacian, Linear, Matern, Periodic, RationalQuadratic, White
from mercer.machines import GaussianProcessRegressor
from tests.contracts.machine import MachineContract


class TestGaussianProcessRegressor(MachineContract):
    def make(self, **params):
        params = {"optimizer": None, "random_state": 0, **params}
        return GaussianProcessRegressor(**params)

    def estimators(self):
        return [
            GaussianProcessRegressor(),
            GaussianProcessRegressor("matern32", alpha=0.1, ard=True, optimizer=None),
            GaussianProcessRegressor(method="inducing", num_landmarks=10, standardize=True),
        ]


def _data(n=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, np.sin(x @ [1, 2, 0.5]) + 0.1 * rng.normal(size=n) + 3


PAIRS = {
    "rbf": (1.7 * RBF([1.0, 2.0, 0.7]), peers.ConstantKernel(1.7) * peers.RBF([1.0, 2.0, 0.7])),
    "matern12": (
        0.8 * Matern(1.4, nu=0.5),
        peers.ConstantKernel(0.8) * peers.Matern(1.4, nu=0.5),
    ),
    "matern32": (
        0.8 * Matern([1.4, 1.0, 2.0], nu=1.5),
        peers.ConstantKernel(0.8) * peers.Matern([1.4, 1.0, 2.0], nu=1.5),
    ),
    "matern52": (
        0.8 * Matern(1.4, nu=2.5) + White(0.2),
        peers.ConstantKernel(0.8) * peers.Matern(1.4, nu=2.5) + peers.WhiteKernel(0.2),
    ),
    "rational quadratic": (
        RationalQuadratic(1.5, alpha=0.6) * RBF(3.0),
        peers.RationalQuadratic(1.5, alpha=0.6) * peers.RBF(3.0),
    ),
}
# scikit-learn's order of the hyperparameters, as Mercer's names.
ORDER = {"rational quadratic": [1, 0, 2]}


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="A Gaussian process with fixed hyperparameters is scikit-learn's: mean, deviation, "
    "covariance, marginal likelihood and its gradient.",
)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_scikit_learn(name, normalize, evidence):
    x, y = _data()
    new = _data(40, 1)[0]
    ours, theirs = PAIRS[name]
    peer = Peer(theirs, alpha=0.01, optimizer=None, normalize_y=normalize).fit(x, y)
    model = GaussianProcessRegressor(ours, 0.01, optimizer=None, normalize_y=normalize).fit(x, y)
    gaps = []
    for option in ("return_std", "return_cov"):
        for a, b in zip(
            model.predict(new, **{option: True}), peer.predict(new, **{option: True}), strict=True
        ):
            gaps.append(np.abs(a - b).max())
    value, gradient = peer.log_marginal_likelihood(peer.kernel_.theta, eval_gradient=True)
    found, slope = model.log_marginal_likelihood(model.theta_, eval_gradient=True)
    gaps.append(abs(found - value) / abs(value))
    order = ORDER.get(name, range(len(slope)))
    gaps.append(np.abs(slope[order] - gradient).max() / np.abs(gradient).max())
    gaps.append(abs(model.log_marginal_likelihood_value_ - value) / abs(value))
    evidence(required="<= 1e-8", measured=max(gaps))
    assert max(gaps) <= 1e-8


def test_noise_of_each_row_and_several_targets_equal_scikit_learn():
    x, y = _data()
    noise = np.random.default_rng(2).uniform(0.05, 0.4, len(x))
    both = np.stack([y, x[:, 0] ** 2], 1)
    peer = Peer(peers.RBF(1.3), alpha=noise, optimizer=None, normalize_y=True).fit(x, both)
    model = GaussianProcessRegressor(RBF(1.3), noise, optimizer=None).fit(x, both)
    new = _data(20, 1)[0]
    for option in ("return_std", "return_cov"):
        for a, b in zip(
            model.predict(new, **{option: True}), peer.predict(new, **{option: True}), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    value, gradient = peer.log_marginal_likelihood(peer.kernel_.theta, eval_gradient=True)
    found, slope = model.log_marginal_likelihood(model.theta_, eval_gradient=True)
    np.testing.assert_allclose([found, *slope], [value, *gradient], rtol=1e-9)
    assert model.noise_.shape == noise.shape
    with pytest.raises(ValueError, match="include_noise"):
        model.predict(new, return_std=True, include_noise=True)


def test_fitted_hyperparameters_are_scikit_learns():
    x, y = _data()
    kernel = peers.ConstantKernel() * peers.RBF([1.0] * 3) + peers.WhiteKernel(0.1)
    peer = Peer(kernel, normalize_y=True).fit(x, y)
    model = GaussianProcessRegressor("rbf", ard=True).fit(x, y)
    assert model.converged_ and model.method_ == "exact"
    np.testing.assert_allclose(
        model.log_marginal_likelihood_value_, peer.log_marginal_likelihood_value_, rtol=1e-6
    )
    np.testing.assert_allclose(model.theta_, peer.kernel_.theta, atol=2e-3)
    assert model.theta_names_ == ["scale", *(f"kernel.lengthscale[{i}]" for i in range(3)), "noise"]
    # White noise in the kernel is the same noise, and then part of the standard deviation.
    white = GaussianProcessRegressor(1.0 * RBF([1.0] * 3) + White(0.1)).fit(x, y)
    np.testing.assert_allclose(white.theta_, peer.kernel_.theta, atol=2e-3)
    plain = model.predict(x, return_std=True, include_noise=True)[1]
    np.testing.assert_allclose(white.predict(x, return_std=True)[1], plain, rtol=1e-3)


@pytest.mark.parametrize("method", ["exact", "inducing"])
@pytest.mark.parametrize(
    "kernel",
    [
        2.0 * Matern([1.0, 2.0, 3.0], nu=2.5) + 0.3,
        Laplacian(2.0) + 0.5 * Periodic(1.0, period=3.0),
        RationalQuadratic(alpha=0.7) * Linear() + 0.1,
    ],
    ids=["matern", "laplacian", "product"],
)
def test_gradient_is_that_of_finite_differences(method, kernel):
    x, y = _data(60)
    model = GaussianProcessRegressor(
        kernel, method=method, num_landmarks=15, optimizer=None, random_state=0
    ).fit(x, y)
    _, gradient = model.log_marginal_likelihood(eval_gradient=True)
    step = 1e-5
    for i, slope in enumerate(gradient):
        move = step * np.eye(len(gradient))[i]
        rise = model.log_marginal_likelihood(model.theta_ + move)
        fall = model.log_marginal_likelihood(model.theta_ - move)
        assert abs((rise - fall) / (2 * step) - slope) <= 1e-6 * np.abs(gradient).max()
    # Asking elsewhere leaves the machine as it was.
    value = model.log_marginal_likelihood_value_
    assert abs(model.log_marginal_likelihood(model.theta_) - value) <= 1e-12 * abs(value)


def test_draws_have_the_posterior_mean_and_covariance():
    x, y = _data(30)
    new = _data(4, 1)[0]
    model = GaussianProcessRegressor(1.0 * RBF(1.5), 0.1, optimizer=None).fit(x, y)
    mean, covariance = model.predict(new, return_cov=True)
    draws = model.sample_y(new, 20_000, random_state=1)  # (4, 20000)
    assert draws.shape == (4, 20_000)
    spread = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(1) - mean) / spread).max() < 5 / math.sqrt(20_000)
    assert np.abs(np.cov(draws) - covariance).max() < 0.05 * covariance.max()
    np.testing.assert_array_equal(draws[:, :1], model.sample_y(new, 1, random_state=1))
    both = GaussianProcessRegressor(RBF(1.5), 0.1, optimizer=None).fit(x, np.stack([y, -y], 1))
    assert both.sample_y(new, 3).shape == (4, 2, 3)


def test_coverage_on_data_of_the_process_itself():
    rng = np.random.default_rng(5)
    inside = []
    for seed in range(10):
        x = rng.uniform(-4, 4, (120, 1))
        k = np.exp(-0.5 * (x - x.T) ** 2) + 0.04 * np.eye(120)
        y = np.linalg.cholesky(k) @ rng.normal(size=120)
        model = GaussianProcessRegressor("rbf", random_state=seed).fit(x[:80], y[:80])
        mean, std = model.predict(x[80:], return_std=True, include_noise=True)
        inside.append(np.abs(y[80:] - mean) < 1.96 * std)
    assert 0.90 < np.mean(inside) < 0.99  # 400 points: 0.95 with a standard error of 0.011


def test_fixed_hyperparameters_stay():
    x, y = _data(60)
    model = GaussianProcessRegressor("rbf", 0.3, fixed=("lengthscale",)).fit(x, y)
    assert model.theta_names_ == ["scale"] and model.noise_ == 0.3
    start = GaussianProcessRegressor("rbf", 0.3, optimizer=None).fit(x, y)
    assert model.kernel_.kernel.lengthscale == start.kernel_.kernel.lengthscale
    quiet = GaussianProcessRegressor("rbf", fixed=("noise",)).fit(x, y)
    assert "noise" not in quiet.theta_names_ and abs(quiet.noise_ - 0.1) < 1e-12
    with pytest.raises(ValueError, match="fixed"):
        GaussianProcessRegressor("rbf", fixed=("period",)).fit(x, y)


def test_a_callable_optimises():
    x, y = _data(40)
    seen = []

    def optimizer(function, start, bounds):
        seen.append((start.shape, bounds.shape))
        value, gradient = function(start)
        assert value == function(start, eval_gradient=False) and gradient.shape == start.shape
        return start + 0.1, value

    model = GaussianProcessRegressor("rbf", optimizer=optimizer).fit(x, y)
    assert seen == [((3,), (3, 2))] and model.n_evaluations_ == 2


def test_restarts_find_what_the_first_run_misses():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, (50, 1))
    y = np.sin(6 * x[:, 0]) + 0.05 * rng.normal(size=50)
    values = [
        GaussianProcessRegressor(1.0 * RBF(30.0), n_restarts_optimizer=k, random_state=0)
        .fit(x, y)
        .log_marginal_likelihood_value_
        for k in (0, 8)
    ]
    assert values[1] > values[0] + 10


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": "loo"}, "alpha"),
        ({"alpha": np.ones(3)}, "alpha"),
        ({"method": "best"}, "method"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"n_restarts_optimizer": -1}, "n_restarts_optimizer"),
        ({"kernel": "rfb"}, "kernel"),
        ({"method": "inducing", "landmarks": "best"}, "landmarks"),
        ({"method": "inducing", "num_landmarks": 0}, "num_landmarks"),
    ],
)
def test_bad_arguments_are_named(params, text):
    with pytest.raises(ValueError, match=text):
        GaussianProcessRegressor(**params).fit(*_data(20))


def test_bad_questions_are_refused():
    x, y = _data(20)
    model = GaussianProcessRegressor(RBF(), 0.1, optimizer=None).fit(x, y)
    with pytest.raises(ValueError, match="both"):
        model.predict(x, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match="theta"):
        model.log_marginal_likelihood([1.0, 2.0])
    with pytest.raises(ValueError, match="n_samples"):
        model.sample_y(x, 0)
    given = GaussianProcessRegressor("precomputed", 0.1, optimizer=None)
    given.fit(RBF()(torch.from_numpy(x)).detach(), y)
    with pytest.raises(ValueError, match="precomputed"):
        given.predict(np.ones((2, 20)), return_std=True)


@pytest.mark.parametrize("y", [np.full(20, 3.0), np.r_[np.zeros(19), 1e6]])
def test_constant_targets_and_repeated_rows(y):
    x = np.ones((20, 2))
    model = GaussianProcessRegressor().fit(x, y)
    mean, std = model.predict(x[:1], return_std=True)
    np.testing.assert_allclose(mean, y.mean(), rtol=1e-2)
    assert np.isfinite(std).all()
