"""Gaussian process classification beside scikit-learn's and quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, special
from sklearn.datasets import load_iris, make_moons
from sklearn.gaussian_process import GaussianProcessClassifier as Peer
from sklearn.gaussian_process import kernels as peers
from sklearn.model_selection import train_test_split

from mercer.kernels import RBF, Matern, White
from mercer.machines import GaussianProcessClassifier
from mercer.machines.gp_laplace import mean_sigmoid
from tests.contracts.machine import MachineContract


class TestGaussianProcessClassifier(MachineContract):
    precomputed_tolerance = 0.1  # probabilities of the mode, without the variance of f

    def make(self, **params):
        return GaussianProcessClassifier(**{"optimizer": None, "random_state": 0, **params})


PAIRS = {
    "rbf": (1.7 * RBF([0.5, 0.8]), peers.ConstantKernel(1.7) * peers.RBF([0.5, 0.8])),
    "matern": (
        3.0 * Matern(0.7, nu=1.5) + White(0.2),
        peers.ConstantKernel(3.0) * peers.Matern(0.7, nu=1.5) + peers.WhiteKernel(0.2),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_classes_equal_scikit_learn(name):
    x, y = make_moons(150, noise=0.3, random_state=0)
    new = make_moons(40, noise=0.5, random_state=1)[0]
    ours, theirs = PAIRS[name]
    model = GaussianProcessClassifier(ours, optimizer=None).fit(x, y)
    peer = Peer(theirs, optimizer=None).fit(x, y)
    base = peer.base_estimator_
    value, gradient = base.log_marginal_likelihood(base.kernel_.theta, eval_gradient=True)
    found, slope = model.log_marginal_likelihood(eval_gradient=True)
    assert abs(found - value) <= 1e-8 * abs(value)
    assert np.abs(slope - gradient).max() <= 1e-6 * np.abs(gradient).max()
    if hasattr(base, "latent_mean_and_variance"):
        for a, b in zip(
            model.latent_mean_and_variance(new), base.latent_mean_and_variance(new), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    # Theirs is a sum of five error functions, good to three digits or four.
    np.testing.assert_allclose(model.predict_proba(new), peer.predict_proba(new), atol=2e-3)


def test_three_classes_are_scikit_learns():
    x, y = load_iris(return_X_y=True)
    x, new, y, labels = train_test_split(x, y, random_state=0, test_size=0.3)
    model = GaussianProcessClassifier(2.0 * RBF(1.5), optimizer=None).fit(x, y)
    peer = Peer(peers.ConstantKernel(2.0) * peers.RBF(1.5), optimizer=None).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(new), peer.predict_proba(new), atol=2e-3)
    assert np.array_equal(model.predict(new), peer.predict(new))
    value = peer.log_marginal_likelihood()
    assert abs(model.log_marginal_likelihood() - value) < 1e-8 * abs(value)
    fitted = GaussianProcessClassifier(ard=True).fit(x, y)
    assert fitted.score(new, labels) >= 0.95 and len(fitted.kernels_) == 3
    assert fitted.log_marginal_likelihood_value_ > model.log_marginal_likelihood_value_


def test_fitted_hyperparameters_are_scikit_learns():
    x, y = make_moons(120, noise=0.3, random_state=0)
    model = GaussianProcessClassifier("rbf").fit(x, y)
    peer = Peer(peers.ConstantKernel() * peers.RBF()).fit(x, y)
    value = peer.log_marginal_likelihood_value_
    assert abs(model.log_marginal_likelihood_value_ - value) < 1e-3
    assert model.theta_names_ == ["scale", "kernel.lengthscale"]
    fixed = GaussianProcessClassifier("rbf", fixed=("scale",)).fit(x, y)
    assert fixed.theta_names_ == ["kernel.lengthscale"] and fixed.kernels_[0].scale == 1.0


@pytest.mark.parametrize("classes", [2, 3])
def test_gradient_is_that_of_finite_differences(classes):
    x, y = load_iris(return_X_y=True)
    x, y = x[y < classes][::3], y[y < classes][::3]
    model = GaussianProcessClassifier(2.0 * Matern([1.0, 2.0, 1.0, 3.0], nu=2.5), optimizer=None)
    model.fit(x, y)
    _, gradient = model.log_marginal_likelihood(eval_gradient=True)
    theta = np.concatenate([np.log([2.0, 1.0, 2.0, 1.0, 3.0])] * len(model.kernels_))
    assert len(gradient) == len(theta)
    for i, slope in enumerate(gradient):
        move = 1e-4 * np.eye(len(theta))[i]
        rise = model.log_marginal_likelihood(theta + move)
        fall = model.log_marginal_likelihood(theta - move)
        assert abs((rise - fall) / 2e-4 - slope) <= 1e-5 * np.abs(gradient).max()


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.3, 0.0), (-2.0, 25.0), (5.0, 1e3)])
def test_probabilities_are_the_integral(mean, variance):
    scale = max(variance, 1e-12) ** 0.5

    def integrand(z):
        return special.expit(mean + scale * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    expected = integrate.quad(integrand, -9, 9, points=[-mean / scale], limit=400)[0]
    if variance == 0.0:
        expected = special.expit(mean)
    found = mean_sigmoid(*torch.tensor([[mean], [variance]], dtype=torch.float64))
    assert abs(float(found) - expected) < 1e-9


def test_labels_of_all_kinds():
    x, y = make_moons(60, noise=0.2, random_state=0)
    model = GaussianProcessClassifier(RBF(0.5), optimizer=None)
    names = np.array(["left", "right"])[y]
    assert set(model.fit(x, names).predict(x)) == {"left", "right"}
    numbers = model.fit(x, y).predict(x)
    assert np.array_equal(numbers, (model.fit(x, names).predict(x) == "right").astype(int))


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"optimizer": "adam"}, "optimizer"),
        ({"max_iter_predict": 0}, "max_iter_predict"),
        ({"n_restarts_optimizer": -1}, "n_restarts_optimizer"),
        ({"fixed": ("period",)}, "fixed"),
    ],
)
def test_bad_arguments_are_named(params, text):
    with pytest.raises(ValueError, match=text):
        GaussianProcessClassifier(**params).fit(*make_moons(20, random_state=0))


def test_bad_questions_are_refused():
    x, y = make_moons(20, random_state=0)
    with pytest.raises(ValueError, match="class"):
        GaussianProcessClassifier().fit(x, np.zeros(20))
    model = GaussianProcessClassifier(RBF(), optimizer=None).fit(x, y)
    with pytest.raises(ValueError, match="theta"):
        model.log_marginal_likelihood([1.0, 2.0])
    matrix = RBF()(torch.from_numpy(x)).detach()
    model = GaussianProcessClassifier("precomputed", optimizer=None).fit(matrix, y)
    with pytest.raises(ValueError, match="precomputed"):
        model.latent_mean_and_variance(matrix)


def test_a_matrix_that_is_no_kernel_and_labels_that_are_none_are_named():
    matrix = np.array([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="X: expected a positive semi-definite kernel matrix"):
        GaussianProcessClassifier("precomputed").fit(matrix, [0, 1, 1])
    labels = np.array(["a", None, "b"], dtype=object)
    with pytest.raises(ValueError, match="y: expected a label for each row, 1 of 3 are None"):
        GaussianProcessClassifier().fit(matrix, labels)
