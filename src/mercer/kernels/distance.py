"""Squared and absolute distances between rows: exact where rows meet, twice differentiable."""

from typing import Any

import torch
from torch import Tensor


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the mean row of x from x and y, so that a common offset costs no digits."""
    if x.shape[-2] == 0:
        return x, y
    centre = x.detach().mean(-2, keepdim=True)  # (..., 1, d)
    return x - centre, y - centre


def snap_factor(dtype: torch.dtype) -> float:
    """Return the share of |x|^2 + |y|^2 under which a squared distance is rounding only."""
    return 16 * torch.finfo(dtype).eps


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared Euclidean distances :math:`|x_i|^2 + |y_j|^2 - 2 x_i \cdot y_j` of centred rows.

    Rows that agree to rounding have distance zero exactly, and the second derivatives there are
    those of the formula. The differentiable twin of the tiles in ``tiles.py``.

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
    lengths = xx + yy  # (..., n, m)
    s = lengths - 2 * (x @ y.mT)  # (..., n, m)
    # A value without its rounding, but with the derivatives of the formula.
    noise = snap_factor(s.dtype) * lengths.detach()
    snapped = torch.where(s.detach() <= noise, -s.detach(), 0.0)
    return s + snapped


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
    @torch.autograd.function.once_differentiable
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
    backward = staticmethod(_AbsoluteDistance.backward)


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
