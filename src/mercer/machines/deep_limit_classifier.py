"""Classification by a wide network that is infinitely, or very, deep."""

import copy
from typing import Any, Self, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int
from .._core.config import config, require_memory, resident_memory
from ..infinite.deep_limit import DeepLimit, deep_limit
from ..infinite.optimal_activation import optimal_activation
from ..infinite.weight_table import WeightTable
from ..kernels.distance import squared_distance
from ..linalg.solve_psd import solve_psd
from .base import Machine
from .labels import as_labels, check_labels
from .rows import as_tensor, check_rows
from .sphere import WAYS, SphereEmbedding

_BLOCK = 2**25  # bytes at a time, which stay in the caches
_SAME = 1e-28  # gap below which two points are one
# What follows from an estimator's other attributes, made again where it was loaded or copied.
_DERIVED: WeakKeyDictionary[Any, tuple[DeepLimit | None, WeightTable | None]] = WeakKeyDictionary()


def _resolve(activation: Any, dimension: int) -> Any:
    """Make what numbers and "auto" stand for."""
    if isinstance(activation, str) and activation == "hilbert":
        return activation
    if isinstance(activation, str) and activation == "auto":
        return optimal_activation(dimension)
    if isinstance(activation, int | np.integer) and not isinstance(activation, bool):
        return optimal_activation(int(activation))
    return copy.deepcopy(activation)


