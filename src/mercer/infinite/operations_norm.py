"""Normalisation and dropout in a wide network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .layout import Full, same_positions, second_axes
from .operation import Operation, Place, State, each


@final
@dataclass(frozen=True)
class Normalize(Operation):
    r"""Normalisation over channels, and perhaps positions: :math:`S' = S / (\sigma \sigma')`.

    Attributes
    ----------
    axes : tuple of int
        Position axes over which it normalises besides the channels.
    centre : bool
        Whether the mean is taken away first.
    eps : float
        What is added to the variance.
    trains_weight, trains_bias : bool
        Whether it has a factor and an offset that are trained.
    own_positions : bool
        Whether each position along `axes` has a factor and an offset of its own.
    """

    axes: tuple[int, ...]
    centre: bool
    eps: float
    trains_weight: bool
    trains_bias: bool
    own_positions: bool

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Divide, and add what its own parameters contribute."""
        ((s, t),) = states
        full = place.full
        (node,) = self.inputs
        found = place.means(node, full) if self.centre else None
        means = (None, None) if found is None else found
        scales = []
        for side, (q, mean) in enumerate(zip(place.variances(node, full), means, strict=True)):
            # Each side's positions lie along its own axes.
            axes = [second_axes(full)[a] if side else a for a in self.axes]
            if axes:
                q = q.mean(axes, keepdim=True)
                mean = None if mean is None else mean.mean(axes, keepdim=True)
            scales.append((q if mean is None else q - mean.square()).add(self.eps).rsqrt())
        one, two = means
        if one is not None and two is not None:
            if self.axes:  # the mean over positions too
                first, second = list(self.axes), [second_axes(full)[a] for a in self.axes]
                mu, nu = one.mean(first, keepdim=True), two.mean(second, keepdim=True)
                s = s - mu * two - one * nu + mu * nu
            else:
                s = s - one * two
        s = s * scales[0] * scales[1]
        t = None if t is None else t * scales[0] * scales[1]
        for trained, added in ((self.trains_weight, s), (self.trains_bias, torch.ones_like(s))):
            if trained:
                if self.own_positions:
                    added = same_positions(added, full, self.axes)
                t = added if t is None else t + added
        return s, t

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its input."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Means are gone where they are taken away at each position."""
        (mean,) = means
        if mean is None or (self.centre and not self.axes):
            return None
        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        if not self.axes:
            return mean * (q + self.eps).rsqrt()
        over = list(self.axes)
        middle = mean.mean(over, keepdim=True)
        scale = q.mean(over, keepdim=True)
        if not self.centre:
            return mean * (scale + self.eps).rsqrt()
        return (mean - middle) * (scale - middle.square() + self.eps).rsqrt()

    @property
    def cost(self) -> str:
        """A multiplication."""
        return "divided by both deviations"


@final
@dataclass(frozen=True)
class Dropout(Operation):
    """Channels dropped at random, in training: only an input's own variances grow.

    Attributes
    ----------
    rate : float
        Share of channels dropped.
    """

    rate: float

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Divide variances by the share that is kept."""
        if not place.same:
            return states[0]
        axes = range(len(self.positions))
        more = self.rate / (1 - self.rate)
        return each(states[0], lambda q: q + more * same_positions(q, place.full, axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Keep the means."""
        return means[0]

    @property
    def cost(self) -> str:
        """Nothing."""
        return "copied"
