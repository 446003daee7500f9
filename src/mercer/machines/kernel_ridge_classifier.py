"""Classification by kernel ridge regression on the labels."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..kernels import Kernel
from .base import Machine
from .class_weights import weigh_classes
from .labels import as_labels, check_labels
from .ridge_fit import RidgeOptions, evaluate, fit_ridge
from .rows import as_tensor, check_rows, check_weights, in_kind


@final
class KernelRidgeClassifier(ClassifierMixin, Machine):
    r"""Classify by least squares with a kernel, on targets of -1 and 1.

    .. math:: \min_f \sum_i w_i (y_{ic} - f_c(x_i) - b_c)^2 + \alpha \|f_c\|^2, \qquad
        \hat y(x) = \arg\max_c f_c(x) + b_c

    with one function for two classes, else one of each class against the others: scikit-learn's
    RidgeClassifier on features whose inner products are the kernel, by the solvers of
    `KernelRidge`. It gives no probabilities, as squared errors are none of them;
    `KernelLogisticRegression` does.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale), or
        itself; it is not changed. ``"precomputed"`` takes X as the kernel matrix.
    alpha : float, "loo" or "gcv", default 1.0
        The penalty, in the units of the kernel (not divided by n); or what chooses one for all
        classes: the leave-one-out error of the targets in closed form, or generalised
        cross-validation.
    solver : {"auto", "cholesky", "cg", "falkon", "eigenpro"}, default "auto"
        As in `KernelRidge`.
    landmarks : int or array of shape (m, n_features), optional
        How many landmarks, or which, for ``"falkon"``.
    selection : {"kmeans", "uniform", "leverage", "greedy", "kdpp"}, default "kmeans"
        How landmarks are chosen.
    fit_intercept : bool, default True
        Whether to fit b, which is not penalised; else it is zero.
    class_weight : dict or "balanced", optional
        Weights of classes; ``"balanced"`` gives all classes the same sum of weights.
    standardize : bool, default False
        Whether to bring columns to mean 0 and standard deviation 1 first.
    tol : float, optional
        Relative residual at which iterations stop; None is 1e-8, or 1e-4 for float32.
    max_iter : int, optional
        Most iterations, or epochs; None is what the solver takes.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    dual_coef_ : ndarray or Tensor of shape (p, 1) or (p, n_classes)
        The coefficients of rows, or of landmarks.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        b.
    alpha_ : float
        The penalty.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    choice_ : RidgeChoice or None
        The criterion over a grid of penalties, with a plot, where alpha was chosen.
    solver_, solver_reason_ : str
        The solver that was taken, and why.
    n_iter_ : int
        Iterations; at least 1.
    residual_ : float
        Largest relative residual of the equations that were solved.
    converged_ : bool
        Whether it reached the tolerance.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, or there is one class; the text names it.
    MemoryError
        If what a solver needs does not fit the memory budget; the text says which would.

    Warns
    -----
    ConvergenceWarning
        If iterations end above the tolerance.

    References
    ----------
    Rifkin, Yeo, Poggio, "Regularized least-squares classification", 2003.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mercer.machines import KernelRidgeClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = KernelRidgeClassifier("rbf", alpha="loo").fit(X[:600], y[:600])
    >>> model.score(X[600:], y[600:]) > 0.94
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        alpha: Any = 1.0,
        *,
        solver: str = "auto",
        landmarks: Any = None,
        selection: str = "kmeans",
        fit_intercept: bool = True,
        class_weight: Any = None,
        standardize: bool = False,
        tol: float | None = None,
        max_iter: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the coefficients.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix for ``kernel="precomputed"``.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.
        sample_weight : array-like or Tensor of shape (n_samples,), or float, optional
            Weights of the squared errors.

        Returns
        -------
        KernelRidgeClassifier
            The classifier itself.
        """
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        x = as_tensor(rows)
        numbers = numbers.to(x.device)
        given = check_weights(sample_weight, rows)
        weights = weigh_classes(self.class_weight, self.classes_, numbers, given)
        targets = 2 * torch.nn.functional.one_hot(numbers, len(self.classes_)).to(x.dtype) - 1
        if len(self.classes_) == 2:
            targets = targets[:, 1:]  # (n, 1)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        options = RidgeOptions(
            kernel=self.kernel,
            alpha=self.alpha,
            solver=self.solver,
            landmarks=self.landmarks,
            selection=self.selection,
            fit_intercept=self.fit_intercept,
            standardize=self.standardize,
            tol=self.tol,
            max_iter=self.max_iter,
            seed=seed,
        )
        plain = given is None and self.class_weight is None
        fit = fit_ridge(rows, targets, None if plain else weights, options)
        self._input, self.kernel_ = fit.input, fit.input.kernel
        self.dual_coef_ = in_kind(fit.coef, rows)
        self.intercept_ = fit.intercept.cpu().numpy()
        self.alpha_, self.choice_ = fit.alpha, fit.choice
        self.solver_, self.solver_reason_ = fit.solver, fit.reason
        self.n_iter_, self.residual_ = max(fit.iterations, 1), fit.residual
        self.converged_ = fit.converged
        if not fit.converged:
            warnings.warn(
                f"KernelRidgeClassifier: solver {fit.solver!r} ended with a relative residual of "
                f"{fit.residual:.3g} after {fit.iterations} iterations; raise max_iter, alpha or "
                "tol",
                ConvergenceWarning,
                stacklevel=3,  # past no_grad, to the caller of fit
            )
        return self

    def decision_function(self, X: Any) -> Any:
        """Compute the fitted targets, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_classes)
            For two classes how far a row leans to the second, else to each class.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        bias = torch.as_tensor(self.intercept_)
        found = evaluate(self._input, as_tensor(self.dual_coef_), bias, rows)
        found = found.squeeze(-1) if found.shape[1] == 1 else found
        return in_kind(found.to(as_tensor(rows[:0]).dtype), rows)

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
            As `decision_function`.
        """
        scores = torch.as_tensor(self.decision_function(X))
        numbers = (scores > 0).long() if scores.ndim == 1 else scores.argmax(-1)
        return as_labels(self.classes_, numbers, X if isinstance(X, torch.Tensor) else np.empty(0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
