"""Which rows of a table ``mercer fit`` learns from and which it measures on, as numbers."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.config import config
from ..datasets import DataTable, TableEncoder, TableFile
from ..datasets.cells import as_levels, as_texts, as_truth, is_missing, number_text, read_cells
from ..datasets.column_scan import ColumnScan
from ..datasets.read_table import compact
from ..datasets.table_encoder import parts_of
from .errors import UserError, user_errors

TASKS = ("auto", "regression", "classification")
_IN_MEMORY = 0.2  # of the memory budget: a smaller file is read once and kept for a while
_MOST_CODES = 20  # classes that are written as 0, 1, 2 ...
_MOST_CLASSES = 50
_LEAST_ROWS = 20
_LEAST_SPREAD, _MOST_SPREAD = 1e-140, 1e140  # of numbers, whose squares are summed
_LEAST_OF_A_CLASS = 5
_OF_EACH_CLASS = 2  # training rows that come first


@dataclass(frozen=True, eq=False)
class FitPlan:
    """The rows as numbers.

    Attributes
    ----------
    target : str
        The column that is predicted.
    classes : tuple of str
        Empty for regression.
    reason : str
        Why it is the one task or the other.
    encoder : TableEncoder
        Its statistics are those of the training rows.
    notes : dict of str to str
        What is worth knowing of columns.
    x, x_test : Tensor of shape (n, d) and (t, d)
        Inputs, the training rows in the order in which parts of them are taken.
    y, y_test : Tensor of shape (n,) and (t,)
        Targets in their own unit, or the numbers of classes.
    without_target : int
        Rows that were left out because their target is missing.
    digest : str
        Of the file.
    """

    target: str
    classes: tuple[str, ...]
    reason: str
    encoder: TableEncoder
    notes: dict[str, str]
    x: Tensor
    x_test: Tensor
    y: Tensor
    y_test: Tensor
    without_target: int
    digest: str

    @property
    def mean(self) -> float:
        """Mean of the training targets, for regression."""
        return float(self.y.mean())

    @property
    def scale(self) -> float:
        """Standard deviation of the training targets, for regression."""
        return float(self.y.std(correction=0)) or 1.0

    def outputs(self) -> Tensor:
        """Return targets for a ridge: (n,) standardised, or (n, classes) of zeros and ones."""
        if self.classes:
            return torch.nn.functional.one_hot(self.y, len(self.classes)).double()
        return (self.y - self.mean) / self.scale


def plan_fit(
    path: Path,
    target: str,
    task: str,
    test_share: float,
    seed: int,
    drop: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    header: bool | None = None,
    delimiter: str | None = None,
) -> FitPlan:
    """Read a table, encode it and divide its rows.

    Raises
    ------
    UserError
        If the file or the target cannot be used.
    """
    with user_errors(OSError, ValueError, ModuleNotFoundError, prefix="TABLE: "):
        file = TableFile(path, header=header, delimiter=delimiter, named=target)
        with user_errors(ValueError, prefix="--target: "):
            target = file.find(target)
        drop, categories = _names("--drop", file, drop), _names("--category", file, categories)
        if target in drop or target in categories:
            raise UserError(f"--target: {target!r} is also named by --drop or --category")
        small = path.stat().st_size <= _IN_MEMORY * config.memory_budget
        table = compact(file) if small else file
        cells, y, classes, reason = _target(table, target, task)
        kept = ~is_missing(cells)
        test = _hold_out(kept, y if classes else None, test_share, seed)
        train = torch.from_numpy(kept) & ~test
        encoder = TableEncoder.fit(
            table, target=target, rows=train, drop=drop, categories=categories
        )
        x = torch.empty(len(kept), len(encoder.titles), dtype=torch.float64)  # (all, d)
        start = 0
        for part in parts_of(table):
            x[start : start + len(part)] = encoder.encode(part)
            start += len(part)
        digest = _digest(path)
    order = torch.nonzero(train).squeeze(1)
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed + 1))]
    if classes:
        order = _each_class_first(order, y[order])
    left_out = {name: f"left out: it holds {kind}" for name, kind in file.left_out.items()}
    return FitPlan(
        target,
        classes,
        reason,
        encoder,
        {**encoder.notes, **left_out},
        x[order],
        x[test],
        y[order],
        y[test],
        int((~kept).sum()),
        digest,
    )


def _each_class_first(order: Tensor, classes: Tensor) -> Tensor:
    """Move some rows of each class to the front, so that the first rows are of all classes."""
    first = torch.cat(
        [(classes == c).nonzero().squeeze(1)[:_OF_EACH_CLASS] for c in classes.unique()]
    )
    rest = torch.ones(len(order), dtype=torch.bool)
    rest[first] = False
    return torch.cat([order[first], order[rest]])


def _names(option: str, file: TableFile, wanted: tuple[str, ...]) -> tuple[str, ...]:
    with user_errors(ValueError, prefix=f"{option}: "):
        return tuple(file.find(name) for name in wanted if name not in file.left_out)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _target(
    table: DataTable | TableFile, name: str, task: str
) -> tuple[np.ndarray, Tensor, tuple[str, ...], str]:
    """Return the cells (n,), the targets (n,) as numbers or classes, the classes and why."""
    scan, found, lines, unit = ColumnScan(name), [], [], "row"
    for part in parts_of(table):
        cells = part.column(name)
        scan.update(cells)
        found.append(cells)
        lines.append(part.lines)
        unit = part.unit
    cells = np.concatenate(found) if found else np.empty(0)
    present = cells[~is_missing(cells)]
    if len(present) < _LEAST_ROWS:
        raise UserError(
            f"--target: {len(present)} rows of {name!r} are not missing; at least {_LEAST_ROWS} "
            "are needed"
        )
    kind = scan.result()
    numbers, bad = read_cells(cells, "number")
    if bad < 0 and np.isinf(numbers).any():
        line = np.concatenate(lines)[np.isinf(numbers).argmax()]
        raise UserError(f"--target: {name!r} is infinite in {unit} {line}")
    is_number = bad < 0
    if not is_number and (task == "regression" or kind.mistake is not None):
        raise UserError(
            f"--target: {name!r}: expected a number, got {cells[bad]!r} in {unit} "
            f"{np.concatenate(lines)[bad]}" + ("" if kind.mistake is None else f"; {kind.note}")
        )
    if kind.kind == "date":
        raise UserError(f"--target: {name!r} holds dates; give a column of numbers or classes")
    if len(set(present.tolist())) == 1:
        value = as_texts(present[:1])[0]
        raise UserError(f"--target: every row of {name!r} is {value!r}; nothing to learn")
    if task == "auto":
        task, reason = _guess(numbers, is_number, present)
    else:
        reason = "as asked"
    if task == "regression":
        largest = float(np.nanmax(np.abs(numbers)))
        spread = float(np.nanstd(numbers / largest)) * largest
        if not _LEAST_SPREAD < spread < _MOST_SPREAD:
            raise UserError(
                f"--target: {name!r} spreads by {spread:.2g}, whose square is beyond float64; "
                "give it in another unit"
            )
        return cells, torch.from_numpy(numbers), (), reason
    return cells, *_classes(name, cells, is_number), reason


def _guess(numbers: np.ndarray, is_number: bool, present: np.ndarray) -> tuple[str, str]:
    if not is_number:
        return "classification", "the target holds texts"
    values = np.unique(numbers[~np.isnan(numbers)])
    if len(values) == 2:
        return "classification", "the target has two different values"
    first = values[0]
    counted = first in (0, 1) and np.array_equal(values, np.arange(first, first + len(values)))
    if counted and len(values) <= _MOST_CODES and len(present) > 5 * len(values):
        return "classification", f"the target counts {len(values)} classes from {first:g}"
    return "regression", f"the target holds {len(values):,} different numbers"


def _classes(name: str, cells: np.ndarray, is_number: bool) -> tuple[Tensor, tuple[str, ...]]:
    """Return the number of each row's class, 0 where it is missing, and the classes."""
    cells = as_levels(cells)  # 1 and 1.0 are one class
    counts = Counter(cell for cell in cells if cell is not None)
    order = sorted(counts, key=(lambda text: float(text)) if is_number else str)
    if all(as_truth(each) is not None for each in order):
        order = sorted(order, key=lambda each: as_truth(each) or 0.0)  # false before true
    if len(order) > _MOST_CLASSES:
        raise UserError(
            f"--target: {name!r} has {len(order):,} different values; expected at most "
            f"{_MOST_CLASSES} classes, or numbers"
        )
    rare = [each for each in order if counts[each] < _LEAST_OF_A_CLASS]
    if rare:
        raise UserError(
            f"--target: class {rare[0]!r} of {name!r} has {counts[rare[0]]} rows; at least "
            f"{_LEAST_OF_A_CLASS} are needed: leave such rows out, or join classes"
        )
    number = {each: i for i, each in enumerate(order)}
    codes = [0 if cell is None else number[cell] for cell in cells]
    return torch.tensor(codes), tuple(order)


