"""``mercer bundle`` of a Hugging Face text model, calibrated and measured on the user's texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets import Texts
from .errors import UserError
from .probe import cosines, probe
from .step_bar import StepBar
from .steps import Steps
from .sweep import MODEL_FOLDER, Subject, refuse_unsuitable, sweep
from .text_model import TextModel
from .uptrain_step import uptrain_step

_LEAST_TEXTS = 16
_MOST_CLASSES = 200
_TIMED_TOKENS = 64
_EMBEDDINGS = "embeddings.safetensors"


@dataclass(frozen=True)
class Plan:
    """Which texts are for what; no text is in two parts.

    Attributes
    ----------
    calibration : tuple of str
        What the bundle is calibrated on.
    train, test : tuple of str
        What a probe is trained on (empty where there is none) and what is measured.
    train_labels, test_labels : tuple of str or None
        Their labels.
    measure : str
        ``"head"``, ``"probe"`` or ``"cosine"``.
    repeated : int
        How many texts were left out because they stand in the data more than once.
    """

    calibration: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    train_labels: tuple[str, ...] | None
    test_labels: tuple[str, ...] | None
    measure: str
    repeated: int


def plan_texts(
    data: Texts, has_classes: bool, max_calibration: int, max_evaluation: int, seed: int
) -> Plan:
    """Divide texts into those for calibration and those for evaluation.

    At most half of the texts are for calibration. A text that stands in the data more than
    once counts once, since otherwise a copy of it could be calibrated on and evaluated.

    Raises
    ------
    UserError
        If there are too few texts, or too few of each label for a probe.
    """
    first: dict[str, int] = {}
    for i, text in enumerate(data.texts):
        first.setdefault(text, i)
    unique = list(first.values())
    if len(unique) < _LEAST_TEXTS:
        raise UserError(
            f"--data: {len(unique)} different texts; at least {_LEAST_TEXTS} are needed"
        )
    generator = torch.Generator().manual_seed(seed)
    order = [unique[i] for i in torch.randperm(len(unique), generator=generator).tolist()]
    num_calibration = min(max_calibration, len(order) // 2)
    rest = order[num_calibration:][:max_evaluation]
    measure = "cosine" if data.labels is None else "head" if has_classes else "probe"
    num_train = (6 * len(rest)) // 10 if measure == "probe" else 0

    def labels(rows: Sequence[int]) -> tuple[str, ...] | None:
        return None if data.labels is None else tuple(data.labels[i] for i in rows)

    def texts(rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(data.texts[i] for i in rows)

    train, test = rest[:num_train], rest[num_train:]
    if measure == "probe":
        kinds = set(labels(train) or ())
        if not 2 <= len(kinds) <= _MOST_CLASSES:
            raise UserError(
                f"--label-column: {len(kinds)} different labels among the {len(train)} texts that "
                f"train a probe; expected 2 to {_MOST_CLASSES} (or 'none' to use no labels)"
            )
    return Plan(
        calibration=texts(order[:num_calibration]),
        train=texts(train),
        test=texts(test),
        train_labels=labels(train),
        test_labels=labels(test),
        measure=measure,
        repeated=len(data.texts) - len(unique),
    )


def class_ids(labels: Sequence[str], config: Any) -> Tensor:
    """Map the labels of the data to the classes of a model's head, by name or by number.

    Raises
    ------
    UserError
        If a label is neither.
    """
    by_name = {str(name).lower(): int(i) for name, i in (config.label2id or {}).items()}
    numbers = {str(i): i for i in range(config.num_labels)}
    known = by_name if all(label.lower() in by_name for label in labels) else numbers
    unknown = sorted({label for label in labels if label.lower() not in known})
    if unknown:
        raise UserError(
            f"--label-column: the model has no class {unknown[0]!r}; its classes are "
            f"{', '.join(sorted(by_name))} or 0 to {config.num_labels - 1}"
        )
    return torch.tensor([known[label.lower()] for label in labels])


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class _Scores:
    """Scores of the dense model and of what is made from it, on the same texts."""

    def __init__(self, text_model: TextModel, plan: Plan) -> None:
        self._text_model, self._plan, self._show = text_model, plan, False
        self._dense: Tensor | None = None
        if plan.measure == "head":
            self._classes = class_ids(plan.test_labels or (), text_model.model.config)

    def dense(self, inputs: dict[str, Any], steps: Steps, show: bool) -> dict[str, Any]:
        """Score the dense model, keeping its outputs for comparison."""
        from safetensors.torch import load_file, save_file

        self._show = show

        def compute(folder: Path) -> dict[str, Any]:
            outputs = self._outputs(self._text_model.model)
            save_file({"outputs": outputs}, folder / _EMBEDDINGS)
            return self._score(outputs, outputs)

        found, folder = steps.run("dense", inputs, compute, files=(_EMBEDDINGS,))
        self._dense = load_file(folder / _EMBEDDINGS)["outputs"]
        return found

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        assert self._dense is not None
        return self._score(self._outputs(model), self._dense)

    def _outputs(self, model: nn.Module) -> Tensor:
        texts = self._plan.train + self._plan.test
        classes = self._plan.measure == "head"
        outputs = self._text_model.outputs(model, texts, classes, self._show)
        if not torch.isfinite(outputs).all():
            raise UserError("MODEL: its outputs on these texts are not all finite")
        return outputs

    def _score(self, outputs: Tensor, dense: Tensor) -> dict[str, Any]:
        plan, n = self._plan, len(self._plan.train)
        if plan.measure == "head":
            same = outputs.argmax(dim=-1) == dense.argmax(dim=-1)
            values = (outputs.argmax(dim=-1) == self._classes).double().tolist()
            extra = {"agreement": float(same.double().mean())}
        else:
            close = cosines(outputs[n:], dense[n:])
            extra = {"cosine": sum(close) / len(close)}
            values = close
            if plan.measure == "probe":
                values = probe(
                    outputs[:n], plan.train_labels or (), outputs[n:], plan.test_labels or ()
                )
        return {"values": values, "score": sum(values) / len(values), **extra}


_METRICS = {
    "head": (
        "accuracy",
        "Share of the test texts whose label is the class that the model's own head scores "
        "highest. The interval is a paired bootstrap over the test texts (95 %).",
    ),
    "probe": (
        "probe accuracy",
        "A logistic regression is trained on the mean-pooled embeddings of one part of the texts, "
        "for the dense and for each bundled model alike, and tested on another part. The interval "
        "is a paired bootstrap over the test texts (95 %).",
    ),
    "cosine": (
        "cosine to dense",
        "Mean cosine similarity between the mean-pooled embeddings of the bundled and of the dense "
        "model, on texts that took no part in the calibration. The data have no labels, so "
        "accuracy could not be measured.",
    ),
}


class TextJob:
    """Bundle a text model at every size and measure each on texts it was not calibrated on.

    Parameters
    ----------
    name : str
        The model as the user named it.
    text_model : TextModel
        The model.
    data : Texts
        All texts.
    max_calibration, max_evaluation : int
        Most texts to calibrate on and to evaluate on.
    seed : int
        Seed of the division of the texts and of whatever is random.

    Raises
    ------
    UserError
        If the texts are too few or their labels do not fit the model.
    """

    other_steps = 1  # the dense model

    def __init__(
        self,
        name: str,
        text_model: TextModel,
        data: Texts,
        max_calibration: int,
        max_evaluation: int,
        seed: int,
    ) -> None:
        self._model, self._data, self._seed = text_model, data, seed
        self._name = Path(name).resolve().name if Path(name).is_dir() else name
        plan = plan_texts(data, text_model.has_classes, max_calibration, max_evaluation, seed)
        self._plan = plan
        self._scores = _Scores(text_model, plan)
        self.inputs = {
            "model": text_model.identity,
            "batch_size": text_model.batch_size,
            "max_length": text_model.max_length,
            "texts": [_digest(part) for part in (plan.calibration, plan.train, plan.test)],
            "labels": [_digest(part or ()) for part in (plan.train_labels, plan.test_labels)],
            "measure": plan.measure,
        }

    def check(self, keeps: Sequence[float]) -> None:
        """Raise `UserError` where bundling is bound to fail."""
        batch = self._model.batches(self._plan.calibration[: self._model.batch_size])[0]
        refuse_unsuitable(self._model.model, batch, keeps)

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
        bar.begin("dense model")
        dense = self._scores.dense(inputs, steps, bar.shown)
        tokens = min(_TIMED_TOKENS, self._model.max_length)
        example = self._model.example(self._plan.test, tokens)

        def forward(module: nn.Module) -> Tensor:
            return module(**example)[0]  # hidden states, or the scores of a head

        # Sentences of like length together: less padding to train on.
        ordered = sorted(self._plan.calibration, key=len)

        def save(bundled: Any, folder: Path) -> None:
            bundled.save_pretrained(folder)
            self._model.tokenizer.save_pretrained(folder)

        subject = Subject(
            inputs=inputs,
            model=self._model.model,
            calibrate=self._model.batches(self._plan.calibration),
            dense=dense,
            score=self._scores,
            forward=forward,
            distil=self._model.batches(ordered),
            save=save,
        )
        curve, saved = sweep(subject, keeps, keep, self._seed, steps, bar, save=not uptrain)
        uptrained = None
        if uptrain:
            bar.begin("uptraining")
            step = uptrain_step(subject, keep, uptrain, self._seed, steps, bar.shown)
            uptrained, saved = step[0], step[1] / MODEL_FOLDER
        metric, description = _METRICS[self._plan.measure]
        parts = f"{len(self._plan.calibration):,} to calibrate"
        parts += f", {len(self._plan.train):,} to train a probe" if self._plan.train else ""
        parts += f", {len(self._plan.test):,} to test"
        columns = f"; texts from column {self._data.text_column}" if self._data.text_column else ""
        columns += (
            f", labels from column {self._data.label_column}" if self._data.label_column else ""
        )
        repeated = f"; {self._plan.repeated} repeated texts left out" if self._plan.repeated else ""
        findings = {
            "model": {
                "name": self._name,
                "kind": self._model.architecture,
                "notes": list(self._model.notes),
            },
            "data": {
                "description": f"{len(self._data):,} texts: {parts}{columns}{repeated}",
                "calibration": len(self._plan.calibration),
                "test": len(self._plan.test),
            },
            "metric": {
                "name": metric,
                "percent": self._plan.measure != "cosine",
                "description": description,
            },
            "timed": f"one forward pass of {self._model.batch_size} texts of {tokens} tokens",
            "dense": {"score": dense["score"]},
            "curve": curve,
            "uptrained": uptrained,
            "closed_form": None,
        }
        return findings, saved
