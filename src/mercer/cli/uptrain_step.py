"""Uptrain the model of the size that was asked for, and measure it like the bundled ones."""

import time
from pathlib import Path
from typing import Any

import torch

from .errors import user_errors
from .probe import paired_interval
from .steps import Steps
from .sweep import MODEL_FOLDER, Subject, finite, reload_saved
from .timing import interleaved

_CURVE = 60  # points of the curve of losses that are kept
_EVERY = 25  # steps between two checkpoints


def uptrain_step(
    subject: Subject, keep: float, count: int, seed: int, steps: Steps, show: bool
) -> tuple[dict[str, Any], Path]:
    """Uptrain at one size, score, time and save; a killed one goes on from its checkpoint.

    Parameters
    ----------
    subject : Subject
        The model and the means.
    keep : float
        Share of the stored numbers of each block.
    count : int
        Steps of the training.
    seed : int
        Seed of whatever is random.
    steps : Steps
        Where finished steps are kept, and the checkpoint of this one until it is finished.
    show : bool
        Whether to show progress bars.

    Returns
    -------
    tuple of dict and Path
        The findings, and the folder of the saved model.
    """
    inputs = {**subject.inputs, "keep": keep, "uptrain": count, "saved": True}

    def compute(folder: Path) -> dict[str, Any]:
        from .. import convert

        start = time.perf_counter()
        # What it refuses speaks of the user's model, data or number of steps.
        with user_errors(ValueError, TypeError, MemoryError, prefix="cannot uptrain: "):
            uptrained = convert.uptrain(
                subject.model,
                subject.distil,
                keep=keep,
                steps=count,
                seed=seed,
                progress=show,
                checkpoint=steps.scratch("uptrain", inputs),
                every=_EVERY,
            )
        seconds = time.perf_counter() - start
        report = uptrained.report
        found = subject.score(uptrained.model)
        low, high = paired_interval(found.pop("values"), subject.dense["values"], seed)
        subject.save(uptrained, folder / MODEL_FOLDER)
        with torch.inference_mode():
            timing = interleaved(
                {
                    "dense": lambda: subject.forward(subject.model),
                    "uptrained": lambda: subject.forward(uptrained.model),
                }
            )
        width = max(-(-len(report.losses) // _CURVE), 1)
        parts = [report.losses[i : i + width] for i in range(0, len(report.losses), width)]
        return {
            "keep": keep,
            "steps": count,
            "score": found.pop("score"),
            "interval": [subject.dense["score"] + low, subject.dense["score"] + high],
            "extra": found,
            "stored_before": report.bundle.stored_before,
            "stored_after": report.bundle.stored_after,
            "model_before": report.bundle.model_before,
            "model_after": report.bundle.model_after,
            "learning_rate": report.learning_rate,
            "trials": [[trial.learning_rate, finite(trial.loss)] for trial in report.trials],
            "losses": [
                [min((i + 1) * width, count), sum(part) / len(part)] for i, part in enumerate(parts)
            ],
            "batches": report.batches,
            "held_out": report.held_out,
            "before": _distance(report.before),
            "after": _distance(report.after),
            "reload": reload_saved(subject, uptrained.model, folder / MODEL_FOLDER),
            "timing": timing,
            "seconds": seconds,
        }

    return steps.run("uptrain", inputs, compute, files=(MODEL_FOLDER,))


def _distance(distance: Any) -> dict[str, Any]:
    return {
        "output": finite(distance.output),
        "cosine": finite(distance.cosine),
        "loss": finite(distance.loss),
    }
