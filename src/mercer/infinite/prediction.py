"""What an ensemble of wide networks predicts: mean and covariance at points."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Prediction:
    """Normal distribution of the outputs at points, made by `posterior` and `Dynamics.predict`.

    Attributes
    ----------
    mean : Tensor of shape (m,) or (m, outputs)
        Means over networks.
    covariance : Tensor of shape (m, m)
        Covariance between points, the same for each output; outputs are independent.
    time : float
        How long the networks were trained: a time, a number of steps, or infinity.
    """

    mean: Tensor
    covariance: Tensor
    time: float

    @property
    def variance(self) -> Tensor:
        """Variance of an output at each point, (m,)."""
        return self.covariance.diagonal().clamp(min=0)

    def plot(self, ax: "Axes | None" = None, position: Tensor | None = None) -> "Axes":
        """Draw the means with bars of two standard deviations.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        position : Tensor of shape (m,), optional
            Where the points lie on the horizontal axis; their numbers by default. With positions
            a line and a band are drawn.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        means = self.mean.detach().cpu().reshape(len(self.mean), -1)  # (m, outputs)
        spread = 2 * self.variance.sqrt().cpu()
        colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
        for i, column in enumerate(means.unbind(1)):
            color, label = colors[i % len(colors)], f"output {i}" if means.shape[1] > 1 else "mean"
            if position is None:
                ax.errorbar(
                    torch.arange(len(column)), column, spread, fmt="o", ms=3, lw=1, color=color,
                    label=label,
                )  # fmt: skip
                continue
            order = position.argsort().cpu()
            at, column, wide = position.cpu()[order], column[order], spread[order]
            ax.plot(at, column, color=color, label=label)
            ax.fill_between(at, column - wide, column + wide, color=color, alpha=0.2, lw=0)
        ax.set_xlabel("point" if position is None else "position")
        ax.set_ylabel("output, ± 2 standard deviations")
        ax.set_title(f"Prediction at t = {self.time:g}")
        ax.legend()
        return ax
