"""The border of statistics of samples: points as float64 tensors, and a kernel between them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.checks import check_finite
from ..kernels import Gram, Kernel, Precomputed
from .kernel_input import fit_kernel


def check_points(name: str, x: Any, *, least: int = 2) -> Tensor:
    """Return a sample as points (n, d) in float64; a vector (n,) as one column.

    Raises
    ------
    TypeError
        If the numbers are not real.
    ValueError
        If there are too few, shapes are wrong, or a number is not finite.
    """
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
        x = torch.from_numpy(array.astype(np.float64))
    if x.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {x.dtype}")
    points = x.double()
    if points.ndim == 1:
        points = points.unsqueeze(-1)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (n, d) or (n,), got {tuple(x.shape)}")
    if len(points) < least:
        raise ValueError(f"{name}: expected at least {least} points, got shape {tuple(x.shape)}")
    check_finite(name, points)
    return points


def check_point_weights(name: str, weights: Any, points: Tensor) -> Tensor:
    """Return weights of points (n,), which sum to one; equal ones for None."""
    n = len(points)
    if weights is None:
        return points.new_full((n,), 1 / n)
    found = torch.as_tensor(weights, dtype=torch.float64, device=points.device)
    if found.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), got {tuple(found.shape)}")
    check_finite(name, found)
    total = float(found.detach().sum())
    if float(found.detach().min()) < 0 or total <= 0:
        raise ValueError(
            f"{name}: expected numbers of at least 0, not all zero, got "
            f"{float(found.min()):.3g} to {float(found.max()):.3g}"
        )
    return found / found.sum()


def sample_kernel(name: str, kernel: Any, points: Tensor) -> Kernel:
    """Return a frozen copy of a kernel, set from points in a way blind to their order.

    A permutation test needs that: a lengthscale that told the samples apart would break it.
    """
    if isinstance(kernel, str) and kernel == "precomputed":
        raise ValueError(f"{name}: expected a kernel of points here, got 'precomputed'")
    return fit_kernel(kernel, points.detach().unique(dim=0)).to(points.device)


def sample_gram(name: str, points: Tensor, kernel: Any) -> Gram:
    """Return the kernel matrix of a sample, or the one that was given as its points."""
    if isinstance(kernel, str) and kernel == "precomputed":
        if points.shape[0] != points.shape[1]:
            raise ValueError(
                f"{name}: expected a square kernel matrix for 'precomputed', "
                f"got shape {tuple(points.shape)}"
            )
        items = torch.arange(len(points), dtype=points.dtype, device=points.device)
        return Precomputed(points).gram(items)
    return sample_kernel(name, kernel, points).gram(points)


def as_statistic(value: Tensor, x: Any) -> Any:
    """Return a statistic as a tensor for tensors, else as a number."""
    return value if isinstance(x, Tensor) else float(value)
