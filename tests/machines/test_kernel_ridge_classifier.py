"""The ridge classifier against scikit-learn's on features with the kernel's products."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from mercer.kernels import RBF
from mercer.machines import KernelRidgeClassifier
from tests.contracts.machine import MachineContract


class TestContract(MachineContract):
    def make(self, **params):
        return KernelRidgeClassifier(**{"random_state": 0, "alpha": 0.1, **params})

    def estimators(self):
        return [
            KernelRidgeClassifier(),
            self.make(kernel="matern", class_weight="balanced", fit_intercept=False),
        ]


class TestLandmarks(MachineContract):
    def make(self, **params):
        given = {"solver": "falkon", "landmarks": 30, "random_state": 0, "alpha": 0.1}
        return KernelRidgeClassifier(**{**given, **params})

    def estimators(self):
        return []  # a sample of landmarks is not equal for weights and for repeated rows

    def test_precomputed_matrices(self):
        with pytest.raises(ValueError, match="solver: 'falkon' evaluates the kernel"):
            self.fitted(RBF().requires_grad_(False)(self.rows()), kernel="precomputed")

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0)), x


def data(n=120, classes=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=source).double()
    value = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.5 * torch.randn(n, generator=source)
    edges = torch.linspace(-1, 1, classes + 1)[1:-1]
    return x, torch.bucketize(value, edges.to(value))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
@pytest.mark.parametrize("intercept", [True, False])
def test_is_the_ridge_classifier_on_the_roots_rows(classes, class_weight, intercept):
    x, y = data(classes=classes)
    q = data(seed=1)[0]
    kernel = RBF(1.0).requires_grad_(False)
    values, vectors = torch.linalg.eigh(kernel(x))
    phi, phi_q = vectors * values.sqrt(), kernel(q, x) @ vectors * values.rsqrt()
    weight = 0.1 + torch.rand(len(x), generator=torch.Generator().manual_seed(5)).double()
    given = {"alpha": 0.3, "fit_intercept": intercept}
    # class_weight="balanced" counts weights here, rows there: give the weights to one of them
    rows = None if class_weight == "balanced" else weight
    peer = RidgeClassifier(class_weight=class_weight, solver="cholesky", **given)
    peer.fit(phi.numpy(), y.numpy(), None if rows is None else rows.numpy())
    ours = KernelRidgeClassifier(kernel, class_weight=class_weight, **given).fit(x, y, rows)
    expected = peer.decision_function(phi_q.numpy())
    np.testing.assert_allclose(ours.decision_function(q), expected, atol=1e-8)
    np.testing.assert_array_equal(ours.predict(q), peer.predict(phi_q.numpy()))


@pytest.mark.parametrize("solver", ["cholesky", "cg", "eigenpro", "falkon"])
def test_solvers_agree(solver):
    x, y = data(classes=3)
    kernel = RBF(1.0)
    exact = KernelRidgeClassifier(kernel, 0.5).fit(x, y)
    given = {"landmarks": x.numpy()} if solver == "falkon" else {}
    tol = {"cg": 1e-12, "eigenpro": 1e-7}.get(solver)
    given |= {"tol": tol, "max_iter": None if tol is None else 2000, "random_state": 0}
    ours = KernelRidgeClassifier(kernel, 0.5, solver=solver, **given).fit(x, y)
    assert ours.solver_ == solver and ours.converged_
    torch.testing.assert_close(
        ours.decision_function(x), exact.decision_function(x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("criterion", ["loo", "gcv"])
def test_the_penalty_is_chosen(criterion):
    x, y = data(classes=3)
    model = KernelRidgeClassifier(RBF(1.0), criterion).fit(x, y)
    assert model.choice_.criterion == criterion and model.alpha_ == model.choice_.ridge
    if criterion == "gcv":
        return
    # against leaving rows out one by one
    onehot = 2 * np.eye(3)[y.numpy()] - 1
    errors = []
    for alpha in (model.alpha_ / 8, model.alpha_, model.alpha_ * 8):
        plain = KernelRidgeClassifier(RBF(1.0), alpha)
        found = cross_val_predict(
            plain, x.numpy(), y.numpy(), cv=LeaveOneOut(), method="decision_function"
        )
        errors.append(((found - onehot) ** 2).sum(-1).mean())
    assert errors[1] == min(errors)
    assert errors[1] == pytest.approx(model.choice_.score, rel=1e-6)


def test_warns_where_it_has_not_converged():
    x, y = data()
    with pytest.warns(ConvergenceWarning, match="KernelRidgeClassifier: solver 'cg' ended"):
        KernelRidgeClassifier(RBF(1.0), 1e-6, solver="cg", tol=1e-14, max_iter=2).fit(x, y)


def test_refuses():
    x, y = data(30)
    for changes, text in (
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": "aic"}, "alpha"),
        ({"solver": "lu"}, "solver"),
        ({"class_weight": {7: 1.0}}, "class_weight: expected labels among"),
        ({"kernel": "gauss"}, "kernel: expected one of"),
    ):
        with pytest.raises(ValueError, match=text):
            KernelRidgeClassifier(**changes).fit(x, y)
    with pytest.raises(ValueError, match="one class"):
        KernelRidgeClassifier().fit(x[:1], y[:1])
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="expected a positive semi-definite matrix"):
        KernelRidgeClassifier("precomputed", 0.1).fit(matrix, [0, 1])
    with pytest.raises(ValueError, match="y: the estimator requires y"):
        KernelRidgeClassifier().fit(x)
