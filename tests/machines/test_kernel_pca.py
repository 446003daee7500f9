import importlib

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.decomposition import PCA
from sklearn.decomposition import KernelPCA as ScikitLearns
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import mercer
from mercer.kernels import RBF, Linear, Matern, Polynomial
from mercer.machines import KernelPCA
from tests.contracts.machine import MachineContract


def _rows(n=120, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def _gamma(lengthscale):
    return 1 / (2 * lengthscale**2)


class TestDense(MachineContract):
    precomputed_tolerance = 1e-8

    def make(self, **params):
        return KernelPCA(**({"n_components": 3, "random_state": 0} | params))

    def estimators(self):
        # Not with a matrix: one of the checks rounds its entries to integers, after which it has
        # eigenvalues far below zero, which are refused.
        return [
            KernelPCA(),
            KernelPCA(2, kernel="matern", standardize=True, fit_inverse_transform=True),
        ]


class TestRandomized(MachineContract):
    precomputed_tolerance = 1e-8

    def make(self, **params):
        return KernelPCA(
            **({"n_components": 3, "random_state": 0, "eigen_solver": "randomized"} | params)
        )

    def blockwise(self):
        x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(2.0)), x


class TestNystroem(MachineContract):
    def make(self, **params):
        options = {"n_components": 3, "random_state": 0, "eigen_solver": "nystroem"}
        return KernelPCA(**(options | {"landmarks": 20} | params))

    def test_precomputed_matrices(self):
        with pytest.raises(ValueError, match="eigen_solver: landmarks need rows"):
            self.make(kernel="precomputed").fit(np.eye(5))

    def blockwise(self):
        return self.make(), torch.randn(
            4000, 3, generator=torch.Generator().manual_seed(0)
        ).double()


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="KernelPCA gives scikit-learn's scores, eigenvalues and inverse map.",
)
@pytest.mark.parametrize("solver", ["dense", "randomized"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RBF(1.5), {"kernel": "rbf", "gamma": _gamma(1.5)}),
        (Polynomial(degree=3, lengthscale=2.0, offset=1.0), {"kernel": "poly", "gamma": 0.25}),
    ],
    ids=["rbf", "poly"],
)
def test_equality_with_scikit_learn(ours, theirs, solver, evidence):
    x, q = _rows(), _rows(40, seed=1)
    options = {"n_components": 6, "fit_inverse_transform": True, "alpha": 0.3}
    one = KernelPCA(kernel=ours, eigen_solver=solver, random_state=0, **options)
    two = ScikitLearns(eigen_solver="dense", **options, **theirs)
    scores, expected = one.fit_transform(x), two.fit_transform(x)
    signs = np.sign((scores * expected).sum(0))
    errors = {
        "signs": np.abs(signs - 1).max(),
        "eigenvalues": np.abs(one.eigenvalues_ / two.eigenvalues_ - 1).max(),
        "scores": np.abs(scores - expected).max(),
        "new scores": np.abs(one.transform(q) - two.transform(q)).max(),
        "inverse": np.abs(one.inverse_transform(scores) - two.inverse_transform(expected)).max(),
    }
    for name, error in errors.items():
        evidence(required="<= 1e-8", measured=error, what=name)
    assert max(errors.values()) <= 1e-8


def test_all_components_and_names_are_scikit_learns():
    x = _rows(30, 3)
    ours, theirs = KernelPCA(kernel=Linear()).fit(x), ScikitLearns(kernel="linear").fit(x)
    assert ours.eigenvalues_.shape == theirs.eigenvalues_.shape == (3,)
    np.testing.assert_allclose(ours.eigenvalues_, theirs.eigenvalues_, rtol=1e-10)
    assert ours.get_feature_names_out().tolist() == ["kernelpca0", "kernelpca1", "kernelpca2"]
    kept = KernelPCA(5, kernel=Linear()).fit(x)
    assert kept.transform(x).shape == (30, 5) and (kept.transform(x)[:, 3:] == 0).all()
    assert KernelPCA(5, kernel=Linear(), remove_zero_eig=True).fit(x).transform(x).shape == (30, 3)


