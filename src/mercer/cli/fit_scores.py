"""How good predictions are, with what chance makes of it."""

from typing import Any

import torch
from torch import Tensor

_NORMAL = 1.959964  # of a standard error: 95 %
_BINS = 10
_LEAST_PROBABILITY = 1e-12


def _root(errors: Tensor) -> float:
    return float(errors.mean().sqrt())


def regression_scores(y: Tensor, found: Tensor) -> dict[str, Any]:
    """Return errors of predictions (n,): plain values, with a 95 % interval of the first.

    The interval is that of the mean squared error, carried to its root by the delta method.
    """
    errors = (y - found).square()
    root, around = _root(errors), float((y - y.mean()).square().mean())
    half = 0.0
    if root > 0 and len(y) > 1:
        half = _NORMAL * float(errors.std()) / (2 * root * len(y) ** 0.5)
    return {
        "score": root,
        "interval": [max(root - half, 0.0), root + half],
        "mae": float((y - found).abs().mean()),
        "r2": 1 - float(errors.mean()) / around if around > 0 else None,
    }


def classification_scores(y: Tensor, found: Tensor) -> dict[str, Any]:
    """Return scores of probabilities (n, classes) for classes (n,): plain values.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    right = (found.argmax(1) == y).double()
    share, n = float(right.mean()), len(y)
    # Wilson's interval, which is right where all or none are.
    middle = (share + _NORMAL**2 / (2 * n)) / (1 + _NORMAL**2 / n)
    half = _NORMAL / (1 + _NORMAL**2 / n)
    half *= (share * (1 - share) / n + _NORMAL**2 / (4 * n * n)) ** 0.5
    own = found.gather(1, y[:, None]).squeeze(1).clamp_min(_LEAST_PROBABILITY)
    zeros = torch.nn.functional.one_hot(y, found.shape[1])
    return {
        "score": share,
        "interval": [max(middle - half, 0.0), min(middle + half, 1.0)],
        "log_loss": -float(own.log().mean()),
        "brier": float((found - zeros).square().sum(1).mean()),
    }


def difference(y: Tensor, one: Tensor, other: Tensor) -> list[float]:
    """Return the score of one less that of the other on the same rows, with its 95 % interval."""
    if one.ndim == 2:
        each = (one.argmax(1) == y).double() - (other.argmax(1) == y).double()
        middle = float(each.mean())
    else:
        errors = [(y - p).square() for p in (one, other)]
        roots = [_root(e) for e in errors]
        middle = roots[0] - roots[1]
        # To first order the difference of the roots is the mean of this over the rows.
        parts = [e / (2 * max(root, 1e-300)) for e, root in zip(errors, roots, strict=True)]
        each = parts[0] - parts[1]
    half = _NORMAL * float(each.std()) / len(y) ** 0.5 if len(y) > 1 else 0.0
    return [middle, middle - half, middle + half]


def reliability(y: Tensor, found: Tensor) -> dict[str, Any]:
    """Return how often the predicted class is right, by how probable it was said to be.

    Parameters
    ----------
    y : LongTensor of shape (n,)
        Classes.
    found : Tensor of shape (n, classes)
        Probabilities.

    Returns
    -------
    dict
        For each of ten bins that is not empty the mean probability, the share that is right and
        the number of rows; and the expected calibration error, the mean distance of the two.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017,
    arXiv 1706.04599.
    """
    sure, named = found.max(1)
    right = (named == y).double()
    place = (sure * _BINS).long().clamp(0, _BINS - 1)
    bins, error = [], 0.0
    for i in range(_BINS):
        inside = place == i
        count = int(inside.sum())
        if count:
            mean, share = float(sure[inside].mean()), float(right[inside].mean())
            bins.append({"confidence": mean, "right": share, "rows": count})
            error += count / len(y) * abs(mean - share)
    return {"bins": bins, "error": error}


def confusion(y: Tensor, found: Tensor) -> list[list[int]]:
    """Count rows by their class (rows) and their predicted class (columns)."""
    classes = found.shape[1]
    pairs = y * classes + found.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()
