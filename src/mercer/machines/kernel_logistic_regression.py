"""Logistic regression with functions of a kernel."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .class_weights import weigh_classes
from .kernel_input import KernelInput
from .kernel_irls import kernel_irls
from .labels import as_labels, check_labels
from .landmark_basis import SELECTIONS, exact_basis, landmark_basis
from .losses import LogisticLoss, MultinomialLoss
from .newton_cg import NewtonFit, newton_cg
from .ridge_fit import evaluate
from .rows import as_tensor, check_rows, check_weights, in_kind
from .training_matrix import matrix_fits, training_matrix

_SOLVERS = ("auto", "newton", "nystroem")
_MOST_EXACT = 5000  # rows up to which "auto" factors matrices
_COPIES = 6  # of the kernel matrix, to factor it


@final
class KernelLogisticRegression(ClassifierMixin, Machine):
    r"""Classify by the probabilities of classes, whose logits are functions of a kernel.

    .. math:: \min_{f, b} \; C \sum_i w_i \log \frac{\sum_c e^{f_c(x_i) + b_c}}
        {e^{f_{y_i}(x_i) + b_{y_i}}} + \frac12 \sum_c \|f_c\|^2

    in the norm of the kernel's function space, so it is scikit-learn's LogisticRegression on any
    features whose inner products are the kernel: one logit for two classes, one of each class for
    more. Few rows are solved exactly by Newton's method on the coefficients of
    :math:`f = \sum_i \alpha_i k(\cdot, x_i)`; with many rows f is a function of some landmarks
    (Nystroem), and each Newton step runs conjugate gradients on blocks of rows.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale) or
        itself, or ``"precomputed"``; it is not changed.
    C : float, default 1.0
        Weight of the losses against the norm; a ridge :math:`\lambda` on the sum of the losses is
        1 / C.
    fit_intercept : bool, default True
        Whether there is b, which is not penalised.
    class_weight : dict or "balanced", optional
        Weights of classes; ``"balanced"`` gives all classes the same sum of weights.
    solver : {"auto", "newton", "nystroem"}, default "auto"
        ``"newton"`` is exact and builds the kernel matrix; ``"nystroem"`` never does. ``"auto"``
        is exact up to 5,000 rows, where memory allows.
    landmarks : int, default 1000
        Most landmarks of ``"nystroem"``.
    selection : {"kmeans", "uniform", "leverage", "greedy", "kdpp"}, default "kmeans"
        How landmarks are chosen; see `mercer.features.Nystroem.from_data`. Those of a
        precomputed matrix are uniform.
    tol : float, default 1e-10
        Iterations stop where a further Newton step is expected to lower the objective by less
        than this share of it.
    max_iter : int, default 100
        Most Newton steps.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the draw of landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    dual_coef_ : ndarray or Tensor of shape (m, 1) or (m, n_classes)
        Coefficients of the training points with weight, or of the landmarks.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        b; of several classes they sum to zero.
    n_iter_ : int
        Newton steps.
    converged_ : bool
        Whether they ended by ``tol``.
    solver_ : str
        The solver that was used.
    solver_reason_ : str
        Why.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, there is one class, or a precomputed
        matrix is not symmetric positive semi-definite; the text names it.
    MemoryError
        In ``fit``, if ``"newton"`` does not fit the memory budget.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` steps were not enough.

    References
    ----------
    Zhu, Hastie, "Kernel logistic regression and the import vector machine", JCGS 14 (2005).

    Younes, "Introduction to machine learning", 2024, arXiv 2409.02668.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mercer.machines import KernelLogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KernelLogisticRegression("rbf", C=10.0).fit(X, y)
    >>> model.solver_, model.converged_, model.score(X, y) > 0.97
    ('newton', True, True)
    >>> model.predict_proba(X[:1]).round(2)
    array([[0.99, 0.01, 0.  ]])
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        class_weight: Any = None,
        solver: str = "auto",
        landmarks: int = 1000,
        selection: str = "kmeans",
        tol: float = 1e-10,
        max_iter: int = 100,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.tol = tol
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix for ``kernel="precomputed"``.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of the losses; a whole number is the same as so many equal rows.

        Returns
        -------
        KernelLogisticRegression
            The classifier itself.
        """
        check_choice("solver", self.solver, _SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        ridge = 1.0 / check_real("C", self.C, above=0.0)
        check_real("tol", self.tol, least=0.0)
        check_int("max_iter", self.max_iter)
        check_int("landmarks", self.landmarks)
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        numbers = numbers.to(source.points.device)
        weights = weigh_classes(self.class_weight, self.classes_, numbers, given)  # (n,)
        index = weights.nonzero().squeeze(-1)
        weights, numbers = weights[index], numbers[index]
        onehot = torch.nn.functional.one_hot(numbers, len(self.classes_)).double()
        if len(self.classes_) == 2:
            onehot = onehot[:, 1:]  # (n, 1)
        self._choose(len(index))
        found, coef, bias = self._solve(source, index, onehot, weights, ridge)
        self.dual_coef_, self.intercept_ = in_kind(coef, rows), bias.cpu().numpy()
        self.kernel_ = self._input.kernel
        self.n_iter_, self.converged_ = found.iterations, found.converged
        if not found.converged:
            warnings.warn(
                f"{self.max_iter} Newton steps were not enough: another is expected to lower the "
                f"objective by {found.fall:.2g} of it; raise max_iter or lower C",
                ConvergenceWarning,
                stacklevel=3,  # past no_grad, to the caller of fit
            )
        return self

    def _choose(self, n: int) -> None:
        """Set the solver, and why."""
        self.solver_, self.solver_reason_ = self.solver, "it was asked for"
        if self.solver != "auto":
            return
        if n <= _MOST_EXACT and matrix_fits(n, _COPIES):
            self.solver_, self.solver_reason_ = "newton", f"{n} rows are solved exactly"
        else:
            self.solver_ = "nystroem"
            self.solver_reason_ = (
                f"{n} rows are more than {_MOST_EXACT}"
                if n > _MOST_EXACT
                else f"{_COPIES} matrices of {n} rows do not fit half of what memory is left"
            )

    def _solve(
        self, source: KernelInput, index: Tensor, onehot: Tensor, weights: Tensor, ridge: float
    ) -> tuple[NewtonFit, Tensor, Tensor]:
        """Find coefficients and intercept, and keep the points that they belong to."""
        binary, column = onehot.shape[1] == 1, weights.unsqueeze(-1)
        limits = {"intercept": self.fit_intercept, "tol": self.tol, "max_iter": self.max_iter}
        if self.solver_ == "newton":
            option = "use solver='nystroem'"
            matrix = training_matrix(source, index, copies=_COPIES, option=option)
            if binary:
                found = kernel_irls(matrix, onehot[:, 0], weights, ridge, **limits)
                self._input = source.keep(index)
                return found, found.coefficients, found.intercept
            basis = exact_basis(source, index, matrix, center=self.fit_intercept)
        else:
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            basis = landmark_basis(
                source,
                index,
                self.landmarks,
                method=self.selection,
                center=self.fit_intercept,
                generator=torch.Generator().manual_seed(seed),
            )
        loss = LogisticLoss(2 * onehot - 1, column) if binary else MultinomialLoss(onehot, column)
        found = newton_cg(basis, loss, ridge, outputs=onehot.shape[1], **limits)
        self._input = basis.input
        bias = found.intercept - basis.shift @ found.coefficients
        if not binary and self.fit_intercept:
            bias = bias - bias.mean()
        return found, basis.coefficients(found.coefficients), bias

    def _logits(self, X: Any) -> tuple[Tensor, Any]:
        """Return logits (m, 1) or (m, c) in float64, and the checked rows."""
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        bias = torch.as_tensor(self.intercept_)
        return evaluate(self._input, as_tensor(self.dual_coef_), bias, rows).double(), rows

    def decision_function(self, X: Any) -> Any:
        """Compute the logits.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows; the kernel between them and the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_classes)
            The log odds of the second class of two; else the logits of all classes.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        found, rows = self._logits(X)
        found = found.squeeze(-1) if found.shape[1] == 1 else found
        return in_kind(found.to(_dtype(rows)), rows)

    def predict_log_proba(self, X: Any) -> Any:
        """Compute the logarithms of the probabilities of classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_classes)
            The logarithms.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.
        """
        found, rows = self._logits(X)
        if found.shape[1] == 1:
            log = torch.nn.functional.logsigmoid(torch.cat([-found, found], -1))
        else:
            log = found.log_softmax(-1)
        return in_kind(log.to(_dtype(rows)), rows)

    def predict_proba(self, X: Any) -> Any:
        """Compute the probabilities of classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_classes)
            The probabilities, in the order of ``classes_``.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.
        """
        found, rows = self._logits(X)
        if found.shape[1] == 1:
            proba = torch.cat([-found, found], -1).sigmoid()
        else:
            proba = found.softmax(-1)
        return in_kind(proba.to(_dtype(rows)), rows)

    def predict(self, X: Any) -> Any:
        """Predict the most probable class.

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
        found, rows = self._logits(X)
        numbers = (found[:, 0] > 0).long() if found.shape[1] == 1 else found.argmax(-1)
        return as_labels(self.classes_, numbers, rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


def _dtype(rows: Any) -> torch.dtype:
    """Return the dtype of rows of either kind."""
    return as_tensor(rows[:0]).dtype