def test_linear_components_are_those_of_pca():
    x = _rows(200, 5)
    ours = KernelPCA(4, kernel=Linear()).fit(x)
    pca = PCA(4).fit(x)
    np.testing.assert_allclose(np.abs(ours.transform(x)), np.abs(pca.transform(x)), atol=1e-10)
    share = ours.explained_variance_ratio_
    np.testing.assert_allclose(share, pca.explained_variance_ratio_, rtol=1e-10)


def test_scores_of_the_training_rows_are_those_of_new_rows():
    x = _rows()
    for solver in ("dense", "randomized", "nystroem"):
        model = KernelPCA(5, kernel=RBF(2.0), eigen_solver=solver, random_state=0)
        scores = model.fit_transform(x)
        np.testing.assert_allclose(scores, model.transform(x), atol=1e-9)
        assert (scores[np.abs(scores).argmax(0), range(5)] > 0).all()  # signs are fixed
        np.testing.assert_allclose(scores.mean(0), 0, atol=1e-10)
        np.testing.assert_allclose((scores**2).sum(0), model.eigenvalues_, rtol=1e-8)


def test_landmarks_at_all_rows_are_exact():
    x, q = _rows(60), _rows(20, seed=1)
    exact = KernelPCA(4, kernel=RBF(2.0)).fit(x)
    options = {"eigen_solver": "nystroem", "selection": "greedy", "random_state": 0}
    found = KernelPCA(4, kernel=RBF(2.0), landmarks=60, **options).fit(x)
    np.testing.assert_allclose(found.transform(q), exact.transform(q), atol=1e-6)
    np.testing.assert_allclose(found.eigenvalues_, exact.eigenvalues_, rtol=1e-7)
    share = exact.explained_variance_ratio_
    np.testing.assert_allclose(found.explained_variance_ratio_, share, rtol=1e-7)


def test_landmarks_are_near_the_whole_matrix_where_rows_are_many():
    x = _rows(3000, 3)
    exact = KernelPCA(4, kernel=RBF(2.0), random_state=0).fit(x)
    assert exact.eigen_solver_ == "randomized"
    found = KernelPCA(4, kernel=RBF(2.0), eigen_solver="nystroem", random_state=0).fit(x)
    np.testing.assert_allclose(found.eigenvalues_, exact.eigenvalues_, rtol=1e-6)
    np.testing.assert_allclose(found.transform(x), exact.transform(x), atol=1e-3)


def test_products_in_tiles_are_the_matrix(monkeypatch):
    x = _rows(700)
    exact = KernelPCA(4, kernel=RBF(2.0), eigen_solver="randomized", random_state=0).fit(x)
    module = importlib.import_module("mercer.machines.centered_gram")
    monkeypatch.setattr(module, "dense_or_tiles", lambda gram: gram)
    tiles = KernelPCA(4, kernel=RBF(2.0), eigen_solver="randomized", random_state=0).fit(x)
    np.testing.assert_allclose(tiles.eigenvalues_, exact.eigenvalues_, rtol=1e-12)
    np.testing.assert_allclose(tiles.transform(x), exact.transform(x), atol=1e-8)


