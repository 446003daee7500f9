import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from mercer.kernels import RBF, Linear, RationalQuadratic
from mercer.machines import NadarayaWatson
from tests.contracts.machine import MachineContract

SHEET = "machines-fast-ecdf-kde"
BOOK = "machines-introduction-to-ml"


class TestNadarayaWatson(MachineContract):
    float32_tolerance = 1e-2

    def make(self, **params):
        return NadarayaWatson(**params)

    def estimators(self):
        return [
            NadarayaWatson(),
            NadarayaWatson(local="linear", bandwidth=1.0),
            NadarayaWatson(kernel="laplacian", standardize=True),
            NadarayaWatson(kernel="epanechnikov", product=True, bandwidth=0.5),
        ]


def _data(n=200, d=2, q=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(n, d))
    y = np.stack([np.sin(x.sum(1) * (k + 1)) + 0.1 * rng.normal(size=n) for k in range(q)], 1)
    return x, y[:, 0] if q == 1 else y


KAPPA = {
    "rbf": lambda u: np.exp(-(u**2).sum(-1) / 2),
    "exponential": lambda u: np.exp(-((u**2).sum(-1) ** 0.5)),
    "laplacian": lambda u: np.exp(-np.abs(u).sum(-1)),
    "matern52": lambda u: (
        (1 + 5**0.5 * np.abs(u) + 5 * u**2 / 3) * np.exp(-(5**0.5) * np.abs(u))
    ).prod(-1),
    "triangular": lambda u: np.maximum(1 - np.abs(u), 0).prod(-1),
}


def brute(kernel, x, y, z, h, w, linear):
    """Fit a constant or a line at each query by NumPy's least squares."""
    found = []
    for query in z:
        weight = (w * KAPPA[kernel]((query - x) / h)) ** 0.5
        basis = np.ones((len(x), 1))
        if linear:
            basis = np.column_stack([basis, x - query])
        found.append(np.linalg.lstsq(basis * weight[:, None], (y.T * weight).T, rcond=None)[0][0])
    return np.array(found)


@pytest.mark.paper(BOOK, kind="exact", claim="Local averages and local lines are least squares.")
@pytest.mark.parametrize("local", ["constant", "linear"])
@pytest.mark.parametrize("kernel", KAPPA)
@pytest.mark.parametrize("q", [1, 3])
def test_predictions_are_least_squares_around_each_query(kernel, local, q, evidence):
    x, y = _data(q=q)
    z, h = _data(40, seed=1)[0] * 0.9, np.array([0.8, 1.1])
    w = np.random.default_rng(2).uniform(0.2, 2, 200)
    model = NadarayaWatson(kernel, h, local=local).fit(x, y, sample_weight=w)
    error = float(np.abs(model.predict(z) - brute(kernel, x, y, z, h, w, local == "linear")).max())
    evidence(required="<= 1e-10", measured=error, what=f"{kernel}, {local}, {q} targets")
    assert error <= 1e-10


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "triangular"])
@pytest.mark.parametrize("local", ["constant", "linear"])
@pytest.mark.parametrize("q", [1, 2])
def test_on_a_grid(kernel, local, q):
    x, y = _data(q=q)
    model = NadarayaWatson(kernel, 0.9, local=local).fit(x, y)
    axes = [np.linspace(-2, 2, 5), np.linspace(-1, 4, 4)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    found = model.predict_grid(axes)
    assert found.shape == ((5, 4) if q == 1 else (5, 4, 2))
    np.testing.assert_allclose(
        found.reshape(len(nodes), -1)[:, 0],
        model.predict(nodes).reshape(len(nodes), -1)[:, 0],
        atol=1e-9,
    )


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Nadaraya-Watson on 100,000 points is the direct sum on 1,000 of them.",
)
def test_many_points(evidence):
    x, y = _data(100_000)
    model = NadarayaWatson("laplacian", 0.1).fit(x, y)
    some = np.arange(0, 100_000, 100)
    found = model.predict(x)[some]
    error = 0.0
    for part in np.array_split(some, 50):
        weight = KAPPA["laplacian"]((x[part, None] - x) / 0.1)
        expected = weight @ y / weight.sum(1)
        error = max(error, float(np.abs(found[np.isin(some, part)] - expected).max()))
    evidence(required="<= 1e-12", measured=error)
    assert error <= 1e-12


@pytest.mark.parametrize("kernel", [RBF(0.7), RationalQuadratic(1.0, alpha=2.0)])
def test_kernels_of_mercer(kernel):
    x, y = _data()
    z = _data(30, seed=1)[0]
    weight = kernel(torch.from_numpy(z) / 1.5, torch.from_numpy(x) / 1.5).detach().numpy()
    found = NadarayaWatson(kernel, 1.5).fit(x, y).predict(z)
    np.testing.assert_allclose(found, weight @ y / weight.sum(1), rtol=1e-10)


