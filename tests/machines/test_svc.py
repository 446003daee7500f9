"""Support vector classifiers against scikit-learn's and the conditions of their optimum."""

import numpy as np
import pytest
import torch
from sklearn import svm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from mercer.kernels import RBF, Matern
from mercer.machines import SVC
from tests.contracts.machine import MachineContract

SHEET = "machines-introduction-to-ml"


class TestDual(MachineContract):
    precomputed_tolerance = 1e-6  # rows come in another order, and the solver stops at a tolerance

    def make(self, **params):
        return SVC(**{"random_state": 0, "tol": 1e-8, **params})

    def estimators(self):
        return [SVC(), self.make(kernel="matern", class_weight="balanced")]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6  # the same landmarks, iterated to the same tolerance

    def make(self, **params):
        given = {"solver": "nystroem", "landmarks": 40, "selection": "uniform", "random_state": 0}
        return SVC(**{**given, **params})

    def estimators(self):
        return []  # a sample of landmarks is not equal for weights and for repeated rows

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0)), x


def data(n=300, classes=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=source).double()
    value = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * torch.randn(n, generator=source)
    edges = torch.linspace(-1, 1, classes + 1)[1:-1]
    return x, torch.bucketize(value, edges.to(value))


@pytest.mark.paper(
    SHEET, kind="exact", claim="SVC decisions are scikit-learn's, to 1e-4 (the sheet: 1e-3)."
)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", ["ovr", "ovo"])
def test_decisions_are_scikit_learns(classes, shape, evidence):
    x, y = data(classes=classes)
    q = data(seed=1)[0]
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(2)).double()
    weight[::9] = 0
    for C, rows, class_weight in ((0.3, None, "balanced"), (10.0, weight, {1: 3.0})):
        given = {"C": C, "class_weight": class_weight, "decision_function_shape": shape}
        peer = svm.SVC(gamma=0.5, tol=1e-6, **given)
        peer.fit(x.numpy(), y.numpy(), None if rows is None else rows.numpy())
        ours = SVC(RBF(1.0), tol=1e-6, **given).fit(x, y, rows)
        expected = peer.decision_function(q.numpy())
        error = float(np.abs(ours.decision_function(q.numpy()) - expected).max())
        evidence(required="<= 1e-4", measured=error, what=f"{classes} classes, {shape}, C = {C}")
        assert error <= 1e-4
        np.testing.assert_array_equal(ours.predict(q), peer.predict(q.numpy()))
        # With weights of zero scikit-learn counts support vectors among the other rows.
        places = np.arange(len(x)) if rows is None else np.flatnonzero(rows.numpy())
        odd = set(ours.support_.tolist()) ^ set(places[peer.support_].tolist())
        assert len(odd) <= 3  # a coefficient near zero
    assert ours.solver_ == "dual" and "matrix of 266" in ours.solver_reason_ and ours.converged_


