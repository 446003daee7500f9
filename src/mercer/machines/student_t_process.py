"""Regression by a Student-t process: a Gaussian process whose variance is random too."""

import math
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._core.checks import check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .gp_draws import covariance_factor
from .gp_hyperparameters import Hyperparameters, maximise
from .gp_settings import (
    check_noise,
    check_optimizer,
    fit_inputs,
    has_noise,
    noise_bounds,
    normalise,
)
from .inverse_gamma import InverseGamma
from .multivariate_t import draw_t, t_log_density
from .rows import as_tensor, check_rows, check_targets, in_kind
from .t_likelihood import t_likelihood

_SHAPE_RANGE = (math.log(1e-2), math.log(1e6))


@final
class StudentTProcessRegressor(RegressorMixin, Machine):
    r"""Regression by a Student-t process, whose error bars adapt to how well the data fit.

    .. math::

        \sigma^2 \sim \mathrm{InvGamma}(\alpha, \beta), \quad
        y \mid \sigma^2 \sim N(0, \sigma^2 C), \quad C = K + \epsilon I, \quad
        \sigma^2 \mid y \sim \mathrm{InvGamma}\!\left(\alpha + \tfrac n2,\;
        \beta + \tfrac12 y^\top C^{-1} y\right)

    It is the limit of a wide network with that prior of the last layer's variance, for the
    network's `mercer.infinite.NNGP` kernel. Means are those of the Gaussian process; new values
    have a Student-t distribution with :math:`2 \alpha + n` degrees of freedom, and a scale that
    the data set: wider where they are larger than the kernel thinks.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name or itself; it is not changed. A name means that kernel with the median
        distance of the data as its first lengthscale, times a variance. Of a network, leave out
        the bias of the last layer (``b_std`` 0 there), which the scale would not reach in a
        finite network.
    alpha, beta : float, default 2.0
        Shape and scale of the prior of the variance, positive.
    noise : "auto" or float, default "auto"
        :math:`\epsilon`, in units of the kernel: inside it, so that the scale reaches it too;
        fitted unless the kernel has a `White` part, or given.
    optimizer : "fmin_l_bfgs_b", callable or None, default "fmin_l_bfgs_b"
        What maximises the likelihood; None leaves the hyperparameters as they are.
    n_restarts_optimizer : int, default 0
        Further runs, from starts drawn around the first.
    normalize_y : bool, default True
        Whether targets are brought to mean 0 and standard deviation 1.
    ard : bool, default False
        Whether each column has a lengthscale of its own.
    fixed : sequence of str, default ("alpha", "beta")
        Hyperparameters that are not fitted. One set of targets has one variance: where the
        kernel's own is fitted, it tells nothing of the variance's distribution, and a fitted
        ``alpha`` goes to infinity, which is the Gaussian process.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1.
    random_state : int, RandomState instance or None, default None
        Of restarts.

    Attributes
    ----------
    kernel_ : Kernel
        The kernel with the hyperparameters found.
    noise_ : float
        The noise found, in units of the kernel.
    prior_scale_, posterior_scale_ : InverseGamma
        The variance before and after the data.
    log_marginal_likelihood_value_ : float
        Of the normalised targets, at the hyperparameters found.
    theta_names_ : list of str
        What was fitted.
    theta_ : ndarray of shape (p,)
        Their logarithms.
    n_evaluations_ : int
        How often the likelihood was evaluated.
    converged_ : bool
        Whether the optimiser ended at an optimum.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        If the kernel matrix does not fit the memory budget.

    References
    ----------
    Lee, Yun, Yang, Lee: Scale mixtures of neural network Gaussian processes, ICLR 2022, arXiv
    2107.01408.

    Shah, Wilson, Ghahramani: Student-t processes as alternatives to Gaussian processes, AISTATS
    2014, arXiv 1402.4306.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.kernels import RBF
    >>> from mercer.machines import StudentTProcessRegressor
    >>> X = np.linspace(0, 6, 30)[:, None]
    >>> small = StudentTProcessRegressor(RBF(), noise=1e-4, optimizer=None, normalize_y=False)
    >>> small = small.fit(X, np.sin(X[:, 0]))
    >>> mean, std = small.predict([[7.0]], return_std=True)
    >>> large = small.fit(X, 10 * np.sin(X[:, 0]))  # what a Gaussian process would not notice
    >>> bool(large.predict([[7.0]], return_std=True)[1] > 3 * std)
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        alpha: float = 2.0,
        beta: float = 2.0,
        noise: Any = "auto",
        *,
        optimizer: Any = "fmin_l_bfgs_b",
        n_restarts_optimizer: int = 0,
        normalize_y: bool = True,
        ard: bool = False,
        fixed: Sequence[str] = ("alpha", "beta"),
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.beta = beta
        self.noise = noise
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.normalize_y = normalize_y
        self.ard = ard
        self.fixed = fixed
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the hyperparameters, and condition on the data.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,)
            Their targets.

        Returns
        -------
        StudentTProcessRegressor
            The machine itself.
        """
        alpha = check_real("alpha", self.alpha, above=0.0)
        beta = check_real("beta", self.beta, above=0.0)
        check_int("n_restarts_optimizer", self.n_restarts_optimizer, least=0)
        check_optimizer(self.optimizer)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows, multi_output=False).double()
        targets, self._mean, self._scale = normalise(targets.unsqueeze(-1), self.normalize_y)
        size = float(targets.square().mean()) or 1.0
        self._inputs = fit_inputs(
            self.kernel, as_tensor(rows), size, ard=self.ard, standardize=self.standardize
        )
        noise = check_noise(self.noise, self._inputs, size)
        if noise.ndim:
            raise ValueError("noise: expected 'auto' or a number, got several")
        extra = {"alpha": (math.log(alpha), *_SHAPE_RANGE)}
        low, high = (b + math.log(size) for b in _SHAPE_RANGE)
        extra["beta"] = (math.log(beta), low, high)
        if isinstance(self.noise, str) and not has_noise(self._inputs.kernel):
            extra["noise"] = noise_bounds(noise, targets)
        vector = Hyperparameters(self._inputs.kernel, self.fixed, extra)
        shape = {"alpha": alpha, "beta": beta, "noise": float(noise)}
        kernel, points = vector.kernel, self._inputs.points

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            vector.write(theta)
            now = shape | vector.values()
            found = t_likelihood(kernel, points, targets, now, gradient=True)
            return found.value, vector.gather(found.by_kernel, found.by_shape)

        self.n_evaluations_, self.converged_ = 0, True
        if self.optimizer is not None and len(vector.names):
            found = maximise(
                objective,
                vector.read(),
                vector.bounds,
                optimizer=self.optimizer,
                restarts=self.n_restarts_optimizer,
                random_state=check_random_state(self.random_state),
            )
            vector.write(found.theta)
            self.n_evaluations_, self.converged_ = found.evaluations, found.converged
            shape |= vector.values()
        self.theta_names_, self.theta_ = vector.names, vector.read()
        last = t_likelihood(kernel, points, targets, shape, gradient=False)
        self._factor = last.factor
        self.log_marginal_likelihood_value_ = last.value
        self.noise_ = shape["noise"]
        self.prior_scale_ = InverseGamma(shape["alpha"], shape["beta"])
        quadratic = float(last.factor.quadratic)
        self.posterior_scale_ = InverseGamma(
            shape["alpha"] + len(targets) / 2, shape["beta"] + quadratic / 2
        )
        return self

    @property
    def kernel_(self) -> Kernel:
        """The kernel with the hyperparameters found."""
        check_is_fitted(self)
        return self._inputs.kernel

    @torch.no_grad()
    def predict(
        self,
        X: Any,
        return_std: bool = False,
        return_cov: bool = False,
        return_scale: bool = False,
        *,
        include_noise: bool = False,
    ) -> Any:
        """Predict the mean, and how sure it is.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.
        return_std : bool, default False
            Whether to return standard deviations.
        return_cov : bool, default False
            Whether to return the covariance between rows.
        return_scale : bool, default False
            Whether to return the scales of the Student-t distributions, whose degrees of freedom
            are twice ``posterior_scale_.alpha``: for quantiles.
        include_noise : bool, default False
            Whether these are of new observations, and not of the function.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            The mean; a tensor for a tensor. With one of the options a tuple with what was asked
            for, of shape (n_samples,) or (n_samples, n_samples).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, a number is not finite, more than one option
            is asked for, or a variance where there is none: with at most 2 degrees of freedom.
        """
        check_is_fitted(self)
        if return_std + return_cov + return_scale > 1:
            raise ValueError("return_std, return_cov, return_scale: expected at most one of them")
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        mean = self._factor.mean(self._inputs, x).squeeze(-1) * self._scale + self._mean
        found = [mean]
        if return_std or return_scale:
            variance = self._factor.variance(self._inputs, x)
            variance = variance + (self.noise_ if include_noise else 0.0)
            spread = (variance * self._spread(moment=return_std)).sqrt()
            found.append(spread * self._scale)
        if return_cov:
            covariance = self._factor.covariance(self._inputs, x)
            covariance.diagonal().add_(self.noise_ if include_noise else 0.0)
            found.append(covariance * self._spread(moment=True) * self._scale.square())
        answers = [in_kind(part.to(x.dtype), rows) for part in found]
        return answers[0] if len(answers) == 1 else tuple(answers)

    def _spread(self, *, moment: bool) -> float:
        """Return what variances of the kernel are multiplied by, for scales or for variances."""
        posterior = self.posterior_scale_
        if not moment:
            return posterior.beta / posterior.alpha
        if posterior.alpha <= 1:
            raise ValueError(
                f"return_std: a Student-t distribution of {2 * posterior.alpha:g} degrees of "
                "freedom has no variance; ask for return_scale, or take a larger alpha"
            )
        return posterior.mean

    @torch.no_grad()
    def log_predictive_density(self, X: Any, y: Any) -> float:
        """Return the logarithm of the joint density of new observations.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.
        y : array-like or Tensor of shape (n_samples,)
            What was observed there.

        Returns
        -------
        float
            The logarithm, in the unit of y.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, lengths differ, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        targets = check_targets(y, rows, multi_output=False).double()
        gap = (targets - self._mean) / self._scale - self._factor.mean(self._inputs, x).squeeze(-1)
        covariance = self._factor.covariance(self._inputs, x)
        covariance.diagonal().add_(self.noise_)
        lower = covariance_factor(covariance * self._spread(moment=False))
        half = torch.linalg.solve_triangular(lower, gap.unsqueeze(-1), upper=False)
        log_determinant = 2 * float(lower.diagonal().log().sum())
        df = 2 * self.posterior_scale_.alpha
        value = float(t_log_density(half.square().sum(), log_determinant, len(x), df))
        return value - len(x) * math.log(float(self._scale))

    @torch.no_grad()
    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Any:
        """Draw functions from the posterior, at some rows; each has one variance.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_rows, n_features)
            Rows.
        n_samples : int, default 1
            Number of draws.
        random_state : int, RandomState instance or None, default 0
            Their source.

        Returns
        -------
        ndarray or Tensor of shape (n_rows, n_samples)
            The draws; a tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            As `predict`.
        """
        check_is_fitted(self)
        count = check_int("n_samples", n_samples)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        mean = self._factor.mean(self._inputs, x)  # (m, 1)
        covariance = self._factor.covariance(self._inputs, x)
        lower = covariance_factor(covariance * self._spread(moment=False))
        df = 2 * self.posterior_scale_.alpha
        drawn = mean + draw_t(lower, df, count, check_random_state(random_state))
        return in_kind((drawn * self._scale + self._mean).to(x.dtype), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
