"""``mercer bundle``: the options, the order of the steps, and what is printed."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from .bundle_page import bundle_page
from .bundle_table import print_findings
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

_CURVE = (0.125, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Bundle:
    """Replace the feed-forward blocks of a trained network by scalable neural network kernels.

    Writes the bundled model, a page about it (report.html) and its numbers (report.json).
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")] = "digits"
    """'digits' (trains a small network in seconds), a Hugging Face folder, or a hub name."""

    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """Texts in UTF-8 (.txt, .tsv, .csv, .parquet) to calibrate on, and to evaluate on."""

    keep: Annotated[float, arg(metavar="SHARE")] = 0.5
    """Share of the numbers stored in each feed-forward block that the saved model keeps."""

    uptrain: Annotated[int, arg(metavar="STEPS")] = 0
    """Steps for which the model of --keep is trained, without labels, to match the dense one."""

    curve: Annotated[tuple[float, ...], arg(metavar="SHARE")] = _CURVE
    """Shares that are measured besides --keep; none to measure that one only."""

    out: OutPath = None

    resume: bool = False
    """Go on where the same command was interrupted."""

    seed: int = 0
    """Seed of the split of the data, the training and the bundling."""

    max_calibration: Annotated[int, arg(metavar="N")] = 1000
    """Most texts to calibrate on."""

    max_evaluation: Annotated[int, arg(metavar="N")] = 2000
    """Most texts to evaluate on."""

    batch_size: BatchSize = 32

    max_length: MaxLength = 128

    text_column: TextColumn = None

    label_column: Annotated[str | None, arg(metavar="NAME")] = None
    """Column of the labels, by name or by number from 0; 'none' to use no labels."""

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
        for name, shares in (("--keep", (self.keep,)), ("--curve", self.curve)):
            for share in shares:
                if not 0 < share <= 1:
                    raise UserError(f"{name}: expected a share above 0 and at most 1, got {share}")
        check_counts(
            self, "max_calibration", "max_evaluation", "batch_size", "max_length", "threads"
        )
        if self.uptrain < 0:
            raise UserError(f"--uptrain: expected a number of steps, got {self.uptrain}")
        check_seed(self.seed)
        if self.model == "digits" and self.data is not None:
            raise UserError("--data: 'digits' brings its own data; name a text model to use a file")
        if self.model != "digits" and self.data is None:
            raise UserError(
                f"--data: {self.model} needs texts to calibrate on: a .txt, .tsv, .csv or "
                ".parquet file in UTF-8; with labels its accuracy is measured too"
            )

    def _job(self) -> Any:
        if self.model == "digits":
            from .bundle_digits import DigitsJob

            return DigitsJob(self.seed)
        from ..datasets import read_texts
        from .bundle_text import TextJob
        from .text_model import load_text_model

        assert self.data is not None
        with user_errors(OSError, ValueError, ModuleNotFoundError, prefix="--data: "):
            data = read_texts(self.data, self.text_column, self.label_column)
        text_model = load_text_model(self.model, self.max_length, self.batch_size)
        return TextJob(
            self.model, text_model, data, self.max_calibration, self.max_evaluation, self.seed
        )

    def _run(self) -> None:
        start = time.perf_counter()
        keeps = tuple(sorted({*self.curve, self.keep}))
        job = self._job()
        job.check(keeps)
        environment = describe_environment()
        # Whatever a result depends on; the number of threads changes the last digits.
        inputs = {"versions": environment, "seed": self.seed, **job.inputs}
        key = key_of({**inputs, "keeps": keeps, "keep": self.keep, "uptrain": self.uptrain})
        where = out_of(self.out, self.model)
        out = OutFolder(where, self.resume)
        if self.resume and out.published(key):
            findings = json.loads((out.path / "report.json").read_text(encoding="utf-8"))
            print_findings(findings, where)
            return
        total = len(keeps) + job.other_steps + bool(self.uptrain)
        with StepBar(total=total) as bar:
            found, saved = job.run(keeps, self.keep, inputs, out.steps, bar, self.uptrain)
        findings = {
            "command": "bundle",
            "settings": {
                "model": self.model,
                "keep": self.keep,
                "curve": keeps,
                "uptrain": self.uptrain,
                "seed": self.seed,
                "data": None if self.data is None else str(self.data),
                "out": str(where),
            },
            "environment": environment,
            **found,
            "seconds": time.perf_counter() - start,
        }
        publish(out, findings, bundle_page(findings), saved, key)
        print_findings(findings, where)
