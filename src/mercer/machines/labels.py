"""Labels of rows as numbers of classes, and back in the caller's kind."""

from typing import Any

import numpy as np
import torch
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d
from torch import Tensor


def check_labels(y: Any, rows: np.ndarray | Tensor) -> tuple[np.ndarray, Tensor]:
    """Return the classes (c,), sorted, and the number of each row's class (n,).

    Parameters
    ----------
    y : array-like or Tensor of shape (n,)
        The labels.
    rows : ndarray or Tensor of shape (n, d)
        The rows that they belong to.

    Returns
    -------
    tuple of ndarray and Tensor
        Classes and numbers.

    Raises
    ------
    ValueError
        If the labels are missing, not discrete or finite, or of another length.
    """
    if y is None:
        raise ValueError("y: the estimator requires y to be passed, but the target y is None")
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    labels = column_or_1d(y, warn=True)
    if labels.dtype.kind == "O" and any(label is None for label in labels):
        missing = sum(label is None for label in labels)
        raise ValueError(f"y: expected a label for each row, {missing} of {len(labels)} are None")
    assert_all_finite(labels, input_name="y")
    check_consistent_length(rows, labels)
    check_classification_targets(labels)
    classes, numbers = np.unique(labels, return_inverse=True)
    return classes, torch.from_numpy(numbers.astype(np.int64))


def as_labels(classes: np.ndarray, numbers: Tensor, rows: np.ndarray | Tensor) -> Any:
    """Return labels by number, as a tensor for rows that came as one, if they are numbers."""
    found = classes[numbers.cpu().numpy()]
    if isinstance(rows, Tensor) and found.dtype.kind in "biuf":
        return torch.from_numpy(found).to(rows.device)
    return found
