"""What a signal is: the tensor whose covariances are followed."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from .expression import Expression
from .operations import Operation
from .tape import CHANNEL, Source, Tape


@dataclass(frozen=True)
class SignalBase(abc.ABC):
    """What a `Signal` is; see there.

    Abstract.
    """

    tape: Tape
    roles: tuple[Any, ...]
    shape: tuple[int, ...]
    node: int = -1
    gaussian: bool = False
    centred: bool = False
    sources: frozenset[Source] = frozenset()
    steps: tuple[tuple[Any, ...], ...] = ()
    expression: Expression | None = None
    parts: tuple[Any, ...] = ()
    gains: tuple[tuple[int, ...], ...] | None = ()
    alike: bool = False
    step: int = field(default=-1, compare=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_data(self) -> bool:
        """Whether no random weights came before."""
        return self.node < 0 and not self.parts

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the position axes, in the order of the covariances."""
        found = {r: n for r, n in zip(self.roles, self.shape, strict=True) if isinstance(r, int)}
        return tuple(found[i] for i in range(len(found)))

    @property
    def channels(self) -> int:
        """Width."""
        return self.shape[self.roles.index(CHANNEL)] if CHANNEL in self.roles else 1

    @property
    def shape_text(self) -> str:
        """The shape with n for the batch."""
        return f"({', '.join(['n', *map(str, self.shape[1:])])})"

    def axis(self, axis: int) -> int:
        """Return an axis counted from the front."""
        if not -self.ndim <= axis < self.ndim:
            raise self.tape.refuse(f"axis {axis} of a tensor with {self.ndim} axes")
        return axis % self.ndim

    @abc.abstractmethod
    def settled(self) -> Self:
        """Return the signal as the output of an operation."""

    @abc.abstractmethod
    def with_channels(self, axis: int) -> Self:
        """Settle, and check that the channels are the axis given."""

    @property
    def _shared_gains(self) -> tuple[tuple[int, ...], ...] | None:
        """The gains after positions have changed: those of all positions alike stay."""
        return None if self.gains is None or any(self.gains) else self.gains

    def _positions_changed(self, sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            sizes[r] if isinstance(r, int) else n
            for r, n in zip(self.roles, self.shape, strict=True)
        )

    def _emit(self, operation: type[Operation], *arguments: Any, **changes: Any) -> Self:
        """Append an operation on this signal."""
        positions = changes.pop("positions", None)
        after = replace(self, **changes)
        positions = after.positions if positions is None else positions
        node = self.tape.add(operation((self.node,), positions, self.tape.place, *arguments))
        return replace(after, node=node)


def with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """Give an axis another size."""
    return (*shape[:axis], size, *shape[axis + 1 :])
