"""Kernels of dense networks by their recursion, written once more, beside Mercer's own."""

import torch
from torch import Tensor

from mercer.kernels import dual


def dense_kernels(
    activation: object,
    depth: int,
    x: Tensor,
    y: Tensor,
    *,
    w_std: float,
    b_std: float,
    fan_ins: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """NNGP and NTK of `depth` hidden layers; with widths of inputs, in standard parametrization."""
    rule, w2, b2 = dual(activation), w_std**2, b_std**2  # pyright: ignore[reportArgumentType]

    def affine(s: Tensor, t: Tensor | float, layer: int) -> tuple[Tensor, Tensor]:
        after = w2 * s + b2
        own = after if fan_ins is None else fan_ins[layer] * s + 1.0
        return after, own + w2 * t

    d = x.shape[-1]
    s, t = affine(x @ y.mT / d, 0.0, 0)
    p, q = (w2 * z.square().sum(-1) / d + b2 for z in (x, y))
    for layer in range(depth):
        k, slope = rule(p.unsqueeze(-1), q.unsqueeze(-2), s)
        same = (x.unsqueeze(-2) == y.unsqueeze(-3)).all(-1)
        exact = (z.unsqueeze(-1).expand_as(s) for z in rule.diagonal(p))
        k, slope = (torch.where(same, e, z) for e, z in zip(exact, (k, slope), strict=True))
        s, t = affine(k, slope * t, layer + 1)
        p, q = (w2 * rule.diagonal(z)[0] + b2 for z in (p, q))
    return s, t
