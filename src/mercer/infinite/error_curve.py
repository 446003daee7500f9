"""Squared errors along training, and where to stop it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Mean squared error of wide networks along training, made by `Dynamics.squared_error`.

    Attributes
    ----------
    times : Tensor of shape (T,)
        Times, or numbers of steps.
    ensemble : Tensor of shape (T,)
        Squared error of the mean over infinitely many networks, averaged over points and outputs.
    variance : Tensor of shape (T,)
        Variance of a network's output around that mean, averaged over points.
    unit : {"time", "steps"}
        What times count.
    """

    times: Tensor
    ensemble: Tensor
    variance: Tensor
    unit: str

    @property
    def network(self) -> Tensor:
        """Expected squared error of a single network: that of the mean plus the variance, (T,)."""
        return self.ensemble + self.variance

    def plot(self, ax: "Axes | None" = None, label: str = "") -> "Axes":
        """Draw both errors against time, on logarithmic axes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        label : str
            Put before the names in the legend, such as ``"test"``.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        shown = (self.times > 0) & self.times.isfinite()
        times = self.times[shown].cpu()
        before = f"{label}, " if label else ""
        color = _COLORS[len(ax.lines) // 2 % len(_COLORS)]  # of each curve that is drawn there
        network, ensemble = self.network[shown].cpu(), self.ensemble[shown].cpu()
        ax.plot(times, network, color=color, label=f"{before}one network")
        ax.plot(times, ensemble, "--", color=color, label=f"{before}mean of many")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(self.unit)
        ax.set_ylabel("mean squared error")
        ax.set_title("Error along training")
        ax.legend()
        return ax
