"""``mercer fit``: the options, the order of the steps, and what is printed."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from .command import OutPath, Threads, check_counts, check_seed, out_of, publish, threads
from .environment import describe_environment
from .errors import UserError, user_errors
from .fit_budget import Budget, Stopwatch
from .fit_candidates import TITLES
from .fit_page import fit_page, print_fit
from .out_folder import OutFolder
from .step_bar import StepBar
from .steps import key_of

Header = Annotated[
    Literal["auto", "yes", "no"],
    arg(help="Whether the first row of a CSV file names the columns."),
]
Delimiter = Annotated[
    str | None,
    arg(
        metavar="CHAR",
        help="Between the cells of a CSV file ('tab' for a tab); by default as it looks.",
    ),
]


def header_of(header: str) -> bool | None:
    """Return what `TableFile` takes as its header."""
    return {"auto": None, "yes": True, "no": False}[header]


def delimiter_of(delimiter: str | None) -> str | None:
    """Return what `TableFile` takes as its delimiter."""
    if delimiter is None or len(delimiter) == 1:
        return delimiter
    if delimiter in ("tab", "\\t"):
        return "\t"
    raise UserError(f"--delimiter: expected one character or 'tab', got {delimiter!r}")


@dataclass(frozen=True)
class Fit:
    """Learn to predict a column of a table by a kernel machine, within a time you set.

    Compares kernels by leave-one-out errors, fits the best, and measures it on rows held out.
    Writes the model, a page about it (report.html) and its numbers (report.json).
    """

    table: Annotated[Positional[Path], arg(metavar="TABLE")]
    """A CSV file in UTF-8, or a Parquet file; numbers, categories, dates and missing cells."""

    target: Annotated[str, arg(metavar="COLUMN")]
    """Column that is predicted, by name or by number from 0 (-1 for the last)."""

    task: Literal["auto", "regression", "classification"] = "auto"
    """By default classification for texts, two values, or numbers that count classes from 0."""

    kernel: Annotated[tuple[str, ...], arg(metavar="NAME")] = tuple(TITLES)
    """Some of rbf, matern52, matern32, laplacian, arc_cosine, ntk."""

    budget: Annotated[float, arg(metavar="MINUTES")] = 5.0
    """Minutes for everything; where they do not suffice for all rows, fewer are fitted to."""

    test_share: Annotated[float, arg(metavar="SHARE")] = 0.2
    """Share of the rows that is held out, measured on once, and used for nothing else."""

    category: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ()
    """Columns of numbers that name categories."""

    drop: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ()
    """Columns that are left out."""

    header: Header = "auto"

    delimiter: Delimiter = None

    seed: int = 0
    """Seed of which rows are held out, and of gradient boosting."""

    out: OutPath = None

    resume: bool = False
    """Go on where the same command was interrupted."""

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
        for name in self.kernel:
            if name not in TITLES:
                raise UserError(f"--kernel: expected some of {', '.join(TITLES)}, got {name!r}")
        if not self.kernel or len(set(self.kernel)) < len(self.kernel):
            raise UserError(f"--kernel: expected each name once, got {' '.join(self.kernel)!r}")
        if not (math.isfinite(self.budget) and self.budget > 0):
            raise UserError(f"--budget: expected minutes above 0, got {self.budget}")
        if not 0 < self.test_share < 1:
            raise UserError(
                f"--test-share: expected a share between 0 and 1, got {self.test_share}"
            )
        check_counts(self, "threads")
        check_seed(self.seed)

    def _run(self) -> None:
        start, started = time.perf_counter(), Stopwatch()
        from .fit_job import FitJob
        from .fit_plan import plan_fit, summary_of

        plan = plan_fit(
            self.table,
            self.target,
            self.task,
            self.test_share,
            self.seed,
            self.drop,
            self.category,
            header_of(self.header),
            delimiter_of(self.delimiter),
        )
        environment = describe_environment()
        # Whatever a result depends on; the number of threads changes the last digits.
        inputs = {
            "versions": environment,
            "seed": self.seed,
            "file": plan.digest,
            "target": plan.target,
            "classes": list(plan.classes),
            "test_share": self.test_share,
            "encoder": plan.encoder.to_config(),
        }
        settings = {
            "table": str(self.table),
            "target": self.target,
            "task": self.task,
            "kernel": list(self.kernel),
            "budget": self.budget,
            "test_share": self.test_share,
            "category": list(self.category),
            "drop": list(self.drop),
            "seed": self.seed,
        }
        where = out_of(self.out, self.table.stem, "-fitted")
        key = key_of({**inputs, "settings": settings})
        out = OutFolder(where, self.resume)
        if self.resume and out.published(key):
            findings = json.loads((out.path / "report.json").read_text(encoding="utf-8"))
            print_fit(findings, where)
            return
        job = FitJob(plan, self.kernel, Budget(self.budget), self.seed)
        memory = user_errors(MemoryError, prefix="cannot fit: ")
        with memory, StepBar(total=job.total_steps) as bar:
            found, saved = job.run(inputs, started, out.steps, bar)
        findings = {
            "command": "fit",
            "settings": {**settings, "out": str(where)},
            "environment": environment,
            "data": summary_of(plan, self.table),
            **found,
            "seconds": time.perf_counter() - start,
        }
        publish(out, findings, fit_page(findings), saved, key)
        print_fit(findings, where)
