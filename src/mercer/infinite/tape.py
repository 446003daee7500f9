"""What is written down while a module is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from .operations import Operation

BATCH, CHANNEL = "batch", "channel"

Source = tuple[int, int, int]
"""A layer's number, and the range of its channels in 1/2520 of its width."""

DATA: Source = (-1, 0, 2520)
"""The data stand for a layer: what they are in twice is not independent either."""


@final
class NoRuleError(ValueError):
    """Raised where a module does what has no kernel at infinite width, or none that is known.

    Parameters
    ----------
    message : str
        Where, what and why.

    Examples
    --------
    >>> from torch import nn
    >>> from mercer.infinite import NTK, NoRuleError
    >>> try:
    ...     NTK(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)))
    ... except NoRuleError as error:
    ...     str(error)[:40]
    '1 (BatchNorm1d): batch normalisation tie'
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


@final
class Tape:
    """The operations that have been read so far.

    Attributes
    ----------
    operations : list of Operation
        In the order in which they are computed.
    layers : list of str
        Names of the layers with weights.
    steps : list of str
        Where in the module each step stands that the reader has taken.
    step : int
        The step at which it is.
    made : dict of int to list of int
        The operations that a step made.
    known : dict
        Signals that have become operations, so that each does once.
    sources : dict of int to frozenset
        What the terms of sums are linear in.
    even : dict of int to bool
        Whether all channels of these terms have the same mean.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.layers: list[str] = []
        self.steps: list[str] = []
        self.step = -1
        self.made: dict[int, list[int]] = {}
        self.known: dict[Any, Any] = {}
        self.sources: dict[int, frozenset[Source]] = {}
        self.even: dict[int, bool] = {}

    @property
    def place(self) -> str:
        """Where in the module the reader is."""
        return self.steps[self.step] if self.step >= 0 else ""

    def enter(self, place: str) -> None:
        """Go on to the next step."""
        self.steps.append(place)
        self.step = len(self.steps) - 1

    @contextmanager
    def back_at(self, step: int) -> Iterator[None]:
        """Go back to an earlier step, whose function is only now made an operation."""
        before = self.step
        self.step = before if step < 0 else step
        try:
            yield
        finally:
            self.step = before

    def add(self, operation: Operation) -> int:
        """Append an operation, and return its number."""
        self.operations.append(operation)
        self.made.setdefault(self.step, []).append(len(self.operations) - 1)
        return len(self.operations) - 1

    def layer(self, name: str) -> int:
        """Count a layer with weights; each may be used once."""
        if name in self.layers:
            raise self.refuse(
                "a layer that is used more than once has no rule, as its uses share random "
                "weights; use mercer.infinite.monte_carlo"
            )
        self.layers.append(name)
        return len(self.layers) - 1

    def refuse(self, why: str) -> NoRuleError:
        """Make the error that says where the module does what has no rule."""
        return NoRuleError(f"{self.place or 'the module'}: {why}")
