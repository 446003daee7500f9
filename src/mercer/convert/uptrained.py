"""What uptraining returns: the smaller model and a report of how close it came to the dense one."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from .._core.axes import axes_or_new
from .bundled import BundleReport, report_from_dict, save_converted
from .distil import Distance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 60  # of the drawn curve of losses: means of as many stretches


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried.

    Attributes
    ----------
    learning_rate : float
        The candidate.
    loss : float
        The loss on held-out batches after its short trial; infinite where it diverged.
    """

    learning_rate: float
    loss: float


@dataclass(frozen=True)
class UptrainReport:
    """What `uptrain` did.

    Attributes
    ----------
    bundle : BundleReport
        What became of each block in closed form.
    steps : int
        Steps of the training proper.
    learning_rate : float
        The largest learning rate.
    trials : tuple of Trial
        The learning rates that were tried; empty where one was given.
    losses : tuple of float
        The loss at every step.
    before, after : Distance
        How far the model was from the dense one on held-out batches, before and after training.
    train : str
        ``"all"`` or ``"blocks"``.
    batches, held_out : int
        Batches that were trained on, and held out.
    resumed : int
        Steps that came from a checkpoint.
    seconds : float
        Time that the other steps took.
    """

    bundle: BundleReport
    steps: int
    learning_rate: float
    trials: tuple[Trial, ...]
    losses: tuple[float, ...]
    before: Distance
    after: Distance
    train: str
    batches: int
    held_out: int
    resumed: int
    seconds: float

    def __str__(self) -> str:
        before, after = self.before, self.after
        return (
            f"{self.steps} steps at a learning rate of up to {self.learning_rate:g}: output off by "
            f"{before.output:.4f} -> {after.output:.4f} of its variance, cosine "
            f"{before.cosine:.4f} -> {after.cosine:.4f}\n{self.bundle}"
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the loss of the steps, and that of held-out batches before and after.

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
        width = max(len(self.losses) // _POINTS, 1)
        parts = [self.losses[i : i + width] for i in range(0, len(self.losses), width)]
        ends = [min((i + 1) * width, self.steps) for i in range(len(parts))]
        if parts:
            means = [sum(part) / len(part) for part in parts]
            ax.plot(ends, means, color="#0072B2", label="training batches")
        held_out = (self.before.loss, self.after.loss)
        ax.plot((0, self.steps), held_out, "s", color="#D55E00", label="held-out batches")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("step")
        ax.set_ylabel("distance to the dense model")
        ax.set_title(f"Uptraining, cosine {self.before.cosine:.3f} → {self.after.cosine:.3f}")
        ax.legend()
        return ax


@dataclass(frozen=True, eq=False)
class Uptrained:
    """A model whose blocks were bundled and then trained to give what the dense model gives.

    Attributes
    ----------
    model : Module
        The smaller model, in the mode (training or evaluation) of the dense one.
    report : UptrainReport
        How it went.
    """

    model: nn.Module
    report: UptrainReport
    _placed: tuple[str, ...]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder, atomically; `mercer.convert.load` reads it back.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing. It will hold ``config.json`` and
            ``model.safetensors``, no pickle.

        Raises
        ------
        ValueError
            If a feature map has an activation without a name.
        """
        save_converted(
            folder, "convert.Uptrained", self.model, self._placed, {"report": asdict(self.report)}
        )


def uptrain_report_from_dict(values: Mapping[str, Any]) -> UptrainReport:
    """Rebuild a report from what a saved config holds."""
    return UptrainReport(
        **{
            **values,
            "bundle": report_from_dict(values["bundle"]),
            "trials": tuple(Trial(**trial) for trial in values["trials"]),
            "losses": tuple(values["losses"]),
            "before": Distance(**values["before"]),
            "after": Distance(**values["after"]),
        }
    )
