import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.cross_decomposition import CCA
from sklearn.pipeline import make_pipeline

from mercer.kernels import RBF, Laplacian, Linear, center_kernel
from mercer.machines import KernelCCA
from tests.contracts.machine import MachineContract


class TestContract(MachineContract):
    precomputed_tolerance = 1e-7

    def make(self, **params):
        return KernelCCA(**({"n_components": 1, "random_state": 0} | params))

    def estimators(self):
        return [
            KernelCCA(),
            KernelCCA(1, kernel="matern", y_kernel="linear", standardize=True),
            KernelCCA(solver="nystroem", landmarks=10, random_state=0),
        ]

    def targets(self, x):
        return torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1]


class TestLandmarks(MachineContract):
    precomputed_tolerance = 1e-6

    def make(self, **params):
        options = {"solver": "nystroem", "landmarks": 20, "selection": "uniform"}
        return KernelCCA(**({"n_components": 1, "random_state": 0} | options | params))

    def targets(self, x):
        return torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1]


def _pair(n=80, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = np.stack([x[:, 0] ** 2, np.sin(3 * x[:, 1])], 1) + 0.1 * rng.normal(size=(n, 2))
    return x, y


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="Kernel CCA solves the eigenproblem of [0 KxKy; KyKx 0] against (Kx + aI)², (Ky + aI)².",
)
def test_is_the_definition(evidence):
    x, y = _pair(50)
    alpha, n = 0.4, 50
    kx = center_kernel(RBF(1.5)(torch.from_numpy(x)).detach()).numpy()
    ky = center_kernel(Laplacian(2.0)(torch.from_numpy(y)).detach()).numpy()
    zero, one = np.zeros((n, n)), np.eye(n)
    left = np.block([[zero, kx @ ky], [ky @ kx, zero]])
    sides = [(k + alpha * one) @ (k + alpha * one) for k in (kx, ky)]
    values, vectors = eigh(left, np.block([[sides[0], zero], [zero, sides[1]]]))
    model = KernelCCA(3, kernel=RBF(1.5), y_kernel=Laplacian(2.0), alpha=alpha).fit(x, y)
    error = float(np.abs(model.correlations_.numpy() - values[::-1][:3]).max())
    evidence(required="<= 1e-8", measured=error, what="correlations")
    u, v = model.transform(x, y)
    a, b = vectors[:n, -1], vectors[n:, -1]
    cosines = [
        abs(one @ two) / np.linalg.norm(one) / np.linalg.norm(two)
        for one, two in ((u[:, 0], kx @ a), (v[:, 0], ky @ b))
    ]
    evidence(required=">= 1 - 1e-8", measured=float(min(cosines)), what="cosine of the scores")
    assert error <= 1e-10 and min(cosines) >= 1 - 1e-10


def test_linear_kernels_give_canonical_correlations():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = x[:, :3] @ rng.normal(size=(3, 3)) + rng.normal(size=(300, 3))
    model = KernelCCA(2, kernel=Linear(), y_kernel=Linear(), alpha=1e-9).fit(x, y)
    theirs = CCA(2, max_iter=5000, tol=1e-14).fit(x, y)
    u, v = theirs.transform(x, y)
    expected = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(model.correlations_.numpy(), expected, atol=1e-7)
    ours = model.transform(x)
    np.testing.assert_allclose(ours.std(0), 1, atol=1e-6)
    for i in range(2):
        assert abs(np.corrcoef(ours[:, i], u[:, i])[0, 1]) == pytest.approx(1, abs=1e-6)


def test_finds_what_is_not_correlated():
    x, y = _pair(400)
    train, test = slice(0, 250), slice(250, None)
    model = KernelCCA(1, alpha=0.1).fit(x[train], y[train])
    u, v = model.transform(x[test], y[test])
    assert np.corrcoef(u[:, 0], v[:, 0])[0, 1] > 0.95
    plain = CCA(1).fit(x[train], y[train]).transform(x[test], y[test])
    assert np.abs(np.corrcoef(plain[0][:, 0], plain[1][:, 0])[0, 1]) < 0.5
    noise = np.random.default_rng(1).normal(size=y.shape)
    none = KernelCCA(1, alpha=0.1).fit(x[train], noise[train])
    u, v = none.transform(x[test], noise[test])
    assert np.abs(np.corrcoef(u[:, 0], v[:, 0])[0, 1]) < 0.25


def test_landmarks_at_all_rows_are_exact():
    x, y = _pair()
    exact = KernelCCA(2, kernel=RBF(2.0)).fit(x, y)
    some = KernelCCA(2, kernel=RBF(2.0), solver="nystroem", selection="uniform").fit(x, y)
    np.testing.assert_allclose(some.correlations_.numpy(), exact.correlations_.numpy(), atol=1e-8)
    np.testing.assert_allclose(some.transform(x), exact.transform(x), atol=1e-5)


def test_many_rows_take_landmarks():
    x, y = _pair(5000)
    model = KernelCCA(2, landmarks=100, random_state=0).fit(x, y)
    u, v = model.transform(x, y)
    assert model.solver_ == "nystroem"
    assert all(np.corrcoef(u[:, i], v[:, i])[0, 1] > 0.95 for i in range(2))


def test_precomputed_on_both_sides():
    x, y = _pair()
    kx = RBF(1.5)(torch.from_numpy(x)).detach().numpy()
    ky = RBF(1.0)(torch.from_numpy(y)).detach().numpy()
    rows = KernelCCA(2, kernel=RBF(1.5), y_kernel=RBF(1.0)).fit(x, y)
    matrices = KernelCCA(2, kernel="precomputed", y_kernel="precomputed").fit(kx, ky)
    for one, two in zip(matrices.transform(kx, ky), rows.transform(x, y), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-7)


def test_no_more_components_than_ranks():
    x, _ = _pair(30)
    model = KernelCCA(3).fit(x, np.arange(30) % 2)
    assert model.transform(x).shape == (30, 1)
    assert model.get_feature_names_out().tolist() == ["kernelcca0"]
    constant = KernelCCA(1).fit(x, np.ones(30))
    assert float(constant.correlations_[0]) < 1e-6
    assert make_pipeline(KernelCCA(1)).fit(x, x).transform(x).shape == (30, 1)


X, Y = _pair(12)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "n_components", {"n_components": 0}),
        (ValueError, "alpha", {"alpha": 0.0}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
        (ValueError, "kernel: expected one of", {"y_kernel": "gauss"}),
        (ValueError, "solver", {"solver": "svd"}),
        (ValueError, "selection", {"selection": "best"}),
        (ValueError, "landmarks", {"landmarks": 0}),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        KernelCCA(**changes).fit(X, Y)


def test_refuses_other_targets():
    model = KernelCCA().fit(X, Y)
    with pytest.raises(ValueError, match=r"y: expected 2 columns as in fit, got shape \(12, 1\)"):
        model.transform(X, Y[:, 0])
