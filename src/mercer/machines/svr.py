"""Support vector regression with any kernel."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .kernel_input import KernelInput
from .landmark_basis import SELECTIONS, landmark_basis
from .losses import SmoothInsensitive
from .ridge_fit import evaluate
from .rows import as_tensor, check_rows, check_targets, check_weights, in_kind
from .svm_rows import COPIES, SOLVERS, plan, sharpen
from .training_matrix import training_matrix


@final
class SVR(RegressorMixin, Machine):
    r"""Regression that does not see errors below epsilon, with a kernel.

    .. math:: \min_{f, b} \; \frac12 \|f\|^2 + C \sum_i w_i
        \max(0, |y_i - f(x_i) - b| - \varepsilon)

    Few rows are solved in the dual,

    .. math:: \min_\beta \; \tfrac12 \beta^\top K \beta - y^\top \beta + \varepsilon \|\beta\|_1,
        \qquad |\beta_i| \le C w_i, \quad 1^\top \beta = 0

    by the solver of scikit-learn on the kernel's matrix, to the numbers of scikit-learn's SVR;
    only support vectors are kept. With many rows f is a function of landmarks (Nystroem), the
    corners of the loss are rounded over 0.03 standard deviations of y, and Newton's method runs
    on blocks of rows.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale), or
        itself; it is not changed. ``"precomputed"`` takes X as the kernel matrix.
    C : float, default 1.0
        Weight of the losses against the norm, the bound of the dual.
    epsilon : float, default 0.1
        The error that costs nothing, in the units of y.
    solver : {"auto", "dual", "nystroem"}, default "auto"
        ``"dual"`` is exact and builds the kernel matrix; ``"nystroem"`` never does. ``"auto"`` is
        exact up to 10,000 different rows, where memory allows.
    landmarks : int, default 1000
        Most landmarks of ``"nystroem"``.
    selection : {"kmeans", "uniform", "leverage", "greedy", "kdpp"}, default "kmeans"
        How landmarks are chosen; see `mercer.features.Nystroem.from_data`. Those of a
        precomputed matrix are uniform.
    tol : float, default 1e-4
        Of the dual: by how much its conditions may be violated. Of Newton's method: its square
        is the share of the objective that a further step is expected to gain.
    max_iter : int, default -1
        Most iterations of the dual, or Newton steps of a width; -1 is no bound of the dual, and
        100 steps.
    standardize : bool, default False
        Whether to bring columns to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks.

    Attributes
    ----------
    support_ : ndarray of shape (n_support,) or None
        Numbers of the support vectors among the rows; of equal rows the first. None for
        landmarks.
    dual_coef_ : ndarray or Tensor of shape (p,)
        Coefficients of support vectors, or landmarks.
    intercept_ : float
        b.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    solver_, solver_reason_ : str
        The solver that was taken, and why.
    n_iter_ : int
        Iterations.
    converged_ : bool
        Whether they reached the tolerance.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, or a precomputed matrix is not symmetric
        positive semi-definite; the text names it.
    MemoryError
        In ``fit``, if ``"dual"`` does not fit the memory budget.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` iterations were not enough.

    References
    ----------
    Drucker, Burges, Kaufman, Smola, Vapnik, "Support vector regression machines", NIPS 1996.

    Smola, Schölkopf, "A tutorial on support vector regression", Statistics and Computing 14
    (2004).

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from mercer.machines import SVR
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SVR("matern52", C=100.0, epsilon=10.0, standardize=True).fit(X[:300], y[:300])
    >>> model.solver_, round(model.score(X[300:], y[300:]), 1)
    ('dual', 0.5)
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        C: float = 1.0,
        epsilon: float = 0.1,
        *,
        solver: str = "auto",
        landmarks: int = 1000,
        selection: str = "kmeans",
        tol: float = 1e-4,
        max_iter: int = -1,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.epsilon = epsilon
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.tol = tol
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the function.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix for ``kernel="precomputed"``.
        y : array-like or Tensor of shape (n_samples,)
            Their targets.
        sample_weight : array-like or Tensor of shape (n_samples,), or float, optional
            Weights of the losses; a whole number is the same as so many equal rows.

        Returns
        -------
        SVR
            The estimator itself.
        """
        check_choice("solver", self.solver, SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        check_real("C", self.C, above=0.0)
        check_real("epsilon", self.epsilon, least=0.0)
        check_real("tol", self.tol, above=0.0)
        check_int("max_iter", self.max_iter, least=-1)
        check_int("landmarks", self.landmarks)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows, multi_output=False)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        targets = targets.double().to(source.points.device)
        index, weights, self.solver_, self.solver_reason_ = plan(
            source, targets, given, self.solver
        )  # (k,)
        if self.solver_ == "dual":
            coef = self._solve_dual(source, index, targets[index], weights)
        else:
            coef = self._solve_primal(source, index, targets[index], weights)
        self.dual_coef_ = in_kind(coef, rows)
        self.kernel_ = self._input.kernel
        return self

    def _solve_dual(
        self, source: KernelInput, index: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """Solve the dual by scikit-learn, and keep the support vectors."""
        from sklearn import svm

        option = "use solver='nystroem'"
        matrix = training_matrix(source, index, copies=COPIES, option=option)
        peer = svm.SVR(
            kernel="precomputed",
            C=self.C,
            epsilon=self.epsilon,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        # Without their mean, whose rounding would hide the gaps that are to be closed.
        mean = float((weights * targets).sum() / weights.sum())
        peer.fit(matrix.cpu().numpy(), (targets - mean).cpu().numpy(), weights.cpu().numpy())
        kept = torch.from_numpy(peer.support_).long().to(index.device)
        self._input = source.keep(index[kept])
        self.support_ = index[kept].cpu().numpy()
        self.intercept_ = mean + float(peer.intercept_[0])
        self.n_iter_ = max(int(np.max(peer.n_iter_)), 1)
        self.converged_ = not peer.fit_status_  # It has warned.
        return torch.from_numpy(np.array(peer.dual_coef_)[0]).to(index.device)

    def _solve_primal(
        self, source: KernelInput, index: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """Minimise the rounded loss over functions of landmarks."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        basis = landmark_basis(
            source,
            index,
            self.landmarks,
            method=self.selection,
            center=True,
            generator=torch.Generator().manual_seed(seed),
        )
        mean = float((weights * targets).sum() / weights.sum())
        spread = float(((weights * (targets - mean).square()).sum() / weights.sum()).sqrt())
        column = (targets - mean).unsqueeze(-1)
        share = self.C * weights.unsqueeze(-1)
        fit = sharpen(
            basis,
            lambda width: SmoothInsensitive(column, share, self.epsilon, width),
            lambda _: spread or 1.0,
            tol=self.tol**2,
            max_iter=100 if self.max_iter < 1 else self.max_iter,
        )
        self._input, self.support_ = basis.input, None
        self.intercept_ = mean + float(fit.intercept - basis.shift @ fit.coefficients)
        self.n_iter_, self.converged_ = fit.iterations, fit.converged
        if not self.converged_:
            warnings.warn(
                f"SVR: {self.n_iter_} Newton steps were not enough; raise max_iter or tol, "
                "or lower C",
                ConvergenceWarning,
                stacklevel=4,  # past no_grad, to the caller of fit
            )
        return basis.coefficients(fit.coefficients).squeeze(-1)

    def predict(self, X: Any) -> Any:
        """Predict targets, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            The predictions: a tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        bias = torch.tensor([self.intercept_], dtype=torch.float64)
        found = evaluate(self._input, as_tensor(self.dual_coef_).unsqueeze(-1), bias, rows)
        return in_kind(found.squeeze(-1).to(as_tensor(rows[:0]).dtype), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
