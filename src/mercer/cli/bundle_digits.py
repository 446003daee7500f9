"""``mercer bundle digits``: a small network, trained, bundled and solved in closed form."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..datasets import Split, digits
from .step_bar import StepBar
from .steps import Steps
from .sweep import MODEL_FOLDER, Subject, finite, refuse_unsuitable, sweep
from .timing import interleaved
from .train_mlp import EPOCHS, WIDTH, train_mlp, untrained_mlp
from .uptrain_step import uptrain_step

_WEIGHTS = "mlp.safetensors"


def _correct(model: nn.Module, split: Split) -> list[float]:
    with torch.no_grad():
        return (model(split.test.x).argmax(dim=-1) == split.test.y).double().tolist()


def _scored(model: nn.Module, split: Split) -> dict[str, Any]:
    values = _correct(model, split)
    return {"values": values, "score": sum(values) / len(values)}


def _trained(split: Split, inputs: dict[str, Any], seed: int, steps: Steps, show: bool) -> Any:
    """Train, or load what an earlier run trained."""
    from safetensors.torch import load_file, save_file

    model = untrained_mlp(split.train.x.shape[1], 10, seed)

    def compute(folder: Path) -> dict[str, Any]:
        train_mlp(model, split.train.x, split.train.y, seed, show=show)
        save_file(model.state_dict(), folder / _WEIGHTS)
        return _scored(model, split)

    dense, folder = steps.run("train", inputs, compute, files=(_WEIGHTS,))
    model.load_state_dict(load_file(folder / _WEIGHTS))
    return model.eval(), dense


def _closed_form(
    split: Split, inputs: dict[str, Any], seed: int, steps: Steps, dense: nn.Module
) -> dict[str, Any]:
    """Solve the same architecture, untrained, for its last matrix: no gradient step."""
    from .. import convert

    def compute(folder: Path) -> dict[str, Any]:
        untrained = untrained_mlp(split.train.x.shape[1], 10, seed)
        start = time.perf_counter()
        # As many features as the network has neurons, so that both are of the same size.
        solved = convert.solve(
            untrained, split.train.x, split.train.y, num_features=WIDTH, generator=seed
        )
        seconds = time.perf_counter() - start
        found = _scored(solved.model, split)
        with torch.inference_mode():
            timing = interleaved(
                {
                    "dense": lambda: dense(split.test.x),
                    "solved": lambda: solved.model(split.test.x),
                },
                seconds=1.0,
            )
        return {
            "score": found["score"],
            "num_features": WIDTH,
            "solved": solved.num_solved,
            "stored": solved.num_stored,
            "ridge": finite(solved.ridge),
            "seconds": seconds,
            "timing": timing,
        }

    return steps.run("solve", inputs, compute)[0]


class DigitsJob:
    """Train on scikit-learn's digits, bundle at every size, solve in closed form.

    Parameters
    ----------
    seed : int
        Seed of the initial weights, the order of rows and the bundling.
    """

    other_steps = 2  # training and the closed form

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.inputs = {"model": "digits"}

    def check(self, keeps: Sequence[float]) -> None:
        """Raise `UserError` where bundling is bound to fail."""
        refuse_unsuitable(untrained_mlp(64, 10, self._seed), torch.zeros(2, 64), keeps)

    def run(
        self,
        keeps: Sequence[float],
        keep: float,
        inputs: dict[str, Any],
        steps: Steps,
        bar: StepBar,
        uptrain: int = 0,
    ) -> tuple[dict[str, Any], Path]:
        """Return the findings and the saved model; see `sweep` for the arguments."""
        split = digits()
        bar.begin("training")
        model, dense = _trained(split, inputs, self._seed, steps, bar.shown)
        # Calibration needs no labels, and more rows make a better fit than fewer.
        calibrate = torch.cat([split.train.x, split.calibration.x])
        subject = Subject(
            inputs=inputs,
            model=model,
            calibrate=calibrate,
            dense=dense,
            score=lambda module: _scored(module, split),
            forward=lambda module: module(split.test.x),
            distil=calibrate,
            save=lambda bundled, folder: bundled.save_pretrained(folder),
        )
        curve, saved = sweep(subject, keeps, keep, self._seed, steps, bar, save=not uptrain)
        uptrained = None
        if uptrain:
            bar.begin("uptraining")
            step = uptrain_step(subject, keep, uptrain, self._seed, steps, bar.shown)
            uptrained, saved = step[0], step[1] / MODEL_FOLDER
        bar.begin("closed form")
        closed_form = _closed_form(split, inputs, self._seed, steps, model)
        findings = {
            "model": {
                "name": "digits",
                "kind": "multilayer perceptron 64-256-256-10, GELU",
                "notes": [f"Trained for {EPOCHS} epochs by Adam on {len(split.train):,} images."],
            },
            "data": {
                "name": "scikit-learn's handwritten digits",
                "description": "1,797 images of 8 × 8 pixels, split by class: "
                f"{len(split.train):,} to train, {len(split.calibration)} more to calibrate, "
                f"{len(split.test)} to test",
                "calibration": len(split.train) + len(split.calibration),
                "test": len(split.test),
            },
            "metric": {
                "name": "test accuracy",
                "percent": True,
                "description": "Share of the test images whose class is found. The interval is a "
                "paired bootstrap over the test images (95 %).",
            },
            "timed": f"one forward pass of the {len(split.test)} test images",
            "dense": {"score": dense["score"]},
            "curve": curve,
            "uptrained": uptrained,
            "closed_form": closed_form,
        }
        return findings, saved
