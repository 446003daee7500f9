import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering as ScikitLearns
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

import mercer
from mercer.kernels import RBF, Linear
from mercer.machines import SpectralClustering
from tests.contracts.machine import MachineContract


class TestContract(MachineContract):
    def make(self, **params):
        return SpectralClustering(**({"n_clusters": 2, "random_state": 0} | params))

    def rows(self):
        x, _ = make_blobs(60, centers=[[-4, 0, 0], [4, 0, 1]], random_state=0)
        return torch.from_numpy(x)

    def estimators(self):
        options = {"n_init": 2, "random_state": 0}
        return [
            SpectralClustering(2, **options),
            SpectralClustering(2, eigen_solver="randomized", **options),
            SpectralClustering(2, eigen_solver="nystroem", landmarks=30, **options),
        ]

    def blockwise(self):
        x = torch.cat([self.rows() for _ in range(60)])
        x = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
        return self.make(eigen_solver="nystroem", landmarks=20), x


def _moons(seed=0, n=300):
    return make_moons(n, noise=0.05, random_state=seed)


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="behaviour",
    claim="Two moons (noise 0.05, 3 seeds): spectral clustering with gamma = 30 has ARI 1.",
)
@pytest.mark.parametrize("solver", ["dense", "randomized", "nystroem"])
def test_moons(solver, evidence):
    found = []
    for seed in range(3):
        x, y = _moons(seed)
        model = SpectralClustering(
            2, RBF(60**-0.5), eigen_solver=solver, landmarks=100, random_state=0
        )
        found.append(adjusted_rand_score(y, model.fit_predict(x)))
    evidence(required=">= 0.99", measured=min(found))
    assert min(found) >= 0.99


def test_embedding_and_eigenvalues_are_those_of_the_walk():
    x, _ = _moons()
    kernel = RBF(0.13)
    k = kernel(torch.from_numpy(x)).detach()
    walk = k / k.sum(1, keepdim=True)
    for solver in ("dense", "randomized"):
        model = SpectralClustering(
            3, kernel, n_components=4, eigen_solver=solver, eigen_tol=1e-11, random_state=0
        ).fit(x)
        embedding, values = torch.from_numpy(model.embedding_), torch.from_numpy(model.eigenvalues_)
        assert float(values[0]) == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(walk @ embedding, embedding * values, atol=1e-10)
        whole = torch.linalg.eigvals(walk).real.sort(descending=True).values[:4]
        np.testing.assert_allclose(values, whole, atol=1e-10)


def test_agrees_with_scikit_learn():
    x, y = make_blobs(200, centers=4, cluster_std=0.8, random_state=3)
    gamma = 0.5
    theirs = ScikitLearns(4, gamma=gamma, random_state=0).fit(x).labels_
    ours = SpectralClustering(4, RBF((1 / (2 * gamma)) ** 0.5), random_state=0).fit(x)
    assert adjusted_rand_score(theirs, ours.labels_) == 1.0
    assert adjusted_rand_score(y, ours.labels_) == 1.0


def test_landmarks_at_all_rows_are_exact():
    x, _ = _moons(n=120)
    options = {"n_components": 3, "random_state": 0}
    exact = SpectralClustering(2, RBF(0.3), **options).fit(x)
    found = SpectralClustering(
        2, RBF(0.3), eigen_solver="nystroem", selection="greedy", landmarks=120, **options
    ).fit(x)
    np.testing.assert_allclose(found.eigenvalues_, exact.eigenvalues_, rtol=1e-9)
    np.testing.assert_allclose(found.embedding_, exact.embedding_, atol=1e-6)


@pytest.mark.parametrize("solver", ["dense", "randomized", "nystroem"])
def test_new_rows(solver):
    x, _ = _moons()
    model = SpectralClustering(
        2, RBF(0.13), eigen_solver=solver, landmarks=100, random_state=0, eigen_tol=1e-11
    ).fit(x)
    assert (model.predict(x) == model.labels_).all()
    q, y = _moons(5, 500)
    assert adjusted_rand_score(y, model.predict(q)) > 0.97
    k = RBF(0.13)(torch.from_numpy(x)).detach()
    if solver != "nystroem":  # the step of the walk is exact where the rows are known
        same = SpectralClustering(2, "precomputed", eigen_solver=solver, random_state=0).fit(k)
        assert (same.predict(k).numpy() == model.labels_).all()
    assert model.predict(np.full((1, 2), 1e3)).shape == (1,)


def test_many_rows():
    x, y = _moons(n=20_000)
    options = {"landmarks": 200, "n_init": 3, "random_state": 0}
    found = SpectralClustering(2, RBF(0.13), eigen_solver="nystroem", **options).fit(x)
    assert adjusted_rand_score(y, found.labels_) > 0.99


def test_what_does_not_fit_names_what_would():
    budget = mercer._core.config.resident_memory() + 2**26
    with mercer.config.override(memory_budget=budget), pytest.raises(MemoryError, match="nystroem"):
        SpectralClustering(2, eigen_solver="dense").fit(np.zeros((3000, 2)))


X = np.random.default_rng(0).normal(size=(12, 2))


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "n_clusters", {"n_clusters": 0}),
        (ValueError, r"n_samples=12 should be >= n_clusters=13", {"n_clusters": 13}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
        (ValueError, "n_components", {"n_components": 0}),
        (ValueError, "eigen_solver: expected one of", {"eigen_solver": "arpack"}),
        (
            ValueError,
            "eigen_solver: landmarks need",
            {"eigen_solver": "nystroem", "kernel": "precomputed"},
        ),
        (ValueError, "selection", {"selection": "best"}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "eigen_tol", {"eigen_tol": 0.0}),
        (ValueError, "n_init", {"n_init": 0}),
        (ValueError, "kernel: expected a kernel with positive row sums", {"kernel": Linear()}),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        SpectralClustering(**({"n_clusters": 2} | changes)).fit(X)