def _hold_out(kept: np.ndarray, classes: Tensor | None, share: float, seed: int) -> Tensor:
    """Choose the rows to measure on, of each class the same share; booleans (n,)."""
    source = torch.Generator().manual_seed(seed)
    test = torch.zeros(len(kept), dtype=torch.bool)
    rows = torch.from_numpy(kept).nonzero().squeeze(1)
    groups = (
        [rows] if classes is None else [rows[classes[rows] == c] for c in classes[rows].unique()]
    )
    for group in groups:
        count = max(1, round(share * len(group)))
        test[group[torch.randperm(len(group), generator=source)[:count]]] = True
    return test


def summary_of(plan: FitPlan, path: Path) -> dict[str, Any]:
    """Return what the page tells of the data, as plain values."""
    used = {column.name: column for column in plan.encoder.columns}
    columns = [
        {
            "name": name,
            "kind": used[name].kind if name in used else "left out",
            "inputs": len(used[name].titles) if name in used else 0,
            "missing": bool(name in used and used[name].missing),
            "note": plan.notes.get(name, ""),
        }
        for name in [*used, *(name for name in plan.notes if name not in used)]
    ]
    whole: dict[str, Any] = {
        "name": path.name,
        "target": plan.target,
        "task": "classification" if plan.classes else "regression",
        "reason": plan.reason,
        "classes": list(plan.classes),
        "train": len(plan.x),
        "test": len(plan.x_test),
        "without_target": plan.without_target,
        "inputs": plan.x.shape[1],
        "columns": columns,
    }
    if plan.classes:
        counts = Counter(plan.y.tolist())
        whole["counts"] = [counts[i] for i in range(len(plan.classes))]
    else:
        low, high = (number_text(float(value)) for value in (plan.y.min(), plan.y.max()))
        whole["range"] = [low, high]
    return whole
