"""How long each principal component of a kernel takes to be learnt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class LearningTimes:
    """Time scales of training along the kernel's principal components, by falling eigenvalue.

    Made by `Dynamics.learning_times`.

    Attributes
    ----------
    eigenvalues : Tensor of shape (rank,)
        Of the kernel matrix.
    times : Tensor of shape (rank,)
        Time, or steps, in which the residual along a component falls by a factor e; infinite
        where the step is past the edge of stability.
    target_share : Tensor of shape (rank,)
        The share of the targets' squared norm along the component.
    unit : {"time", "steps"}
        What times count.
    """

    eigenvalues: Tensor
    times: Tensor
    target_share: Tensor
    unit: str

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the times, with marks as large as the component's share of the targets.

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
        number = range(1, len(self.times) + 1)
        ax.plot(number, self.times, color="0.6", linewidth=1)
        shares = self.target_share / self.target_share.max().clamp(min=1e-300)
        ax.scatter(
            number, self.times, s=(4 + 150 * shares).tolist(), color="#0072B2", alpha=0.7,
            linewidths=0, label="size: share of the targets",
        )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("principal component")
        ax.set_ylabel(f"{self.unit} to fall by a factor e")
        ax.set_title("Time to learn each principal component")
        ax.legend()
        return ax
