"""The border of the room: rows of numbers as NumPy arrays or torch tensors."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from .._core.checks import check_finite


def check_rows(
    estimator: BaseEstimator, x: Any, *, reset: bool, least: int = 1
) -> np.ndarray | Tensor:
    """Return rows (n, d) of float32 or float64 numbers, as a tensor if they came as one.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator whose ``n_features_in_`` is set or compared.
    x : array-like or Tensor of shape (n, d)
        The rows.
    reset : bool
        Whether to set ``n_features_in_`` (in ``fit``) or to compare with it.
    least : int, default 1
        How many rows there must be.

    Returns
    -------
    ndarray or Tensor of shape (n, d)
        The rows; integers come as float64.

    Raises
    ------
    TypeError
        If a tensor holds complex numbers.
    ValueError
        If there are too few rows or columns, other columns than in ``fit``, or a number is not
        finite.
    """
    if not isinstance(x, Tensor):
        checked: Any = validate_data(
            estimator, x, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=least
        )
        return checked
    if x.is_complex():
        raise TypeError(f"X: expected real numbers, got {x.dtype}")
    rows = x.detach() if x.is_floating_point() else x.detach().double()
    if rows.ndim != 2:
        raise ValueError(f"X: expected 2 axes (n_samples, n_features), got shape {tuple(x.shape)}")
    n, d = rows.shape
    if n < least or d < 1:
        raise ValueError(
            f"X: expected at least {least} sample(s) and 1 feature, got n_samples = {n} "
            f"and n_features = {d}"
        )
    check_finite("X", rows)
    known = getattr(estimator, "n_features_in_", d)
    if reset:
        estimator.n_features_in_ = d  # type: ignore[attr-defined]
        vars(estimator).pop("feature_names_in_", None)
    elif d != known:
        raise ValueError(
            f"X has {d} features, but {type(estimator).__name__} is expecting {known} features "
            "as input"
        )
    return rows


def as_tensor(rows: np.ndarray | Tensor) -> Tensor:
    """Return rows as a tensor that shares their memory where it may."""
    if isinstance(rows, Tensor):
        return rows
    # torch refuses negative strides, and warns of arrays that cannot be written to.
    plain = rows.flags.writeable and all(stride >= 0 for stride in rows.strides)
    return torch.from_numpy(rows if plain else np.array(rows))
