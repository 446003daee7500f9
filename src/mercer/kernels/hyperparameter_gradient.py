"""A kernel matrix differentiated with respect to hyperparameters, against a matrix of weights.

The gradient of a log-determinant is a sum over all entries of the matrix. It is taken tile by
tile, so that no matrix of derivatives is ever built, and where a kernel depends on the points
through scaled distances alone, by two matrix products for all lengthscales together.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core.precision import full_precision
from .._core.workers import in_order
from .base import Kernel
from .composition import Product, Scaled, Sum
from .constant import White
from .dense import own_copy, tile_side
from .matern import Matern
from .stationary import Radial
from .tiles import SquaredDistances

Weights = Callable[[slice, slice], Tensor]


@torch.no_grad()
def hyperparameter_gradient(
    kernel: Kernel, x: Tensor, weights: Weights, y: Tensor | None = None
) -> dict[str, Tensor]:
    r"""Differentiate a weighted sum of the entries of a kernel matrix.

    .. math:: g_p = \sum_{ij} W_{ij} \frac{\partial k(x_i, y_j)}{\partial \theta_p}

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    x : Tensor of shape (n, *event)
        Points of the rows, float64.
    weights : callable
        ``weights(rows, columns)`` gives a tile of the matrix W; without y this is symmetric, and
        tiles on or above its diagonal are asked for. The tile is the caller's no more.
    y : Tensor of shape (m, *event), optional
        Points of the columns; without them those of the rows.

    Returns
    -------
    dict of str to Tensor
        The gradient, by the name of each parameter of the kernel.
    """
    side = tile_side(kernel, x)
    edges = _edges(len(x), side)
    if y is None:
        jobs = [(rows, columns) for i, rows in enumerate(edges) for columns in edges[i:]]
    else:
        jobs = [(rows, columns) for rows in edges for columns in _edges(len(y), side)]
    # Once for all threads, which only read it: rows scaled and centred.
    distances = []
    for part in _radial(kernel):
        a = part._scale(x)
        distances.append(SquaredDistances(a, a if y is None else part._scale(y)))

    def work(job: int, check: Callable[[], None]) -> dict[str, Tensor]:
        check()
        rows, columns = jobs[job]
        tile = weights(rows, columns)
        a = x[rows]
        with full_precision(x):
            if y is not None:
                return _tile_gradient(kernel, a, y[columns], distances, rows, columns, tile)
            if rows != columns:
                tile = tile.mul_(2.0)
                return _tile_gradient(kernel, a, x[columns], distances, rows, columns, tile)
            diagonal = tile.diagonal().clone()
            tile = tile.triu_(1).mul_(2.0)
            total = _tile_gradient(kernel, a, a, distances, rows, columns, tile)
            for name, part in diagonal_gradient(kernel, a, diagonal).items():
                total[name] += part
            return total

    total = {name: torch.zeros_like(p, dtype=x.dtype) for name, p in kernel.named_parameters()}
    for found in in_order(range(len(jobs)), work, x.device):
        for name, part in found.items():
            total[name] += part
    return total


def _edges(n: int, side: int) -> list[slice]:
    return [slice(i, min(i + side, n)) for i in range(0, n, side)]


def _radial(kernel: Kernel) -> list[Radial]:
    """Return what in a sum or product depends on scaled distances, in the order of evaluation."""
    if isinstance(kernel, Radial):
        return [kernel]
    if isinstance(kernel, Sum | Product):
        return _radial(kernel.left) + _radial(kernel.right)
    return _radial(kernel.kernel) if isinstance(kernel, Scaled) else []


def _evaluate(kernel: Kernel, x: Tensor, y: Tensor, squares: list[Tensor]) -> Tensor:
    """Evaluate the formula, with the squared scaled distances of what is radial given."""
    if isinstance(kernel, Matern):
        return _MaternOnce.apply(squares.pop(0), kernel.nu)  # type: ignore[return-value]
    if isinstance(kernel, Radial):
        return kernel.profile(squares.pop(0))
    if isinstance(kernel, Sum) and isinstance(kernel.right, White):  # zero off the diagonal
        return _evaluate(kernel.left, x, y, squares)
    if isinstance(kernel, Sum | Product):
        left = _evaluate(kernel.left, x, y, squares)
        right = _evaluate(kernel.right, x, y, squares)
        return left + right if isinstance(kernel, Sum) else left * right
    if isinstance(kernel, Scaled):
        return kernel.scale.to(x.dtype) * _evaluate(kernel.kernel, x, y, squares)
    return kernel._evaluate(x, y)


class _MaternOnce(torch.autograd.Function):
    """The Matern profile with its slope from one exponential; differentiated once only."""

    @staticmethod
    def forward(ctx: Any, square: Tensor, nu: float) -> Tensor:
        a = (2 * nu * square).sqrt_()
        decay = torch.exp(-a)
        if nu == 0.5:  # at a kink the slope is taken as zero
            ctx.save_for_backward((decay / a).mul_(-0.5).masked_fill_(a == 0, 0.0))
            return decay
        if nu == 1.5:
            ctx.save_for_backward(decay * -1.5)
            return a.add_(1).mul_(decay)
        ctx.save_for_backward((a + 1).mul_(decay).mul_(-5 / 6))
        return (a * a).div_(3).add_(a).add_(1).mul_(decay)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        (slope,) = ctx.saved_tensors
        return slope.mul_(g), None


def _tracked(kernel: Kernel) -> tuple[Kernel, dict[str, Tensor]]:
    """Copy a kernel for one thread, with parameters that record what is done with them."""
    twin = own_copy(kernel)
    for module in twin.modules():
        for name, value in module._parameters.items():
            if value is not None and not value.requires_grad:
                module._parameters[name] = torch.nn.Parameter(value.detach())
    return twin, dict(twin.named_parameters())


def _tile_gradient(
    kernel: Kernel,
    a: Tensor,
    b: Tensor,
    distances: list[SquaredDistances],
    rows: slice,
    columns: slice,
    weight: Tensor,
) -> dict[str, Tensor]:
    """Differentiate one tile: radial parts by their distances, the rest by autograd."""
    twin, named = _tracked(kernel)
    squares = []
    for each in distances:
        square = torch.empty_like(weight)
        each.fill(rows, columns, square)
        squares.append(square.requires_grad_())
    with torch.enable_grad():
        k = _evaluate(twin, a, b, squares.copy())
    inputs = [*squares, *named.values()]
    if not k.requires_grad:
        return {name: torch.zeros_like(p, dtype=a.dtype) for name, p in named.items()}
    found = torch.autograd.grad(k, inputs, weight.expand_as(k), allow_unused=True)
    slopes, rest = found[: len(squares)], found[len(squares) :]
    total = {
        name: torch.zeros_like(p, dtype=a.dtype) if g is None else g.to(a.dtype)
        for (name, p), g in zip(named.items(), rest, strict=True)
    }
    names = {id(p): name for name, p in named.items()}
    parts = zip(_radial(twin), distances, squares, slopes, strict=True)
    for part, each, square, slope in parts:
        if slope is not None:
            raw = part.raw_lengthscale
            total[names[id(raw)]] += _by_lengthscale(raw, each, square, slope, rows, columns)
    return total


def _by_lengthscale(
    raw: Tensor,
    distances: SquaredDistances,
    square: Tensor,
    slope: Tensor,
    rows: slice,
    columns: slice,
) -> Tensor:
    r"""Sum V ds / d log l over a tile, where :math:`s_{ij} = \sum_k (x_{ik} - x_{jk})^2 / l_k^2`.

    With the rows scaled, each dimension's share is :math:`\sum_{ij} V_{ij} (a_{ik} - b_{jk})^2`,
    which sums over rows and columns of V and one product with it give.
    """
    if raw.numel() == 1:
        return -2.0 * (slope * square.detach()).sum().reshape(raw.shape)
    a, b = distances.x[rows], distances.y[columns]  # (r, d), (c, d)
    own = slope.sum(1) @ a.square() + slope.sum(0) @ b.square()  # (d,)
    return -2.0 * (own - 2.0 * (a * (slope @ b)).sum(0))


@torch.no_grad()
def diagonal_gradient(kernel: Kernel, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Differentiate the sum of k(x_i, x_i) with weights (n,), by the parameters that matter."""
    twin, named = _tracked(kernel)
    with torch.enable_grad():
        values = twin._diagonal(x)
    if not values.requires_grad:
        return {}
    found = torch.autograd.grad(values, list(named.values()), weight, allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}
