"""Fisher's discriminants in the feature space of a kernel."""

from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .class_weights import weigh_classes
from .kernel_input import KernelInput
from .labels import as_labels, check_labels
from .landmark_basis import SELECTIONS, LandmarkBasis, exact_basis, landmark_basis
from .rows import as_tensor, check_rows, check_weights, in_kind
from .training_matrix import matrix_fits, training_matrix

_SOLVERS = ("auto", "exact", "nystroem")
_MOST_EXACT = 3000  # rows
_COPIES = 6  # numbers that an entry of the matrix takes


@final
class KernelDiscriminantAnalysis(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, Machine
):
    r"""Find the directions in the feature space of a kernel that tell classes apart.

    .. math:: \max_f \frac{\sum_c w_c (\bar f_c - \bar f)^2}
        {\sum_i w_i (f(x_i) - \bar f_{c(i)})^2 + \alpha \|f\|^2}

    Rows are transformed by the best of these functions, one fewer than classes, and classified
    by the nearest class mean among them, as normal distributions with one covariance matrix have
    it.

    Parameters
    ----------
    n_components : int, optional
        How many functions `transform` returns; at most, and by default, one fewer than classes.
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then the kernel matrix.
    alpha : float, default 1.0
        The ridge, in the units of the kernel, not divided by n; above 0, as without it there are
        functions that put all rows of a class at one point.
    priors : array-like of shape (n_classes,), optional
        Probabilities of classes; by default their shares of the weights.
    solver : {"auto", "exact", "nystroem"}
        All rows, or landmarks among them, as centres of the functions; ``"auto"`` is exact for up
        to 3,000 rows that fit the memory budget.
    landmarks : int, default 1000
        How many, at most one a row.
    selection : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
        How they are chosen; see `mercer.features.choose_landmarks`.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    priors_ : Tensor of shape (n_classes,)
        Their probabilities.
    ratios_ : Tensor of shape (n_functions,)
        The maxima: variance between classes over that within.
    means_ : Tensor of shape (n_classes, n_functions)
        The class means of the functions.
    solver_ : str
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
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        In ``fit``, if the matrix does not fit the memory budget; the text says what would.

    Notes
    -----
    The penalty is the norm of the function, not that of its coefficients as in Mika et al., so
    that a weight of a row is the same as repeating it. The functions are scaled so that the
    variance within classes, penalty included, is 1.

    References
    ----------
    Mika, Rätsch, Weston, Schölkopf, Müller, "Fisher discriminant analysis with kernels", Neural
    Networks for Signal Processing 1999.

    Baudat, Anouar, "Generalized discriminant analysis using a kernel approach", Neural
    Computation 12 (2000).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mercer.machines import KernelDiscriminantAnalysis
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KernelDiscriminantAnalysis(alpha=0.1).fit(X, y)
    >>> model.score(X, y) > 0.97, model.transform(X).shape
    (True, (150, 2))
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel: str | Kernel = "rbf",
        alpha: float = 1.0,
        priors: Any = None,
        solver: str = "auto",
        landmarks: int = 1000,
        selection: str = "kmeans",
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.alpha = alpha
        self.priors = priors
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix where it is precomputed.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of rows; a whole number is the same as so many equal rows.

        Returns
        -------
        KernelDiscriminantAnalysis
            The estimator itself.
        """
        check_choice("solver", self.solver, _SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        check_int("landmarks", self.landmarks)
        alpha = check_real("alpha", self.alpha, above=0.0)
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        count = len(self.classes_)
        kept = count - 1
        if self.n_components is not None:
            kept = check_int("n_components", self.n_components)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        numbers = numbers.to(source.points.device)
        weights = weigh_classes(None, self.classes_, numbers, given)  # (n,)
        if kept > count - 1:
            raise ValueError(
                f"n_components: expected at most {count - 1} for {count} classes, got {kept}"
            )
        index = weights.nonzero().squeeze(-1)
        weights, numbers = weights[index], numbers[index]
        basis = self._basis(source, index)
        size = basis.root.shape[1]
        phi = basis @ torch.eye(size).to(weights)  # (n, r)
        onehot = torch.nn.functional.one_hot(numbers, count).to(weights)  # (n, c)
        sums = weights @ onehot  # (c,)
        means = (onehot * weights.unsqueeze(-1)).mT @ phi / sums.unsqueeze(-1)  # (c, r)
        middle = sums @ means / sums.sum()  # (r,)
        left = (phi - means[numbers]) * weights.sqrt().unsqueeze(-1)
        within = left.mT @ left
        within.diagonal().add_(alpha)  # (r, r)
        factor = torch.linalg.cholesky(within)
        between = ((means - middle) * sums.sqrt().unsqueeze(-1)).mT  # (r, c)
        turned = torch.linalg.solve_triangular(factor, between, upper=False)
        directions, ratios, _ = torch.linalg.svd(turned, full_matrices=False)
        directions, ratios = directions[:, : count - 1], ratios[: count - 1].square()
        functions = torch.linalg.solve_triangular(factor.mT, directions, upper=True)
        functions = functions * sums.sum().sqrt()  # (r, c - 1), variance within classes 1
        means = (means - middle) @ functions
        signs = torch.where(means.gather(0, means.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
        functions, self.means_ = functions * signs, means * signs
        self.ratios_ = ratios
        self.priors_ = self._priors(sums)
        self._dual = basis.coefficients(functions)  # (m, c - 1)
        self._offset = -((basis.shift + middle) @ functions)
        self._input, self.kernel_ = basis.input, basis.input.kernel
        self._kept = min(kept, functions.shape[1])
        return self

    def _basis(self, source: KernelInput, index: Tensor) -> LandmarkBasis:
        """Make features of the rows that count, from all of them or from landmarks."""
        n = len(index)
        self.solver_ = self.solver
        if self.solver == "auto":
            exact = n <= _MOST_EXACT and matrix_fits(n, _COPIES)
            self.solver_ = "exact" if exact else "nystroem"
        if self.solver_ == "exact":
            option = "use solver='nystroem'"
            matrix = training_matrix(source, index, copies=_COPIES, option=option)
            return exact_basis(source, index, matrix, center=False)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return landmark_basis(
            source,
            index,
            self.landmarks,
            method=self.selection,
            center=False,
            generator=torch.Generator().manual_seed(seed),
        )

    def _priors(self, sums: Tensor) -> Tensor:
        """Return the probabilities of classes."""
        if self.priors is None:
            return sums / sums.sum()
        given = torch.as_tensor(self.priors, dtype=torch.float64).to(sums)
        fine = given.shape == sums.shape and bool((given > 0).all())
        if not (fine and abs(float(given.sum()) - 1) <= 1e-6):
            raise ValueError(
                f"priors: expected {len(sums)} numbers above 0 that sum to 1, got {self.priors!r}"
            )
        return given / given.sum()

    @torch.no_grad()
    def _values(self, X: Any) -> tuple[Tensor, Any]:
        """Return the functions (m, c - 1) at rows, float64, and the checked rows."""
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        cross = self._input.cross(rows)
        return (cross @ self._dual.to(cross.dtype)).double() + self._offset, rows

    def _logits(self, X: Any) -> tuple[Tensor, Any]:
        values, rows = self._values(X)
        logits = values @ self.means_.mT - self.means_.square().sum(1) / 2 + self.priors_.log()
        return logits, rows

    def transform(self, X: Any) -> Any:
        """Return the values of the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows; the kernel between them and the training rows where it is precomputed.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_components)
            The values, the best function first, in the caller's kind and dtype.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        values, rows = self._values(X)
        return in_kind(values[:, : self._kept].to(as_tensor(rows[:0]).dtype), rows)

    def decision_function(self, X: Any) -> Any:
        """Compute the log-odds of the second class of two, or the logits of all classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_classes)
            The log-odds, or logits up to what is common to all classes.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        logits, rows = self._logits(X)
        if logits.shape[1] == 2:
            logits = logits[:, 1] - logits[:, 0]
        return in_kind(logits.to(as_tensor(rows[:0]).dtype), rows)

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
            As `transform`.
        """
        logits, rows = self._logits(X)
        dtype = as_tensor(rows[:0]).dtype
        proba = logits.softmax(1).to(dtype)
        # Near one the rounding of the probability is that of its logarithm too.
        found = torch.where(proba > 0.5, proba.log(), logits.log_softmax(1).to(dtype))
        return in_kind(found, rows)

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
            As `transform`.
        """
        logits, rows = self._logits(X)
        return in_kind(logits.softmax(1).to(as_tensor(rows[:0]).dtype), rows)

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
            As `transform`.
        """
        logits, rows = self._logits(X)
        return as_labels(self.classes_, logits.argmax(1), rows)

    @property
    def _n_features_out(self) -> int:
        """Number of functions, from which scikit-learn makes their names."""
        return self._kept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
