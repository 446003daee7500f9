import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.datasets import load_iris, make_circles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mercer.kernels import RBF, Linear
from mercer.machines import KernelDiscriminantAnalysis
from tests.contracts.machine import MachineContract


class TestContract(MachineContract):
    precomputed_tolerance = 1e-7

    def make(self, **params):
        return KernelDiscriminantAnalysis(**({"alpha": 0.5, "random_state": 0} | params))

    def estimators(self):
        return [
            KernelDiscriminantAnalysis(),
            KernelDiscriminantAnalysis(1, kernel="matern", standardize=True, alpha=0.1),
            KernelDiscriminantAnalysis(solver="nystroem", landmarks=10, random_state=0),
        ]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6

    def make(self, **params):
        options = {"solver": "nystroem", "landmarks": 20, "selection": "uniform"}
        return KernelDiscriminantAnalysis(**({"alpha": 0.5, "random_state": 0} | options | params))

    def estimators(self):  # landmarks at random are not the same where rows are repeated
        return [self.make(selection="kmeans")]


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="The kernel Fisher discriminant with a linear kernel is linear discriminant analysis.",
)
def test_a_linear_kernel_gives_linear_discriminants(evidence):
    x, y = load_iris(return_X_y=True)
    ours = KernelDiscriminantAnalysis(kernel=Linear(), alpha=1e-9).fit(x, y)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, y)
    a, b = ours.transform(x), theirs.transform(x)
    a, b = a - a.mean(0), b - b.mean(0)
    cosine = np.abs((a * b).sum(0)) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    evidence(required=">= 1 - 1e-8", measured=float(cosine.min()), what="cosine of the functions")
    error = float(np.abs(ours.predict_proba(x) - theirs.predict_proba(x)).max())
    evidence(required="<= 1e-6", measured=error, what="probabilities")
    assert cosine.min() >= 1 - 1e-8 and error <= 1e-6


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="The kernel Fisher discriminants solve the generalised eigenproblem of M and N in the "
    "coefficients, here with the norm of the function as the penalty.",
)
def test_is_the_definition(evidence):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.integers(3, size=60)
    x[y == 1] += 1.0
    k = RBF(1.5)(torch.from_numpy(x)).detach().numpy()
    between, within = np.zeros((60, 60)), np.zeros((60, 60))
    for c in range(3):
        part = k[:, y == c]
        n = part.shape[1]
        gap = (part.mean(1) - k.mean(1))[:, None]
        between += n * gap @ gap.T
        within += part @ (np.eye(n) - 1 / n) @ part.T
    values = eigh(between, within + 0.3 * k + 1e-12 * np.eye(60), eigvals_only=True)[::-1][:2]
    ratios = KernelDiscriminantAnalysis(kernel=RBF(1.5), alpha=0.3).fit(x, y).ratios_.numpy()
    error = float(np.abs(ratios / values - 1).max())
    evidence(required="<= 1e-6", measured=error)
    assert error <= 1e-6


def test_circles():
    x, y = make_circles(400, factor=0.4, noise=0.1, random_state=0)
    model = KernelDiscriminantAnalysis(kernel=RBF(0.5)).fit(x[:200], y[:200])
    assert model.score(x[200:], y[200:]) >= 0.98
    assert LinearDiscriminantAnalysis().fit(x[:200], y[:200]).score(x[200:], y[200:]) <= 0.65


def test_landmarks_at_all_rows_are_exact():
    x, y = load_iris(return_X_y=True)
    x = x + 1e-3 * np.random.default_rng(0).normal(size=x.shape)
    exact = KernelDiscriminantAnalysis(kernel=RBF(1.0)).fit(x, y)
    some = KernelDiscriminantAnalysis(
        kernel=RBF(1.0), solver="nystroem", selection="uniform", random_state=0
    ).fit(x, y)
    np.testing.assert_allclose(some.transform(x), exact.transform(x), atol=1e-5)
    assert exact.solver_ == "exact" and some.solver_ == "nystroem"


def test_many_rows_take_landmarks():
    x, y = make_circles(6000, factor=0.4, noise=0.1, random_state=0)
    model = KernelDiscriminantAnalysis(landmarks=100, random_state=0).fit(x[:4000], y[:4000])
    assert model.solver_ == "nystroem" and model.score(x[4000:], y[4000:]) >= 0.98


def test_priors_move_the_border():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-1, 1, (100, 1)), rng.normal(1, 1, (100, 1))])
    y = np.repeat(["left", "right"], 100)
    even = KernelDiscriminantAnalysis(kernel="linear").fit(x, y)
    odd = KernelDiscriminantAnalysis(kernel="linear", priors=[0.9, 0.1]).fit(x, y)
    gap = even.decision_function(x) - odd.decision_function(x)
    np.testing.assert_allclose(gap, np.log(9), atol=1e-9)


X, Y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 3


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "n_components: expected at most 2 for 3 classes", {"n_components": 3}),
        (ValueError, "n_components", {"n_components": 0}),
        (ValueError, "alpha", {"alpha": 0.0}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
        (ValueError, "solver", {"solver": "svd"}),
        (ValueError, "selection", {"selection": "best"}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "priors: expected 3 numbers", {"priors": [0.5, 0.5]}),
        (ValueError, "priors: expected 3 numbers", {"priors": [0.5, 0.5, 0.5]}),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        KernelDiscriminantAnalysis(**changes).fit(X, Y)
