import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge as ScikitLearns

from mercer.kernels import RBF
from mercer.machines import VectorKernelRidge
from tests.contracts.machine import MachineContract


class TestContract(MachineContract):
    precomputed_tolerance = 1e-8

    def make(self, **params):
        return VectorKernelRidge(**({"alpha": 0.1} | params))

    def estimators(self):
        return [
            VectorKernelRidge(),
            VectorKernelRidge("matern", 0.1, output_kernel="covariance", standardize=True),
        ]


class TestVectors(MachineContract):
    precomputed_tolerance = 1e-8

    def make(self, **params):
        return VectorKernelRidge(
            **({"alpha": 0.1, "output_kernel": [[1.0, 0.5], [0.5, 2.0]]} | params)
        )

    def targets(self, x):
        return torch.stack([torch.sin(2 * x[:, 0]), x[:, 1]], 1)

    def estimators(self):  # scikit-learn's checks have one target, or five
        return [VectorKernelRidge("laplacian", 0.5)]


def _data(n=40, q=3, seed=0):
    rng = np.random.default_rng(seed)
    x, a = rng.normal(size=(n, 2)), rng.normal(size=(q, q))
    return x, rng.normal(size=(n, q)), a @ a.T


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="Separable vector-valued ridge from the eigenvectors of B is the Kronecker system's "
    "solution.",
)
@pytest.mark.parametrize("weighted", [False, True])
def test_is_the_kronecker_system(weighted, evidence):
    x, y, b = _data()
    n, q = y.shape
    w = np.random.default_rng(1).uniform(0.2, 3.0, n) if weighted else np.ones(n)
    k = RBF(1.0)(torch.from_numpy(x)).detach().numpy()
    alpha = 0.3
    system = np.kron(k, b) + alpha * np.kron(np.diag(1 / w), np.eye(q))
    coefficients = np.linalg.solve(system, y.ravel()).reshape(n, q)
    new = np.random.default_rng(2).normal(size=(15, 2))
    cross = RBF(1.0)(torch.from_numpy(new), torch.from_numpy(x)).detach().numpy()
    model = VectorKernelRidge(RBF(1.0), alpha, output_kernel=b)
    model.fit(x, y, sample_weight=w if weighted else None)
    error = float(np.abs(model.predict(new) - cross @ coefficients @ b).max())
    evidence(required="<= 1e-10", measured=error)
    assert error <= 1e-10


def test_the_identity_is_scikit_learns_ridge():
    x, y, _ = _data()
    theirs = ScikitLearns(alpha=0.2, kernel="rbf", gamma=0.5).fit(x, y)
    ours = VectorKernelRidge(RBF(1.0), 0.2).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-10)
    np.testing.assert_allclose(ours.dual_coef_.numpy(), theirs.dual_coef_, atol=1e-9)


def test_entries_share_what_they_learn():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (60, 1))
    clean = np.sin(6 * x)
    y = np.concatenate([clean] * 6, 1) + 0.8 * rng.normal(size=(60, 6))
    alone = VectorKernelRidge(RBF(0.2), 1.0).fit(x, y).predict(x)
    b = 0.1 * np.eye(6) + 0.9 * np.ones((6, 6))
    shared = VectorKernelRidge(RBF(0.2), 1.0, output_kernel=b).fit(x, y).predict(x)
    learnt = VectorKernelRidge(RBF(0.2), 1.0, output_kernel="covariance").fit(x, y).predict(x)
    errors = [float(((found - clean) ** 2).mean()) for found in (alone, shared, learnt)]
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.9 * errors[0]


def test_a_null_space_is_predicted_as_zero():
    x, y, _ = _data()
    b = np.diag([1.0, 0.0, 2.0])
    found = VectorKernelRidge(RBF(1.0), 0.1, output_kernel=b).fit(x, y).predict(x)
    assert (found[:, 1] == 0).all() and np.abs(found[:, 0]).max() > 0.1


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("alpha", {"alpha": 0.0}),
        ("kernel: expected one of", {"kernel": "gauss"}),
        ("output_kernel: expected a matrix", {"output_kernel": "identity"}),
        (r"output_kernel: expected shape \(3, 3\)", {"output_kernel": np.eye(2)}),
        ("output_kernel: expected a symmetric", {"output_kernel": np.diag([1.0, -0.5, 1.0])}),
        ("output_kernel: expected a symmetric", {"output_kernel": np.triu(np.ones((3, 3)))}),
        ("output_kernel: .*NaN", {"output_kernel": np.full((3, 3), np.nan)}),
    ],
)
def test_refuses(match, changes):
    x, y, _ = _data()
    with pytest.raises(ValueError, match=match):
        VectorKernelRidge(**changes).fit(x, y)
