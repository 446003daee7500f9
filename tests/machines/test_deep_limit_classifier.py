"""The classifier of infinite depth against brute force, neighbours and the sheet's numbers."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier

from mercer.infinite import deep_limit, optimal_activation
from mercer.kernels import HermiteActivation
from mercer.machines import DeepLimitClassifier
from tests.contracts.machine import MachineContract

SHEET = "infinite-wide-deep-classification"


class TestContract(MachineContract):
    def make(self, **params):
        return DeepLimitClassifier(**params)

    def estimators(self):
        return [
            self.make(),
            self.make(activation="hilbert"),
            self.make(activation="tanh", depth=20, limit=False, sphere="stereographic"),
            self.make(activation=HermiteActivation(2)),
        ]


def dirichlet(n, seed):
    """Two classes of Dirichlet vectors, divided by their length."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    one, two = rng.dirichlet((0.5, 0.5, 2.5), n), rng.dirichlet((2.5, 0.1, 0.5), n)
    x = np.where(y[:, None] == 1, one, two)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


@pytest.mark.paper(
    SHEET, kind="exact", claim="At L = 100 the deep kernel predicts the sign of the smoother."
)
@pytest.mark.parametrize("activation", ["auto", "erf"])
def test_deep_kernel_is_the_smoother(activation, evidence):
    x, y = dirichlet(300, 0)
    x_test, _ = dirichlet(1200, 1)
    limit = DeepLimitClassifier(activation).fit(x, y)
    depth = 100 if activation == "auto" else 400  # erf loses but 9% a layer
    deep = DeepLimitClassifier(activation, depth, limit=False).fit(x, y)
    # and both against brute force
    points = torch.from_numpy(x_test)[:, None] - torch.from_numpy(x)
    sign, log = limit.limit_.log_weight(points.square().sum(-1) / 2)
    brute = (sign * (log - log.amax(-1, keepdim=True)).exp()) @ (
        2 * torch.from_numpy(y).double() - 1
    )
    np.testing.assert_array_equal(limit.predict(x_test), (brute > 0).numpy())
    same = float((deep.predict(x_test) == limit.predict(x_test)).mean())
    evidence(required="> 0.999", measured=same)
    assert same > 0.999


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Dirichlet classes: optimal >= 1-NN + 0.005 at n = 1000, equal to Hilbert's estimate "
    "to 0.003, better with more data.",
)
@pytest.mark.slow
def test_dirichlet_classes(evidence):
    x_test, y_test = dirichlet(4000, 99)
    found = {}
    for n in (300, 1000, 3000):
        scores = []
        for seed in range(12):  # the gain from 1000 to 3000 is half of the spread over draws
            x, y = dirichlet(n, seed)
            models = DeepLimitClassifier(), DeepLimitClassifier("hilbert"), KNeighborsClassifier(1)
            scores.append([m.fit(x, y).score(x_test, y_test) for m in models])
        found[n] = np.mean(scores, 0)
        for name, score in zip(("optimal", "Hilbert", "1-NN"), found[n], strict=True):
            evidence(required="see the claim", measured=score, what=f"{name}, n = {n}")
        assert abs(found[n][0] - found[n][1]) < 0.003
    x, y = dirichlet(1000, 0)
    majority = DeepLimitClassifier("relu").fit(x, y).score(x_test, y_test)
    evidence(required="0.6", measured=majority, what="ReLU, the majority")
    assert abs(majority - 0.6) < 0.02
    limit = DeepLimitClassifier().fit(x, y).predict(x_test)
    deep = DeepLimitClassifier(limit=False, depth=60).fit(x, y).predict(x_test)
    assert (limit != deep).mean() < 0.001
    assert found[1000][0] >= found[1000][2] + 0.005
    assert found[300][0] < found[1000][0] < found[3000][0]


def test_interpolates_and_shares_coinciding_points():
    x, y = dirichlet(200, 2)
    for model in (
        DeepLimitClassifier(),
        DeepLimitClassifier("hilbert"),
        DeepLimitClassifier(HermiteActivation(3)),
        DeepLimitClassifier(sphere="stereographic"),
        DeepLimitClassifier(limit=False),
    ):
        assert model.fit(x, y).score(x, y) == 1.0
    # one point with labels 0, 1, 1 beside another
    x = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for limit in (True, False):
        model = DeepLimitClassifier("tanh", limit=limit).fit(x, [0, 1, 1, 0])
        assert model.decision_function(x)[0] == pytest.approx(1 / 3, abs=1e-3)
        assert model.predict(x).tolist() == [1, 1, 1, 0]


def test_hilberts_estimate_is_scikit_learns_with_the_power_as_weights():
    x, y = dirichlet(300, 3)
    x_test, _ = dirichlet(500, 4)
    for dimension in (2, 5):
        padded = np.pad(x, ((0, 0), (0, dimension - 2)))  # its dimension is that of the rows
        peer = KNeighborsClassifier(300, weights=lambda d, p=dimension: d**-p).fit(padded, y)
        ours = DeepLimitClassifier("hilbert").fit(padded, y)
        padded = np.pad(x_test, ((0, 0), (0, dimension - 2)))
        np.testing.assert_array_equal(ours.predict(padded), peer.predict(padded))


