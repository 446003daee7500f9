"""Principal components in the feature space of a kernel."""

from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from .._core.config import block_rows
from ..features.landmark_choice import LANDMARK_CHOICES
from ..kernels import Kernel
from .base import Machine
from .kernel_components import gram_components, landmark_components
from .kernel_input import KernelInput
from .preimage import check_preimage_kernel, fixed_point_preimage
from .rows import as_tensor, check_rows, in_kind

_SOLVERS = ("auto", "dense", "randomized", "nystroem")
_DENSE = 1000  # rows up to which all eigenvalues are found


@final
class KernelPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Machine):
    r"""Find the principal components of rows in the feature space of a kernel.

    .. math:: H K H = V \Lambda V^\top, \qquad
        t(x) = \Lambda^{-1/2} V^\top H \left( k(x) - \tfrac1n K 1 \right), \qquad
        H = I - \tfrac1n 1 1^\top

    The scores of the training rows are :math:`V \Lambda^{1/2}`. Columns of V have their entry of
    largest magnitude positive, so that signs do not change from run to run.

    Parameters
    ----------
    n_components : int, optional
        How many; None takes all with an eigenvalue above zero (with ``"nystroem"``, all that the
        landmarks have).
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then the kernel matrix.
    alpha : float, default 1.0
        Ridge of the inverse map, in the units of the kernel, not divided by n.
    fit_inverse_transform : bool, default False
        Whether to learn the inverse map.
    preimage : {"ridge", "fixed_point"}
        The inverse map: kernel ridge regression of the rows on their scores, with the same
        kernel; or the input whose feature is nearest to the point that the scores describe, for
        `mercer.kernels.RBF`.
    eigen_solver : {"auto", "dense", "randomized", "nystroem"}
        ``"dense"`` decomposes the matrix, ``"randomized"`` only multiplies with it, in tiles where
        it does not fit, until residuals are below ``tol``, and ``"nystroem"`` takes the components
        of landmark features, at a cost that grows with n. ``"auto"`` is dense up to 1,000 rows or
        where a tenth of all components or more are asked for.
    landmarks : int, default 256
        How many, for ``"nystroem"``; at most one a row.
    selection : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
        How they are chosen; see `mercer.features.choose_landmarks`.
    tol : float, default 0
        Residual of ``"randomized"``, as a share of the largest eigenvalue; 0 is 1e-10.
    remove_zero_eig : bool, default False
        Whether components of eigenvalue zero are left out also where ``n_components`` counts them.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the start of ``"randomized"`` and of the choice of landmarks.

    Attributes
    ----------
    eigenvalues_ : ndarray or Tensor of shape (n_components,)
        Eigenvalues of H K H, in descending order; in the caller's kind, like the next two.
    eigenvectors_ : ndarray or Tensor of shape (n_samples, n_components)
        V.
    explained_variance_ratio_ : ndarray or Tensor of shape (n_components,)
        Eigenvalues as shares of the trace.
    eigen_solver_ : str
        The solver that was taken.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, or the kernel matrix has an eigenvalue
        below zero by more than rounding; the text names it.
    MemoryError
        In ``fit``, if the matrix does not fit the memory budget; the text says what would.

    References
    ----------
    Schölkopf, Smola, Müller, "Nonlinear component analysis as a kernel eigenvalue problem",
    Neural Computation 10 (1998).

    Mika, Schölkopf, Smola, Müller, Scholz, Rätsch, "Kernel PCA and de-noising in feature
    spaces", NeurIPS 1998: the fixed point.

    Bakır, Weston, Schölkopf, "Learning to find pre-images", NeurIPS 2003: the ridge.

    Examples
    --------
    >>> from sklearn.datasets import make_circles
    >>> from mercer.kernels import RBF
    >>> from mercer.machines import KernelPCA
    >>> X, y = make_circles(200, factor=0.4, noise=0.05, random_state=0)
    >>> scores = KernelPCA(3, kernel=RBF(0.5)).fit_transform(X)
    >>> between = scores[y == 0].mean(0) - scores[y == 1].mean(0)  # the third tells them apart
    >>> bool(abs(between[2]) > 0.5)
    True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel: str | Kernel = "rbf",
        alpha: float = 1.0,
        fit_inverse_transform: bool = False,
        preimage: str = "ridge",
        eigen_solver: str = "auto",
        landmarks: int = 256,
        selection: str = "kmeans",
        tol: float = 0,
        remove_zero_eig: bool = False,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.alpha = alpha
        self.fit_inverse_transform = fit_inverse_transform
        self.preimage = preimage
        self.eigen_solver = eigen_solver
        self.landmarks = landmarks
        self.selection = selection
        self.tol = tol
        self.remove_zero_eig = remove_zero_eig
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows, or the kernel matrix (n_samples, n_samples) where it is precomputed.
        y : object
            Ignored.

        Returns
        -------
        KernelPCA
            The estimator itself.
        """
        rows = check_rows(self, X, reset=True)
        self._fit(rows)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Find the components and return the scores of the training rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows, or their kernel matrix.
        y : object
            Ignored.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_components)
            The scores, in the caller's kind and dtype.
        """
        rows = check_rows(self, X, reset=True)
        return in_kind(self._fit(rows).to(as_tensor(rows).dtype), rows)

    @torch.no_grad()
    def _fit(self, rows: Any) -> Tensor:
        """Fit to checked rows; return their scores (n, c) in float64."""
        self._check_parameters()
        known = KernelInput.fit(self.kernel, rows, standardize=self.standardize)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        n = len(known.points)
        wanted = n if self.n_components is None else min(n, self.n_components)
        solver = self.eigen_solver
        if solver == "auto":
            solver = "dense" if n <= _DENSE or 10 * wanted >= n else "randomized"
        if solver == "nystroem":
            found = landmark_components(
                known,
                wanted,
                landmarks=self.landmarks,
                selection=self.selection,
                seed=seed,
            )
        else:
            tolerance = self.tol or 1e-10
            found = gram_components(
                known, wanted, dense=solver == "dense", tolerance=tolerance, seed=seed
            )
        if self.remove_zero_eig or self.n_components is None:
            found = found.without_zeros()
        self.kernel_, self.eigen_solver_ = known.kernel, solver
        # A matrix of all items is not needed any more.
        self._input = known.keep(torch.arange(n)) if known.precomputed else known
        self._components = found
        own = known.points.dtype
        self.eigenvalues_ = in_kind(found.values.to(own), rows)
        self.eigenvectors_ = in_kind(found.vectors.to(own), rows)
        share = found.values / found.total if found.total > 0 else found.values
        self.explained_variance_ratio_ = in_kind(share.to(own), rows)
        scores = found.vectors * found.values.sqrt()  # (n, c)
        self._fit_preimage(rows, scores)
        return scores

    def _check_parameters(self) -> None:
        if self.n_components is not None:
            check_int("n_components", self.n_components)
        check_choice("eigen_solver", self.eigen_solver, _SOLVERS)
        check_choice("preimage", self.preimage, ("ridge", "fixed_point"))
        check_choice("selection", self.selection, LANDMARK_CHOICES)
        check_int("landmarks", self.landmarks)
        check_real("alpha", self.alpha, least=0.0)
        check_real("tol", self.tol, least=0.0)
        matrix = isinstance(self.kernel, str) and self.kernel == "precomputed"
        if matrix and self.fit_inverse_transform:
            raise ValueError(
                "fit_inverse_transform: a precomputed kernel has no rows to go back to"
            )
        if matrix and self.eigen_solver == "nystroem":
            raise ValueError(
                "eigen_solver: landmarks need rows, got a precomputed kernel; use 'randomized'"
            )

    def _fit_preimage(self, rows: Any, scores: Tensor) -> None:
        """Learn the way back."""
        for name in ("dual_coef_", "X_transformed_fit_"):
            vars(self).pop(name, None)
        if not self.fit_inverse_transform:
            return
        if self.preimage == "fixed_point":
            check_preimage_kernel(self.kernel_)
            if self.eigen_solver_ == "nystroem":
                raise ValueError(
                    "preimage: the fixed point needs all rows; use preimage='ridge' with "
                    "eigen_solver='nystroem'"
                )
            self.X_transformed_fit_ = in_kind(scores.to(self._input.points.dtype), rows)
            return
        try:
            gram = self.kernel_.gram(scores)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"kernel: the inverse map takes {self.kernel_!r} between scores of "
                f"{scores.shape[1]} components, and it is no kernel of those; use a kernel without "
                "sizes of its own"
            ) from error
        targets = as_tensor(rows).double().to(scores.device)
        found = gram.solve(targets, ridge=float(self.alpha), tolerance=1e-10).solution
        own = self._input.points.dtype
        self.X_transformed_fit_ = in_kind(scores.to(own), rows)
        self.dual_coef_ = in_kind(found.to(own), rows)

    @torch.no_grad()
    def transform(self, X: Any) -> Any:
        """Return the scores of rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows where it is precomputed.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_components)
            The scores, in the caller's kind and dtype.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        scores = self._components.project(self._input, rows)
        return in_kind(scores.to(as_tensor(rows).dtype), rows)

    @torch.no_grad()
    def inverse_transform(self, X: Any) -> Any:
        """Return rows with given scores, about.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_components)
            Scores.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_features)
            Rows. The ridge map, as in scikit-learn, does not know the mean of features that the
            scores are about, and has no intercept: it draws rows towards zero.

        Raises
        ------
        NotFittedError
            Before ``fit``, or without ``fit_inverse_transform=True``.
        ValueError
            If there are not as many columns as components, or a number is not finite.
        """
        check_is_fitted(self)
        if not self.fit_inverse_transform or not hasattr(self, "X_transformed_fit_"):
            raise NotFittedError(
                "KernelPCA: fit it with fit_inverse_transform=True to go back from scores"
            )
        scores = X if isinstance(X, Tensor) else torch.as_tensor(np.asarray(X))
        width = len(self._components.values)
        if scores.ndim != 2 or scores.shape[1] != width:
            raise ValueError(
                f"X: expected shape (n, {width}), a column for each component, "
                f"got {tuple(scores.shape)}"
            )
        if not scores.is_floating_point():
            scores = scores.double()
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("X: expected finite scores, got NaN or infinity")
        known = as_tensor(self.X_transformed_fit_).to(self._input.points)
        t = scores.detach().to(known)  # (m, c)
        if self.preimage == "ridge":
            dual = as_tensor(self.dual_coef_).to(known)
            found = self.kernel_.gram(t, known) @ dual
        else:
            found = self._fixed_points(t.double(), known.double())
        return in_kind(found.to(scores.dtype), X if isinstance(X, Tensor) else np.empty(0))

    def _fixed_points(self, t: Tensor, known: Tensor) -> Tensor:
        """Iterate from the training rows with the nearest scores."""
        n = len(known)
        points = self._input.points.double()
        found = []
        for part in t.split(block_rows(8 * 6 * n, most=1024)):
            nearest = torch.cdist(part, known).argmin(1)  # (b,)
            weights = part @ self._components.weights.mT + 1 / n  # (b, n)
            found.append(fixed_point_preimage(self.kernel_, points, weights, points[nearest]))
        z = torch.cat(found)
        if self._input.center is not None and self._input.scale is not None:
            z = z * self._input.scale + self._input.center
        return z

    @property
    def _n_features_out(self) -> int:
        """Number of components, from which scikit-learn makes their names."""
        return len(self._components.values)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
