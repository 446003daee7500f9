"""Weights of rows from those of their classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def weigh_classes(
    class_weight: Any, classes: np.ndarray, numbers: Tensor, weights: Tensor | None
) -> Tensor:
    """Return the weight of each row, its own times that of its class, float64.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        The weight of each class, 1 where it is missing; ``"balanced"`` gives all classes the same
        sum of weights.
    classes : ndarray of shape (c,)
        The classes.
    numbers : Tensor of shape (n,)
        The number of each row's class.
    weights : Tensor of shape (n,) or None
        The weights of rows.

    Returns
    -------
    Tensor of shape (n,)
        The weights, on the device of ``numbers``.

    Raises
    ------
    TypeError
        If ``class_weight`` is none of these.
    ValueError
        If there is but one class, a class has no weight, or a weight is not a positive number or
        of no class.
    """
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got one class: {classes.tolist()}")
    own = torch.ones(len(numbers), dtype=torch.float64, device=numbers.device)
    if weights is not None:
        own = weights.double().to(numbers.device)
    totals = own.new_zeros(len(classes)).index_add_(0, numbers, own)  # (c,)
    if bool((totals == 0).any()):
        empty = classes[(totals == 0).cpu().numpy()].tolist()
        raise ValueError(
            f"sample_weight: expected rows with weight in each class, got none in {empty}"
        )
    if class_weight is None:
        return own
    if isinstance(class_weight, str) and class_weight == "balanced":
        factor = totals.sum() / (len(classes) * totals)
    elif isinstance(class_weight, Mapping):
        known = classes.tolist()
        strange = [label for label in class_weight if label not in known]
        if strange:
            raise ValueError(f"class_weight: expected labels among {known}, got {strange}")
        given = [class_weight.get(label, 1.0) for label in known]
        factor = torch.as_tensor(given, dtype=torch.float64).to(own)
        if not bool(((factor > 0) & torch.isfinite(factor)).all()):
            raise ValueError(f"class_weight: expected positive finite numbers, got {given}")
    elif isinstance(class_weight, str):
        raise ValueError(f"class_weight: expected a dict, 'balanced' or None, got {class_weight!r}")
    else:
        raise TypeError(
            f"class_weight: expected a dict, 'balanced' or None, got {type(class_weight).__name__}"
        )
    return own * factor[numbers]
