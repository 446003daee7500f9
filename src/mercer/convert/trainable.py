"""List what trains in a model, and how much."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 16


@dataclass(frozen=True)
class TrainedParameter:
    """One parameter that trains.

    Attributes
    ----------
    name : str
        Its name in the model.
    shape : tuple of int
        Its shape.
    numel : int
        How many numbers it has.
    """

    name: str
    shape: tuple[int, ...]
    numel: int


@dataclass(frozen=True)
class TrainableReport:
    """What trains in a model, as `trainable` found it.

    Attributes
    ----------
    parameters : tuple of TrainedParameter
        Those that train, in the model's order; a tied one once, under its first name.
    trained : int
        Numbers that train.
    total : int
        Numbers in all parameters.
    buffers : int
        Numbers in buffers, which never train.
    """

    parameters: tuple[TrainedParameter, ...]
    trained: int
    total: int
    buffers: int

    @property
    def share(self) -> float:
        """Share of the parameters' numbers that train, in [0, 1]."""
        return self.trained / max(self.total, 1)

    def by_module(self) -> dict[str, int]:
        """Return how many numbers train in each module's own parameters, by its name."""
        found: dict[str, int] = {}
        for each in self.parameters:
            owner = each.name.rpartition(".")[0]
            found[owner] = found.get(owner, 0) + each.numel
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield (
            f"{self.trained:,} of {self.total:,} numbers train ({self.share:.2%}); "
            f"{self.buffers:,} in buffers"
        )
        shapes = [" x ".join(map(str, each.shape)) or "1" for each in self.parameters]
        counts = [f"{each.numel:,}" for each in self.parameters]
        widths = [max(map(len, column), default=0) for column in (self._names(), shapes, counts)]
        for name, shape, count in zip(self._names(), shapes, counts, strict=True):
            yield f"  {name:<{widths[0]}}  {shape:>{widths[1]}}  {count:>{widths[2]}}"

    def _names(self) -> list[str]:
        return [each.name for each in self.parameters]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw how many numbers train in each module.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        counts = self.by_module()
        rows = list(counts.items())
        if len(rows) > _MOST_BARS:  # the largest keep their order, the others are one bar
            largest = set(sorted(counts, key=counts.__getitem__, reverse=True)[: _MOST_BARS - 1])
            rows = [(name, count) for name, count in rows if name in largest]
            rest = [count for name, count in counts.items() if name not in largest]
            rows.append((f"{len(rest)} others", sum(rest)))
        ax = axes_or_new(ax, (6.4, 1.2 + 0.26 * max(len(rows), 3)))
        places = range(len(rows))
        bars = ax.barh(places, [count for _, count in rows], height=0.7, color="#0072B2")
        ax.bar_label(bars, [f"{count:,}" for _, count in rows], padding=3, fontsize=8)
        ax.set_yticks(places, [name or "the model itself" for name, _ in rows])
        ax.set_xlim(0, 1.2 * max([count for _, count in rows], default=1))
        ax.set_xlabel("numbers that train")
        ax.set_title(f"{self.trained:,} of {self.total:,} train ({self.share:.2%})")
        ax.invert_yaxis()
        return ax


def trainable(model: nn.Module) -> TrainableReport:
    """List what trains in a model: the parameters that require a gradient.

    Parameters
    ----------
    model : Module
        Any module, with PEFT's adapters or Mercer's or none. Nothing in it is changed.

    Returns
    -------
    TrainableReport
        A table when printed, with ``.plot()``.

    Raises
    ------
    TypeError
        If ``model`` is no module.

    See Also
    --------
    adapt : Insert adapters and freeze the rest.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import trainable
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> net[0].requires_grad_(False)
    Linear(in_features=4, out_features=8, bias=True)
    >>> print(trainable(net))
    18 of 58 numbers train (31.03%); 0 in buffers
      2.weight  2 x 8  16
      2.bias        2   2
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    parameters = list(model.named_parameters())
    found = tuple(
        TrainedParameter(name, tuple(p.shape), p.numel())
        for name, p in parameters
        if p.requires_grad
    )
    return TrainableReport(
        parameters=found,
        trained=sum(each.numel for each in found),
        total=sum(p.numel() for _, p in parameters),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
    )
