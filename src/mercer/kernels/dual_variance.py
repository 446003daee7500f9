"""Means over one centred normal variable as functions of its variance."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .dual_mesh import panel_nodes
from .dual_quadrature import density, diagonal_edges, reach_for

_LEAST = 1e-6  # variance below which a difference stands for the derivative
_MOST_NODES = 2**21

Edges = Callable[[float], Sequence[float]]


def _mean(function: Callable[[Tensor], Tensor], edges_of: Edges, q: Tensor, order: int):
    """Differentiate ``E[F(sqrt(q) Z)]`` by q, ``order`` times, in double precision."""
    flat = q.detach().double().clamp(min=_LEAST if order else 0.0).flatten()
    spread, back = flat.sqrt().unique(return_inverse=True)
    edges = edges_of(reach_for(float(spread.amax()))) if len(spread) else ()
    parts = []
    for part in spread.split(max(1, _MOST_NODES // (24 * (33 + len(edges))))):
        z, w = panel_nodes(diagonal_edges(edges, part, 16.0, 33))  # (b, nodes)
        # By parts twice for each order: He_2k(Z) / (2 q)^k
        before, here = torch.zeros_like(z), torch.ones_like(z)
        for n in range(2 * order):
            before, here = here, z * here - n * before
        values = function(part.unsqueeze(-1) * z) * here
        parts.append((values * density(z) * w).sum(-1))
    found = torch.cat(parts) if parts else spread
    found = found / (2 * spread.square()) ** order
    return found[back].reshape(q.shape).to(q.dtype)


class _Mean(torch.autograd.Function):
    """`_mean` with its derivatives."""

    @staticmethod
    def forward(function: Any, edges: Any, order: int, q: Tensor) -> Tensor:
        return _mean(function, edges, q, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule = inputs[:3]
        ctx.save_for_backward(inputs[3])
        ctx.save_for_forward(inputs[3])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        function, edges, order = ctx.rule
        return (
            None,
            None,
            None,
            grads[0] * _Mean.apply(function, edges, order + 1, *ctx.saved_tensors),
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        function, edges, order = ctx.rule
        return tangents[3] * _Mean.apply(function, edges, order + 1, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Any, edges: Any, order: int, q: Tensor) -> Any:
        return _Mean.apply(function, edges, order, q), in_dims[3]


def variance_mean(function: Callable[[Tensor], Tensor], edges_of: Edges, q: Tensor) -> Tensor:
    """``E[F(sqrt(q) Z)]`` for variances of any shape, from F's edges up to a reach."""
    return _Mean.apply(function, edges_of, 0, q)  # pyright: ignore[reportReturnType]
