"""Features of many rows, written block by block while a block is in cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._core.config import require_memory
from .._core.precision import is_plain
from .._core.workers import in_order
from ..kernels.dense import empty_matrix

_ENTRIES = 2**18  # of a block: two megabytes in float64
_SMALL = 2**16  # features under which blocks cost more than they save


def can_block(x: Tensor, num_features: int, *stored: Tensor) -> bool:
    """Whether features may be written in place: many of them, and nothing is differentiated."""
    return (
        is_plain(x, *stored)
        and not (torch.is_grad_enabled() and x.requires_grad)
        and x.numel() // max(x.shape[-1], 1) * num_features > _SMALL
    )


@torch.no_grad()
def map_blocks(
    x: Tensor, num_features: int, dtype: torch.dtype, write: Callable[[Tensor, Tensor], None]
) -> Tensor:
    """Fill a matrix of features from blocks of rows.

    Parameters
    ----------
    x : Tensor of shape (..., d)
        Inputs, in the dtype to compute in.
    num_features : int
        Columns of the result.
    dtype : torch.dtype
        Of the result.
    write : callable
        From rows (r, d) and a tensor (r, num_features), which it fills, in the dtype of x. Blocks
        are shared out over threads.

    Returns
    -------
    Tensor of shape (..., num_features)
        The features.
    """
    rows = x.flatten(0, -2)  # (n, d)
    count = len(rows)
    require_memory(
        count * num_features * dtype.itemsize,
        f"a feature matrix of shape ({count}, {num_features}) in {dtype}",
        "map the rows in batches",
    )
    out = empty_matrix(count, num_features, rows if rows.dtype == dtype else rows.to(dtype)[:0])
    step = max(8, _ENTRIES // num_features)
    if x.device.type != "cpu":
        step = max(step, 2**26 // num_features)  # launches cost more than the cache gives

    def block(start: int, check: Callable[[], None]) -> None:
        part, target = rows[start : start + step], out[start : start + step]
        if rows.dtype == dtype:
            write(part, target)
        else:
            wide = part.new_empty(target.shape)
            write(part, wide)
            target.copy_(wide)

    for _ in in_order(range(0, count, step), block, x.device):
        pass
    return out.unflatten(0, x.shape[:-1])


def write_waves(phases: Tensor, amplitude: Tensor, out: Tensor) -> None:
    """Fill a block with cosines and sines side by side, times amplitudes.

    Parameters
    ----------
    phases : Tensor of shape (r, n)
        The phases.
    amplitude : Tensor of shape (2n,)
        What each column is multiplied with.
    out : Tensor of shape (r, 2n)
        The block.
    """
    half = phases.shape[-1]
    if phases.device.type == "cpu" and phases.dtype == torch.float32:
        import numpy as np  # its waves of single precision take half the time of torch's

        waves = out.numpy()
        with np.errstate(invalid="ignore"):  # infinite inputs become NaN, as they do in torch
            np.cos(phases.numpy(), out=waves[:, :half])
            np.sin(phases.numpy(), out=waves[:, half:])
    else:
        torch.cos(phases, out=out[:, :half])
        torch.sin(phases, out=out[:, half:])
    out.mul_(amplitude)