def test_local_lines_reproduce_lines_and_constants_constants():
    x, _ = _data()
    line = 3 * x[:, 0] - x[:, 1] + 5
    z = _data(50, seed=1)[0] * 2  # beyond the data too
    model = NadarayaWatson(bandwidth=0.7, local="linear").fit(x, line)
    expected = LinearRegression().fit(x, line).predict(z)
    np.testing.assert_allclose(model.predict(z), expected, atol=1e-6)
    flat = NadarayaWatson(bandwidth=0.7).fit(x, np.full(200, 4.0))
    np.testing.assert_allclose(flat.predict(z), 4.0, rtol=1e-12)


@pytest.mark.parametrize("local", ["constant", "linear"])
def test_cross_validated_bandwidth_and_its_error(local):
    x, y = _data(80, 1)
    model = NadarayaWatson(local=local).fit(x, y)

    def left_out(h):
        others = [np.delete(np.arange(80), i) for i in range(80)]
        ones = np.ones(79)
        found = [
            brute("rbf", x[o], y[o], x[[i]], h, ones, local == "linear")[0]
            for i, o in enumerate(others)
        ]
        return np.mean((np.array(found) - y) ** 2)

    assert model.loo_error_ == pytest.approx(left_out(model.bandwidth_), rel=1e-8)
    for factor in (0.5, 0.8, 0.95, 1.05, 1.3, 2.0):
        assert left_out(factor * model.bandwidth_) >= model.loo_error_ * (1 - 1e-6)


def test_lines_have_no_bias_at_the_edge():
    x = np.random.default_rng(0).uniform(0, 1, size=(2000, 1))
    y = 2 * x[:, 0]
    edge = np.array([[0.0]])
    errors = {
        local: abs(NadarayaWatson(bandwidth=0.1, local=local).fit(x, y).predict(edge)[0])
        for local in ("constant", "linear")
    }
    assert errors["constant"] > 0.1 and errors["linear"] < 1e-9


@pytest.mark.parametrize("rule", [0.5, "scott", "nn", "cv"])
@pytest.mark.parametrize("local", ["constant", "linear"])
def test_weights_are_repeated_rows(rule, local):
    x, y = _data(60)
    w = np.random.default_rng(0).integers(0, 4, 60)
    z = _data(20, seed=1)[0]
    weighted = NadarayaWatson(bandwidth=rule, local=local, standardize=True)
    weighted.fit(x, y, sample_weight=w)
    repeated = NadarayaWatson(bandwidth=rule, local=local, standardize=True)
    repeated.fit(x.repeat(w, 0), y.repeat(w))
    np.testing.assert_allclose(weighted.bandwidth_, repeated.bandwidth_, rtol=1e-10)
    np.testing.assert_allclose(weighted.predict(z), repeated.predict(z), rtol=1e-8)


def test_effective_neighbours():
    x, y = _data()
    z = _data(30, seed=1)[0]
    weight = KAPPA["laplacian"]((z[:, None] - x) / 0.4)
    expected = weight.sum(1) ** 2 / (weight**2).sum(1)
    model = NadarayaWatson("laplacian", 0.4).fit(x, y)
    np.testing.assert_allclose(model.effective_neighbors(z), expected, rtol=1e-10)


def test_where_no_point_is_in_the_window_the_nearest_one_answers():
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 2.0, 5.0])
    for kernel, product in (("epanechnikov", False), ("epanechnikov", True), ("uniform", False)):
        model = NadarayaWatson(kernel, 0.3, product=product).fit(x, y)
        far = np.array([[9.0], [0.6], [2.1]])
        assert model.predict(far) == pytest.approx([5.0, 2.0, 5.0], rel=1e-14)
        assert model.effective_neighbors(far).tolist() == [0.0, 0.0, 1.0]
    distant = NadarayaWatson("laplacian", 0.001).fit(x, y).predict([[50.0]])
    assert distant[0] == pytest.approx(5.0)  # its weights underflow


def test_float32_and_many_targets():
    x, y = _data(q=3)
    model = NadarayaWatson("laplacian", 0.5, local="linear")
    found = model.fit(x.astype(np.float32), y.astype(np.float32)).predict(x.astype(np.float32))
    assert found.dtype == np.float32 and found.shape == (200, 3)


@pytest.mark.parametrize(
    ("params", "error", "name"),
    [
        ({"kernel": "quartic"}, ValueError, "kernel"),
        ({"kernel": None}, TypeError, "kernel"),
        ({"kernel": RBF(), "product": True}, ValueError, "product"),
        ({"kernel": Linear(), "bandwidth": 1.0}, ValueError, "negative"),
        ({"bandwidth": -1.0}, ValueError, "bandwidth"),
        ({"bandwidth": "loo"}, ValueError, "bandwidth"),
        ({"local": "cubic"}, ValueError, "local"),
    ],
)
def test_bad_parameters(params, error, name):
    x, y = _data(20)
    with pytest.raises(error, match=name):
        NadarayaWatson(**params).fit(x, y)
