"""Bundle one model at several sizes and measure each: what both kinds of models have in common."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import user_errors
from .probe import paired_interval
from .step_bar import StepBar
from .steps import Steps
from .timing import interleaved

MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Subject:
    """A trained model with the means to bundle and to measure it.

    Attributes
    ----------
    inputs : dict
        Plain values on which every result depends; they name the steps.
    model : Module
        The dense model, in evaluation mode.
    calibrate : Tensor or list of batches
        What `mercer.convert.bundle` calibrates on.
    dense : dict
        ``{"values": one number a test row, "score": their mean}`` of the dense model.
    score : callable
        From a model to such a dictionary; further entries go into the report.
    forward : callable
        From a model to one forward pass on the batch that is timed.
    distil : Tensor or list of batches
        What `mercer.convert.uptrain` goes through, a batch a step.
    save : callable
        Takes what `bundle` or `uptrain` returned and a folder, and writes all that a reload needs.
    """

    inputs: dict[str, Any]
    model: nn.Module
    calibrate: Any
    dense: dict[str, Any]
    score: Callable[[nn.Module], dict[str, Any]]
    forward: Callable[[nn.Module], torch.Tensor]
    distil: Any
    save: Callable[[Any, Path], None]


def finite(value: float | None) -> float | None:
    """Return a number, or None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)


def refuse_unsuitable(model: nn.Module, batch: Any, keeps: Sequence[float]) -> None:
    """Raise before any work is done where bundling would fail for reasons that show at once.

    Raises
    ------
    UserError
        If the model has no block that can be bundled, or a share is too small for one.
    """
    _bundle(model, [batch], min(keeps), dry_run=True)


def _bundle(model: nn.Module, calibrate: Any, keep: float, **options: Any) -> Any:
    from .. import convert

    # What it refuses speaks of the user's model, data or keep.
    with user_errors(ValueError, TypeError, MemoryError, prefix="cannot bundle: "):
        return convert.bundle(model, calibrate, keep=keep, **options)


def _blocks(report: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": block.name,
            "activation": str(block.activation),
            "in_features": block.in_features,
            "hidden_features": block.hidden_features,
            "out_features": block.out_features,
            "num_features": block.num_features,
            "stored_before": block.stored_before,
            "stored_after": block.stored_after,
            "r2": finite(block.r2),
            "ridge": finite(block.ridge),
            "seconds": block.seconds,
        }
        for block in report.blocks
    ]


def _bundle_step(
    subject: Subject, keep: float, chosen: bool, seed: int, steps: Steps, show: bool
) -> tuple[dict[str, Any], Path]:
    """Bundle at one size, score and time it; of the chosen size the model is saved too.

    The bundled model is timed turn by turn with the dense one, within the step, so that the
    ratio of two times never spans two runs of the command.
    """

    def compute(folder: Path) -> dict[str, Any]:
        bundled = _bundle(subject.model, subject.calibrate, keep, progress=show, generator=seed)
        report = bundled.report
        found = subject.score(bundled.model)
        values = found.pop("values")
        low, high = paired_interval(values, subject.dense["values"], seed)
        result = {
            "keep": keep,
            "score": found.pop("score"),
            "interval": [subject.dense["score"] + low, subject.dense["score"] + high],
            "extra": found,
            "stored_before": report.stored_before,
            "stored_after": report.stored_after,
            "model_before": report.model_before,
            "model_after": report.model_after,
            "blocks": _blocks(report),
            "skipped": [{"name": s.name, "reason": s.reason} for s in report.skipped],
        }
        if chosen:
            subject.save(bundled, folder / MODEL_FOLDER)
            result["reload"] = reload_saved(subject, bundled.model, folder / MODEL_FOLDER)
        with torch.inference_mode():
            result["timing"] = interleaved(
                {
                    "dense": lambda: subject.forward(subject.model),
                    "bundled": lambda: subject.forward(bundled.model),
                }
            )
        return result

    inputs = {**subject.inputs, "keep": keep, "saved": chosen}
    return steps.run("bundle", inputs, compute, files=(MODEL_FOLDER,) if chosen else ())


def reload_saved(subject: Subject, model: nn.Module, folder: Path) -> dict[str, Any]:
    """Load what was saved and compare its outputs with those of the model in memory."""
    from .. import convert

    with torch.no_grad():
        expected = subject.forward(model)
        got = subject.forward(convert.load(folder))
    return {
        "identical": torch.equal(expected, got),
        "largest_difference": float((expected - got).abs().max()),
    }


def sweep(
    subject: Subject,
    keeps: Sequence[float],
    keep: float,
    seed: int,
    steps: Steps,
    bar: StepBar,
    *,
    save: bool = True,
) -> tuple[list[dict[str, Any]], Path]:
    """Bundle and measure at every size.

    Parameters
    ----------
    subject : Subject
        The model and the means.
    keeps : sequence of float
        Shares of the stored numbers of each block; ``keep`` is one of them.
    keep : float
        The share that the user asked for.
    seed : int
        Seed of whatever is random.
    steps : Steps
        Where finished steps are kept.
    bar : StepBar
        Where the steps are shown.
    save : bool, default True
        Whether the model of the share that was asked for is saved.

    Returns
    -------
    tuple of list and Path
        The findings for each size, and the folder of the saved model.
    """
    curve, saved = [], Path()
    for share in keeps:
        bar.begin(f"bundling at keep {share:g}")
        found, folder = _bundle_step(subject, share, save and share == keep, seed, steps, bar.shown)
        curve.append(found)
        if share == keep:
            saved = folder / MODEL_FOLDER
    return curve, saved
