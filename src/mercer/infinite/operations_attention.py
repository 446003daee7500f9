"""Self-attention in a wide network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .layout import Full, restrict
from .operation import Operation, Place, State, each


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
    fan_in, width : int
        Channels of the tokens and of the values.
    trains_value, trains_out, trains_bias : bool
        Whether these parameters are trained; the keys' tangents vanish.
    """

    layers: tuple[int, int, int]
    softmax: bool
    bias: bool
    fan_in: int
    width: int
    trains_value: bool = True
    trains_out: bool = True
    trains_bias: bool = True

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Mix positions of each input by its own weights."""
        ((s, t),) = states
        (node,) = self.inputs
        k2, ov2, b2, own, one = place.attention(self)
        p = len(self.positions)
        count = math.prod(self.positions)
        (full,) = self.wants(place.full)
        weights = []
        for covariance in place.selves(node):  # (*positions, *positions, ..., n)
            scores = k2 * covariance.reshape(count, count, *covariance.shape[2 * p :])
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
            return q.reshape(*self.positions * 2, *q.shape[2:])

        between = mixed(s)
        new = ov2 * between + b2 if self.bias else ov2 * between
        tangent = None if t is None else ov2 * mixed(t)
        if self.trains_value or self.trains_out:
            tangent = own * between if tangent is None else tangent + own * between
        if self.bias and self.trains_bias:
            ones = torch.ones_like(new) * one
            tangent = ones if tangent is None else tangent + ones
        return each((new, tangent), lambda q: restrict(q, full, place.full))

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
