"""The border of the room: rows of numbers as NumPy arrays or torch tensors."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from .._core.checks import check_finite

_WIDE: Any = np.float64  # scikit-learn's annotation knows texts only


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
        The rows; integers and half precisions come as float64.

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
    rows = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().double()
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


def _as_array(values: Tensor) -> np.ndarray:
    """Return a tensor as an array; NumPy has no bfloat16."""
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def in_kind(values: Tensor, rows: np.ndarray | Tensor) -> Any:
    """Return values as the caller's kind: a tensor where the rows are, else an array."""
    values = values.detach()
    return values.to(rows.device) if isinstance(rows, Tensor) else values.cpu().numpy()


def check_targets(y: Any, rows: np.ndarray | Tensor, *, multi_output: bool = True) -> Tensor:
    """Return targets of rows, in their dtype and on their device.

    Parameters
    ----------
    y : array-like or Tensor of shape (n,) or (n, q)
        The targets.
    rows : ndarray or Tensor of shape (n, d)
        The rows that they belong to.
    multi_output : bool, default True
        Whether there may be several; if not, a column is taken as a vector, with scikit-learn's
        warning.

    Returns
    -------
    Tensor of shape (n,) or (n, q)
        The targets.

    Raises
    ------
    ValueError
        If they are missing, of another length or shape, complex or not finite.
    """
    if y is None:
        raise ValueError("y: the estimator requires y to be passed, but the target y is None")
    if isinstance(y, Tensor):
        y = _as_array(y)
    found: Any = check_array(y, ensure_2d=False, dtype=_WIDE, input_name="y")
    check_consistent_length(rows, found)
    if found.ndim > 2 or (found.ndim == 2 and found.shape[1] == 0):
        raise ValueError(f"y: expected shape (n,) or (n, q), got {found.shape}")
    if found.ndim == 2 and not multi_output:
        found = column_or_1d(found, warn=True)
    like = as_tensor(rows[:0])
    return as_tensor(found).to(like.device, like.dtype)


def check_weights(sample_weight: Any, rows: np.ndarray | Tensor) -> Tensor | None:
    """Return the weights of rows in float64 and on their device, or None for none.

    Parameters
    ----------
    sample_weight : array-like or Tensor of shape (n,), float or None
        The weights; a number is that of each row.
    rows : ndarray or Tensor of shape (n, d)
        The rows that they belong to.

    Returns
    -------
    Tensor of shape (n,) or None
        The weights.

    Raises
    ------
    ValueError
        If they are of another shape, not finite, below zero, or all zero.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Tensor):
        sample_weight = _as_array(sample_weight)
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(rows), sample_weight)
    found: Any = check_array(
        sample_weight, ensure_2d=False, dtype=_WIDE, input_name="sample_weight"
    )
    if found.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got shape {found.shape}")
    if len(found) != len(rows):
        raise ValueError(
            f"sample_weight.shape == {found.shape}, expected {(len(rows),)}, one of each row"
        )
    if found.min() < 0 or found.max() <= 0:
        raise ValueError(
            "sample_weight: expected numbers of at least 0, not all zero, "
            f"got {found.min():.3g} to {found.max():.3g}"
        )
    return as_tensor(found).to(as_tensor(rows[:0]).device)
