"""Gaussian processes that build no matrix: by inducing points, and by products alone."""

import numpy as np
import pytest

from mercer import config
from mercer._core.config import resident_memory
from mercer.kernels import RBF, Matern, White
from mercer.machines import GaussianProcessRegressor, gp_settings
from tests.contracts.machine import MachineContract


def _data(n=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, np.sin(x @ [1, 2, 0.5]) + 0.1 * rng.normal(size=n) + 3


class TestInducing(MachineContract):
    float32_tolerance = 1e-2  # k-means in float32 may end elsewhere

    def make(self, **params):
        params = {"method": "inducing", "num_landmarks": 20, "random_state": 0, **params}
        if isinstance(params.get("kernel"), str) and params["kernel"] == "precomputed":
            params["method"] = "exact"
        return GaussianProcessRegressor(optimizer=None, **params)

    def test_precomputed_matrices(self):
        model = GaussianProcessRegressor("precomputed", method="inducing")
        with pytest.raises(ValueError, match="precomputed"):
            model.fit(np.eye(5), np.arange(5.0))


class TestIterative(MachineContract):
    float32_tolerance = 1e-2

    def make(self, **params):
        params = {"method": "iterative", "num_probes": 4, "random_state": 0, **params}
        if isinstance(params.get("kernel"), str) and params["kernel"] == "precomputed":
            params["method"] = "exact"
        return GaussianProcessRegressor(optimizer=None, **params)


KERNELS_OF_ESTIMATES = [
    (1.7 * RBF([1.0, 2.0, 0.7]), "auto"),
    (2.0 * Matern(2.0, nu=1.5) + White(0.1), 1e-10),
]


@pytest.mark.parametrize(("kernel", "noise"), KERNELS_OF_ESTIMATES, ids=["rbf", "white"])
def test_products_estimate_the_likelihood_and_its_gradient(kernel, noise):
    x, y = _data(300)
    new = _data(25, 1)[0]
    exact, estimated = (
        GaussianProcessRegressor(kernel, noise, optimizer=None, method=m, random_state=0).fit(x, y)
        for m in ("exact", "iterative")
    )
    for option in ("return_std", "return_cov"):
        for a, b in zip(
            exact.predict(new, **{option: True}),
            estimated.predict(new, **{option: True}),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    value, gradient = exact.log_marginal_likelihood(eval_gradient=True)
    found, slope = estimated.log_marginal_likelihood(eval_gradient=True)
    assert abs(found - value) < 1.0
    assert np.abs(slope - gradient).max() < 0.02 * np.abs(gradient).max()
    # A gradient of what is evaluated: the same probes, whatever the hyperparameters.
    again = estimated.log_marginal_likelihood(eval_gradient=True)
    assert again[0] == found and np.array_equal(again[1], slope)


@pytest.mark.slow
def test_products_find_the_hyperparameters_of_the_factorisation():
    x, y = _data(300)
    exact, estimated = (
        GaussianProcessRegressor("rbf", method=m, random_state=0).fit(x, y)
        for m in ("exact", "iterative")
    )
    assert np.abs(exact.theta_ - estimated.theta_).max() < 0.05
    value = estimated.log_marginal_likelihood_value_
    assert abs(value - exact.log_marginal_likelihood_value_) < 0.5
    with pytest.raises(ValueError, match="one positive variance"):
        GaussianProcessRegressor(RBF(), np.ones(300), method="iterative").fit(x, y)


def test_all_points_as_landmarks_are_the_exact_process():
    x, y = _data()
    new = _data(30, 1)[0]
    for noise in ("auto", np.random.default_rng(0).uniform(0.05, 0.2, len(x))):
        fits = [
            GaussianProcessRegressor(
                1.7 * Matern(2.0, nu=2.5), noise, optimizer=None, method=m, landmarks="uniform"
            ).fit(x, y)
            for m in ("exact", "inducing")
        ]
        for option in ("return_std", "return_cov"):
            exact, sparse = (f.predict(new, **{option: True}) for f in fits)
            for a, b in zip(exact, sparse, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        values = [f.log_marginal_likelihood_value_ for f in fits]
        assert values[0] - 1e-4 < values[1] <= values[0]  # a bound


def test_more_landmarks_bound_the_likelihood_better():
    x, y = _data(400)
    exact = GaussianProcessRegressor(RBF(1.5), 0.05, optimizer=None).fit(x, y)
    bounds = []
    for count in (5, 20, 80, 320):
        model = GaussianProcessRegressor(
            RBF(1.5), 0.05, optimizer=None, method="inducing", num_landmarks=count, random_state=0
        ).fit(x, y)
        bounds.append(model.log_marginal_likelihood_value_)
    assert bounds == sorted(bounds) and bounds[-1] <= exact.log_marginal_likelihood_value_ + 1e-9
    assert exact.log_marginal_likelihood_value_ - bounds[-1] < 1e-2


def test_a_method_is_chosen_by_size_and_memory():
    x, y = _data(200)
    model = GaussianProcessRegressor(optimizer=None).fit(x, y)
    assert model.method_ == "exact" and "200 rows" in model.method_reason_
    big = np.random.default_rng(0).normal(size=(10_001, 2))
    model = GaussianProcessRegressor(
        RBF(), optimizer=None, num_landmarks=20, landmarks="uniform", random_state=0
    ).fit(big, big[:, 0])
    assert model.method_ == "inducing" and "more than 10000" in model.method_reason_
    assert model.score(big, big[:, 0]) > 0.9


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch):
    x, y = _data(200)
    monkeypatch.setattr(config, "memory_budget", int(resident_memory() + 8 * 200 * 200))
    with pytest.raises(MemoryError, match="inducing"):
        GaussianProcessRegressor(RBF(), method="exact", optimizer=None).fit(x, y)


def test_landmarks_refuse_white_noise_in_the_kernel(monkeypatch):
    x, y = _data(200)
    with pytest.raises(ValueError, match="kernel: the method 'inducing' takes no White part"):
        GaussianProcessRegressor(RBF() + White(0.1), method="inducing").fit(x, y)
    kernel = 2.0 * RBF([1.0, 2.0, 0.7]) + White(0.1)
    exact = GaussianProcessRegressor(kernel, 0.0, optimizer=None).fit(x, y)
    monkeypatch.setattr(gp_settings, "_MOST_ROWS", 100)
    large = GaussianProcessRegressor(kernel, optimizer=None, random_state=0).fit(x, y)
    assert large.method_ == "iterative" and "White" in large.method_reason_
    np.testing.assert_allclose(large.predict(x), exact.predict(x), atol=1e-5)
