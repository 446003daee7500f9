"""Detection of outliers by a support vector machine of one class, with any kernel."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import OutlierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .kernel_input import KernelInput
from .landmark_basis import SELECTIONS, landmark_basis
from .losses import SmoothHinge
from .newton_cg import NewtonFit
from .ridge_fit import evaluate
from .rows import as_tensor, check_rows, check_weights, in_kind
from .svm_rows import COPIES, SOLVERS, plan, sharpen
from .training_matrix import training_matrix


@final
class OneClassSVM(OutlierMixin, Machine):
    r"""Find where rows are dense, so that a share nu of them lies outside.

    .. math:: \min_{f, \rho} \; \frac12 \|f\|^2 - \nu \rho \sum_i w_i
        + \sum_i w_i \max(0, \rho - f(x_i))

    Few rows are solved in the dual,

    .. math:: \min_a \; \tfrac12 a^\top K a, \qquad 0 \le a_i \le w_i, \quad
        1^\top a = \nu \sum_i w_i

    by the solver of scikit-learn on the kernel's matrix, to the numbers of scikit-learn's
    OneClassSVM; only support vectors are kept. With many rows f is a function of landmarks
    (Nystroem), the corner of the loss is rounded over 0.03 of the spread of f, Newton's method
    runs on blocks of rows, and the offset is the quantile nu of f.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale), or
        itself; it is not changed. ``"precomputed"`` takes X as the kernel matrix.
    nu : float, default 0.5
        In (0, 1]: the share of rows outside, at most, and of support vectors, at least. With 1,
        f is the sum of the kernels of all rows, and the offset its largest value on them.
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
    offset_ : float
        :math:`\rho`: the decision function is `score_samples` less this.
    intercept_ : float
        Its negative.
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
    Schölkopf, Platt, Shawe-Taylor, Smola, Williamson, "Estimating the support of a
    high-dimensional distribution", Neural Computation 13 (2001).

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import OneClassSVM
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = OneClassSVM("rbf", nu=0.1).fit(X)
    >>> 0.08 < float((model.predict(X) == -1).mean()) <= 0.1
    True
    >>> model.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        nu: float = 0.5,
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
        self.nu = nu
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.tol = tol
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the function and its offset.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix for ``kernel="precomputed"``.
        y : object
            Ignored.
        sample_weight : array-like or Tensor of shape (n_samples,), or float, optional
            Weights of rows; a whole number is the same as so many equal rows.

        Returns
        -------
        OneClassSVM
            The estimator itself.
        """
        check_choice("solver", self.solver, SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        check_real("nu", self.nu, above=0.0, most=1.0)
        check_real("tol", self.tol, above=0.0)
        check_int("max_iter", self.max_iter, least=-1)
        check_int("landmarks", self.landmarks)
        rows = check_rows(self, X, reset=True)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        none = source.points.new_zeros(len(source.points), dtype=torch.float64)
        index, weights, self.solver_, self.solver_reason_ = plan(
            source, none, given, self.solver
        )  # (k,)
        if self.solver_ == "dual":
            coef = self._solve_dual(source, index, weights)
        else:
            coef = self._solve_primal(source, index, weights)
        self.dual_coef_ = in_kind(coef, rows)
        self.intercept_ = -self.offset_
        self.kernel_ = self._input.kernel
        return self

    def _solve_dual(self, source: KernelInput, index: Tensor, weights: Tensor) -> Tensor:
        """Solve the dual by scikit-learn, and keep the support vectors."""
        from sklearn import svm

        option = "use solver='nystroem'"
        matrix = training_matrix(source, index, copies=COPIES, option=option)
        if self.nu == 1:  # All are at their bounds, and no row tells where the offset is.
            self._input, self.support_ = source.keep(index), index.cpu().numpy()
            self.offset_ = float((matrix @ weights).max())
            self.n_iter_, self.converged_ = 1, True
            return weights
        peer = svm.OneClassSVM(
            kernel="precomputed", nu=self.nu, tol=self.tol, max_iter=self.max_iter
        )
        peer.fit(matrix.cpu().numpy(), sample_weight=weights.cpu().numpy())
        kept = torch.from_numpy(peer.support_).long().to(index.device)
        self._input = source.keep(index[kept])
        self.support_ = index[kept].cpu().numpy()
        self.offset_ = float(np.ravel(peer.offset_)[0])
        self.n_iter_ = max(int(np.max(peer.n_iter_)), 1)
        self.converged_ = not peer.fit_status_  # It has warned.
        return torch.from_numpy(np.array(peer.dual_coef_)[0]).to(index.device)

    def _solve_primal(self, source: KernelInput, index: Tensor, weights: Tensor) -> Tensor:
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
        column = weights.unsqueeze(-1)  # (k, 1)
        # All rows alike: a density, from which the offset cuts off as many as it should.
        w = basis.transposed(self.nu * column)
        w += float(self.nu * weights.sum()) * basis.shift.unsqueeze(-1)
        f = (basis @ w).squeeze(-1)
        start = NewtonFit(w, -_quantile(f, weights, self.nu), 1, 0.0, True)
        fit = (
            start
            if self.nu == 1
            else sharpen(
                basis,
                lambda width: SmoothHinge(torch.ones_like(column), column, width, level=0.0),
                lambda fit: float((basis @ fit.coefficients).std(correction=0)) or 1.0,
                tilt=self.nu * float(weights.sum()),
                start=start,
                tol=self.tol**2,
                max_iter=100 if self.max_iter < 1 else self.max_iter,
            )
        )
        self._input, self.support_ = basis.input, None
        # The rounded corner spreads support vectors around the offset: it goes where it belongs.
        f = (basis @ fit.coefficients).squeeze(-1)
        shift = float(basis.shift @ fit.coefficients.squeeze(-1))
        self.offset_ = shift + float(_quantile(f, weights, self.nu))
        self.n_iter_, self.converged_ = fit.iterations, fit.converged
        if not self.converged_:
            warnings.warn(
                f"OneClassSVM: {self.n_iter_} Newton steps were not enough; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=4,  # past no_grad, to the caller of fit
            )
        return basis.coefficients(fit.coefficients).squeeze(-1)

    def _scores(self, X: Any, offset: float) -> tuple[Tensor, Any]:
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        bias = torch.tensor([-offset], dtype=torch.float64)
        found = evaluate(self._input, as_tensor(self.dual_coef_).unsqueeze(-1), bias, rows)
        return found.squeeze(-1).to(as_tensor(rows[:0]).dtype), rows

    def score_samples(self, X: Any) -> Any:
        """Compute the function f, large where rows are dense, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            f: a tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        return in_kind(*self._scores(X, 0.0))

    def decision_function(self, X: Any) -> Any:
        """Compute how far f is above the offset.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            f less the offset, negative for outliers.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        check_is_fitted(self)
        return in_kind(*self._scores(X, self.offset_))

    def predict(self, X: Any) -> Any:
        """Tell outliers from inliers.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            -1 for outliers, 1 for inliers.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        check_is_fitted(self)
        found, rows = self._scores(X, self.offset_)
        return in_kind(torch.where(found >= 0, 1, -1), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


def _quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """Return the largest of the values (n,) with at most a share of the weight below it, (1,)."""
    order = values.argsort()
    total = weights[order].cumsum(0)
    below = total - weights[order]
    place = int((below <= share * float(total[-1]) * (1 + 1e-12)).sum()) - 1
    return values[order[place]].reshape(1)
