"""Convolution, pooling, padding and reshapes: what is done to positions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from .layout import Full, both_axes, mix, pick, restrict, same_positions, second_axes, take
from .operation import Operation, Place, State, each


@final
@dataclass(frozen=True)
class Window(Operation):
    """The mean over a window that moves in both inputs alike: what a convolution does.

    Attributes
    ----------
    size, stride, dilation : tuple of int
        One for each position axis.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Add shifted copies, axis by axis."""
        return each(states[0], lambda q: self._mean(q, place.full))

    def _mean(self, q: Tensor, full: Full) -> Tensor:
        for axis, out in enumerate(self.positions):
            size, stride, dilation = self.size[axis], self.stride[axis], self.dilation[axis]
            axes = both_axes(axis, full)
            if size == 1 and stride == 1:
                continue
            stop = stride * (out - 1) + 1
            parts = [
                take(q, axes, slice(j * dilation, j * dilation + stop, stride)) for j in range(size)
            ]
            q = sum(parts[1:], parts[0])
        return q / math.prod(self.size)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the means; its channels are all positions of the window."""
        (mean,) = means
        return None if mean is None else self._mean(mean, (False,) * len(self.positions))

    @property
    def cost(self) -> str:
        """Additions for each axis of the window."""
        return f"window of {' x '.join(map(str, self.size))}"


@final
@dataclass(frozen=True)
class Select(Operation):
    """Positions picked, repeated or left out along one axis; -1 stands for zeros (padding).

    Attributes
    ----------
    axis : int
        The position axis.
    index : tuple of int
        Which positions.
    drop : bool
        Whether the axis, of one position, is dropped.
    """

    axis: int
    index: tuple[int, ...]
    drop: bool = False

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Pick from both inputs alike."""
        (full,) = self.wants(place.full)
        return each(states[0], lambda q: self._pick(q, full))

    def _pick(self, q: Tensor, full: Full) -> Tensor:
        axes = both_axes(self.axis, full)
        for axis in axes:
            q = pick(q, axis, self.index)
        for axis in reversed(axes) if self.drop else ():
            q = q.squeeze(axis)
        return q

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout; a dropped axis as a diagonal one."""
        return ((*full[: self.axis], False, *full[self.axis :]) if self.drop else full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Pick the means."""
        (mean,) = means
        k = len(self.positions) + self.drop
        return None if mean is None else self._pick(mean, (False,) * k)

    @property
    def cost(self) -> str:
        """A copy."""
        return "picked"


@final
@dataclass(frozen=True)
class Mix(Operation):
    """Positions of one axis mixed by a matrix, in each input on its own: pooling.

    Attributes
    ----------
    axis : int
        The position axis.
    matrix : tuple of tuple of float
        Rows for the positions of the output, columns for those of the input.
    drop : bool
        Whether the axis, of one position, is dropped.
    """

    axis: int
    matrix: tuple[tuple[float, ...], ...]
    drop: bool = False

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Multiply both axes by the matrix."""
        (full,) = self.wants(place.full)
        kept = (
            (*place.full[: self.axis], False, *place.full[self.axis :]) if self.drop else place.full
        )
        return each(states[0], lambda q: self._mix(q, full, kept))

    def _mix(self, q: Tensor, full: Full, kept: Full) -> Tensor:
        for axis in both_axes(self.axis, full):
            q = mix(q, axis, self.matrix)
        q = restrict(q, full, kept)
        return q.squeeze(self.axis) if self.drop else q

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions along the axis."""
        rest = full[self.axis :] if self.drop else full[self.axis + 1 :]
        return ((*full[: self.axis], True, *rest),)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Mix the means."""
        (mean,) = means
        if mean is None:
            return None
        mean = mix(mean, self.axis, self.matrix)
        return mean.squeeze(self.axis) if self.drop else mean

    @property
    def cost(self) -> str:
        """All pairs of positions along the axis."""
        return f"{len(self.matrix[0])} x {len(self.matrix[0])} pairs pooled"


@final
@dataclass(frozen=True)
class Flatten(Operation):
    """Position axes that become part of the channels: the mean over the same positions.

    Attributes
    ----------
    axes : tuple of int
        Which position axes.
    """

    axes: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Take the mean over the axes."""
        return each(states[0], lambda q: q.mean(self.axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same positions of both inputs along the axes."""
        found = list(full)
        for axis in self.axes:  # in increasing order
            found.insert(axis, False)
        return (tuple(found),)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the means."""
        (mean,) = means
        return None if mean is None else mean.mean(self.axes)

    @property
    def cost(self) -> str:
        """Additions."""
        return "averaged"


@final
@dataclass(frozen=True)
class Permute(Operation):
    """Position axes in another order.

    Attributes
    ----------
    order : tuple of int
        Which axis of the input each axis of the output is.
    """

    order: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Permute the axes of both inputs."""
        (full,) = self.wants(place.full)
        seconds = second_axes(full)
        first = list(self.order)
        second = [seconds[a] for a in self.order if full[a]]
        return each(
            states[0],
            lambda q: q.permute(*first, *second, *range(len(first) + len(second), q.ndim)),
        )

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the layout in the other order."""
        found = [False] * len(full)
        for new, old in enumerate(self.order):
            found[old] = full[new]
        return (tuple(found),)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Permute the means."""
        (mean,) = means
        k = len(self.order)
        return None if mean is None else mean.permute(*self.order, *range(k, mean.ndim))

    @property
    def cost(self) -> str:
        """Nothing."""
        return "moved"


@final
@dataclass(frozen=True)
class Reshape(Operation):
    """Position axes merged or split, in row-major order.

    Attributes
    ----------
    groups : tuple of (int, int)
        Runs of axes that belong together: how many of the input, how many of the output.
    before : tuple of int
        Sizes of the input's position axes.
    """

    groups: tuple[tuple[int, int], ...]
    before: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Reshape both inputs' axes, and keep the same positions where only they are wanted."""
        (full,) = self.wants(place.full)
        made: list[bool] = []
        start = 0
        for old, new in self.groups:
            made += [any(full[start : start + old])] * new
            start += old
        sizes = [*self.positions, *(n for n, f in zip(self.positions, made, strict=True) if f)]
        count = len(self.before) + sum(full)

        def reshape(q: Tensor) -> Tensor:
            return restrict(q.reshape(*sizes, *q.shape[count:]), tuple(made), place.full)

        return each(states[0], reshape)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions in a run where one of its axes is full."""
        found: list[bool] = []
        start = 0
        for old, new in self.groups:
            found += [any(full[start : start + new])] * old
            start += new
        return (tuple(found),)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Reshape the means."""
        (mean,) = means
        return (
            None if mean is None else mean.reshape(*self.positions, *mean.shape[len(self.before) :])
        )

    @property
    def cost(self) -> str:
        """Nothing."""
        return "moved"


@final
@dataclass(frozen=True)
class Unshared(Operation):
    """Weights of its own for each position: covariances between different positions vanish."""

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Keep the same positions."""
        axes = range(len(self.positions))
        return each(states[0], lambda q: same_positions(q, place.full, axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same positions of both inputs only."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Keep the means."""
        return means[0]

    @property
    def cost(self) -> str:
        """The same positions only."""
        return "the same positions only"
