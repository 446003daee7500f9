"""The rule of an operation: what it does to the covariances of wide layers.

Every operation is a frozen record that maps the covariances S (of the channels: the NNGP
kernel) and T (of the tangents: the NTK) of its inputs to those of its output. A network is a
list of them. T is None where nothing before was trained.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .layout import Full

State = tuple[Tensor, Tensor | None]
"""S and T, each of shape (*positions, *full positions, *pair)."""


class Place(Protocol):
    """What an operation may ask of the propagation that it is part of."""

    @property
    def full(self) -> Full:
        """The layout of the output."""
        ...

    @property
    def same(self) -> bool:
        """Whether covariances are of each input with itself."""
        ...

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        ...

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        ...

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves, for rows and for columns."""
        ...

    def affine(self, operation: Any) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        ...

    def attention(self, operation: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Variances of keys, of values times outputs and of biases, and both's own tangents."""
        ...


@dataclass(frozen=True)
class Operation(abc.ABC):
    """A rule with its place in the network.

    Attributes
    ----------
    inputs : tuple of int
        Numbers of the operations whose outputs it takes.
    positions : tuple of int
        Sizes of the position axes of its output.
    place : str
        Where it stands in the module, for messages.
    """

    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    place: str

    @abc.abstractmethod
    def apply(self, states: Sequence[State], place: Place) -> State:
        """Map the covariances of the inputs to those of the output."""

    @abc.abstractmethod
    def wants(self, full: Full) -> tuple[Full, ...]:
        """Say which layouts of its inputs an output of that layout takes."""

    @abc.abstractmethod
    def wants_self(self) -> tuple[int, ...]:
        """Say of which inputs it takes the variances."""

    @abc.abstractmethod
    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Map the means of the inputs' channels to those of the output; None is zero."""

    @property
    @abc.abstractmethod
    def cost(self) -> str:
        """Say what is done to each of the numbers that an entry of the kernel has there."""


def each(state: State, function: Callable[[Tensor], Tensor]) -> State:
    """Apply the same map to S and to T."""
    s, t = state
    return function(s), None if t is None else function(t)
