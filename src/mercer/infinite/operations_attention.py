"""Self-attention in a wide network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .layout import Full, restrict
from .operation import Operation, Place, State


@final
@dataclass(frozen=True)
class Attention(Operation):
    r"""Self-attention with tied queries and keys, scores divided by the key's width.

    The weights of positions :math:`G = \zeta(\sigma_k^2 S_{xx})` become deterministic, so that
    :math:`S' = \sigma_{ov}^2 G_x S G_{x'}^T + \sigma_b^2`.

    Attributes
    ----------
    layers : tuple of int
        Numbers of the layers of keys, values and outputs.
    softmax : bool
        Whether scores go through a softmax; else they are the weights.
    bias : bool
        Whether the output has biases.
    """

    layers: tuple[int, int, int]
    softmax: bool
    bias: bool

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Mix positions of each input by its own weights."""
        ((s, t),) = states
        (node,) = self.inputs
        k2, ov2, b2 = place.attention(self)
        p = len(self.positions)
        count = math.prod(self.positions)
        (full,) = self.wants(place.full)
        weights = []
        for own in place.selves(node):  # (*positions, *positions, ..., n)
            scores = k2 * own.reshape(count, count, *own.shape[2 * p :])
            weights.append(scores.softmax(1) if self.softmax else scores)
        left, right = weights  # (p, p, ..., n), (p, p, ..., m)

        def mixed(q: Tensor) -> Tensor:
            q = q.reshape(count, count, *q.shape[2 * p :])
            if place.same:
                q = torch.einsum("ab...,bc...->ac...", left, q)
                q = torch.einsum("ac...,dc...->ad...", q, right)
            else:
                q = torch.einsum("ab...,bc...->ac...", left.unsqueeze(-1), q)
                q = torch.einsum("ac...,dc...->ad...", q, right.unsqueeze(-2))
            return ov2 * q.reshape(*self.positions * 2, *q.shape[2:])

        new = mixed(s)
        bias = b2 if self.bias else 0.0
        tangent = 2 * new + bias if t is None else mixed(t) + 2 * new + bias
        new = new + bias
        return restrict(new, full, place.full), restrict(tangent, full, place.full)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions."""
        return ((True,) * len(full),)

    def wants_self(self) -> tuple[int, ...]:
        """Take the covariances of its input's positions."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Weights have mean zero."""
        return None

    @property
    def cost(self) -> str:
        """Two products of matrices of positions."""
        p = math.prod(self.positions)
        return f"two products of {p} x {p} matrices"
