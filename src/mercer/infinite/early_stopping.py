"""When to stop training: the time of the smallest predicted error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_real
from .error_curve import ErrorCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .trained_ensemble import Dynamics


@dataclass(frozen=True, eq=False)
class StoppingTime:
    """The best time to stop training, made by `Dynamics.early_stopping`.

    Attributes
    ----------
    time : float
        The time, or number of steps; infinite where stopping does not help.
    error : float
        The squared error predicted there.
    error_at_end : float
        The squared error predicted at the end of training.
    times, errors : Tensor of shape (T,)
        The curve that was searched.
    unit : {"time", "steps"}
        What times count.
    """

    time: float
    error: float
    error_at_end: float
    times: Tensor
    errors: Tensor
    unit: str

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the curve and the time on it.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        shown = (self.times > 0) & self.times.isfinite()
        ax.plot(self.times[shown], self.errors[shown], color="#0072B2", label="predicted error")
        ax.axhline(self.error_at_end, color="0.5", linestyle=":", linewidth=1, label="at the end")
        if 0 < self.time < float("inf"):
            ax.plot(self.time, self.error, "o", color="#D55E00", label=f"stop at {self.time:.3g}")
        ax.set_xscale("log")
        ax.set_xlabel(self.unit)
        ax.set_ylabel("mean squared error")
        ax.set_title("When to stop")
        ax.legend()
        return ax


def _minimise(
    errors_at: Callable[[Tensor], Tensor], first: float, last: float, *, whole: bool
) -> tuple[float, Tensor, Tensor]:
    """Find the smallest error between two times, 0 and infinity included.

    A logarithmic grid is refined three times around its best point.
    """
    low, high = torch.tensor([first, last], dtype=torch.float64).log10().tolist()
    grid = torch.logspace(low, high, 97, dtype=torch.float64)
    ends = torch.tensor([0.0, torch.inf], dtype=torch.float64)
    grid = torch.cat([grid.round().unique() if whole else grid, ends]).unique()
    errors = errors_at(grid)
    for _ in range(3):
        best = int(errors.argmin())
        if not 0 < best < len(grid) - 1:
            break
        left, right = float(grid[best - 1]), float(grid[best + 1])
        right = 10 * float(grid[best]) if right == torch.inf else right
        left = max(left, float(grid[best]) / 10)
        finer = torch.linspace(left, right, 33, dtype=torch.float64)
        finer = finer.round() if whole else finer
        finer = finer[~torch.isin(finer, grid)].unique()
        if not len(finer):
            break
        grid, order = torch.cat([grid, finer]).sort()
        errors = torch.cat([errors, errors_at(finer)])[order]
    return float(grid[errors.argmin()]), grid, errors


def find_stopping_time(
    model: "Dynamics",
    curves: Callable[[Tensor], ErrorCurve],
    held_out: bool,
    noise: float | None,
    of: str,
) -> StoppingTime:
    """Find the time for `Dynamics.early_stopping`, from errors at held-out or training points."""
    check_choice("of", of, ("network", "ensemble"))
    if held_out != (noise is None):
        raise ValueError("x, y, noise: expected points with targets, or the noise, not both")
    sigma2 = 0.0 if noise is None else check_real("noise", noise, least=0.0)

    def errors_at(times: Tensor) -> Tensor:
        curve = curves(times)
        errors = curve.network if of == "network" else curve.ensemble
        if noise is None:
            return errors
        return errors + sigma2 * (2 * model.degrees_of_freedom(times) / len(model.x) - 1)

    found = model.learning_times()
    scales = found.times[found.times.isfinite()]
    if len(scales) < len(found.times):
        raise ValueError(
            "learning_rate: expected one below the edge of stability "
            f"{model.largest_learning_rate:g}, past which training has no end"
        )
    whole = found.unit == "steps"
    first = 1.0 if whole else 1e-3 * float(scales.min())
    last = max(1e3 * float(scales.max()), 10 * first)
    time, times, errors = _minimise(errors_at, first, last, whole=whole)
    return StoppingTime(
        time=time,
        error=float(errors[times == time][0]),
        error_at_end=float(errors[-1]),
        times=times,
        errors=errors,
        unit=found.unit,
    )
