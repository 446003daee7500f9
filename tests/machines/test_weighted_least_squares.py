import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

import mercer
from mercer._core.config import resident_memory
from mercer.features import MonomialFeatures
from mercer.kernels import Polynomial
from mercer.machines import WeightedLeastSquares
from mercer.machines import weighted_least_squares as module
from tests.contracts.machine import MachineContract


class TestWeightedLeastSquares(MachineContract):
    def make(self, **params):
        return WeightedLeastSquares(**{"random_state": 0, **params})

    def estimators(self):
        return [self.make(), WeightedLeastSquares(design="iid", delta=None)]


def legendre(x, m=10):
    return torch.from_numpy(np.polynomial.legendre.legvander(x[:, 0].numpy(), m - 1))


def _grid(n=2001):
    return np.linspace(-1, 1, n)[:, None]


def _runge(x):
    return 1 / (1 + 5 * x[:, 0] ** 2)


def test_equals_linear_regression(monkeypatch):
    source = np.random.default_rng(0)
    x, y = source.normal(size=(200, 4)), source.normal(size=(200, 2))
    weights = source.integers(0, 4, size=200)
    exact = LinearRegression().fit(x, y, weights)
    for block in (8192, 7):
        monkeypatch.setattr(module, "_LARGEST_BLOCK", block)
        machine = WeightedLeastSquares().fit(x, y, weights)
        np.testing.assert_allclose(machine.coef_[:, 1:], exact.coef_, atol=1e-12)
        np.testing.assert_allclose(machine.coef_[:, 0], exact.intercept_, atol=1e-12)
        np.testing.assert_allclose(machine.predict(x), exact.predict(x), atol=1e-12)
    assert machine.rank_ == 5 and machine.design_ is None
    single = WeightedLeastSquares().fit(x, y[:, 0], weights)
    np.testing.assert_allclose(single.coef_, machine.coef_[0], atol=1e-12)


def test_a_feature_map_and_a_function_are_the_same():
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = np.exp(x[:, 0])
    phi = MonomialFeatures(Polynomial(degree=3), 2)
    one = WeightedLeastSquares(phi).fit(x, y)
    two = WeightedLeastSquares(lambda x: phi(x)).fit(x, y)
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    assert one.rank_ == 10


def test_saving_knows_maps_and_designs_but_no_functions(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, size=(300, 2))
    phi = MonomialFeatures(Polynomial(degree=3), 2)
    machine = WeightedLeastSquares(phi, random_state=0).fit_function(lambda x: x[:, 0], x, 25)
    machine.save_pretrained(tmp_path / "machine")
    twin = WeightedLeastSquares.from_pretrained(tmp_path / "machine")
    np.testing.assert_array_equal(twin.predict(x), machine.predict(x))
    assert twin.design_.gram_min_eig == machine.design_.gram_min_eig
    np.testing.assert_array_equal(twin.design_.points, machine.design_.points)
    with pytest.raises(TypeError, match="features"):
        WeightedLeastSquares(legendre).save_pretrained(tmp_path / "other")


@pytest.mark.paper(
    "machines-dpp-weighted-least-squares",
    kind="behaviour",
    claim="The estimator, Legendre m = 10 on a grid, f = 1 / (1 + 5 x^2): median error of 20 "
    "chosen evaluations is at most 1.5 times the best, and below that of 20 uniform ones.",
)
def test_few_chosen_evaluations(evidence):
    x = _grid()
    best = WeightedLeastSquares(legendre).fit(x, _runge(x)).predict(x) - _runge(x)
    errors, uniform = [], []
    for seed in range(30):
        machine = WeightedLeastSquares(legendre, random_state=seed).fit_function(_runge, x, 20)
        assert machine.design_.gram_min_eig >= 0.1 and machine.design_.num_tries <= 5
        errors.append(np.sqrt(np.mean((machine.predict(x) - _runge(x)) ** 2)))
        some = x[np.random.default_rng(seed).integers(len(x), size=20)]
        plain = WeightedLeastSquares(legendre).fit(some, _runge(some))
        uniform.append(np.sqrt(np.mean((plain.predict(x) - _runge(x)) ** 2)))
    least = np.sqrt(np.mean(best**2))
    ratios = [np.median(e) / least for e in (errors, uniform)]
    evidence(required="<= 1.5", measured=ratios[0], what="chosen, over the best error")
    evidence(required="> chosen", measured=ratios[1], what="uniform, over the best error")
    assert ratios[0] <= 1.5 and ratios[1] > ratios[0]


def test_fit_function_is_its_three_steps():
    x, called = torch.from_numpy(_grid()), []

    def function(points):
        called.append(points)
        return torch.stack([_runge(points), points[:, 0]], 1)

    machine = WeightedLeastSquares(legendre, random_state=1)
    design = machine.design_points(x, 23)
    assert not hasattr(machine, "coef_") and torch.equal(design.points, x[design.index])
    whole = WeightedLeastSquares(legendre, random_state=1).fit_function(function, x, 23)
    assert len(called) == 1 and torch.equal(called[0], design.points)
    machine.fit(design.points, function(design.points), design.weights)
    assert torch.equal(whole.coef_, machine.coef_) and whole.coef_.shape == (2, 10)
    assert machine.design_ is None and whole.design_ is not None


def test_arrays_come_as_arrays():
    design = WeightedLeastSquares(legendre, random_state=0).design_points(_grid(), 12)
    for value in (design.points, design.index, design.weights):
        assert isinstance(value, np.ndarray)
    assert design.points.shape == (12, 1)


def test_weights_of_the_rows_are_the_measure():
    x = _grid(401)
    half = (x[:, 0] > 0).astype(float)
    design = WeightedLeastSquares(random_state=0).design_points(x, 8, half)
    assert design.points.min() > 0


def test_memory():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**18),
        pytest.raises(MemoryError, match="thin the nodes"),
    ):
        WeightedLeastSquares(legendre).design_points(_grid(50_000), 12)


@pytest.mark.parametrize(
    ("error", "match", "params", "size"),
    [
        (TypeError, "features", {"features": 3}, 12),
        (ValueError, "design", {"design": "random"}, 12),
        (ValueError, "delta", {"delta": 1.5}, 12),
        (ValueError, "max_tries", {"max_tries": 0}, 12),
        (ValueError, "size: expected at least as many points", {}, 9),
        (ValueError, "numerical rank 1", {"features": lambda x: torch.ones(len(x), 2)}, 9),
        (ValueError, "features: expected shape", {"features": lambda x: torch.ones(3, 2)}, 9),
        (ValueError, "did not reach", {"design": "iid", "delta": 0.01}, 10),
    ],
)
def test_errors(error, match, params, size):
    with pytest.raises(error, match=match):
        WeightedLeastSquares(**{"features": legendre, **params}).design_points(_grid(), size)


def test_errors_of_values():
    machine = WeightedLeastSquares(legendre)
    with pytest.raises(TypeError, match="function"):
        machine.fit_function(3, _grid(), 12)
    with pytest.raises(ValueError, match=r"y|NaN"):
        machine.fit_function(lambda x: np.full(len(x), np.nan), _grid(), 12)
    with pytest.raises(ValueError, match="features: expected shape"):
        WeightedLeastSquares(lambda x: torch.ones(3, 2)).fit(_grid(), _grid()[:, 0])
