"""Layers with weights, sums, products and concatenations: what is done to channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from .layout import Full
from .operation import Operation, Place, State


@final
@dataclass(frozen=True)
class Affine(Operation):
    r"""Random weights between channels: :math:`S' = \sigma_w^2 S + \sigma_b^2`.

    The tangents gain what its own weights and biases add: :math:`T' = \sigma_w^2 T + S'` in the
    NTK parametrization, :math:`T' = \sigma_w^2 T + n S + 1` in the standard one.

    Attributes
    ----------
    layer : int
        Its number among the layers with weights.
    fan_in : int
        Weights a channel of the output has: input channels times kernel positions.
    bias : bool
        Whether it has biases.
    trains_weight, trains_bias : bool
        Whether they are trained.
    torch_weight, torch_bias : float
        Variances at PyTorch's default initialisation; the weights' times fan_in.
    """

    layer: int
    fan_in: int
    bias: bool
    trains_weight: bool
    trains_bias: bool
    torch_weight: float
    torch_bias: float

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Scale, and add what the layer's own parameters contribute."""
        ((s, t),) = states
        w2, b2, own = place.affine(self)
        new = w2 * s
        tangent = None if t is None else w2 * t
        if self.trains_weight:
            added = own * s
            tangent = added if tangent is None else tangent + added
        if self.bias:
            new = new + b2
            if self.trains_bias:
                one = torch.ones_like(s) * (b2 if own is w2 else 1.0)
                tangent = one if tangent is None else tangent + one
        return new, tangent

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Weights have mean zero."""
        return None

    @property
    def cost(self) -> str:
        """A multiplication and an addition."""
        return "scaled"


def _weighted(weights: Sequence[float], states: Sequence[State]) -> State:
    """Add covariances with weights."""
    values = [w * s for w, (s, _) in zip(weights, states, strict=True)]
    tangents = [w * t for w, (_, t) in zip(weights, states, strict=True) if t is not None]
    return sum(values[1:], values[0]), sum(tangents[1:], tangents[0]) if tangents else None


@final
@dataclass(frozen=True)
class Sum(Operation):
    """A sum of independent signals with factors, and a constant.

    Attributes
    ----------
    factors : tuple of float
        One for each input.
    shift : float
        The constant.
    """

    factors: tuple[float, ...]
    shift: float = 0.0

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Add covariances; means bring products of different terms."""
        squares = [factor**2 for factor in self.factors]
        total, tangent = _weighted(squares, states)
        if self.shift or len(self.inputs) > 1:
            rows: Any = self.shift
            columns: Any = self.shift
            for node, factor in zip(self.inputs, self.factors, strict=True):
                means = place.means(node, place.full)
                if means is None:
                    continue
                one, two = factor * means[0], factor * means[1]
                if not isinstance(rows, float) or rows:
                    total = total + rows * two + one * columns
                rows, columns = rows + one, columns + two
            total = total + self.shift**2
        return total, tangent

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,) * len(self.inputs)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its first input, for their shape, where there is a constant."""
        return self.inputs[:1] if self.shift else ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Add the means."""
        total: Any = self.shift
        for factor, mean in zip(self.factors, means, strict=True):
            if mean is not None:
                total = total + factor * mean
        if isinstance(total, Tensor) or not total:
            return total if isinstance(total, Tensor) else None
        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        return torch.full_like(q, total)

    @property
    def cost(self) -> str:
        """Additions."""
        return "added with factors"


@final
@dataclass(frozen=True)
class Product(Operation):
    """A product of two independent signals, channel by channel."""

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Multiply covariances; tangents by the product rule."""
        (s1, t1), (s2, t2) = states
        parts = [t * s for t, s in ((t1, s2), (t2, s1)) if t is not None]
        return s1 * s2, (parts[0] if len(parts) == 1 else parts[0] + parts[1]) if parts else None

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full, full)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Multiply the means."""
        one, two = means
        return None if one is None or two is None else one * two

    @property
    def cost(self) -> str:
        """Multiplications."""
        return "multiplied"


@final
@dataclass(frozen=True)
class Concatenate(Operation):
    """Channels beside channels: means weighted by widths.

    Attributes
    ----------
    widths : tuple of int
        Channels of each input.
    """

    widths: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Take the weighted mean."""
        return _weighted([w / sum(self.widths) for w in self.widths], states)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,) * len(self.inputs)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the weighted mean."""
        shares = [w / sum(self.widths) for w in self.widths]
        parts = [s * m for s, m in zip(shares, means, strict=True) if m is not None]
        return sum(parts[1:], parts[0]) if parts else None

    @property
    def cost(self) -> str:
        """Additions."""
        return "averaged"
