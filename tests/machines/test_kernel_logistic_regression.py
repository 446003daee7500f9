"""Kernel logistic regression against scikit-learn's on features with the kernel's products."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mercer.kernels import RBF, Linear, Matern
from mercer.machines import KernelLogisticRegression
from tests.contracts.machine import MachineContract

SHEET = "machines-introduction-to-ml"


class TestExact(MachineContract):
    def make(self, **params):
        return KernelLogisticRegression(**{"random_state": 0, **params})

    def estimators(self):
        return [KernelLogisticRegression(), self.make(kernel="matern", class_weight="balanced")]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6  # the same landmarks, iterated to the same tolerance

    def make(self, **params):
        given = {
            "solver": "nystroem",
            "landmarks": 40,
            "selection": "uniform",
            "random_state": 0,
            "C": 2.0,
        }
        return KernelLogisticRegression(**{**given, **params})

    def estimators(self):
        return []  # a sample of landmarks is not equal for weights and for repeated rows

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0)), x


def roots(kernel, x, q):
    """Features of x and q with the kernel's inner products, K^(1/2) for x."""
    values, vectors = torch.linalg.eigh(kernel(x))
    known = values > 1e-13 * values[-1]
    vectors, values = vectors[:, known], values[known]
    return vectors * values.sqrt(), kernel(q, x) @ vectors * values.rsqrt()


def data(n=150, classes=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=source).double()
    value = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.5 * torch.randn(n, generator=source)
    edges = torch.linspace(-1, 1, classes + 1)[1:-1]
    return x, torch.bucketize(value, edges.to(value))


@pytest.mark.paper(
    SHEET, kind="exact", claim="Kernel logistic = LogisticRegression on K^(1/2) features, to 1e-5."
)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_is_logistic_regression_on_the_roots_rows(classes, intercept, C, evidence):
    x, y = data(classes=classes)
    q = data(seed=1)[0]
    kernel = RBF(1.0).requires_grad_(False)
    phi, phi_q = roots(kernel, x, q)
    peer = LogisticRegression(
        C=C, fit_intercept=intercept, solver="newton-cg", tol=1e-10, max_iter=10_000
    ).fit(phi.numpy(), y.numpy())
    expected = peer.decision_function(phi_q.numpy())
    for solver in ("newton", "nystroem"):
        ours = KernelLogisticRegression(
            kernel, C, fit_intercept=intercept, solver=solver, tol=1e-14, random_state=0
        ).fit(x, y)
        error = float(np.abs(ours.decision_function(q.numpy()) - expected).max())
        evidence(required="<= 1e-5", measured=error, what=f"{solver}, {classes} classes, C = {C}")
        assert error <= 1e-5
        np.testing.assert_allclose(
            ours.predict_proba(q.numpy()), peer.predict_proba(phi_q.numpy()), atol=1e-5
        )
        assert ours.converged_ and ours.n_iter_ < 20


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Kernel logistic: the step (K + ridge/W)^-1 (K a + (y - p)/W) stands still at the fit.",
)
def test_a_step_of_the_sheet_stands_still(evidence):
    x, y = data()
    kernel = Matern(1.0, nu=1.5).requires_grad_(False)
    model = KernelLogisticRegression(kernel, 5.0, fit_intercept=False).fit(x, y)
    matrix, a = kernel(x), model.dual_coef_[:, 0]
    p = (matrix @ a).sigmoid()
    w = p * (1 - p)
    step = torch.linalg.solve(matrix + torch.diag(0.2 / w), matrix @ a + (y - p) / w)
    error = float((step - a).abs().max())
    evidence(required="<= 1e-9", measured=error)
    assert error <= 1e-9


