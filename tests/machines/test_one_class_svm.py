"""The machine of one class against scikit-learn's and the conditions of its optimum."""

import numpy as np
import pytest
import torch
from sklearn import svm

from mercer.kernels import RBF, Matern
from mercer.machines import OneClassSVM
from tests.contracts.machine import MachineContract

SHEET = "machines-introduction-to-ml"


class TestDual(MachineContract):
    precomputed_tolerance = 1e-6  # rows come in another order, and the solver stops at a tolerance

    def make(self, **params):
        return OneClassSVM(**{"random_state": 0, "tol": 1e-8, "nu": 0.3, **params})

    def estimators(self):
        return [OneClassSVM(), self.make(kernel="matern")]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6  # the same landmarks, iterated to the same tolerance

    def make(self, **params):
        given = {"solver": "nystroem", "landmarks": 40, "selection": "uniform", "random_state": 0}
        return OneClassSVM(**{**given, "nu": 0.3, **params})

    def estimators(self):
        return []  # a sample of landmarks is not equal for weights and for repeated rows

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0)), x


def data(n=300, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.paper(SHEET, kind="exact", claim="One-class decisions are scikit-learn's, to 1e-4.")
@pytest.mark.parametrize("nu", [0.05, 0.5, 0.95])
def test_decisions_are_scikit_learns(nu, evidence):
    x, q = data(), data(seed=1)
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(2)).double()
    weight[::9] = 0
    for rows in (None, weight):
        peer = svm.OneClassSVM(gamma=0.5, nu=nu, tol=1e-8)
        peer.fit(x.numpy(), sample_weight=None if rows is None else rows.numpy())
        ours = OneClassSVM(RBF(1.0), nu, tol=1e-8).fit(x, sample_weight=rows)
        expected = peer.decision_function(q.numpy())
        error = float(np.abs(ours.decision_function(q.numpy()) - expected).max())
        evidence(required="<= 1e-4", measured=error, what=f"nu = {nu}")
        assert error <= 1e-4
        scores = ours.score_samples(q.numpy())
        np.testing.assert_allclose(scores, peer.score_samples(q.numpy()), atol=1e-4)
        np.testing.assert_allclose(scores - ours.offset_, ours.decision_function(q.numpy()))
        assert ours.intercept_ == -ours.offset_


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="One-class dual: 0 <= a <= 1, sum a = nu n, and complementary slackness.",
)
def test_conditions_of_the_optimum(evidence):
    x, nu = data(), 0.3
    model = OneClassSVM(Matern(1.0, nu=1.5), nu, tol=1e-10).fit(x)
    a = torch.zeros(len(x), dtype=torch.float64)
    a[model.support_] = model.dual_coef_
    margin = model.decision_function(x)
    free = (a > 0) & (a < 1)
    assert float(a.min()) >= 0 and float(a.max()) <= 1 and free.any()
    worst = max(
        abs(float(a.sum()) - nu * len(x)),
        float((-margin[a == 0]).clamp_min(0).max()),
        float(margin[a == 1].clamp_min(0).max()),
        float(margin[free].abs().max()),
    )
    evidence(required="<= 1e-6", measured=worst)
    assert worst <= 1e-6
    assert (margin < -1e-6).sum() <= nu * len(x) <= len(model.support_)


@pytest.mark.parametrize("nu", [0.1, 0.5])
def test_the_rounded_loss_is_near_the_loss(nu):
    x, q = data(400), data(400, seed=1)
    exact = OneClassSVM(RBF(1.0), nu).fit(x).decision_function(q)
    model = OneClassSVM(RBF(1.0), nu, solver="nystroem", random_state=0).fit(x)
    assert model.converged_ and model.support_ is None
    assert float((model.decision_function(q) - exact).abs().mean()) < 0.05 * float(exact.std())
    assert float((model.predict(x) == -1).double().mean()) == pytest.approx(nu, abs=0.01)


def test_finds_what_lies_outside():
    far = torch.cat([6 * torch.eye(3), -6 * torch.eye(3)]).double()
    for solver in ("dual", "nystroem"):
        model = OneClassSVM(RBF(2.0), 0.05, solver=solver, random_state=0).fit(data(200))
        assert (model.predict(far) == -1).all()
        assert float((model.predict(data(500, seed=1)) == 1).double().mean()) > 0.85


def test_equal_rows_count_as_weight():
    x = data(60)
    count = torch.randint(1, 4, (60,), generator=torch.Generator().manual_seed(1))
    weighted = OneClassSVM(nu=0.2).fit(x, sample_weight=count)
    order = torch.randperm(int(count.sum()), generator=torch.Generator().manual_seed(2))
    repeated = OneClassSVM(nu=0.2).fit(x.repeat_interleave(count, 0)[order])
    assert torch.equal(weighted.decision_function(x), repeated.decision_function(x))


def test_all_rows_at_their_bounds():
    x = data(50)
    expected = RBF(1.0).requires_grad_(False)(x).sum(-1)
    for solver in ("dual", "nystroem"):
        model = OneClassSVM(RBF(1.0), 1.0, solver=solver, random_state=0).fit(x)
        torch.testing.assert_close(model.score_samples(x), expected, rtol=1e-6, atol=1e-6)
        assert model.offset_ == pytest.approx(float(expected.max()))


def test_one_row_and_equal_rows():
    for solver in ("dual", "nystroem"):
        for x in (torch.ones(1, 2), torch.ones(5, 2)):
            model = OneClassSVM(RBF(1.0), solver=solver).fit(x)
            assert model.predict(torch.tensor([[9.0, 9.0]])).tolist() == [-1]
            assert abs(float(model.decision_function(x)[0])) < 1e-6


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "nu: ", {"nu": 0.0}),
        (ValueError, "nu: ", {"nu": 1.1}),
        (TypeError, "nu: ", {"nu": None}),
        (ValueError, "solver: expected one of", {"solver": "smo"}),
        (ValueError, "selection: expected one of", {"selection": "best"}),
        (ValueError, "max_iter", {"max_iter": -2}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "tol", {"tol": 0.0}),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        OneClassSVM(**changes).fit(data(30))


def test_refuses_data():
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        OneClassSVM("precomputed").fit(matrix)
    with pytest.raises(ValueError, match=r"X: expected a positive semi-definite.*from -1 to 3"):
        OneClassSVM("precomputed", solver="nystroem").fit(matrix)
