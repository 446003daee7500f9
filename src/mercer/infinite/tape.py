"""What is written down while a module is read."""

from typing import final

from .operations import Operation

BATCH, CHANNEL = "batch", "channel"

Source = tuple[int, int, int]
"""A layer's number, and the range of its channels in 1/2520 of its width."""


class NoRuleError(ValueError):
    """Raised where a module does what has no kernel at infinite width, or none that is known."""


@final
class Tape:
    """The operations that have been read so far.

    Attributes
    ----------
    operations : list of Operation
        In the order in which they are computed.
    layers : list of str
        Names of the layers with weights.
    place : str
        Where in the module the reader is.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.layers: list[str] = []
        self.place = ""
        self.used: set[str] = set()
        self.costs: dict[str, list[int]] = {}

    def add(self, operation: Operation) -> int:
        """Append an operation, and return its number."""
        self.operations.append(operation)
        self.costs.setdefault(self.place, []).append(len(self.operations) - 1)
        return len(self.operations) - 1

    def layer(self, name: str) -> int:
        """Count a layer with weights; each may be used once."""
        if name in self.layers:
            raise NoRuleError(
                f"{name}: a layer that is used more than once has no rule, as its uses share "
                "random weights; use mercer.infinite.monte_carlo"
            )
        self.layers.append(name)
        return len(self.layers) - 1

    def refuse(self, why: str) -> "NoRuleError":
        """Make the error that says where the module does what has no rule."""
        return NoRuleError(f"{self.place or 'the module'}: {why}")
