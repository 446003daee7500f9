"""Canonical correlations between two sets of columns, in the feature spaces of kernels."""

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from ..linalg.top_eigenpairs import fix_signs
from .base import Machine
from .kernel_input import KernelInput
from .landmark_basis import SELECTIONS, LandmarkBasis, exact_basis, landmark_basis
from .rows import as_tensor, check_rows, check_targets, in_kind
from .training_matrix import matrix_fits, training_matrix

_SOLVERS = ("auto", "exact", "nystroem")
_MOST_EXACT = 2000  # rows
_COPIES = 8  # numbers that an entry of a matrix takes


@final
@dataclass(frozen=True, eq=False)
class _View:
    """One side: its points, and its functions as kernel values are multiplied."""

    input: KernelInput
    dual: Tensor  # (m, c)
    offset: Tensor  # (c,)

    def __call__(self, rows: Any) -> Tensor:
        """Evaluate the functions (m, c) at rows, float64."""
        cross = self.input.cross(rows)
        return (cross @ self.dual.to(cross.dtype)).double() + self.offset


@final
class KernelCCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Machine):
    r"""Find functions of two sets of columns that are most correlated with each other.

    .. math:: \max_{f, g} \; \frac{\langle f, \hat C_{xy}\, g \rangle}
        {\|(K_x + \alpha I) a\| \, \|(K_y + \alpha I) b\|}, \qquad
        f = \sum_i a_i k_x(\cdot, x_i), \quad g = \sum_i b_i k_y(\cdot, y_i)

    with centred kernel matrices: the generalised eigenproblem of :math:`K_x K_y` against
    :math:`(K_x + \alpha I)^2` and :math:`(K_y + \alpha I)^2`, solved by the singular values of
    :math:`(K_x + \alpha I)^{-1} K_x K_y (K_y + \alpha I)^{-1}`.

    Parameters
    ----------
    n_components : int, default 2
        How many pairs of functions; at most the smaller rank of the two matrices.
    kernel : str or Kernel, default "rbf"
        The kernel of X, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then the kernel matrix.
    y_kernel : str or Kernel, default "rbf"
        That of y, likewise.
    alpha : float, default 1.0
        The ridge, in the units of the kernels, not divided by n; above 0, as without it any two
        sets of different rows are perfectly correlated.
    solver : {"auto", "exact", "nystroem"}
        All rows, or landmarks among them, as centres of the functions; ``"auto"`` is exact for up
        to 2,000 rows that fit the memory budget.
    landmarks : int, default 500
        How many, at most one a row.
    selection : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
        How they are chosen; see `mercer.features.choose_landmarks`.
    standardize : bool, default False
        Whether the columns of X are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks.

    Attributes
    ----------
    correlations_ : Tensor of shape (n_components,)
        The maxima, in descending order; below the correlations of the scores by what the ridge
        takes.
    solver_ : str
        The solver that was taken.
    kernel_, y_kernel_ : Kernel
        Frozen copies of the kernels, what was left to the data set from it.
    n_features_in_ : int
        Number of columns of X in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        In ``fit``, if the matrices do not fit the memory budget; the text says what would.

    References
    ----------
    Bach, Jordan, "Kernel independent component analysis", JMLR 3 (2002).

    Hardoon, Szedmak, Shawe-Taylor, "Canonical correlation analysis: an overview with application
    to learning methods", Neural Computation 16 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import KernelCCA
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2))
    >>> y = x[:, :1] ** 2 + 0.1 * rng.normal(size=(200, 1))  # not correlated with x
    >>> model = KernelCCA(1).fit(x, y)
    >>> u, v = model.transform(x, y)
    >>> bool(np.corrcoef(u[:, 0], v[:, 0])[0, 1] > 0.95)
    True
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        kernel: str | Kernel = "rbf",
        y_kernel: str | Kernel = "rbf",
        alpha: float = 1.0,
        solver: str = "auto",
        landmarks: int = 500,
        selection: str = "kmeans",
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.y_kernel = y_kernel
        self.alpha = alpha
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix where it is precomputed.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The other columns, row by row; their kernel matrix where that is precomputed.

        Returns
        -------
        KernelCCA
            The estimator itself.
        """
        wanted = check_int("n_components", self.n_components)
        check_choice("solver", self.solver, _SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        check_int("landmarks", self.landmarks)
        alpha = check_real("alpha", self.alpha, above=0.0)
        rows = check_rows(self, X, reset=True, least=2)
        targets = check_targets(y, rows)
        targets = targets.unsqueeze(-1) if targets.ndim == 1 else targets
        self._targets = targets.shape[1]
        n = len(rows)
        self.solver_ = self.solver
        if self.solver == "auto":
            exact = n <= _MOST_EXACT and matrix_fits(n, _COPIES)
            self.solver_ = "exact" if exact else "nystroem"
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        source = torch.Generator().manual_seed(seed)
        sides = []
        for kernel, x, standardize in (
            (self.kernel, rows, self.standardize),
            (self.y_kernel, targets, False),
        ):
            known = KernelInput.fit(kernel, x, standardize=standardize)
            sides.append(_side(self._basis(known, source), n, alpha))
        (left, u, d), (right, v, e) = sides
        core = d.unsqueeze(-1) * (u.mT @ v) * e  # (p, q)
        p, values, qt = torch.linalg.svd(core, full_matrices=False)
        kept = min(wanted, len(values))
        p, q = p[:, :kept], qt[:kept].mT
        fixed = fix_signs(u @ p)
        signs = torch.where((fixed * (u @ p)).sum(0) < 0, -1.0, 1.0)
        self.correlations_ = values[:kept].clone()
        self._left, self._right = left.view(p * signs * n**0.5), right.view(q * signs * n**0.5)
        self.kernel_, self.y_kernel_ = self._left.input.kernel, self._right.input.kernel
        return self

    def _basis(self, known: KernelInput, source: torch.Generator) -> LandmarkBasis:
        """Make features of rows, from all of them or from landmarks."""
        index = torch.arange(len(known.points), device=known.points.device)
        if self.solver_ == "exact":
            option = "use solver='nystroem'"
            matrix = training_matrix(known, index, copies=_COPIES, option=option)
            return exact_basis(known, index, matrix, center=False)
        return landmark_basis(
            known, index, self.landmarks, method=self.selection, center=False, generator=source
        )

    @torch.no_grad()
    def transform(self, X: Any, y: Any = None) -> Any:
        """Return the values of the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows; the kernel between them and the training rows where it is precomputed.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets), optional
            Rows of the other columns.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_components), or a tuple of two
            The values, in the caller's kind and dtype; with those of y where it is given.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If there are other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        dtype = as_tensor(rows[:0]).dtype
        found = in_kind(self._left(rows).to(dtype), rows)
        if y is None:
            return found
        targets = check_targets(y, rows)
        targets = targets.unsqueeze(-1) if targets.ndim == 1 else targets
        if targets.shape[1] != self._targets:
            raise ValueError(
                f"y: expected {self._targets} columns as in fit, got shape {tuple(targets.shape)}"
            )
        return found, in_kind(self._right(targets).to(dtype), rows)

    @property
    def _n_features_out(self) -> int:
        """Number of functions, from which scikit-learn makes their names."""
        return len(self.correlations_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = True
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


@final
@dataclass(frozen=True, eq=False)
class _Side:
    """Centred features of one side, decomposed."""

    basis: LandmarkBasis
    mean: Tensor  # (r,)
    turn: Tensor  # (r, p), from singular vectors to coefficients of features

    def view(self, directions: Tensor) -> _View:
        """Return the functions of directions (p, c) among the singular vectors."""
        w = self.turn @ directions  # (r, c)
        offset = -((self.basis.shift + self.mean) @ w)
        return _View(self.basis.input, self.basis.coefficients(w), offset)


def _side(basis: LandmarkBasis, n: int, alpha: float) -> tuple[_Side, Tensor, Tensor]:
    """Decompose the features, Phi = U S V^T; return U (n, p) and S^2 / (S^2 + alpha) (p,) too."""
    size = basis.root.shape[1]
    phi = basis @ torch.eye(size).to(basis.moments)  # (n, r)
    mean = phi.mean(0)
    u, s, vt = torch.linalg.svd(phi - mean, full_matrices=False)
    known = s > max(n, size) * torch.finfo(torch.float64).eps * s[:1].clamp(min=1e-150)
    if not bool(known.any()):
        known[0] = True  # constant columns: a function that is zero
    u, s, vt = u[:, known], s[known], vt[known]
    square = s.square() + alpha
    return _Side(basis, mean, vt.mT * (s / square)), u, s.square() / square
