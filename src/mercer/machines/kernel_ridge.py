"""Kernel ridge regression on 10 to 10^7 rows."""

import os
import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch.distributed import ProcessGroup

from ..datasets.row_source import RowSource
from ..kernels import Kernel
from .base import Machine
from .ridge_fit import RidgeOptions, evaluate, fit_ridge
from .rows import as_tensor, check_rows, check_targets, check_weights, in_kind


@final
class KernelRidge(MultiOutputMixin, RegressorMixin, Machine):
    r"""Least squares with a kernel and a ridge, exactly or on landmarks, from 10 to 10^7 rows.

    .. math:: \min_f \sum_i w_i (y_i - f(x_i) - b)^2 + \alpha \|f\|^2, \qquad
        f(x) = \sum_j a_j k(z_j, x)

    ============== =============================================== ============================
    solver         what it does                                    work
    ============== =============================================== ============================
    ``"cholesky"`` exact: factors the matrix of all rows (its      n^3 / 3
                   eigendecomposition, where alpha is chosen)
    ``"cg"``       exact to ``tol``: preconditioned conjugate      n^2 a step
                   gradients, the matrix never built
    ``"eigenpro"`` exact in the limit: stochastic gradients,       n^2 an epoch
                   preconditioned by leading eigenvectors
    ``"falkon"``   the best f on m landmarks: one pass that sums   n m^2, or n m a step
                   normal equations, or passes that multiply
    ============== =============================================== ============================

    ``"auto"`` factors where that fits memory and patience (up to 20,000 rows), iterates where a
    tolerance is asked for, and takes landmarks otherwise; `solver_reason_` says why.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale), or
        itself; it is not changed. ``"precomputed"`` takes X as the kernel matrix.
    alpha : float, array of shape (n_targets,), "loo" or "gcv", default 1.0
        The penalty, in the units of the kernel and the squared errors (not divided by n); one
        for each target; or what chooses it: the leave-one-out error in closed form, or
        generalised cross-validation.
    solver : {"auto", "cholesky", "cg", "falkon", "eigenpro"}, default "auto"
        See above.
    landmarks : int or array of shape (m, n_features), optional
        How many landmarks, or which, for ``"falkon"``; None takes 5 sqrt(n), at least 1,000, as
        the memory budget allows.
    selection : {"kmeans", "uniform", "leverage", "greedy", "kdpp"}, default "kmeans"
        How landmarks are chosen; see `mercer.features.choose_landmarks`.
    fit_intercept : bool, default False
        Whether to fit b, which is not penalised; else it is zero.
    standardize : bool, default False
        Whether to bring columns to mean 0 and standard deviation 1 first.
    tol : float, optional
        Relative residual at which iterations stop; None is 1e-8, or 1e-4 for float32 and
        ``"eigenpro"``, which is slow at small ones. Where
        ``"falkon"`` sums, a number asks for another pass or two that take the rounding of the
        sums out.
    max_iter : int, optional
        Most iterations, or epochs; None is what the solver takes.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks; with a checkpoint, None is 0.
    show_progress : bool, default False
        Whether to show progress bars.

    Attributes
    ----------
    dual_coef_ : ndarray or Tensor of shape (p,) or (p, n_targets)
        The coefficients a of rows, or of landmarks.
    intercept_ : float or ndarray of shape (n_targets,)
        b.
    alpha_ : float or ndarray of shape (n_targets,)
        The penalty.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    landmarks_ : ndarray or Tensor of shape (m, n_features) or None
        The landmarks, standardised if the rows are; None where all rows are used.
    choice_ : RidgeChoice or None
        The criterion over a grid of penalties, with a plot, where alpha was chosen.
    solver_, solver_reason_ : str
        The solver that was taken, and why.
    n_iter_ : int
        Iterations; 1 where the first solution was good enough.
    residual_ : float
        Largest relative residual of the equations that were solved.
    converged_ : bool
        Whether it reached the tolerance.
    jitter_ : float
        What the library added to the diagonal so that the matrix could be factored.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        If what a solver needs does not fit the memory budget; the text says which would.

    Warns
    -----
    ConvergenceWarning
        If iterations end above the tolerance.

    Notes
    -----
    ``alpha`` is scikit-learn's (its ``KernelRidge`` gives the same numbers); other libraries
    divide the sum of squares by n, so that their penalty is alpha / n. Weights are the same as
    repeated rows where alpha is a number; ``"loo"`` and ``"gcv"`` leave a row out whole, with
    its weight.

    References
    ----------
    Saunders, Gammerman, Vovk, "Ridge regression learning algorithm in dual variables", ICML 1998.

    Rudi, Carratino, Rosasco, "FALKON: An optimal large scale kernel method", NeurIPS 2017,
    arXiv 1705.10958.

    Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training",
    SysML 2019, arXiv 1806.06144.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from mercer.machines import KernelRidge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = KernelRidge("matern52", alpha="loo", fit_intercept=True, standardize=True)
    >>> round(model.fit(X[:300], y[:300]).score(X[300:], y[300:]), 1)
    0.5
    >>> model.solver_
    'cholesky'
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        alpha: Any = 1.0,
        *,
        solver: str = "auto",
        landmarks: Any = None,
        selection: str = "kmeans",
        fit_intercept: bool = False,
        standardize: bool = False,
        tol: float | None = None,
        max_iter: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        show_progress: bool = False,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.show_progress = show_progress

    @torch.no_grad()
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        group: ProcessGroup | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Find the coefficients.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features), or RowSource
            The rows, their kernel matrix for ``kernel="precomputed"``, or a source that reads
            rows with targets in blocks, such as `mercer.datasets.ParquetRows`. A memory-mapped
            array is read in blocks by ``"falkon"``.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The targets; None for a source.
        sample_weight : array-like or Tensor of shape (n_samples,), or float, optional
            Weights of the squared errors; None for a source.
        group : torch.distributed.ProcessGroup, optional
            Processes that share the products of ``"cg"`` and ``"falkon"``; each must hold the
            same rows and comes to the same result.
        checkpoint : str or path, optional
            A folder where iterating solvers keep their state, about four times a minute; a fit
            that was killed goes on from there, to the same coefficients. It is removed at the
            end.

        Returns
        -------
        KernelRidge
            The estimator itself.
        """
        seed = 0
        if checkpoint is None or self.random_state is not None:
            state = check_random_state(self.random_state)
            seed = int(state.randint(np.iinfo(np.int32).max))
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
            show_progress=self.show_progress,
        )
        if isinstance(X, RowSource):
            if y is not None or sample_weight is not None:
                raise ValueError("y, sample_weight: a source of rows has its own; leave them None")
            rows, targets, weights, flat, like = X, None, None, False, np.empty(0)
        else:
            rows = like = check_rows(self, X, reset=True)
            found = check_targets(y, rows)
            flat, targets = found.ndim == 1, found.reshape(len(rows), -1)
            weights = check_weights(sample_weight, rows)
        fit = fit_ridge(rows, targets, weights, options, group=group, checkpoint=checkpoint)
        if isinstance(X, RowSource):
            self.n_features_in_ = fit.input.size
            vars(self).pop("feature_names_in_", None)
            flat = fit.coef.shape[1] == 1
        self._input = fit.input
        self.kernel_ = fit.input.kernel
        self.dual_coef_ = in_kind(fit.coef.squeeze(-1) if flat else fit.coef, like)
        bias = fit.intercept.cpu().numpy()
        self.intercept_ = float(bias[0]) if flat else bias
        self.alpha_, self.choice_ = fit.alpha, fit.choice
        self.solver_, self.solver_reason_ = fit.solver, fit.reason
        self.landmarks_ = in_kind(fit.input.points, like) if fit.solver == "falkon" else None
        self.n_iter_, self.residual_ = max(fit.iterations, 1), fit.residual
        self.converged_, self.jitter_ = fit.converged, fit.jitter
        if not fit.converged:
            warnings.warn(
                f"KernelRidge: solver {fit.solver!r} ended with a relative residual of "
                f"{fit.residual:.3g} after {fit.iterations} iterations; raise max_iter, alpha or "
                "tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict(self, X: Any) -> Any:
        """Predict targets, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features), or RowSource
            Rows, or their kernel with the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The predictions: a tensor on the caller's device for a tensor, else an array.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        if isinstance(X, RowSource):
            return np.concatenate([self.predict(block.x.numpy()) for block in X.blocks(2**16)])
        rows = check_rows(self, X, reset=False)
        coef = as_tensor(self.dual_coef_)
        bias = torch.as_tensor(self.intercept_, dtype=torch.float64).reshape(-1)
        found = evaluate(self._input, coef.reshape(len(coef), -1), bias, rows)
        return in_kind(found.squeeze(-1) if coef.ndim == 1 else found, rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        given = isinstance(self.kernel, str) and self.kernel == "precomputed"
        tags.input_tags.pairwise = given and self.solver != "falkon"
        return tags