def test_nearest_and_majority():
    x, y = dirichlet(300, 3)
    x_test, _ = dirichlet(500, 4)
    model = DeepLimitClassifier(HermiteActivation(2)).fit(x, y)
    assert model.limit_.kind == "nearest"
    np.testing.assert_array_equal(
        model.predict(x_test), KNeighborsClassifier(1).fit(x, y).predict(x_test)
    )
    # products of these inputs are positive: the deep kernel itself agrees
    deep = DeepLimitClassifier(HermiteActivation(2), 30, limit=False).fit(x, y)
    np.testing.assert_array_equal(model.predict(x_test), deep.predict(x_test))
    model = DeepLimitClassifier("relu").fit(x, y)
    assert set(model.predict(x_test)) == {0}
    assert model.decision_function(x_test)[0] == pytest.approx(2 * y.mean() - 1)


def test_finite_depth_is_kernel_interpolation():
    x = np.abs(np.random.default_rng(0).normal(size=(100, 10)))
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), np.arange(60) % 2
    x, x_test = x[:60], x[60:]
    found = deep_limit("silu")
    kernels = []
    for rows in (x, x_test):
        gap = torch.from_numpy(((rows[:, None] - x) ** 2).sum(-1) / 2)
        sign, log = found.log_kernel(gap, 2)
        kernels.append((sign * log.exp()).numpy())
    expected = kernels[1] @ np.linalg.solve(kernels[0], 2.0 * y - 1)
    model = DeepLimitClassifier("silu", 2, limit=False).fit(x, y)
    ours = model.decision_function(x_test)
    # in units of the weights of each point
    np.testing.assert_allclose(ours * np.abs(kernels[1]).sum(1), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_takes_arrays_and_tensors_and_returns_the_callers_kind(dtype):
    x, y = (torch.from_numpy(t) for t in dirichlet(100, 0))
    x = x.to(dtype)
    of_tensor = DeepLimitClassifier().fit(x, y)
    of_array = DeepLimitClassifier().fit(x.numpy(), y.numpy())
    found = of_tensor.predict(x)
    assert isinstance(found, torch.Tensor) and found.dtype == y.dtype and torch.equal(found, y)
    assert isinstance(of_array.predict(x.numpy()), np.ndarray)
    scores = of_tensor.decision_function(x)
    assert isinstance(scores, torch.Tensor) and scores.dtype == dtype
    np.testing.assert_array_equal(of_array.decision_function(x.numpy()), scores.numpy())
    names = np.array(["left", "right"])[y.numpy()]
    assert of_tensor.fit(x, names).predict(x).tolist() == names.tolist()


def test_blocks_do_not_matter(monkeypatch):
    from mercer.machines import deep_limit_classifier

    x, y = dirichlet(300, 0)
    model = DeepLimitClassifier().fit(x, y)
    whole = model.decision_function(x)
    monkeypatch.setattr(deep_limit_classifier, "resident_memory", lambda: 2**60)
    np.testing.assert_allclose(model.decision_function(x[:40]), whole[:40], rtol=1e-12)


def test_spheres():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) * [1.0, 3.0] + [5.0, 0.0]
    y = (np.hypot(x[:, 0] - 5, x[:, 1] / 3) > 1.1).astype(int)
    model = DeepLimitClassifier().fit(x[:300], y[:300])
    assert model._embedding.way == "stereographic" and model.dimension_ == 2
    assert model.limit_.exponent == pytest.approx(2)
    np.testing.assert_allclose(model._points.norm(dim=-1), 1, rtol=1e-12)
    assert float((model._points @ model._points.T).amin()) >= 0
    assert model.predict(1e6 * x[:5]).shape == (5,)
    assert model.score(x[300:], y[300:]) > 0.85
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for way in ("normalize", "given", "auto"):
        model = DeepLimitClassifier(sphere=way).fit(unit, y)
        assert model.dimension_ == 1 and model._points.shape[1] == 3  # lifted
        points = model._embedding(torch.from_numpy(unit))
        products = points @ points.T
        np.testing.assert_allclose(products, (1 + unit @ unit.T) / 2, atol=1e-12)
    # opposite points are not alike
    opposite = DeepLimitClassifier(4).fit([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [0, 1, 1])
    assert opposite.predict([[-0.96, 0.28]]).tolist() == [1]
    assert DeepLimitClassifier(5).fit(x, y).limit_.exponent == pytest.approx(5)
    twin = clone(DeepLimitClassifier(optimal_activation(2), sphere="normalize"))
    assert twin.fit(x, y).limit_.exponent == pytest.approx(2)
    assert math.isclose(float(model.decision_function(unit[:1]).item()), 2 * y[0] - 1)


def test_bad_input():
    x, y = dirichlet(20, 0)
    for model, error, text in (
        (DeepLimitClassifier("rellu"), ValueError, "activation: unknown"),
        (DeepLimitClassifier(True), TypeError, "activation: "),
        (DeepLimitClassifier(0), ValueError, "dimension: "),
        (DeepLimitClassifier("identity"), ValueError, "activation: identity is linear"),
        (DeepLimitClassifier(depth=0), ValueError, "depth: "),
        (DeepLimitClassifier(sphere="ball"), ValueError, "sphere: "),
    ):
        with pytest.raises(error, match=text):
            model.fit(x, y)
    with pytest.raises(ValueError, match="X: expected rows of length one"):
        DeepLimitClassifier(sphere="given").fit(2 * x, y)
    with pytest.raises(ValueError, match="X: a row of zeros"):
        DeepLimitClassifier(sphere="normalize").fit(np.vstack([x, 0 * x[:1]]), [*y, 0])
    with pytest.raises(ValueError, match="y: the estimator requires y"):
        DeepLimitClassifier().fit(x, None)
