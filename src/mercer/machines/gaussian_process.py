"""Gaussian process regression: exact, iterative, or by inducing points."""

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int
from ..kernels import Kernel
from .base import Machine
from .gp_draws import draw_gaussian
from .gp_hyperparameters import Hyperparameters, maximise
from .gp_settings import (
    check_noise,
    check_optimizer,
    choose_method,
    fit_inputs,
    has_noise,
    noise_bounds,
    normalise,
)
from .rows import as_tensor, check_rows, check_targets, in_kind


@final
class GaussianProcessRegressor(MultiOutputMixin, RegressorMixin, Machine):
    r"""Regression by a Gaussian process, whose kernel and noise are fitted to the data.

    .. math::

        f \sim GP(0, k), \quad y = f(x) + \epsilon, \quad
        f(x_*) \mid y \sim N\!\left(k_*^\top C^{-1} y,\; k_{**} - k_*^\top C^{-1} k_*\right), \quad
        C = K + \sigma^2 I

    The hyperparameters maximise :math:`\log N(y; 0, C)`.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name or itself; it is not changed. A name means that kernel with the median
        distance of the data as its first lengthscale, times a variance. ``"precomputed"`` takes
        kernel matrices for X.
    alpha : "auto", float or array-like of shape (n_samples,), default "auto"
        :math:`\sigma^2`, the variance of the noise, in units of the normalised targets: fitted
        with the kernel, unless this has a `White` part; or given, for all rows or each.
    optimizer : "fmin_l_bfgs_b", callable or None, default "fmin_l_bfgs_b"
        What maximises the likelihood; as of scikit-learn. None leaves the hyperparameters as they
        are.
    n_restarts_optimizer : int, default 0
        Further runs, from starts drawn around the first.
    normalize_y : bool, default True
        Whether targets are brought to mean 0 and standard deviation 1.
    ard : bool, default False
        Whether each column has a lengthscale of its own.
    fixed : sequence of str, default ()
        Hyperparameters that are not fitted, such as ``("lengthscale",)`` or ``("noise",)``.
    method : {"auto", "exact", "iterative", "inducing"}, default "auto"
        ``"exact"`` factorises the kernel matrix, O(n³) a step. ``"iterative"`` multiplies by it
        only: conjugate gradients, and stochastic Lanczos quadrature with the same probes for all
        hyperparameters. ``"inducing"`` takes the variational bound with landmarks, O(n m²) a
        step. ``"auto"`` is exact up to 10,000 rows that fit the budget, and inducing beyond,
        or iterative with a `White` part.
    num_landmarks : int, default 512
        m, of the inducing points.
    landmarks : {"kmeans", "greedy", "leverage", "kdpp", "uniform"}, default "kmeans"
        How landmarks are chosen, with the hyperparameters that the search starts from; see
        `mercer.features.choose_landmarks`.
    num_probes : int, default 16
        Random vectors of the iterative method.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1.
    random_state : int, RandomState instance or None, default None
        Of restarts, landmarks and probes.

    Attributes
    ----------
    kernel_ : Kernel
        The kernel with the hyperparameters found.
    noise_ : float or ndarray of shape (n_samples,)
        The variance of the noise, in units of the normalised targets.
    log_marginal_likelihood_value_ : float
        Of the normalised targets, at the hyperparameters found; summed over outputs. For
        inducing points it is the lower bound, for the iterative method an estimate.
    theta_names_ : list of str
        What the entries of the vector in `log_marginal_likelihood` are.
    theta_ : ndarray of shape (p,)
        The vector that was found: logarithms.
    method_, method_reason_ : str
        The method that was taken, and why.
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
        If the method does not fit the memory budget; the text names one that does.

    Notes
    -----
    Standard deviations are those of f, as scikit-learn's are, unless ``include_noise`` asks for
    those of a new observation. There are no sample weights: no weight of a row's noise gives the
    likelihood of a row that is repeated.

    References
    ----------
    Rasmussen, Williams, "Gaussian processes for machine learning", 2006.

    Titsias, "Variational learning of inducing variables in sparse Gaussian processes", 2009.

    Gardner et al., "GPyTorch: Blackbox matrix-matrix Gaussian process inference with GPU
    acceleration", NeurIPS 2018, arXiv 1809.11165.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import GaussianProcessRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-3, 3, (80, 1))
    >>> y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=80)
    >>> model = GaussianProcessRegressor("rbf").fit(X, y)
    >>> mean, std = model.predict([[0.5]], return_std=True)
    >>> bool(abs(mean[0] - np.sin(0.5)) < 3 * std[0] < 0.3)
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        alpha: Any = "auto",
        *,
        optimizer: Any = "fmin_l_bfgs_b",
        n_restarts_optimizer: int = 0,
        normalize_y: bool = True,
        ard: bool = False,
        fixed: Sequence[str] = (),
        method: str = "auto",
        num_landmarks: int = 512,
        landmarks: str = "kmeans",
        num_probes: int = 16,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.normalize_y = normalize_y
        self.ard = ard
        self.fixed = fixed
        self.method = method
        self.num_landmarks = num_landmarks
        self.landmarks = landmarks
        self.num_probes = num_probes
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the hyperparameters, and condition on the data.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            Their targets; all share the kernel.

        Returns
        -------
        GaussianProcessRegressor
            The machine itself.
        """
        check_choice("method", self.method, ("auto", "exact", "inducing", "iterative"))
        check_int("n_restarts_optimizer", self.n_restarts_optimizer, least=0)
        check_optimizer(self.optimizer)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows).double()
        state = check_random_state(self.random_state)
        self._single = targets.ndim == 1
        self._targets, self._mean, self._scale = normalise(
            targets.reshape(len(targets), -1), self.normalize_y
        )
        size = float(self._targets.square().mean()) or 1.0
        self._inputs = fit_inputs(
            self.kernel, as_tensor(rows), size, ard=self.ard, standardize=self.standardize
        )
        self._noise = check_noise(self.alpha, self._inputs, size)
        self._method, self.method_, self.method_reason_ = choose_method(
            self, self._inputs, self._noise, state
        )
        vector = self._vector()
        self.n_evaluations_, self.converged_ = 0, True
        if self.optimizer is not None and len(vector.names):
            found = maximise(
                lambda theta: self._evaluate(vector, theta, gradient=True),
                vector.read(),
                vector.bounds,
                optimizer=self.optimizer,
                restarts=self.n_restarts_optimizer,
                random_state=state,
                tolerance=self._method.tolerance,
            )
            vector.write(found.theta)
            self.n_evaluations_, self.converged_ = found.evaluations, found.converged
            self._noise = self._noise_of(vector)
        self.theta_names_, self.theta_ = vector.names, vector.read()
        self._posterior, likelihood = self._method.posterior(
            self._inputs.kernel, self._inputs.points, self._targets, self._noise
        )
        self.log_marginal_likelihood_value_ = likelihood.value
        noise = self._noise.cpu().numpy()
        self.noise_ = noise if noise.ndim else float(noise)
        return self

    @property
    def kernel_(self) -> Kernel:
        """The kernel with the hyperparameters found."""
        check_is_fitted(self)
        return self._inputs.kernel

    def _vector(self) -> Hyperparameters:
        extra = {}
        if isinstance(self.alpha, str) and not has_noise(self._inputs.kernel):
            extra["noise"] = noise_bounds(self._noise, self._targets)
        return Hyperparameters(self._inputs.kernel, self.fixed, extra)

    def _noise_of(self, vector: Hyperparameters) -> Tensor:
        if "noise" not in vector.extra:
            return self._noise
        return torch.full_like(self._noise, vector.values()["noise"])

    def _evaluate(
        self, vector: Hyperparameters, theta: np.ndarray, *, gradient: bool
    ) -> tuple[float, np.ndarray]:
        """Evaluate the likelihood and its derivatives by a vector."""
        vector.write(theta)
        noise = self._noise_of(vector)
        found = self._method.likelihood(
            vector.kernel, self._inputs.points, self._targets, noise, gradient=gradient
        )
        if not gradient:
            return found.value, np.empty(0)
        extra = {"noise": found.noise_gradient * float(noise.max())} if vector.extra else {}
        return found.value, vector.gather(found.kernel_gradient, extra)

    def log_marginal_likelihood(self, theta: Any = None, eval_gradient: bool = False) -> Any:
        """Evaluate the log marginal likelihood of the (normalised) training targets.

        Parameters
        ----------
        theta : array-like of shape (p,), optional
            Hyperparameters, as ``theta_names_`` names them: logarithms. None takes those found.
        eval_gradient : bool, default False
            Whether to return the gradient too.

        Returns
        -------
        float or tuple of float and ndarray of shape (p,)
            The value, and its gradient.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If the vector has another length, or holds what is not finite.
        """
        check_is_fitted(self)
        if theta is None and not eval_gradient:
            return self.log_marginal_likelihood_value_
        vector = self._vector()
        start = vector.read()
        place = start if theta is None else np.asarray(theta, dtype=float)
        if place.shape != start.shape or not np.isfinite(place).all():
            raise ValueError(
                f"theta: expected {len(start)} finite numbers, {vector.names}, got {place}"
            )
        try:
            value, gradient = self._evaluate(vector, place, gradient=eval_gradient)
        finally:
            vector.write(start)
        return (value, gradient) if eval_gradient else value

    @torch.no_grad()
    def predict(
        self,
        X: Any,
        return_std: bool = False,
        return_cov: bool = False,
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
        include_noise : bool, default False
            Whether these are of new observations, and not of the function.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The mean; a tensor for a tensor. With ``return_std`` or ``return_cov`` a tuple with
            what was asked for, of the shape of the mean, or (n_samples, n_samples) or
            (n_samples, n_samples, n_targets).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, a number is not finite, both are asked for, or
            the noise of each training row was given and that of new ones is asked for.
        """
        check_is_fitted(self)
        if return_std and return_cov:
            raise ValueError("return_std, return_cov: expected at most one of them, got both")
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        mean = self._posterior.mean(self._inputs, x) * self._scale + self._mean  # (m, q)
        found = [mean]
        noise = self._new_noise() if include_noise else 0.0
        if return_std:
            variance = self._posterior.variance(self._inputs, x) + noise  # (m,)
            found.append(variance.sqrt().unsqueeze(-1) * self._scale)
        if return_cov:
            covariance = self._posterior.covariance(self._inputs, x)  # (m, m)
            covariance.diagonal().add_(noise)
            found.append(covariance.unsqueeze(-1) * self._scale.square())
        found = [part.squeeze(-1) if self._single else part for part in found]
        answers = [in_kind(part.to(x.dtype), rows) for part in found]
        return answers[0] if len(answers) == 1 else tuple(answers)

    def _new_noise(self) -> float:
        if self._noise.ndim:
            raise ValueError(
                "include_noise: the noise of each training row was given, which does not tell "
                "that of new ones"
            )
        return float(self._noise)

    @torch.no_grad()
    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Any:
        """Draw functions from the posterior, at some rows.

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
        ndarray or Tensor of shape (n_rows, n_samples) or (n_rows, n_targets, n_samples)
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
        mean = self._posterior.mean(self._inputs, x)  # (m, q)
        covariance = self._posterior.covariance(self._inputs, x)  # (m, m)
        z = draw_gaussian(covariance, mean.shape[1] * count, check_random_state(random_state))
        drawn = mean.unsqueeze(-1) + z.reshape(*mean.shape, count)
        drawn = drawn * self._scale[:, None] + self._mean[:, None]
        return in_kind((drawn.squeeze(1) if self._single else drawn).to(x), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
