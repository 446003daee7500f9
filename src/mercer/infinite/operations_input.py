"""The data that come into a wide network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from .layout import Full
from .operation import Operation, Place, State
from .prepare import prepare


@final
@dataclass(frozen=True)
class Input(Operation):
    """The data: covariances are mean products of channels.

    Attributes
    ----------
    steps : tuple
        What is done to the data first; see `prepare`.
    channel : int
        Which of their axes is the channel's, counted without the batch.
    channels : int
        Its size.
    """

    steps: tuple[tuple[Any, ...], ...]
    channel: int
    channels: int

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Not for data: the propagation calls `covariance`."""
        raise TypeError("an Input has no inputs; its covariances are those of the data")

    def arrange(self, x: Tensor) -> Tensor:
        """Bring data (*lead, n, *event) to shape (*positions, *lead, n, channels)."""
        k = len(self.positions) + 1
        x = prepare(x, self.steps)
        x = x.movedim(x.ndim - k + self.channel, -1)
        lead = x.ndim - k
        return x.permute(*range(lead, lead + k - 1), *range(lead), x.ndim - 1)

    def covariance(self, a: Tensor, b: Tensor, full: Full) -> Tensor:
        """Multiply arranged data of rows and of columns."""
        k, batch = len(full), a.ndim - 2 - len(full)
        diagonal = [i for i in range(k) if not full[i]]
        both = [i for i in range(k) if full[i]]
        lead = range(k, k + batch)
        # (*diagonal, *lead, *full, rows, channels): full positions are rows of one product.
        a, b = (t.permute(*diagonal, *lead, *both, -2, -1) for t in (a, b))
        sizes_a, sizes_b = (t.shape[len(diagonal) + batch : -1] for t in (a, b))
        fa, fb = (t.flatten(len(diagonal) + batch, -2) for t in (a, b))
        found = fa @ fb.mT
        found = found.unflatten(-1, sizes_b).unflatten(len(diagonal) + batch, sizes_a)
        d, f = len(diagonal), len(both)
        # Now (*diagonal, *lead, *full, n, *full, m); first copies in order, second ones, pair.
        start = d + batch
        place = {axis: i for i, axis in enumerate(diagonal)}
        place |= {axis: start + i for i, axis in enumerate(both)}
        order = [place[i] for i in range(k)]
        order += [start + f + 1 + i for i in range(f)]
        order += [*range(d, d + batch), start + f, start + f + 1 + f]
        return found.permute(order) / self.channels

    def variance(self, a: Tensor, full: Full) -> Tensor:
        """Multiply arranged data of each input with itself, (*positions, *full, *lead, n)."""
        if not any(full):
            return a.square().sum(-1) / self.channels
        one = a.unsqueeze(-2)  # a batch of one row and one column for each input
        return self.covariance(one, one, full)[..., 0, 0]

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take nothing."""
        return ()

    def wants_self(self) -> tuple[int, ...]:
        """Take no variances."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Not for data: the propagation takes their mean."""
        raise TypeError("an Input has no inputs; its means are those of the data")

    @property
    def cost(self) -> str:
        """One product of matrices."""
        return f"products of {self.channels} channels"
