"""Squared and absolute distances between rows: exact where rows meet, twice differentiable."""

from typing import Any

import torch
from torch import Tensor

_SAMPLE = 32  # rows that tell where the data lie


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract a typical row of x from x and y, so that a common offset costs no digits.

    It is the median of a few rows, coordinate by coordinate: a row of huge numbers or NaN must
    not reach the others.
    """
    n = x.shape[-2]
    if n == 0:
        return x, y
    few = x.detach()[..., :: max(1, n // _SAMPLE), :][..., : 2 * _SAMPLE, :]
    centre = few.nanmedian(-2, keepdim=True).values  # (..., 1, d)
    centre = centre.nan_to_num(0.0, 0.0, 0.0)
    return x - centre, y - centre


_MOST_DIMENSIONS = 32  # beyond which differences take longer than all that is done with them


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared Euclidean distances between rows, zero exactly where rows agree.

    The derivatives are those of :math:`|x_i|^2 + |y_j|^2 - 2 x_i \cdot y_j` on centred rows, of
    any order, at coincident rows too. The values are taken from differences, or in many
    dimensions from that formula, with what is rounding set to zero. The differentiable twin of
    the tiles in ``tiles.py``.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Rows.
    y : Tensor of shape (..., m, d)
        Rows.

    Returns
    -------
    Tensor of shape (..., n, m)
        The squared distances.
    """
    x, y = centred(x, y)
    xx = x.square().sum(-1).unsqueeze(-1)  # (..., n, 1)
    yy = y.square().sum(-1).unsqueeze(-2)  # (..., 1, m)
    s = xx + yy - 2 * (x @ y.mT)  # (..., n, m)
    formula = s.detach()
    if x.shape[-1] <= _MOST_DIMENSIONS:
        exact = differences(x.detach(), y.detach())
        # Where rows are out of range, so is the formula, and nothing is left to correct.
        return torch.where(torch.isfinite(formula), s + (exact - formula), exact)
    noise = 16 * torch.finfo(s.dtype).eps * (xx + yy).detach()
    return s - torch.where((formula <= noise) & torch.isfinite(noise), formula, 0.0)


def differences(x: Tensor, y: Tensor) -> Tensor:
    """Square and add the differences of rows (..., n, d) and (..., m, d), without derivatives."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def _sign_sum(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sum over j of ``g_ij sign(x_ik - y_jk)``, shape (..., n, d), one dimension at a time."""
    parts = [
        (g * (x[..., :, None, k] - y[..., None, :, k]).sign()).sum(-1) for k in range(x.shape[-1])
    ]
    return torch.stack(parts, -1)  # (..., n, d)


class _SignSum(torch.autograd.Function):
    """`_sign_sum`, linear in g, and constant in x and y off the kinks."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _sign_sum(g, x, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        total = torch.zeros((), dtype=u.dtype, device=u.device)
        for k in range(x.shape[-1]):
            signs = (x[..., :, None, k] - y[..., None, :, k]).sign()  # (..., n, m)
            total = total + u[..., :, None, k] * signs
        return total, None, None


class _AbsoluteDistance(torch.autograd.Function):
    """Sum of absolute differences; its derivative at a kink is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, p=1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return _SignSum.apply(g, x, y), _SignSum.apply(g.mT, y, x)  # type: ignore[return-value]

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None) -> Tensor:
        x, y = ctx.saved_tensors
        total = x.new_zeros(())
        for k in range(x.shape[-1]):
            signs = (x[..., :, None, k] - y[..., None, :, k]).sign()  # (..., n, m)
            if dx is not None:
                total = total + signs * dx[..., :, None, k]
            if dy is not None:
                total = total - signs * dy[..., None, :, k]
        return total


class _CompiledAbsoluteDistance(torch.autograd.Function):
    """`_AbsoluteDistance` for the compiler, which refuses a forward-mode derivative."""

    forward = staticmethod(_AbsoluteDistance.forward)
    setup_context = staticmethod(_AbsoluteDistance.setup_context)
    backward = staticmethod(_AbsoluteDistance.backward)  # pyright: ignore


def absolute_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Sum absolute differences, :math:`\sum_k |x_{ik} - y_{jk}|`.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Rows.
    y : Tensor of shape (..., m, d)
        Rows.

    Returns
    -------
    Tensor of shape (..., n, m)
        The distances.
    """
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = x.expand(*lead, *x.shape[-2:]), y.expand(*lead, *y.shape[-2:])
    compiling = torch.compiler.is_compiling()
    distance = _CompiledAbsoluteDistance if compiling else _AbsoluteDistance
    return distance.apply(x, y)  # type: ignore[return-value]