@pytest.mark.paper(
    SHEET, kind="exact", claim="SVM dual: 0 <= a <= C, y a = 0, and complementary slackness."
)
def test_conditions_of_the_optimum(evidence):
    x, y = data()
    C, kernel = 2.0, Matern(1.0, nu=1.5)
    model = SVC(kernel, C, tol=1e-9).fit(x, y)
    signs = 2 * y.double() - 1
    a = torch.zeros(len(x), dtype=torch.float64)
    a[model.support_] = model.dual_coef_[:, 0] * signs[model.support_]
    margin = signs * model.decision_function(x)
    assert float(a.min()) >= 0 and float(a.max()) <= C
    worst = max(
        abs(float(signs @ a)),
        float((1 - margin[a == 0]).clamp_min(0).max()),
        float((margin[a == C] - 1).clamp_min(0).max()),
        float((margin[(a > 0) & (a < C)] - 1).abs().max()),
    )
    evidence(required="<= 1e-6", measured=worst)
    assert worst <= 1e-6
    # The dual's value is the primal's.
    matrix = kernel.requires_grad_(False)(x)
    norm = float((a * signs) @ matrix @ (a * signs))
    primal = norm / 2 + C * float((1 - margin).clamp_min(0).sum())
    assert primal == pytest.approx(float(a.sum()) - norm / 2, rel=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_rounded_hinge_is_near_the_hinge(classes):
    x, y = data(400, classes)
    q = data(400, seed=1)[0]
    given = {"C": 2.0, "decision_function_shape": "ovo"}
    exact = SVC(RBF(1.0), **given).fit(x, y).decision_function(q)
    near = SVC(RBF(1.0), solver="nystroem", random_state=0, selection="uniform", **given).fit(x, y)
    assert near.solver_ == "nystroem" and near.support_ is None and near.converged_
    found = near.decision_function(q)
    assert float((found - exact).abs().mean()) < 0.03 * float(exact.std())
    assert float((found.sign() == exact.sign()).double().mean()) > 0.985


def test_equal_rows_count_as_weight():
    x, y = data(60, 3)
    count = torch.randint(1, 4, (60,), generator=torch.Generator().manual_seed(1))
    weighted = SVC(tol=1e-3).fit(x, y, count)
    order = torch.randperm(int(count.sum()), generator=torch.Generator().manual_seed(2))
    repeated = SVC(tol=1e-3).fit(
        x.repeat_interleave(count, 0)[order], y.repeat_interleave(count)[order]
    )
    assert torch.equal(weighted.decision_function(x), repeated.decision_function(x))


def test_digits():
    x, y = load_digits(return_X_y=True)
    model = SVC(C=10.0).fit(x[:1000], y[:1000])
    peer = svm.SVC(C=10.0).fit(x[:1000], y[:1000])
    assert model.score(x[1000:], y[1000:]) >= peer.score(x[1000:], y[1000:]) - 0.01
    assert len(model.support_) < 900 and len(model._input.points) == len(model.support_)


def test_probabilities_come_from_calibration():
    x, y = data()
    model = CalibratedClassifierCV(SVC(), ensemble=False, cv=3).fit(x.numpy(), y.numpy())
    proba = model.predict_proba(x.numpy())
    assert proba.shape == (300, 2) and float(((proba[:, 1] > 0.5) == y.numpy()).mean()) > 0.8


def test_auto_takes_landmarks_where_memory_is_short(monkeypatch):
    from mercer.machines import training_matrix

    x, y = data()
    monkeypatch.setattr(training_matrix, "resident_memory", lambda: 2**60)
    model = SVC(landmarks=20, random_state=0).fit(x, y)
    assert model.solver_ == "nystroem" and "do not fit" in model.solver_reason_


def test_a_matrix_that_is_not_stored_gives_the_same(monkeypatch):
    from mercer.machines import landmark_basis

    x, y = data(400, classes=3)
    model = SVC(RBF(1.0), solver="nystroem", landmarks=30, tol=1e-7, random_state=0)
    whole = model.fit(x, y).decision_function(x)
    monkeypatch.setattr(landmark_basis, "resident_memory", lambda: 2**60)
    torch.testing.assert_close(model.fit(x, y).decision_function(x), whole, rtol=0, atol=1e-5)


def test_warns_where_it_has_not_converged():
    x, y = data()
    with pytest.warns(ConvergenceWarning):
        assert not SVC(C=1e4, max_iter=2).fit(x, y).converged_
    with pytest.warns(ConvergenceWarning, match="SVC: .* Newton steps were not enough"):
        model = SVC(C=1e4, max_iter=1, solver="nystroem", random_state=0, tol=1e-9).fit(x, y)
    assert not model.converged_


def test_constant_columns_and_equal_rows():
    x = torch.tensor([[0.0, 5.0], [0.0, 5.0], [1.0, 5.0], [1.0, 5.0]]).double()
    y = torch.tensor([0, 0, 1, 1])
    for solver in ("dual", "nystroem"):
        model = SVC(C=1e3, solver=solver, standardize=True).fit(x, y)
        assert model.predict(x).tolist() == y.tolist()
        same = SVC(solver=solver).fit(0 * x, torch.tensor([0, 1, 1, 1]))
        assert same.predict(x[:1]).tolist() in ([0], [1])


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "C: ", {"C": 0.0}),
        (TypeError, "C: ", {"C": "1"}),
        (ValueError, "solver: expected one of", {"solver": "smo"}),
        (ValueError, "selection: expected one of", {"selection": "best"}),
        (ValueError, "decision_function_shape: expected", {"decision_function_shape": "all"}),
        (ValueError, "max_iter", {"max_iter": -2}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "tol", {"tol": 0.0}),
        (ValueError, "class_weight: expected labels among", {"class_weight": {7: 1.0}}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
    ],
)
def test_refuses(error, match, changes):
    x, y = data(30)
    with pytest.raises(error, match=match):
        SVC(**changes).fit(x, y)


def test_refuses_data():
    x, y = data(30)
    for bad in (torch.zeros(30), y[:1].expand(30)):
        with pytest.raises(ValueError, match="one class"):
            SVC().fit(x, bad)
    with pytest.raises(ValueError, match="one class"):
        SVC().fit(x[:1], y[:1])
    with pytest.raises(ValueError, match="y: the estimator requires y"):
        SVC().fit(x)
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        SVC("precomputed").fit(matrix, [0, 1])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        SVC("precomputed", solver="nystroem").fit(matrix, [0, 1])
