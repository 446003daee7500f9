"""Checks of the checklist that belong to several engines at once."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor as ScikitLearns
from sklearn.gaussian_process import kernels as scikit_learns_kernels

from mercer.kernels import RBF, Matern
from mercer.linalg import ResidualKernel
from mercer.machines import GaussianProcessRegressor


def _points(n, seed):
    return np.random.default_rng(seed).uniform(-3, 3, (n, 2))


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="The power function, k(x,x) - k(x)ᵀK⁻¹k(x), is the variance of a Gaussian process "
    "without noise.",
)
def test_power_function_is_the_variance_of_a_process(evidence):
    x, q = _points(25, 0), _points(40, 1)
    kernel = RBF(0.7).requires_grad_(False)
    left = ResidualKernel(kernel, kernel.diag, ridge=0.0).append(torch.from_numpy(x))
    power = left.variance(torch.from_numpy(q)).numpy()
    theirs = ScikitLearns(scikit_learns_kernels.RBF(0.7), alpha=1e-14, optimizer=None).fit(
        x, np.zeros(25)
    )
    ours = GaussianProcessRegressor(RBF(0.7), 1e-14, optimizer=None, normalize_y=False)
    ours = ours.fit(x, np.sin(x[:, 0]))
    for name, process in (("scikit-learn", theirs), ("Mercer", ours)):
        variance = process.predict(q, return_std=True)[1] ** 2
        error = float(np.abs(variance - power).max())
        evidence(required="<= 1e-8", measured=error, what=name)
        assert error <= 1e-8


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="The interpolant of least norm has ‖f‖² = αᵀKα, and its error is at most the power "
    "function times the norm.",
)
def test_power_function_bounds_the_error_of_interpolation(evidence):
    kernel = Matern(1.0, nu=2.5).requires_grad_(False)
    x, q, centres = (torch.from_numpy(_points(n, s)) for n, s in ((30, 0), (500, 1), (12, 2)))
    weights = torch.from_numpy(np.random.default_rng(3).normal(size=12))
    norm = float(weights @ kernel(centres) @ weights) ** 0.5
    values, truth = kernel(x, centres) @ weights, kernel(q, centres) @ weights
    alpha = torch.linalg.solve(kernel(x), values)
    least = float(alpha @ kernel(x) @ alpha) ** 0.5
    power = ResidualKernel(kernel, kernel.diag, ridge=0.0).append(x).variance(q).clamp(min=0)
    ratio = float(((kernel(q, x) @ alpha - truth).abs() / (power.sqrt() * norm)).max())
    evidence(required="<= 1", measured=ratio, what="error over its bound")
    evidence(required="<= 1", measured=least / norm, what="norm over that of the function")
    assert ratio <= 1 and least <= norm * (1 + 1e-10)