@pytest.mark.parametrize("solver", ["newton", "nystroem"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_is_zero(solver, classes):
    x, y = data(classes=classes)
    weight = torch.rand(150, generator=torch.Generator().manual_seed(3)).double()
    weight[::7] = 0
    kernel = RBF(1.0).requires_grad_(False)
    model = KernelLogisticRegression(kernel, 3.0, solver=solver, tol=1e-14, random_state=0)
    model.fit(x, y, weight)
    proba = model.predict_proba(x)
    onehot = torch.nn.functional.one_hot(y, classes)
    slope = 3.0 * weight.unsqueeze(-1) * (onehot - proba)
    # The function is the kernel's mean of these slopes, and they sum to zero.
    found = model.decision_function(x)
    expected = kernel(x) @ slope + torch.from_numpy(model.intercept_)
    if classes == 2:
        expected = expected[:, 1]
    assert float(slope.sum(0).abs().max()) < 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if classes == 3:
        assert abs(float(model.intercept_.sum())) < 1e-10


def test_a_linear_kernel_is_plain_logistic_regression():
    x, y = data(classes=3)
    model = KernelLogisticRegression(Linear(), 0.7, tol=1e-14).fit(x.numpy(), y.numpy())
    peer = LogisticRegression(C=0.7, tol=1e-10, max_iter=1000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(model.predict_proba(x.numpy()), peer.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("solver", ["newton", "nystroem"])
def test_weights_of_classes_are_weights_of_rows(solver):
    x, y = data(classes=3)
    make = {"solver": solver, "random_state": 0, "tol": 1e-14}
    given = {0: 2.0, 2: 0.5}
    rows = torch.tensor([2.0, 1.0, 0.5])[y]
    by_class = KernelLogisticRegression(class_weight=given, **make).fit(x, y)
    by_row = KernelLogisticRegression(**make).fit(x, y, rows)
    torch.testing.assert_close(by_class.predict_proba(x), by_row.predict_proba(x))
    counts = torch.bincount(y).double()
    rows = (len(y) / (3 * counts))[y]
    by_class = KernelLogisticRegression(class_weight="balanced", **make).fit(x, y)
    by_row = KernelLogisticRegression(**make).fit(x, y, rows)
    torch.testing.assert_close(by_class.predict_proba(x), by_row.predict_proba(x))


def test_duplicates_constant_columns_and_separable_classes():
    x = torch.tensor([[0.0, 5.0], [0.0, 5.0], [1.0, 5.0], [1.0, 5.0]]).double()
    y = torch.tensor([0, 0, 1, 1])
    for solver in ("newton", "nystroem"):
        model = KernelLogisticRegression(C=1e6, solver=solver, standardize=True).fit(x, y)
        assert model.predict(x).tolist() == y.tolist()
        assert float(model.predict_proba(x)[0, 0]) > 0.99
    same = torch.zeros(6, 2).double()
    model = KernelLogisticRegression().fit(same, torch.tensor([0, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(model.predict_proba(same)[0], torch.tensor([1 / 6, 5 / 6]).double())


def test_says_which_solver_and_why():
    x, y = data()
    model = KernelLogisticRegression().fit(x, y)
    assert model.solver_ == "newton" and "150 rows" in model.solver_reason_
    x, y = data(6000)
    model = KernelLogisticRegression(landmarks=50, random_state=0).fit(x, y)
    assert model.solver_ == "nystroem" and "6000 rows" in model.solver_reason_
    assert model.dual_coef_.shape == (50, 1)


def test_many_rows_on_few_landmarks_are_near_the_exact_fit():
    x, y = load_digits(return_X_y=True)
    x, y, q, truth = x[:600], y[:600], x[600:], y[600:]
    exact = KernelLogisticRegression(C=10.0, solver="newton").fit(x, y)
    near = KernelLogisticRegression(C=10.0, solver="nystroem", landmarks=300, random_state=0)
    near.fit(x.astype(np.float32), y)
    assert exact.score(q, truth) > 0.9
    assert near.score(q, truth) > exact.score(q, truth) - 0.02
    assert np.abs(near.predict_proba(q) - exact.predict_proba(q)).mean() < 0.02


def test_a_matrix_that_is_not_stored_gives_the_same(monkeypatch):
    from mercer.machines import landmark_basis

    x, y = data(400, classes=3)
    model = KernelLogisticRegression(
        RBF(1.0), solver="nystroem", landmarks=30, tol=1e-14, random_state=0
    )
    whole = model.fit(x, y).predict_proba(x)
    monkeypatch.setattr(landmark_basis, "resident_memory", lambda: 2**60)
    torch.testing.assert_close(model.fit(x, y).predict_proba(x), whole, rtol=0, atol=1e-6)


def test_warns_where_it_has_not_converged():
    x, y = make_moons(100, noise=0.1, random_state=0)
    with pytest.warns(ConvergenceWarning, match="1 Newton steps were not enough"):
        model = KernelLogisticRegression(C=100.0, max_iter=1).fit(x, y)
    assert not model.converged_


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "C: ", {"C": 0.0}),
        (TypeError, "C: ", {"C": "1"}),
        (ValueError, "solver: expected one of", {"solver": "lbfgs"}),
        (ValueError, "selection: expected one of", {"selection": "best"}),
        (ValueError, "max_iter", {"max_iter": 0}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "tol", {"tol": -1.0}),
        (ValueError, "class_weight: expected labels among", {"class_weight": {7: 1.0}}),
        (ValueError, "class_weight: expected positive", {"class_weight": {0: -1.0}}),
        (ValueError, "class_weight: expected a dict", {"class_weight": "equal"}),
        (TypeError, "class_weight: expected a dict", {"class_weight": 3}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
    ],
)
def test_refuses(error, match, changes):
    x, y = data(30)
    with pytest.raises(error, match=match):
        KernelLogisticRegression(**changes).fit(x, y)


def test_refuses_data():
    x, y = data(30)
    with pytest.raises(ValueError, match="one class"):
        KernelLogisticRegression().fit(x, torch.zeros(30))
    with pytest.raises(ValueError, match="one class"):
        KernelLogisticRegression().fit(x[:1], y[:1])
    with pytest.raises(ValueError, match=r"sample_weight: expected rows .* each class"):
        KernelLogisticRegression().fit(x, y, (y == 0).double())
    with pytest.raises(ValueError, match="y: the estimator requires y"):
        KernelLogisticRegression().fit(x)
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        KernelLogisticRegression("precomputed").fit(matrix, [0, 1])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        KernelLogisticRegression("precomputed", solver="nystroem").fit(matrix, [0, 1])