@final
class DeepLimitClassifier(ClassifierMixin, Machine):
    r"""Classify as an infinitely wide and infinitely deep network does.

    .. math:: \hat y(x) = \mathrm{sign} \sum_i y_i\, G(x \cdot x_i), \qquad
        G(x \cdot x_i) \sim \|x - x_i\|^{-\alpha}

    for activations whose `mercer.infinite.deep_limit` is singular: an interpolating smoother
    without parameters, which tends to the best classifier there is, with more data, where the
    exponent is the dimension of the sphere. Other activations give the nearest neighbour or the
    majority of all labels. With ``limit=False`` the network has a finite depth, and the
    labels are interpolated by its kernel.

    Parameters
    ----------
    activation : str, int, Module or callable, default "auto"
        The activation; ``"auto"`` is `mercer.infinite.optimal_activation` for the dimension of the
        sphere, an integer the same for another dimension, and ``"hilbert"`` takes the power of the
        distance itself in place of G.
    depth : int, default 100
        Number of hidden layers, where ``limit`` is False.
    limit : bool, default True
        Whether the depth is infinite.
    sphere : {"auto", "given", "normalize", "stereographic"}, default "auto"
        How rows come on the sphere: they lie there, they are divided by their length, or they are
        projected, scaled to a cap of 45 degrees. ``"auto"`` takes rows of length one as given and
        projects others.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    dimension_ : int
        The dimension of the sphere.
    limit_ : DeepLimit or None
        The deep limit of the activation; None for ``"hilbert"``.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    Notes
    -----
    Rows that coincide count as one, with the share of each label.

    The theory is for inputs whose inner products are not negative: deep kernels see opposite
    points as alike, or as opposites. Rows of length one with negative entries therefore get one
    more coordinate, a constant, which halves squared distances.

    Consistency is slow: on a few thousand points an exponent below the dimension (erf, tanh)
    often classifies better.

    References
    ----------
    Radhakrishnan, Belkin, Uhler: Wide and deep neural networks achieve consistency for
    classification, PNAS 2023, arXiv 2204.14126.

    Devroye, Györfi, Krzyżak: The Hilbert kernel regression estimate, 1998.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mercer.machines import DeepLimitClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DeepLimitClassifier(sphere="normalize").fit(X[:1200], y[:1200])
    >>> model.score(X[1200:], y[1200:]) > 0.9
    True
    """

    def __init__(
        self,
        activation: Any = "auto",
        depth: int = 100,
        *,
        limit: bool = True,
        sphere: str = "auto",
    ) -> None:
        self.activation = activation
        self.depth = depth
        self.limit = limit
        self.sphere = sphere

    def fit(self, X: Any, y: Any = None) -> Self:
        """Keep the points and their labels; for a finite depth, interpolate them.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.

        Returns
        -------
        DeepLimitClassifier
            The classifier itself.
        """
        check_choice("sphere", self.sphere, WAYS)
        check_int("depth", self.depth)
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        x = as_tensor(rows).double()
        self._embedding = SphereEmbedding.fit(self.sphere, x)
        self.dimension_ = self._embedding.dimension
        self._activation = _resolve(self.activation, self.dimension_)
        self._layers = None if self.limit else self.depth
        _DERIVED.pop(self, None)
        self._derived()  # refuses what is no activation
        onehot = torch.nn.functional.one_hot(numbers.to(x.device), len(self.classes_)).double()
        # Points that coincide are one point.
        self._points, where = self._embedding(x).unique(dim=0, return_inverse=True)
        shape = (len(self._points), len(self.classes_))
        self._sums = x.new_zeros(shape).index_add_(0, where, onehot)  # (points, classes)
        self._means = self._sums / self._sums.sum(-1, keepdim=True)
        if not self.limit:
            n = len(self._points)
            option = "use limit=True, which solves nothing"
            require_memory(8 * 6 * n * n, f"a kernel matrix of {n} points", option)
            sign, log = self._kernel(self._gap(self._points))
            kernel = (sign * log.exp()).fill_diagonal_(1.0)
            self._sums = solve_psd((kernel + kernel.mT) / 2, self._means).solution
        return self

    @property
    def limit_(self) -> DeepLimit | None:
        """The deep limit of the activation; None for ``"hilbert"``."""
        check_is_fitted(self)
        return self._derived()[0]

    def _derived(self) -> tuple[DeepLimit | None, WeightTable | None]:
        """Return the deep limit and the table of its weights, which no file has to hold."""
        if self not in _DERIVED:
            limit, table = None, None
            if not (isinstance(self._activation, str) and self._activation == "hilbert"):
                limit = deep_limit(self._activation)
                if limit.kind == "singular":
                    table = WeightTable(limit, self._layers)
            _DERIVED[self] = limit, table
        return _DERIVED[self]

    def _gap(self, x: Tensor) -> Tensor:
        gap = squared_distance(x, self._points.to(x.device)) / 2
        return torch.where(gap <= _SAME, 0.0, gap).clamp(max=2.0)

    def _kernel(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Sign and log of the weights of all points."""
        limit, table = self._derived()
        if limit is None:
            return torch.ones_like(gap), gap.mul(2).log() * (-self.dimension_ / 2)
        if table is not None:
            sign, log = table(gap)
            same = torch.inf if self._layers is None else 0.0
            return torch.where(gap == 0, 1.0, sign), torch.where(gap == 0, same, log)
        if self._layers is not None:
            return limit.log_kernel(gap, self._layers)
        if limit.kind == "majority":
            return torch.ones_like(gap), torch.zeros_like(gap)
        nearest = gap == gap.amin(-1, keepdim=True)
        return torch.ones_like(gap), torch.where(nearest, 0.0, -torch.inf)

    def _scores(self, x: Tensor) -> Tensor:
        """Weighted sums of labels (n, classes), in units of the largest weight."""
        gap = self._gap(x)
        sign, log = self._kernel(gap)
        top = log.amax(-1, keepdim=True)
        exact = torch.isinf(top) & (top > 0)
        top = torch.where(torch.isfinite(top), top, 0.0)
        weight = sign * (log - top).exp()
        weight = torch.where(exact, (gap == 0).to(weight), weight)  # (n, points)
        total = weight.abs().sum(-1, keepdim=True)
        values = torch.where(exact, weight @ self._means, weight @ self._sums)
        return values / torch.where(total > 0, total, 1.0)

    @torch.no_grad()
    def decision_function(self, X: Any) -> Any:
        """Compute how far the weighted labels lean to each class.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_classes)
            For two classes the weighted mean of labels -1 and 1, else the sums of the weights of
            each class over that of all absolute weights. A tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, a number is not finite, or a row cannot be put
            on the sphere.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        each = 8 * len(self._points) * (12 + min(self._points.shape[1], 32))
        spare = max(config.memory_budget - resident_memory(), 0)
        step = max(1, int(min(spare / 2, _BLOCK) / each))
        parts = [self._scores(self._embedding(part.double())) for part in x.split(step)]
        scores = torch.cat(parts).to(x.dtype)
        if len(self.classes_) == 2:
            scores = scores[:, 1] - scores[:, 0]
        return scores if isinstance(rows, Tensor) else scores.numpy()

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
        return as_labels(self.classes_, numbers, X if isinstance(X, Tensor) else scores.numpy())
