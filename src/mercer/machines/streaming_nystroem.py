"""The Nystroem map of a stream: landmarks chosen in one pass, with a guarantee at any time."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.config import block_rows, require_memory
from .._core.counter import CounterGenerator
from ..kernels import Kernel
from ..linalg import SequentialLeverage
from .base import Machine
from .kernel_input import fit_kernel
from .rows import as_tensor, check_rows, in_kind

_LARGEST_BLOCK = 4096  # rows at once


@final
class StreamingNystroem(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Machine):
    r"""Features of a kernel on landmarks that are chosen while rows stream by.

    .. math::
        z(x) = k_D(x)^\top S \, (S K_{DD} S + \lambda I)^{-1/2}, \qquad
        S = \mathrm{diag}(p)^{-1/2}

    A small dictionary D of the rows seen is kept, each with the probability p with which it came
    to be there, about its ridge leverage score times ``oversampling``. It grows with the
    effective dimension of the kernel matrix at the ridge, not with the number of rows: rare kinds
    of rows are kept, common ones thinned out, and no row is needed twice. At any time
    :math:`K - Z Z^\top` is never negative and a few times the ridge at most, over all rows seen,
    so that a ridge regression on these features with a ridge of that size or larger loses little
    against the exact one.

    The number of features is that of the dictionary; it changes with `partial_fit`, so a linear
    model after it has to be fitted again.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the first rows as its lengthscale)
        or itself; it is not changed.
    ridge : float, default 1.0
        :math:`\lambda`, in the units of the eigenvalues of the kernel matrix (not divided by n):
        the ridge of the regression to follow, or what error of the matrix does not matter.
    budget : int, optional
        Largest number of landmarks; None lets the data decide.
    oversampling : float, default 2.0
        Landmarks for each effective dimension. More makes the features better.
    random_state : int, RandomState instance or None, default None
        Source of the draws.

    Attributes
    ----------
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from the first rows.
    dictionary_ : ndarray or Tensor of shape (n_landmarks, n_features)
        The landmarks, in the order in which they came.
    dictionary_indices_ : ndarray of shape (n_landmarks,)
        Their places among all rows seen.
    weights_ : ndarray of shape (n_landmarks,)
        1 / p: for how many rows each stands.
    effective_dimension_ : float
        Estimate of tr K (K + ridge I)^-1 over all rows seen.
    n_samples_seen_ : int
        Rows seen since `fit` began.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    Warns
    -----
    UserWarning
        If no row is worth keeping at this ridge; the features are then a column of zeros.

    References
    ----------
    Calandriello, Lazaric, Valko, "Analysis of Nyström method with sequential ridge leverage
    scores", UAI 2016, arXiv 2604.20077.

    Calandriello, Lazaric, Valko, "Distributed adaptive sampling for kernel matrix
    approximation", AISTATS 2017, arXiv 1803.10172.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import StreamingNystroem
    >>> source = np.random.default_rng(0)
    >>> machine = StreamingNystroem("rbf", ridge=1.0, random_state=0)
    >>> for _ in range(10):  # batches of a stream
    ...     machine = machine.partial_fit(source.normal(size=(500, 2)))
    >>> machine.n_samples_seen_, len(machine.dictionary_) < 60
    (5000, True)
    >>> machine.transform(source.normal(size=(3, 2))).shape[0]
    3
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        ridge: float = 1.0,
        budget: int | None = None,
        oversampling: float = 2.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.ridge = ridge
        self.budget = budget
        self.oversampling = oversampling
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Forget what was seen, and see rows in their order.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows; a tensor's dictionary is on its device.
        y : object
            Ignored.

        Returns
        -------
        StreamingNystroem
            The transformer itself.
        """
        return self._see(check_rows(self, X, reset=True), first=True)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """See some more rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows, as many as there are.
        y : object
            Ignored.

        Returns
        -------
        StreamingNystroem
            The transformer itself.
        """
        first = not hasattr(self, "n_samples_seen_")
        return self._see(check_rows(self, X, reset=first), first=first)

    @torch.no_grad()
    def transform(self, X: Any) -> Any:
        """Map rows to features, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_landmarks)
            The features, in the caller's kind and dtype.

        Raises
        ------
        NotFittedError
            Before ``fit`` or ``partial_fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        MemoryError
            If the features do not fit the memory budget.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        landmarks, n, s = as_tensor(self.dictionary_), len(rows), self._n_features_out
        require_memory(
            n * s * rows.itemsize, f"{n} rows of {s} features", "transform the rows in batches"
        )
        x = as_tensor(rows)
        found = x.new_zeros(n, s)
        if not len(landmarks):
            return in_kind(found, rows)
        step = block_rows(8 * (4 * s + 2 * x.shape[1]), most=_LARGEST_BLOCK)
        for start in range(0, n, step):
            block = x[start : start + step].to(landmarks)
            values = self.kernel_(block, landmarks).double() @ self._whitening  # (b, s)
            found[start : start + step] = values
        return in_kind(found, rows)

    def _see(self, rows: Any, *, first: bool) -> Self:
        """Show rows to the dictionary, an empty one at first."""
        x = as_tensor(rows)
        if first:
            kernel = fit_kernel(self.kernel, x)
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            seen = 0
        else:
            kernel, seed, seen = self.kernel_, self._seed, self.n_samples_seen_
        state = SequentialLeverage(
            kernel,
            kernel.diag,
            ridge=self.ridge,
            oversampling=self.oversampling,
            budget=self.budget,
            # Every call draws by itself, so that a machine that was saved goes on as it would have.
            generator=CounterGenerator(seed, seen),
        )
        if not first:
            kept = as_tensor(self.dictionary_)
            state.resume(
                kept,
                torch.as_tensor(self.dictionary_indices_, device=kept.device),
                1 / torch.as_tensor(self.weights_, device=kept.device),
                seen,
            )
        state.update(x)
        assert state.rows is not None
        self.kernel_, self._seed = kernel, seed
        self.dictionary_ = in_kind(state.rows, rows if first else self.dictionary_)
        self.dictionary_indices_ = state.index.cpu().numpy()
        self.weights_ = (1 / state.probabilities).cpu().numpy()
        self.effective_dimension_ = state.effective_dimension
        self.n_samples_seen_ = state.num_seen
        self._whitening = _whitening(kernel, state)
        if not len(state):
            warnings.warn(
                f"StreamingNystroem: none of {state.num_seen} rows is worth keeping at the ridge "
                f"{state.ridge:.3g}, and the features are zero; lower the ridge",
                stacklevel=3,
            )
        return self

    @property
    def _n_features_out(self) -> int:
        """Number of features, from which scikit-learn makes their names."""
        return max(len(self.dictionary_), 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _whitening(kernel: Kernel, state: SequentialLeverage) -> Tensor:
    """S (S K_DD S + ridge I)^-1/2 of a dictionary, (s, s) in float64."""
    assert state.rows is not None
    root = state.probabilities.rsqrt().unsqueeze(1)  # (s, 1)
    matrix = kernel(state.rows).double()
    values, vectors = torch.linalg.eigh(root * (matrix + matrix.mT) / 2 * root.mT)
    return root * (vectors * (values.clamp_min(0.0) + state.ridge).rsqrt()) @ vectors.mT
