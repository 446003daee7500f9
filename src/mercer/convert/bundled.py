"""What bundling returns: the smaller model and a report of what became of each block."""

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .._core.axes import axes_or_new
from .._core.saving import save_state
from .architecture import describe_model
from .observe import Skipped
from .placing import describe_placed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class BlockReport:
    """What became of one block.

    Attributes
    ----------
    name : str
        Name of its first layer.
    activation : str
        The activation between its layers, or ``"function"`` where the model calls a function.
    in_features, hidden_features, out_features : int
        Widths before.
    num_features : int
        Features that stand in for the hidden neurons.
    stored_before, stored_after : int
        Numbers stored: parameters and buffers.
    r2 : float or None
        Coefficient of determination of the block's outputs on held-out calibration rows, the
        mean over outputs; None before bundling (``dry_run``) or without held-out rows.
    ridge : float or None
        The ridge of the closed-form solution.
    rows : int
        Calibration rows of the final fit, those held out for R² included.
    seconds : float
        Time taken.
    """

    name: str
    activation: str
    in_features: int
    hidden_features: int
    out_features: int
    num_features: int
    stored_before: int
    stored_after: int
    r2: float | None = None
    ridge: float | None = None
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BundleReport:
    """What `bundle` did.

    Attributes
    ----------
    blocks : tuple of BlockReport
        The blocks that were replaced (or would be, with ``dry_run``), in the order they run.
    skipped : tuple of Skipped
        Linear layers that start no block, with the reason.
    keep : float or dict of str to float
        The share of each block's stored numbers that was asked for, for all or by block.
    features, projection : str
        How features were made.
    affine : bool
        Whether each block keeps an exact affine part.
    stored_before, stored_after : int
        Numbers stored by all blocks together; a layer that two blocks share counts once.
    model_before, model_after : int
        Numbers stored by the whole model: parameters and buffers, each counted once.
    """

    blocks: tuple[BlockReport, ...]
    skipped: tuple[Skipped, ...]
    keep: float | dict[str, float]
    features: str
    projection: str
    affine: bool
    stored_before: int
    stored_after: int
    model_before: int
    model_after: int

    def __str__(self) -> str:
        lines = [
            f"{len(self.blocks)} blocks, {self.stored_before:,} numbers -> {self.stored_after:,}; "
            f"model {self.model_before:,} -> {self.model_after:,}"
        ]
        for block in self.blocks:
            r2 = "" if block.r2 is None else f", R2 {block.r2:.3f}"
            lines.append(
                f"  {block.name}: {block.in_features} -> {block.hidden_features} -> "
                f"{block.out_features}, {block.num_features} features{r2}"
            )
        lines += [f"  not {item.name}: {item.reason}" for item in self.skipped]
        return "\n".join(lines)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw each block's held-out R².

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
        positions = range(1, len(self.blocks) + 1)
        ax.bar(positions, [block.r2 or 0.0 for block in self.blocks], color="#0072B2", width=0.7)
        ax.set_xticks(positions)
        ax.set_ylim(min(0.0, *(block.r2 or 0.0 for block in self.blocks), 0.0), 1.0)
        ax.set_xlabel("block, in the order they run")
        ax.set_ylabel("R² on held-out rows")
        share = self.stored_after / max(self.stored_before, 1)
        ax.set_title(f"Bundled blocks at {share:.0%} of their stored numbers")
        return ax


@dataclass(frozen=True, eq=False)
class Bundled:
    """A model whose blocks were bundled.

    Attributes
    ----------
    model : Module
        The smaller model, in the mode (training or evaluation) of the original; with
        ``dry_run`` the original itself.
    report : BundleReport
        What became of each block.
    """

    model: nn.Module
    report: BundleReport
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
            folder, "convert.Bundled", self.model, self._placed, {"report": asdict(self.report)}
        )


def save_converted(
    folder: str | os.PathLike[str],
    kind: str,
    model: nn.Module,
    placed: tuple[str, ...],
    more: dict[str, Any],
) -> None:
    """Write a model into which modules were placed, so that `load` finds all it needs."""
    config = {
        "class": kind,
        "model": describe_model(model, set(placed)),
        "placed": describe_placed(model, placed),
        **more,
    }
    save_state(folder, config, model.state_dict())


def report_from_dict(values: dict[str, Any]) -> BundleReport:
    """Rebuild a report from what a saved config holds."""
    blocks = tuple(BlockReport(**block) for block in values["blocks"])
    skipped = tuple(Skipped(**item) for item in values["skipped"])
    return BundleReport(**{**values, "blocks": blocks, "skipped": skipped})


def stored_numbers(*modules: nn.Module) -> int:
    """Count numbers in parameters and persistent buffers, each tensor once."""
    tensors = {
        id(tensor): tensor.numel()
        for module in modules
        for tensor in module.state_dict(keep_vars=True).values()
        if isinstance(tensor, Tensor)  # a module may keep other things there
    }
    return sum(tensors.values())
