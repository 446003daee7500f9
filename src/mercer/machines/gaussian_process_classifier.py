"""Gaussian process classification by Laplace's approximation."""

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_int
from ..kernels import Kernel
from .base import Machine
from .gp_exact import by_blocks
from .gp_hyperparameters import Hyperparameters, maximise
from .gp_laplace import LaplaceMode, mean_sigmoid
from .gp_settings import check_optimizer, fit_inputs
from .kernel_input import KernelInput
from .labels import as_labels, check_labels
from .rows import as_tensor, check_rows, in_kind

_NODES = 1700  # numbers of a row while probabilities are integrated


@final
class GaussianProcessClassifier(ClassifierMixin, Machine):
    r"""Classify by a Gaussian process under a logistic function, with its kernel fitted.

    .. math::

        f \sim GP(0, k), \quad P(y = 1 \mid x) = \sigma(f(x)), \quad
        q(f) = N\!\left(\hat f,\; (K^{-1} + W)^{-1}\right)

    with :math:`\hat f` the mode of the posterior and W the curvature of the likelihood there.
    The hyperparameters maximise the evidence of this approximation. More than two classes are
    one against the rest each, with a kernel of its own.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name or itself; it is not changed. A name means that kernel with the median
        distance of the data as its first lengthscale, times a variance. ``"precomputed"`` takes
        kernel matrices for X, whose new rows tell no variance: probabilities are then those of
        the mode.
    optimizer : "fmin_l_bfgs_b", callable or None, default "fmin_l_bfgs_b"
        What maximises the evidence; as of scikit-learn. None leaves the hyperparameters as they
        are.
    n_restarts_optimizer : int, default 0
        Further runs, from starts drawn around the first.
    max_iter_predict : int, default 100
        Newton steps to the mode, at most.
    ard : bool, default False
        Whether each column has a lengthscale of its own.
    fixed : sequence of str, default ()
        Hyperparameters that are not fitted, such as ``("lengthscale",)``.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1.
    random_state : int, RandomState instance or None, default None
        Of restarts.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    kernels_ : list of Kernel
        The kernel that was found: one, or one for each class.
    theta_names_ : list of str
        What the entries of the vector in `log_marginal_likelihood` are, for each kernel.
    log_marginal_likelihood_value_ : float
        The evidence; the mean over classes where there are more than two.
    n_iter_ : int
        Newton steps to the mode, the most of all.
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
    Rasmussen, Williams, "Gaussian processes for machine learning", 2006, algorithms 3.1, 3.2
    and 5.1.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from mercer.machines import GaussianProcessClassifier
    >>> X, y = make_moons(200, noise=0.2, random_state=0)
    >>> model = GaussianProcessClassifier().fit(X[:150], y[:150])
    >>> model.score(X[150:], y[150:]) > 0.9
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        *,
        optimizer: Any = "fmin_l_bfgs_b",
        n_restarts_optimizer: int = 0,
        max_iter_predict: int = 100,
        ard: bool = False,
        fixed: Sequence[str] = (),
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.max_iter_predict = max_iter_predict
        self.ard = ard
        self.fixed = fixed
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the hyperparameters, and find the mode.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.

        Returns
        -------
        GaussianProcessClassifier
            The machine itself.
        """
        check_int("n_restarts_optimizer", self.n_restarts_optimizer, least=0)
        check_int("max_iter_predict", self.max_iter_predict)
        check_optimizer(self.optimizer)
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got {len(self.classes_)} class")
        x = as_tensor(rows)
        numbers = numbers.to(x.device)
        ones = [1] if len(self.classes_) == 2 else list(range(len(self.classes_)))
        state = check_random_state(self.random_state)
        self._labels = [(numbers == one).double() for one in ones]
        first = fit_inputs(self.kernel, x, 1.0, ard=self.ard, standardize=self.standardize)
        self._inputs: list[KernelInput] = [first]
        for _ in ones[1:]:
            self._inputs.append(
                fit_inputs(self.kernel, x, 1.0, ard=self.ard, standardize=self.standardize)
            )
        parts = list(zip(self._inputs, self._labels, strict=True))
        self._modes = [self._fit_one(inputs, labels, state) for inputs, labels in parts]
        self.theta_names_ = Hyperparameters(first.kernel, self.fixed).names
        self.log_marginal_likelihood_value_ = float(np.mean([mode.value for mode in self._modes]))
        self.n_iter_ = max(mode.iterations for mode in self._modes)
        return self

    def _fit_one(
        self, inputs: KernelInput, labels: Tensor, state: np.random.RandomState
    ) -> LaplaceMode:
        """Fit the kernel of one class against the rest."""
        vector = Hyperparameters(inputs.kernel, self.fixed)
        if self.optimizer is not None and len(vector.names):
            found = maximise(
                lambda theta: self._evaluate(vector, inputs, labels, theta, gradient=True),
                vector.read(),
                vector.bounds,
                optimizer=self.optimizer,
                restarts=self.n_restarts_optimizer,
                random_state=state,
            )
            vector.write(found.theta)
        return LaplaceMode.find(inputs.kernel, inputs.points, labels, self.max_iter_predict)[0]

    def _evaluate(
        self,
        vector: Hyperparameters,
        inputs: KernelInput,
        labels: Tensor,
        theta: np.ndarray,
        *,
        gradient: bool,
    ) -> tuple[float, np.ndarray]:
        """Evaluate the evidence of one class against the rest, and its derivatives."""
        vector.write(theta)
        points = inputs.points
        mode, matrix = LaplaceMode.find(inputs.kernel, points, labels, self.max_iter_predict)
        if not gradient:
            return mode.value, np.empty(0)
        return mode.value, vector.gather(mode.gradient(inputs.kernel, points, matrix), {})

    @property
    def kernels_(self) -> list[Kernel]:
        """The kernel that was found: one, or one for each class."""
        check_is_fitted(self)
        return [inputs.kernel for inputs in self._inputs]

    def log_marginal_likelihood(self, theta: Any = None, eval_gradient: bool = False) -> Any:
        """Evaluate the approximate log marginal likelihood of the training labels.

        Parameters
        ----------
        theta : array-like of shape (p,) or (n_classes * p,), optional
            Hyperparameters as ``theta_names_`` names them, logarithms, of all kernels one after
            the other. None takes those found.
        eval_gradient : bool, default False
            Whether to return the gradient too.

        Returns
        -------
        float or tuple of float and ndarray
            The value, the mean over classes where there are more than two, and its gradient.

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
        vectors = [Hyperparameters(inputs.kernel, self.fixed) for inputs in self._inputs]
        starts = [vector.read() for vector in vectors]
        whole = np.concatenate(starts)
        place = whole if theta is None else np.asarray(theta, dtype=float)
        if place.shape != whole.shape or not np.isfinite(place).all():
            raise ValueError(f"theta: expected {len(whole)} finite numbers, got {place}")
        parts = np.split(place, len(vectors))
        values, gradients = [], []
        for vector, inputs, labels, start, part in zip(
            vectors, self._inputs, self._labels, starts, parts, strict=True
        ):
            try:
                value, slope = self._evaluate(vector, inputs, labels, part, gradient=eval_gradient)
            finally:
                vector.write(start)
            values.append(value)
            gradients.append(slope / len(vectors))
        value = float(np.mean(values))
        return (value, np.concatenate(gradients)) if eval_gradient else value

    @torch.no_grad()
    def latent_mean_and_variance(self, X: Any) -> Any:
        """Compute mean and variance of f under the approximation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        tuple of ndarray or Tensor of shape (n_samples,) or (n_samples, n_classes)
            Mean and variance, of each class against the rest where there are more than two.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, a number is not finite, or the kernel was
            precomputed.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        pairs = zip(self._modes, self._inputs, strict=True)
        found = torch.stack([mode.moments(inputs, x) for mode, inputs in pairs], 1)  # (m, c, 2)
        if len(self._modes) == 1:
            found = found.squeeze(1)
        return tuple(in_kind(part.to(x.dtype), rows) for part in found.unbind(-1))

    @torch.no_grad()
    def predict_proba(self, X: Any) -> Any:
        """Predict the probability of each class, averaged over f.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_classes)
            Probabilities, in the order of ``classes_``; one against the rest is divided by the
            sum. A tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        return in_kind(self._probabilities(x).to(x.dtype), rows)

    def _probabilities(self, x: Tensor) -> Tensor:
        columns = []
        for mode, inputs in zip(self._modes, self._inputs, strict=True):
            if inputs.precomputed:
                columns.append(torch.sigmoid(torch.as_tensor(inputs.cross(x) @ mode.slope)))
                continue
            moments = mode.moments(inputs, x)  # (m, 2)
            columns.append(by_blocks(lambda part: mean_sigmoid(*part.unbind(-1)), moments, _NODES))
        if len(columns) == 1:
            return torch.stack([1 - columns[0], columns[0]], -1)
        found = torch.stack(columns, -1)
        return found / found.sum(-1, keepdim=True)

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Predict labels.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            The labels: a tensor for a tensor, if they are numbers.

        Raises
        ------
        NotFittedError, ValueError
            As `predict_proba`.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        numbers = self._probabilities(as_tensor(rows)).argmax(-1)
        return as_labels(self.classes_, numbers, rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
