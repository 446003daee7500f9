"""``mercer adapt`` of a Hugging Face text model: trains by several methods, chooses, measures."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..convert.training import Diverged
from .adapt_classifier import Classifier
from .adapt_data import AdaptPlan
from .adapt_methods import METHODS, Prepared, stored_bytes
from .adapt_saving import load_tuned, loading_lines, save_tuned
from .errors import UserError, user_errors
from .probe import paired_interval
from .step_bar import StepBar
from .steps import Steps, key_of
from .sweep import MODEL_FOLDER
from .text_model import TextModel
from .timing import interleaved


class AdaptJob:
    """Fine-tune a text model by several methods and measure each on the same test texts.

    Parameters
    ----------
    name : str
        The model as the user named it.
    text_model : TextModel
        The model.
    plan : AdaptPlan
        The texts.
    methods : sequence of str
        Names of `METHODS`; the first one's model is saved.
    epochs : int
        The same for all.
    seeds : sequence of int
        The first one chooses the learning rates.
    learning_rate : float, optional
        Instead of the best of each method's candidates.

    Raises
    ------
    UserError
        If a method finds no place in the model.
    """

    def __init__(
        self,
        name: str,
        text_model: TextModel,
        plan: AdaptPlan,
        methods: Sequence[str],
        epochs: int,
        seeds: Sequence[int],
        learning_rate: float | None,
    ) -> None:
        self._where = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
        self._name = Path(name).resolve().name if Path(name).is_dir() else name
        self._model, self._plan = text_model, plan
        self._methods, self._seeds, self._rate = list(methods), list(seeds), learning_rate
        self._classifier = Classifier(self._where, text_model, plan.names, epochs)
        self.inputs = {
            "model": text_model.identity,
            "batch_size": text_model.batch_size,
            "max_length": text_model.max_length,
            "epochs": epochs,
            "classes": plan.names,
            "parts": [
                part.digest()
                for part in (plan.train, plan.choose_train, plan.choose_dev, plan.test)
            ],
        }
        tried = 0 if learning_rate is not None else 4
        self.total_steps = len(self._methods) * (tried + len(self._seeds)) + 1
        self._check()

    def _check(self) -> None:
        """Raise before any work is done where a method does not fit the model."""
        for method in self._methods:
            with user_errors(ValueError, ImportError, prefix=f"--method {method}: "):
                self._classifier.prepared(method, self._seeds[0])

    def _train_step(
        self,
        method: str,
        rate: float,
        seed: int,
        choosing: bool,
        inputs: dict[str, Any],
        steps: Steps,
        show: bool,
    ) -> tuple[dict[str, Any], Path]:
        """Train once; measure on what the rate is chosen on, or on the test texts."""
        saved = not choosing and (method, seed) == (self._methods[0], self._seeds[0])
        made_from = {
            **inputs,
            "method": method,
            "settings": dict(METHODS[method].settings),
            "learning_rate": rate,
            "train_seed": seed,
            "choosing": choosing,
            "saved": saved,
        }
        plan = self._plan
        train_part = plan.choose_train if choosing else plan.train
        test_part = plan.choose_dev if choosing else plan.test

        def compute(folder: Path) -> dict[str, Any]:
            prepared = self._classifier.prepared(method, seed)
            checkpoint = steps.scratch(method, made_from)
            try:
                done = self._classifier.fit(
                    prepared, train_part, rate, seed, checkpoint, key_of(made_from), show
                )
            except Diverged as error:
                if not choosing:
                    text = str(error).removeprefix("learning_rate: ")
                    raise UserError(f"--learning-rate: {method}: {text}") from error
                return {"accuracy": None, "loss": None}
            found = self._classifier.measure(prepared.model, test_part, show)
            if choosing:
                return {"accuracy": found["accuracy"], "loss": found["loss"]}
            tensors = {"bytes": prepared.trained, "frozen_bytes": prepared.frozen}
            result = {
                **found,
                "losses": list(done.losses),
                "trainable": prepared.num_trainable,
                "head": sum(p.numel() for p in prepared.head.values()),
                **{k: stored_bytes(t) if t else 0 for k, t in tensors.items()},
            }
            if saved:
                result["reload"] = self._save(prepared, folder / MODEL_FOLDER, show)
            return result

        return steps.run(method, made_from, compute, files=(MODEL_FOLDER,) if saved else ())

    def _save(self, prepared: Prepared, folder: Path, show: bool) -> dict[str, Any]:
        """Write the model, load it again and compare the scores of the first test texts."""

        def fresh() -> tuple[Any, list[str]]:
            return self._classifier.fresh(
                self._seeds[0] + 1
            )  # another head, which loading replaces

        save_tuned(prepared, fresh, folder)
        self._model.tokenizer.save_pretrained(folder)
        texts = self._plan.test.texts[: self._model.batch_size]
        expected, got = (
            self._model.outputs(model, texts, True, show)
            for model in (prepared.model.eval(), load_tuned(prepared.method, folder, fresh))
        )
        return {
            "identical": torch.equal(expected, got),
            "largest_difference": float((expected - got).abs().max()),
        }

    def _timing(self, inputs: dict[str, Any], steps: Steps) -> dict[str, Any]:
        """Time one step of training by each method, turn by turn."""

        def compute(folder: Path) -> dict[str, Any]:
            functions = {}
            for method in self._methods:
                prepared = self._classifier.prepared(method, self._seeds[0])
                functions[method] = self._classifier.step(prepared, self._plan.train)
            with torch.random.fork_rng(devices=[]):  # dropout
                return interleaved(functions)

        return steps.run("timing", {**inputs, "methods": self._methods}, compute)[0]

    def _choose(
        self, method: str, inputs: dict[str, Any], steps: Steps, bar: StepBar
    ) -> tuple[float, list[dict[str, Any]]]:
        """Return the learning rate with the best accuracy, ties going to the lower loss."""
        if self._rate is not None:
            return self._rate, []
        tried = []
        for rate in METHODS[method].learning_rates:
            bar.begin(f"{method}: learning rate {rate:g}")
            found, _ = self._train_step(
                method, rate, self._seeds[0], True, inputs, steps, bar.shown
            )
            tried.append({"learning_rate": rate, **found})
        fine = [each for each in tried if each["accuracy"] is not None]
        if not fine:
            raise UserError(
                f"--method {method}: training diverged at every learning rate; give a smaller one "
                "by --learning-rate"
            )
        best = max(fine, key=lambda each: (each["accuracy"], -each["loss"]))
        return best["learning_rate"], tried

    def run(
        self, inputs: dict[str, Any], steps: Steps, bar: StepBar, out: Path
    ) -> tuple[dict[str, Any], Path]:
        """Return the findings and the folder of the saved model.

        Parameters
        ----------
        inputs : dict
            Plain values on which every result depends.
        steps : Steps
            Where finished steps are kept.
        bar : StepBar
            Where the steps are shown.
        out : Path
            Where the saved model will be, for the page.
        """
        entries, saved = [], Path()
        for method in self._methods:
            rate, tried = self._choose(method, inputs, steps, bar)
            runs = []
            for seed in self._seeds:
                bar.begin(f"{method}: seed {seed}")
                found, folder = self._train_step(
                    method, rate, seed, False, inputs, steps, bar.shown
                )
                runs.append(found)
                if "reload" in found:
                    saved = folder / MODEL_FOLDER
            entries.append(self._entry(method, rate, tried, runs))
        bar.begin("timing")
        times = self._timing(inputs, steps)
        first = entries[0]["values"]
        for entry in entries:
            values = entry.pop("values")
            entry["timing"] = times[entry["method"]]
            entry["interval"] = paired_interval(values, [0.0] * len(values), self._seeds[0])
            low, high = paired_interval(values, first, self._seeds[0])
            middle = statistics.fmean(values) - statistics.fmean(first)
            entry["difference"] = None if entry is entries[0] else [middle, low, high]
        return self._findings(entries, out), saved

    def _entry(
        self,
        method: str,
        rate: float,
        tried: list[dict[str, Any]],
        runs: list[dict[str, Any]],
    ) -> dict[str, Any]:
        accuracies = [run["accuracy"] for run in runs]
        columns = zip(*(run["values"] for run in runs), strict=True)
        same = ("trainable", "head", "bytes", "frozen_bytes")
        return {
            "method": method,
            "title": METHODS[method].title,
            "settings": dict(METHODS[method].settings),
            "learning_rate": rate,
            "tried": tried,
            "accuracy": statistics.fmean(accuracies),
            "accuracies": accuracies,
            "losses": runs[0]["losses"],
            **{key: runs[0][key] for key in same},
            "reload": runs[0].get("reload"),
            # One number a test text: the mean over the seeds.
            "values": [statistics.fmean(column) for column in columns],
        }

    def _findings(self, entries: list[dict[str, Any]], out: Path) -> dict[str, Any]:
        plan, model = self._plan, self._classifier.fresh(self._seeds[0])[0]
        chosen = f"{len(plan.choose_dev):,} to choose learning rates on"
        chosen += ", held out of those for training meanwhile" if plan.held_out else ""
        left_out = (
            f"; {plan.left_out:,} training texts left out because they are measured on"
            if plan.left_out
            else ""
        )
        texts = f"{len(plan.train):,} to train on"
        texts += "" if self._rate is not None else f", {chosen}"
        kind, classes = type(model).__name__, list(plan.names)
        folder = str(out / MODEL_FOLDER)
        return {
            "model": {
                "name": self._name,
                "kind": kind,
                "notes": list(self._model.notes),
                "parameters": sum(p.numel() for p in model.parameters()),
                "new_head": not self._model.has_classes,
            },
            "data": {
                "description": f"{texts}, {len(plan.test):,} to test on{left_out}",
                "train": len(plan.train),
                "test": len(plan.test),
                "classes": classes,
            },
            "timed": f"one training step of {self._model.batch_size} texts of typical length",
            "methods": entries,
            "load": loading_lines(self._methods[0], kind, self._where, folder, classes),
        }
