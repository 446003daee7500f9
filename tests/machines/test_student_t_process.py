"""Student-t processes and scale mixtures beside SciPy's distributions, and what they are for."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mercer.infinite import NNGP
from mercer.kernels import RBF, Matern, Precomputed, White
from mercer.machines import (
    GaussianProcessRegressor,
    InverseGamma,
    ScaleMixtureProcess,
    StudentTProcessRegressor,
)
from mercer.machines.multivariate_t import draw_t
from tests.contracts.machine import MachineContract

SHEET = "infinite-scale-mixture-nngp"


class TestStudentT(MachineContract):
    def make(self, **params):
        return StudentTProcessRegressor(**{"optimizer": None, "random_state": 0, **params})

    def estimators(self):
        return [StudentTProcessRegressor(), StudentTProcessRegressor("matern52", noise=0.01)]


class TestScaleMixture(MachineContract):
    def make(self, **params):
        return ScaleMixtureProcess(**{"num_samples": 200, "random_state": 0, **params})


def _data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, np.sin(x @ [1.0, 2.0]) + 0.1 * rng.normal(size=n)


def _plain(kernel, alpha=2.0, beta=3.0, noise=0.05):
    return StudentTProcessRegressor(kernel, alpha, beta, noise, optimizer=None, normalize_y=False)


def _shape(x, noise=0.05):
    k = np.exp(-0.5 * ((x[:, None] - x) ** 2).sum(-1)) + noise * np.eye(len(x))
    return 3.0 / 2.0 * k


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The marginal likelihood is the density of a multivariate t; the predictive density is "
    "the joint one over it.",
)
def test_densities_are_scipys(evidence):
    x, y = _data(30)
    model = _plain(RBF()).fit(x[:20], y[:20])
    marginal = stats.multivariate_t(np.zeros(20), _shape(x[:20]), df=4).logpdf(y[:20])
    joint = stats.multivariate_t(np.zeros(30), _shape(x), df=4).logpdf(y)
    gap = abs(model.log_marginal_likelihood_value_ - marginal)
    evidence(required="<= 1e-8", measured=gap, what="marginal likelihood")
    assert gap <= 1e-8
    found = model.log_predictive_density(x[20:], y[20:])
    gap = abs(found - (joint - marginal))
    evidence(required="<= 1e-7", measured=gap, what="predictive density")
    assert gap <= 1e-7
    normalised = StudentTProcessRegressor(RBF(), noise=0.05, optimizer=None).fit(x, 5 * y + 3)
    a = normalised.log_predictive_density(x[:3], 5 * y[:3] + 3)
    same = StudentTProcessRegressor(RBF(), noise=0.05, optimizer=None).fit(x, y)
    assert abs(a + 3 * math.log(5) - same.log_predictive_density(x[:3], y[:3])) < 1e-9


@pytest.mark.paper(
    SHEET, kind="exact", claim="With alpha and beta to infinity it is the Gaussian process."
)
def test_the_limit_is_a_gaussian_process(evidence):
    x, y = _data()
    gauss = GaussianProcessRegressor(RBF(), 0.05, optimizer=None, normalize_y=False).fit(x, y)
    limit = _plain(RBF(), 1e6, 1e6).fit(x, y)
    values = limit.log_marginal_likelihood_value_, gauss.log_marginal_likelihood_value_
    gap = abs(values[0] / values[1] - 1)
    evidence(required="<= 1e-4", measured=gap, what="log-likelihood, relative")
    assert gap <= 1e-4
    new = _data(10, 1)[0]
    for a, b in zip(limit.predict(new, True), gauss.predict(new, True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_means_are_the_gaussian_process_and_the_posterior_is_conjugate():
    x, y = _data()
    new = _data(10, 1)[0]
    gauss = GaussianProcessRegressor(RBF(), 0.05, optimizer=None, normalize_y=False).fit(x, y)
    model = _plain(RBF()).fit(x, y)
    np.testing.assert_allclose(model.predict(new), gauss.predict(new), rtol=0, atol=1e-12)
    c = _shape(x) * 2 / 3
    posterior = model.posterior_scale_
    assert posterior.alpha == 2 + 20
    assert abs(posterior.beta - (3 + y @ np.linalg.solve(c, y) / 2)) < 1e-9
    std = gauss.predict(new, return_std=True)[1]
    expected = std * math.sqrt(posterior.mean)
    np.testing.assert_allclose(model.predict(new, return_std=True)[1], expected, rtol=1e-8)
    covariance = gauss.predict(new, return_cov=True)[1] * posterior.mean
    np.testing.assert_allclose(model.predict(new, return_cov=True)[1], covariance, atol=1e-10)
    ratio = model.predict(new, return_scale=True)[1] / expected
    np.testing.assert_allclose(ratio, math.sqrt(21 / 22), rtol=1e-12)


@pytest.mark.parametrize("fixed", [(), ("beta",)])
def test_gradient_is_that_of_finite_differences(fixed):
    x, y = _data()
    seen = {}

    def optimizer(function, start, bounds):
        value, gradient = function(start)
        moves = 1e-5 * np.eye(len(start))
        seen["expected"] = [(function(start + m)[0] - function(start - m)[0]) / 2e-5 for m in moves]
        seen["found"] = gradient
        return start, value

    model = StudentTProcessRegressor(2.0 * Matern([1.0, 2.0]), optimizer=optimizer, fixed=fixed)
    model.fit(x, y)
    np.testing.assert_allclose(seen["found"], seen["expected"], rtol=1e-5, atol=1e-5)
    assert model.theta_names_[-1] == "noise" and "alpha" in model.theta_names_


def test_a_fitted_shape_goes_to_the_gaussian_process():
    x, y = _data(60)
    free = StudentTProcessRegressor(1.0 * RBF(), fixed=()).fit(x, y)
    gauss = GaussianProcessRegressor(1.0 * RBF()).fit(x, y)
    assert free.prior_scale_.alpha > 100
    gap = gauss.log_marginal_likelihood_value_ - free.log_marginal_likelihood_value_
    assert -1e-6 <= gap < 0.1


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="A joint draw has one chi-square: it is the mixture of Gaussians, and coordinates are "
    "large together as the multivariate t says.",
)
def test_joint_tails_of_draws(evidence):
    correlation = 0.7
    shape = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    count = 400_000
    state = np.random.RandomState(0)
    factor = torch.linalg.cholesky(shape)
    joint = draw_t(factor, 4.0, count, state).abs()
    mixture = (
        factor @ torch.from_numpy(state.standard_normal((2, count)))
    ).abs() * torch.from_numpy(InverseGamma(2.0, 2.0).draw(count, state)).sqrt()
    for level in (2.0, 5.0):
        a, b = (float((d > level).all(0).double().mean()) for d in (joint, mixture))
        error = math.sqrt((a + b) / count)
        evidence(
            required="<= 4", measured=abs(a - b) / error, what=f"difference at {level:g}, errors"
        )
        assert abs(a - b) <= 4 * error
    # Marginals are t with 4 degrees of freedom.
    assert stats.kstest(joint[0].numpy(), lambda q: 2 * stats.t(4).cdf(q) - 1).pvalue > 1e-3


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The divergence of two inverse gamma distributions in closed form is the Monte Carlo "
    "one.",
)
def test_divergence(evidence):
    q, p = InverseGamma(4.0, 3.0), InverseGamma(2.0, 2.0)
    state = np.random.RandomState(0)
    v = q.draw(400_000, state)
    logs = stats.invgamma(4.0, scale=3.0).logpdf(v) - stats.invgamma(2.0, scale=2.0).logpdf(v)
    error = logs.std() / math.sqrt(len(v))
    gap = abs(logs.mean() - q.divergence(p)) / error
    evidence(required="<= 4", measured=gap, what="difference in standard errors")
    assert gap <= 4 and q.divergence(q) == 0.0
    assert abs(v.mean() - q.mean) < 0.02 and InverseGamma(0.5, 1.0).mean == math.inf


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Targets three times as large as the kernel thinks: the t process is far better in "
    "likelihood per point, and costs nothing where the scale is right.",
)
def test_misscaled_targets(evidence):
    losses = {}
    for scale in (3.0, 1.0):
        rows = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            x = rng.uniform(-3, 3, (50, 1))
            k = np.exp(-0.5 * (x - x.T) ** 2) + 1e-2 * np.eye(50)
            y = scale * np.linalg.cholesky(k) @ rng.normal(size=50)
            student = StudentTProcessRegressor(
                RBF(), noise=1e-2, optimizer=None, normalize_y=False
            ).fit(x[:30], y[:30])
            gauss = GaussianProcessRegressor(RBF(), 1e-2, optimizer=None, normalize_y=False)
            gauss.fit(x[:30], y[:30])
            mean, covariance = gauss.predict(x[30:], return_cov=True)
            normal = stats.multivariate_normal(mean, covariance + 1e-2 * np.eye(20))
            rows.append(
                [-normal.logpdf(y[30:]) / 20, -student.log_predictive_density(x[30:], y[30:]) / 20]
            )
        losses[scale] = np.mean(rows, 0)
    gain = losses[3.0][0] - losses[3.0][1]
    cost = losses[1.0][1] - losses[1.0][0]
    evidence(required=">= 1", measured=gain, what="gain with targets times 3, nats a point")
    evidence(required="<= 0.05", measured=cost, what="cost with the right scale, nats a point")
    assert gain >= 1 and cost <= 0.05


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Outputs of finite wide networks with an inverse gamma variance of the last layer are "
    "Student-t with the NNGP kernel as shape.",
)
def test_wide_networks_of_random_last_layer_variance(evidence):
    width, count = 500, 4000
    source = torch.Generator().manual_seed(0)
    x = torch.tensor([[0.6, -1.1, 0.4]], dtype=torch.float64)
    kernel = NNGP(
        nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
        w_std=1.5,
        b_std=[0.3, 0.0],
    )
    with torch.no_grad():
        shape = float(kernel(x))
        values = []
        for _ in range(count):
            w = 1.5 * torch.randn(3, width, generator=source).double() / math.sqrt(3)
            b = 0.3 * torch.randn(width, generator=source).double()
            v = 1.5 * torch.randn(width, generator=source).double() / math.sqrt(width)
            values.append(float(torch.tanh(x @ w + b) @ v))
    scales = InverseGamma(2.0, 2.0).draw(count, np.random.RandomState(0))
    found = np.array(values) * np.sqrt(scales)
    distance = stats.kstest(found, stats.t(4, scale=math.sqrt(shape)).cdf).statistic
    evidence(required="< 0.03", measured=distance, what="Kolmogorov-Smirnov distance")
    assert distance < 0.03
    assert stats.kurtosis(found) > 1.0 > abs(stats.kurtosis(np.array(values)))


def test_a_network_is_a_kernel():
    x, y = _data(60)
    kernel = NNGP(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), b_std=[0.5, 0.0])
    model = StudentTProcessRegressor(kernel).fit(x[:45], y[:45])
    assert {"w_std", "b_std[0]", "noise"} <= set(model.theta_names_)
    assert model.score(x[45:], y[45:]) > 0.5
    start = StudentTProcessRegressor(kernel, optimizer=None).fit(x[:45], y[:45])
    assert model.log_marginal_likelihood_value_ > start.log_marginal_likelihood_value_ + 1


def test_draws_have_the_predicted_moments():
    x, y = _data()
    new = _data(3, 1)[0]
    model = _plain(RBF(), 3.0, 3.0).fit(x[:6], y[:6])
    mean, covariance = model.predict(new, return_cov=True)
    draws = model.sample_y(new, 50_000, random_state=0)
    assert np.abs(draws.mean(1) - mean).max() < 0.02
    assert np.abs(np.cov(draws) - covariance).max() < 0.05 * covariance.max()


def test_noise_is_fitted_or_the_kernels_own():
    x, y = _data(60)
    model = StudentTProcessRegressor("rbf").fit(x, y)
    assert 1e-3 < model.noise_ < 0.2 and model.converged_ and model.n_evaluations_ > 3
    white = StudentTProcessRegressor(1.0 * RBF() + White(0.1)).fit(x, y)
    assert white.noise_ == 1e-10
    gap = white.log_marginal_likelihood_value_ - model.log_marginal_likelihood_value_
    assert abs(gap) < 1e-4


def test_scale_mixture_of_one_scale_is_a_gaussian_process():
    x, y = _data()
    new = _data(10, 1)[0]
    mixture = ScaleMixtureProcess(
        RBF(), lambda count, state: np.full(count, 1.7), 0.05, num_samples=3
    ).fit(x, y)
    gauss = GaussianProcessRegressor(1.7 * RBF(), 0.05, optimizer=None).fit(x, y)
    for include in (False, True):
        pairs = zip(
            mixture.predict(new, True, include_noise=include),
            gauss.predict(new, True, include_noise=include),
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    value = mixture.log_marginal_likelihood_value_
    assert abs(value - gauss.log_marginal_likelihood_value_) < 1e-9
    assert abs(mixture.effective_samples_ - 3) < 1e-9
    draws = mixture.sample_y(new, 20_000, random_state=1)
    covariance = gauss.predict(new, return_cov=True)[1]
    assert np.abs(np.cov(draws) - covariance).max() < 0.05 * covariance.max()


def test_scale_mixture_by_importance_is_the_student_t_process():
    """Without noise, or nearly, both models are one."""
    x, y = _data(8)
    k = torch.from_numpy(np.exp(-0.5 * ((x[:, None] - x) ** 2).sum(-1)) + 0.2 * np.eye(8))
    items, rest = np.arange(6.0)[:, None], torch.arange(6, 8).double()
    cross = k[6:, :6].numpy()
    student = _plain("precomputed", 2.0, 2.0, 1e-9).fit(k[:6, :6].numpy(), y[:6])
    mixture = ScaleMixtureProcess(
        "precomputed",
        InverseGamma(2.0, 2.0),
        1e-9,
        num_samples=200_000,
        normalize_y=False,
        random_state=0,
    ).fit(k[:6, :6].numpy(), y[:6])
    assert items.shape == (6, 1) and rest.shape == (2,) and Precomputed(k).event_ndim == 0
    np.testing.assert_allclose(mixture.predict(cross), student.predict(cross), atol=1e-6)
    gap = mixture.log_marginal_likelihood_value_ - student.log_marginal_likelihood_value_
    assert abs(gap) < 0.02
    posterior = mixture.weights_ @ mixture.scales_
    assert abs(posterior / student.posterior_scale_.mean - 1) < 0.02


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: StudentTProcessRegressor(alpha=0.0), "alpha"),
        (lambda: StudentTProcessRegressor(beta=-1.0), "beta"),
        (lambda: StudentTProcessRegressor(noise=[0.1] * 40), "noise"),
        (lambda: StudentTProcessRegressor(fixed=("period",)), "fixed"),
        (lambda: ScaleMixtureProcess(noise=0.0), "noise"),
        (lambda: ScaleMixtureProcess(prior=lambda n, state: np.zeros(3)), "prior"),
        (lambda: ScaleMixtureProcess(num_samples=0), "num_samples"),
    ],
)
def test_bad_arguments_are_named(make, error):
    with pytest.raises(ValueError, match=error):
        make().fit(*_data())


def test_other_bad_questions():
    x, y = _data()
    with pytest.raises(TypeError, match="prior"):
        ScaleMixtureProcess(prior=3.0).fit(x, y)
    with pytest.raises(ValueError, match="alpha"):
        InverseGamma(0.0, 1.0)
    model = _plain(RBF(), 0.3).fit(x[:1], y[:1])
    with pytest.raises(ValueError, match="at most one"):
        model.predict(x, True, True)
    with pytest.raises(ValueError, match="no variance"):
        model.predict(x, return_std=True)
    assert np.isfinite(model.predict(x, return_scale=True)[1]).all()
