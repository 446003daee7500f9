"""``mercer adapt``: the options, the order of the steps, and what is printed."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .adapt_page import adapt_page, print_adapted
from .command import (
    BatchSize,
    MaxLength,
    OutPath,
    TextColumn,
    Threads,
    check_counts,
    check_seed,
    out_of,
    publish,
    threads,
)
from .environment import describe_environment
from .errors import UserError, user_errors
from .out_folder import OutFolder
from .step_bar import StepBar
from .steps import key_of


@dataclass(frozen=True)
class Adapt:
    """Fine-tune a text classifier with few trained numbers, by one method or several.

    Writes the first method's model, a page that compares the methods (report.html) and its
    numbers (report.json).
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A Hugging Face folder or hub name; a model without a classification head gets a new one."""

    train: Annotated[Path, arg(metavar="FILE")]
    """Labelled texts in UTF-8 (.tsv, .csv, .parquet) to train on."""

    test: Annotated[Path, arg(metavar="FILE")]
    """Labelled texts to measure on, once, at the end."""

    dev: Annotated[Path | None, arg(metavar="FILE")] = None
    """Labelled texts to choose learning rates on; by default a fifth of --train."""

    method: Annotated[tuple[str, ...], arg(metavar="NAME")] = ("snnk", "lora")
    """One or more of snnk, lora, vera, bottleneck, bitfit, probe, full; the first is saved."""

    epochs: Annotated[int, arg(metavar="N")] = 3
    """How often each method goes through the training texts."""

    learning_rate: Annotated[float | None, arg(metavar="RATE")] = None
    """Instead of the best of four candidates for each method."""

    seed: int = 0
    """Seed of the choice of learning rates and of the first training."""

    seeds: Annotated[int, arg(metavar="N")] = 1
    """Trainings of each method, with --seed and the numbers that follow it."""

    out: OutPath = None

    resume: bool = False
    """Go on where the same command was interrupted, in the middle of a training too."""

    batch_size: BatchSize = 32

    max_length: MaxLength = 128

    text_column: TextColumn = None

    label_column: Annotated[str | None, arg(metavar="NAME")] = None
    """Column of the labels, by name or by number from 0; guessed where it is clear."""

    threads: Threads = None

    def run(self) -> None:
        """Carry the command out.

        Raises
        ------
        UserError
            If something that the user gave cannot be used.
        """
        self._check()
        with threads(self.threads):
            self._run()

    def _check(self) -> None:
        from .adapt_methods import METHODS

        for method in self.method:
            if method not in METHODS:
                raise UserError(f"--method: expected some of {', '.join(METHODS)}, got {method!r}")
        if not self.method or len(set(self.method)) < len(self.method):
            raise UserError(f"--method: expected each name once, got {' '.join(self.method)!r}")
        check_counts(self, "epochs", "seeds", "batch_size", "max_length", "threads")
        check_seed(self.seed)
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise UserError(
                f"--learning-rate: expected a number between 0 and 1, got {self.learning_rate}"
            )

    def _run(self) -> None:
        from ..datasets import read_texts
        from .adapt_data import plan_adaptation
        from .adapt_text import AdaptJob
        from .text_model import load_text_model

        start = time.perf_counter()
        files = {"--train": self.train, "--test": self.test, "--dev": self.dev}
        data = {}
        for option, file in files.items():
            if file is not None:
                with user_errors(OSError, ValueError, ModuleNotFoundError, prefix=f"{option}: "):
                    data[option] = read_texts(file, self.text_column, self.label_column)
        text_model = load_text_model(self.model, self.max_length, self.batch_size)
        config = text_model.model.config if text_model.has_classes else None
        plan = plan_adaptation(
            data["--train"], data["--test"], data.get("--dev"), config, self.seed
        )
        seeds = range(self.seed, self.seed + self.seeds)
        job = AdaptJob(
            self.model, text_model, plan, self.method, self.epochs, seeds, self.learning_rate
        )
        environment = describe_environment(also=("peft",))
        # Whatever a result depends on; the number of threads changes the last digits.
        inputs = {"versions": environment, "seed": self.seed, **job.inputs}
        settings = {
            "model": self.model,
            **{option.lstrip("-"): None if f is None else str(f) for option, f in files.items()},
            "method": list(self.method),
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "seeds": list(seeds),
        }
        where = out_of(self.out, self.model, "-adapted")
        key = key_of({**inputs, "settings": settings})
        out = OutFolder(where, self.resume)
        if self.resume and out.published(key):
            findings = json.loads((out.path / "report.json").read_text(encoding="utf-8"))
            print_adapted(findings, where)
            return
        with StepBar(total=job.total_steps) as bar:
            found, saved = job.run(inputs, out.steps, bar, where)
        findings = {
            "command": "adapt",
            "settings": {**settings, "out": str(where)},
            "environment": environment,
            **found,
            "seconds": time.perf_counter() - start,
        }
        publish(out, findings, adapt_page(findings), saved, key)
        print_adapted(findings, where)
