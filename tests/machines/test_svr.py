"""Support vector regression against scikit-learn's and the conditions of its optimum."""

import numpy as np
import pytest
import torch
from sklearn import svm
from sklearn.exceptions import ConvergenceWarning

from mercer.kernels import RBF, Matern
from mercer.machines import SVR
from tests.contracts.machine import MachineContract

SHEET = "machines-introduction-to-ml"


class TestDual(MachineContract):
    precomputed_tolerance = 1e-6  # rows come in another order, and the solver stops at a tolerance

    def make(self, **params):
        return SVR(**{"random_state": 0, "tol": 1e-8, **params})

    def estimators(self):
        return [SVR(), self.make(kernel="matern", epsilon=0.0)]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6  # the same landmarks, iterated to the same tolerance

    def make(self, **params):
        given = {"solver": "nystroem", "landmarks": 40, "selection": "uniform", "random_state": 0}
        return SVR(**{**given, **params})

    def estimators(self):
        return []  # a sample of landmarks is not equal for weights and for repeated rows

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0)), x


def data(n=300, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=source).double()
    noise = 0.2 * torch.randn(n, generator=source)
    return x, 3 + torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + noise


@pytest.mark.paper(
    SHEET, kind="exact", claim="SVR predictions are scikit-learn's, to 1e-4 (the sheet: 1e-3)."
)
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("C", [0.3, 10.0])
def test_predictions_are_scikit_learns(C, epsilon, evidence):
    x, y = data()
    q = data(seed=1)[0]
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(2)).double()
    weight[::9] = 0
    for rows in (None, weight):
        peer = svm.SVR(gamma=0.5, C=C, epsilon=epsilon, tol=1e-6)
        peer.fit(x.numpy(), y.numpy(), None if rows is None else rows.numpy())
        ours = SVR(RBF(1.0), C, epsilon, tol=1e-6).fit(x, y, rows)
        error = float(np.abs(ours.predict(q.numpy()) - peer.predict(q.numpy())).max())
        evidence(required="<= 1e-4", measured=error, what=f"C = {C}, epsilon = {epsilon}")
        assert error <= 1e-4
    assert ours.solver_ == "dual" and ours.converged_


@pytest.mark.paper(
    SHEET, kind="exact", claim="SVR dual: |b| <= C, sum b = 0, and complementary slackness."
)
def test_conditions_of_the_optimum(evidence):
    x, y = data()
    C, epsilon = 2.0, 0.1
    model = SVR(Matern(1.0, nu=1.5), C, epsilon, tol=1e-9).fit(x, y)
    b = torch.zeros(len(x), dtype=torch.float64)
    b[model.support_] = model.dual_coef_
    error = y - model.predict(x)
    inside, bound = b == 0, b.abs() == C
    free = ~inside & ~bound
    assert float(b.abs().max()) <= C and free.any() and inside.any() and bound.any()
    worst = max(
        abs(float(b.sum())),
        float((error[inside].abs() - epsilon).clamp_min(0).max()),
        float((epsilon - (error * b.sign())[bound]).clamp_min(0).max()),
        float((error[free] - epsilon * b[free].sign()).abs().max()),
    )
    evidence(required="<= 1e-6", measured=worst)
    assert worst <= 1e-6


def test_the_rounded_loss_is_near_the_loss():
    x, y = data(400)
    q = data(400, seed=1)[0]
    for C in (0.5, 5.0):
        exact = SVR(RBF(1.0), C).fit(x, y).predict(q)
        near = SVR(RBF(1.0), C, solver="nystroem", random_state=0, selection="uniform").fit(x, y)
        assert near.converged_ and near.support_ is None
        assert float((near.predict(q) - exact).abs().mean()) < 0.03 * float(y.std())


def test_equal_rows_count_as_weight():
    x, y = data(60)
    count = torch.randint(1, 4, (60,), generator=torch.Generator().manual_seed(1))
    weighted = SVR(tol=1e-3).fit(x, y, count)
    order = torch.randperm(int(count.sum()), generator=torch.Generator().manual_seed(2))
    repeated = SVR(tol=1e-3).fit(
        x.repeat_interleave(count, 0)[order], y.repeat_interleave(count)[order]
    )
    assert torch.equal(weighted.predict(x), repeated.predict(x))


def test_one_row_and_equal_rows():
    for solver in ("dual", "nystroem"):
        model = SVR(solver=solver).fit(torch.ones(1, 2), [3.0])
        assert model.predict(torch.zeros(1, 2)).tolist() == pytest.approx([3.0], abs=0.11)
        model = SVR(solver=solver, C=100.0).fit(torch.ones(5, 2), [1.0, 2.0, 3.0, 4.0, 5.0])
        assert model.predict(torch.ones(1, 2)).tolist() == pytest.approx([3.0], abs=0.2)


def test_warns_where_it_has_not_converged():
    x, y = data()
    with pytest.warns(ConvergenceWarning):
        assert not SVR(C=1e4, max_iter=2).fit(x, y).converged_
    with pytest.warns(ConvergenceWarning, match="SVR: .* Newton steps were not enough"):
        model = SVR(C=1e4, max_iter=1, solver="nystroem", random_state=0, tol=1e-9).fit(x, y)
    assert not model.converged_


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "C: ", {"C": -1.0}),
        (ValueError, "epsilon: ", {"epsilon": -0.1}),
        (TypeError, "epsilon: ", {"epsilon": None}),
        (ValueError, "solver: expected one of", {"solver": "smo"}),
        (ValueError, "selection: expected one of", {"selection": "best"}),
        (ValueError, "max_iter", {"max_iter": -2}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "tol", {"tol": 0.0}),
    ],
)
def test_refuses(error, match, changes):
    x, y = data(30)
    with pytest.raises(error, match=match):
        SVR(**changes).fit(x, y)


def test_refuses_data():
    with pytest.raises(ValueError, match="y: the estimator requires y"):
        SVR().fit(data(30)[0])
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        SVR("precomputed").fit(matrix, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        SVR("precomputed", solver="nystroem").fit(matrix, [0.0, 1.0])


def test_an_offset_of_targets_is_the_intercepts():
    x, y = data(60)
    y = (y * 2**20).round() / 2**20  # so that 2^30 is added without rounding
    near, far = (SVR(RBF(1.0), tol=1e-7).fit(x, y + shift) for shift in (0.0, 2.0**30))
    torch.testing.assert_close(far.predict(x) - 2.0**30, near.predict(x), rtol=0, atol=1e-5)
    assert far.n_iter_ < 10 * near.n_iter_  # it did not stall on rounding
