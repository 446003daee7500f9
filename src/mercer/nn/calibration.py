"""Calibration inputs of a layer: one form for tensors and batches, and what passes over them."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .._core.checks import check_finite, check_last_dim, check_tensor
from ..features.base import FeatureMap
from ..linalg.streaming_ridge import RidgeSolution, StreamingRidge

_BLOCK_ROWS = 4096  # fixed: the same data give the same bits anywhere


class Calibration:
    """Inputs of a layer that can be passed over several times, in blocks of rows.

    Parameters
    ----------
    inputs : Tensor of shape (..., in_features), or iterable of such tensors
        The inputs. An iterator, which can be read only once, is kept in memory; any other
        iterable is read anew at each pass.
    in_features : int
        Length of an input vector.
    like : Tensor
        Blocks get its dtype and device.

    Raises
    ------
    TypeError
        If ``inputs`` is neither, or a batch is not a floating-point tensor.
    ValueError
        If a batch has another last axis or holds NaN or infinity, or there is no row at all.
    """

    def __init__(self, inputs: Tensor | Iterable[Tensor], in_features: int, like: Tensor) -> None:
        if not isinstance(inputs, Iterable) or isinstance(inputs, str | bytes | dict):
            raise TypeError(
                "calibrate: expected a tensor or an iterable of tensors, "
                f"got {type(inputs).__name__}"
            )
        if isinstance(inputs, Tensor):
            inputs = [inputs]
        self._batches = list(inputs) if isinstance(inputs, Iterator) else inputs
        self._in_features = in_features
        self._like = like

    def __iter__(self) -> Iterator[Tensor]:
        """Give blocks of shape (rows, in_features)."""
        rows = 0
        for batch in self._batches:
            check_last_dim("calibrate", check_tensor("calibrate", batch), self._in_features)
            check_finite("calibrate", batch)
            flat = batch.detach().reshape(-1, self._in_features)  # (n, d)
            rows += len(flat)
            for block in flat.split(_BLOCK_ROWS):
                if len(block):
                    yield block.to(self._like)
        if not rows:
            raise ValueError("calibrate: expected at least one input, got none")

    def mean(self, function: Callable[[Tensor], float]) -> float:
        """Mean over the rows of a number that ``function`` gives for each block."""
        total, rows = 0.0, 0
        for block in self:
            total += function(block) * len(block)
            rows += len(block)
        return total / rows


def median_norm(rows: Iterable[Tensor]) -> float:
    """Median Euclidean length of rows that come in blocks; 1 where it is zero."""
    lengths = torch.cat([block.double().norm(dim=-1) for block in rows])
    return float(lengths.median()) or 1.0


def second_moment(blocks: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of h h^T over the rows h of ``function(block)``, in float64."""
    total, rows = None, 0
    for block in blocks:
        h = function(block).double()  # (n, p)
        total = h.mT @ h if total is None else total.addmm_(h.mT, h)
        rows += len(h)
    assert total is not None  # a calibration has rows
    return total / rows


def fit_readout(
    features: FeatureMap,
    blocks: Iterable[Tensor],
    function: Callable[[Tensor], Tensor],
    *,
    affine: bool,
    ridge: float | str,
) -> RidgeSolution:
    """Fit ``function(x)`` by ridge regression on ``[features(x), x]``, or on the features alone.

    Parameters
    ----------
    features : FeatureMap
        The map phi.
    blocks : iterable of Tensor of shape (n, in_features)
        Inputs.
    function : callable
        From such a block to targets (n, out).
    affine : bool
        Whether the input stands beside the features.
    ridge : "gcv" or float
        See `StreamingRidge.solve`.

    Returns
    -------
    RidgeSolution
        Its weight has shape (out, num_features [+ in_features]), the features first.
    """
    moments: StreamingRidge | None = None
    for block in blocks:
        z, y = features(block), function(block)  # (n, m), (n, out)
        if affine:
            z = torch.cat([z, block], dim=-1)  # (n, m + d)
        if moments is None:
            moments = StreamingRidge(z.shape[-1], y.shape[-1], device=z.device)
        moments.update(z, y)
    assert moments is not None  # a calibration has rows
    return moments.solve(ridge)