def test_the_fixed_point_goes_back_to_the_row():
    x = _rows(80, 3)
    model = KernelPCA(kernel=RBF(2.0), fit_inverse_transform=True, preimage="fixed_point").fit(x)
    # All components of a training row describe its feature: its pre-image is the row.
    np.testing.assert_allclose(model.inverse_transform(model.transform(x)), x, atol=1e-5)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_fixed_point_takes_noise_away(standardize):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    clean = np.stack([np.cos(angle), np.sin(angle)], 1)
    noisy = clean + 0.1 * rng.normal(size=clean.shape)
    model = KernelPCA(
        6,
        kernel=RBF(0.7),
        fit_inverse_transform=True,
        preimage="fixed_point",
        standardize=standardize,
    ).fit(noisy)
    back = model.inverse_transform(model.transform(noisy))
    before = np.abs(np.hypot(*noisy.T) - 1).mean()
    after = np.abs(np.hypot(*back.T) - 1).mean()
    assert after < 0.6 * before


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="behaviour",
    claim="Circles (factor 0.4): KernelPCA(10, gamma=2) before logistic regression has test "
    "accuracy 1.00, a linear model 0.47 to 0.65.",
)
def test_circles(evidence):
    ours, linear = [], []
    for seed in range(3):
        x, y = make_circles(300, factor=0.4, noise=0.05, random_state=seed)
        train, test = slice(150), slice(150, None)
        model = KernelPCA(10, kernel=RBF(0.5)).fit(x[train])  # gamma = 2
        classifier = LogisticRegression(max_iter=1000).fit(model.transform(x[train]), y[train])
        ours.append(classifier.score(model.transform(x[test]), y[test]))
        linear.append(LogisticRegression().fit(x[train], y[train]).score(x[test], y[test]))
    evidence(required=">= 0.99", measured=min(ours), what="kernel PCA, worst of 3 seeds")
    evidence(required="<= 0.7", measured=max(linear), what="linear, best of 3 seeds")
    assert min(ours) >= 0.99 and max(linear) <= 0.7


def test_matrices_that_are_no_kernels_are_refused_with_the_eigenvalue():
    a = np.diag([3.0, 2.0, -2.0, 1.0])
    with pytest.raises(ValueError, match=r"positive semi-definite.*eigenvalue -1\."):
        KernelPCA(kernel="precomputed").fit(a)
    with pytest.raises(ValueError, match="square kernel matrix"):
        KernelPCA(kernel="precomputed").fit(a[:3])
    a[0, 1] = 0.1
    with pytest.raises(ValueError, match="symmetric"):
        KernelPCA(kernel="precomputed").fit(a)


def test_a_matrix_that_was_given_is_left_alone():
    k = RBF(1.0)(torch.from_numpy(_rows(20))).detach().numpy()
    before = k.copy()
    KernelPCA(2, kernel="precomputed").fit_transform(k)
    np.testing.assert_array_equal(k, before)


def test_constant_rows_have_no_components():
    x = np.ones((7, 2))
    model = KernelPCA(2).fit(x)
    assert (model.eigenvalues_ == 0).all() and (model.transform(x) == 0).all()
    assert (model.explained_variance_ratio_ == 0).all()


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "n_components", {"n_components": 0}),
        (TypeError, "n_components", {"n_components": 1.5}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
        (ValueError, "eigen_solver", {"eigen_solver": "arpack"}),
        (ValueError, "selection", {"selection": "best"}),
        (ValueError, "landmarks", {"landmarks": 0}),
        (ValueError, "alpha", {"alpha": -1.0}),
        (ValueError, "tol", {"tol": -1.0}),
        (ValueError, "preimage", {"preimage": "none"}),
        (
            ValueError,
            "fit_inverse_transform",
            {"kernel": "precomputed", "fit_inverse_transform": True},
        ),
        (
            ValueError,
            r"preimage: .*Gaussian kernels",
            {"kernel": Matern(), "fit_inverse_transform": True, "preimage": "fixed_point"},
        ),
        (
            ValueError,
            "no kernel of those",
            {"kernel": RBF([1.0, 2.0, 3.0, 4.0]), "n_components": 2, "fit_inverse_transform": True},
        ),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        KernelPCA(**changes).fit(_rows(9))


def test_going_back_refuses():
    with pytest.raises(NotFittedError, match="fit_inverse_transform=True"):
        KernelPCA(2).fit(_rows(9)).inverse_transform(np.ones((3, 2)))
    model = KernelPCA(2, fit_inverse_transform=True).fit(_rows(9))
    with pytest.raises(ValueError, match=r"expected shape \(n, 2\)"):
        model.inverse_transform(np.ones((3, 3)))
    with pytest.raises(ValueError, match="finite"):
        model.inverse_transform(np.full((3, 2), np.nan))


def test_what_does_not_fit_names_what_would():
    budget = mercer._core.config.resident_memory() + 2**26
    with mercer.config.override(memory_budget=budget), pytest.raises(MemoryError, match="nystroem"):
        KernelPCA(2, eigen_solver="dense").fit(_rows(3000))
