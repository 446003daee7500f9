"""Matrices of a kernel of training and of the prior beside it, in float64, with checks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor
from .._core.config import require_memory
from ..kernels import Kernel

Times = float | Sequence[float] | Tensor


def check_kernel(name: str, kernel: object) -> Kernel:
    """Return a kernel, or raise."""
    if not isinstance(kernel, Kernel):
        raise TypeError(
            f"{name}: expected a mercer Kernel such as NTK(module), got {type(kernel).__name__}"
        )
    return kernel


def prior_of(kernel: Kernel, prior: Kernel | None) -> tuple[Kernel, bool]:
    """Choose the kernel of the untrained outputs: the one given, the NTK's own, or the same.

    The flag says whether both come from one call, ``kernel.both``.
    """
    if prior is not None:
        return check_kernel("prior", prior), False
    nngp = getattr(kernel, "nngp", None)
    if isinstance(nngp, Kernel):
        return nngp, hasattr(kernel, "both")
    return kernel, False


def check_points(name: str, x: Tensor, kernel: Kernel) -> Tensor:
    """Return points (n, *event) that the kernel takes, at least one."""
    check_tensor(name, x, ndim=kernel.event_ndim + 1)
    if len(x) == 0:
        raise ValueError(f"{name}: expected at least one point, got shape {tuple(x.shape)}")
    check_finite(name, x)
    return x


def check_targets(name: str, y: Tensor, count: int, outputs: int | None = None) -> Tensor:
    """Return targets as (n, outputs) in float64."""
    check_tensor(name, y)
    many = 1 if outputs is None else outputs
    if (
        y.ndim not in (1, 2)
        or len(y) != count
        or (y.ndim == 2 and outputs not in (None, y.shape[1]))
    ):
        expected = f"({count},)" if many == 1 else f"({count}, {many})"
        expected += f" or ({count}, outputs)" if outputs is None else ""
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(y.shape)}")
    if y.ndim == 1 and many > 1:
        raise ValueError(f"{name}: expected shape ({count}, {many}), got {tuple(y.shape)}")
    check_finite(name, y)
    return y.detach().double().reshape(count, -1)


def check_times(times: Times, *, whole: bool, infinite: bool = True) -> tuple[Tensor, bool]:
    """Return times as (T,) in float64, and whether a single one came."""
    known = isinstance(times, int | float | Sequence | Tensor) or hasattr(times, "__array__")
    if isinstance(times, bool | str) or not known:
        raise TypeError(f"t: expected a number, a sequence or a tensor, got {type(times).__name__}")
    found = torch.as_tensor(times, dtype=torch.float64, device="cpu").detach()
    if found.ndim > 1 or found.numel() == 0:
        raise ValueError(f"t: expected a number or (T,) of them, got shape {tuple(found.shape)}")
    kinds = "numbers of steps" if whole else "times"
    if bool(found.isnan().any()) or float(found.min()) < 0:
        raise ValueError(f"t: expected {kinds} of at least 0, got {found.min().item():g}")
    if not infinite and bool(found.isinf().any()):
        raise ValueError(f"t: expected finite {kinds}, got infinity")
    broken = found[found.isfinite() & (found != found.round())]
    if whole and len(broken):
        bad = broken[0].item()
        raise ValueError(f"t: expected whole numbers of steps, got {bad:g}")
    return found.reshape(-1), found.ndim == 0


def both(
    kernel: Kernel, prior: Kernel, together: bool, x: Tensor, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Evaluate the kernel of training T and the prior S between rows, in float64."""
    n, m = len(x), len(x if y is None else y)
    what = f"two kernel matrices of shape {(n, m)} in float64"
    require_memory(8 * 2 * n * m, what, "use fewer points")
    x, y = x.detach().double(), None if y is None else y.detach().double()
    if prior is kernel:
        matrix = kernel(x, y)
        pair = matrix, matrix
    elif together:
        wide: Any = kernel
        nngp, ntk = wide.both(x, y)  # one pass for the two
        pair = ntk, nngp
    else:
        pair = kernel(x, y), prior(x, y)
    for name, matrix in zip(("kernel", "prior"), pair, strict=True):
        if not math.isfinite(float(matrix.sum())):
            check_finite(name, matrix)
    return pair
