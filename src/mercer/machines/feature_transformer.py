"""Explicit features of a kernel, as a scikit-learn transformer."""

import copy
from collections.abc import Mapping
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.config import config, require_memory, resident_memory
from ..kernels import Kernel, resolve_kernel
from .base import Machine
from .rows import as_tensor, check_rows


@final
class FeatureTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Machine):
    r"""Map rows to explicit features of a kernel, :math:`\phi(x) \cdot \phi(y) \approx k(x, y)`.

    A linear model on these features is a kernel machine, at the cost of a linear model. The map
    is exact where the kernel has an exact one of this size, else random or quasi-random waves
    where it is stationary, else a Nystroem map whose landmarks are chosen from the data; see
    `mercer.features.kernel_features`.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale) or
        itself; it is not changed. ``kernel__lengthscale`` and the like reach its parameters in a
        search.
    num_features : int, default 256
        Largest number of features; waves come in pairs, exact maps may have fewer, and Nystroem
        has no more than there are rows in ``fit``.
    method : str, optional
        The map: ``"exact"``, ``"quadrature"``, ``"random_fourier"``, ``"fastfood"``,
        ``"polynomial_sketch"``, ``"positive"`` or ``"nystroem"``; None chooses.
    options : dict, optional
        Further arguments of the map, such as ``{"landmarks": "greedy"}`` or
        ``{"draw": "sobol"}``.
    random_state : int, RandomState instance or None, default None
        Source of the draws.

    Attributes
    ----------
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    feature_map_ : FeatureMap
        The map.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    References
    ----------
    Rahimi, Recht, "Random features for large-scale kernel machines", NeurIPS 2007.

    Williams, Seeger, "Using the Nyström method to speed up kernel machines", NeurIPS 2000.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from mercer.machines import FeatureTransformer
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(FeatureTransformer("rbf", 512, random_state=0), RidgeClassifier())
    >>> model.fit(X[:1200], y[:1200]).score(X[1200:], y[1200:]) > 0.93
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        num_features: int = 256,
        *,
        method: str | None = None,
        options: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.num_features = num_features
        self.method = method
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the features, or choose their landmarks.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The data. A map chosen for float32 numbers is in float32; a tensor's is on its device.
        y : object
            Ignored.

        Returns
        -------
        FeatureTransformer
            The transformer itself.
        """
        kernel = copy.deepcopy(resolve_kernel(self.kernel)).requires_grad_(False)
        waits = any(getattr(part, "_waits_for_data", False) for part in kernel.modules())
        # One point has no distances.
        rows = check_rows(self, X, reset=True, least=2 if waits else 1)
        like = as_tensor(rows)
        self.kernel_ = kernel.fit(like) if waits else kernel
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.feature_map_ = self.kernel_.features(
            self.num_features,
            like=like,
            method=self.method,
            generator=seed,
            **(self.options or {}),
        ).eval()
        return self

    @torch.no_grad()
    def transform(self, X: Any) -> Any:
        """Map rows to features, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, num_features)
            The features: a tensor on the caller's device for a tensor, else an array, in the
            dtype of X (float64 for integers). No gradient flows; call ``feature_map_`` for that.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        MemoryError
            If the features do not fit the memory budget.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        n, m = len(rows), self.feature_map_.num_features
        half = isinstance(X, Tensor) and X.dtype in (torch.float16, torch.bfloat16)
        dtype: Any = X.dtype if half else rows.dtype
        size = n * m * rows.itemsize
        require_memory(
            size,
            f"{n} rows of {m} features in {rows.dtype}",
            "transform the rows in batches, or ask for fewer features",
        )
        device = next(self.feature_map_.buffers(), torch.empty(0)).device
        # Maps write by blocks of their own; these are for the copies that they make of a row, in
        # half of what the result leaves.
        spare = max(config.memory_budget - resident_memory() - size, 0)
        step = max(1, int(spare / 2 / (8 * (3 * m + 2 * rows.shape[1]))))
        if step >= n:
            whole = self.feature_map_(as_tensor(rows).to(device))
            return whole.to(rows.device, dtype) if isinstance(rows, Tensor) else whole.cpu().numpy()
        if isinstance(rows, Tensor):
            found = torch.empty(n, m, dtype=dtype, device=rows.device)
        else:
            found = np.empty((n, m), dtype=rows.dtype)
        target = as_tensor(found)
        for start in range(0, n, step):
            block = as_tensor(rows[start : start + step]).to(device)
            target[start : start + step] = self.feature_map_(block)
        return found

    @property
    def _n_features_out(self) -> int:
        """Number of features, from which scikit-learn makes their names."""
        return self.feature_map_.num_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
