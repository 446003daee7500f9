"""A table of numbers, dates and categories with holes as a matrix."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .._core.checks import check_int
from .cells import as_levels
from .column_encoding import ColumnEncoding, fit_category, fit_numbers, numbers_of
from .column_scan import ColumnKind, ColumnScan
from .data_table import DataTable, listed
from .table_file import TableFile


@final
@dataclass(frozen=True)
class TableEncoder:
    r"""Turn a table into a matrix, always in the way that was learnt from one table.

    Numbers are standardised and get their median where they are missing, with a further column
    that says where; truth values and ISO dates (as days) count as numbers. Categories become one
    column for each level seen often enough, one for all others, known or not, and one for missing
    cells. Left out, with a note: columns whose cells are all alike or all missing, that number or
    name the rows, and free text. The kinds of columns are guessed from all rows, their statistics
    are taken from some, if asked.

    Parameters
    ----------
    columns : tuple of ColumnEncoding
        Made by `fit`.
    notes : mapping of str to str
        What is worth knowing of columns, by name; above all why some are left out.

    Examples
    --------
    >>> from mercer.datasets import DataTable, TableEncoder
    >>> table = DataTable.of({"age": [31, None, 47, 20], "town": ["Ulm", "Bonn", "Ulm", "Bonn"]})
    >>> encoder = TableEncoder.fit(table, rare=1)
    >>> encoder.titles
    ('age', 'age missing', 'town = Bonn', 'town = Ulm', 'town other')
    >>> encoder.encode(DataTable.of({"town": ["Ulm", "Rome"], "age": [31, 32]})).shape
    torch.Size([2, 5])
    """

    columns: tuple[ColumnEncoding, ...]
    notes: Mapping[str, str]

    @classmethod
    def fit(
        cls,
        table: DataTable | TableFile,
        *,
        target: str | None = None,
        rows: Tensor | None = None,
        drop: Sequence[str] = (),
        categories: Sequence[str] = (),
        most_levels: int = 30,
        rare: int = 5,
    ) -> "TableEncoder":
        """Learn how to encode a table.

        Parameters
        ----------
        table : DataTable or TableFile
            The table; a file is read three times and never held as a whole.
        target : str, optional
            A column that is no input.
        rows : BoolTensor of shape (n,), optional
            The rows from which medians, means, levels and the like are taken; by default all.
        drop : sequence of str
            Columns that are left out.
        categories : sequence of str
            Columns that are categories, whatever they look like.
        most_levels : int, default 30
            Levels of a category with a column of their own; the rarer ones share one.
        rare : int, default 5
            Levels seen in fewer rows share it too.

        Returns
        -------
        TableEncoder
            The encoder.

        Raises
        ------
        ValueError
            If an argument names no column, a column of numbers holds something else, or no column
            is left.
        """
        check_int("most_levels", most_levels)
        check_int("rare", rare)
        for option, names in (("drop", drop), ("categories", categories), ("target", (target,))):
            for name in names:
                if name is not None and name not in table.names:
                    raise ValueError(
                        f"{option}: no column {name!r}; the columns are {listed(table.names)}"
                    )
        kinds = _scan(table, [n for n in table.names if n != target and n not in drop])
        kinds |= {name: ColumnKind("category") for name in categories if name in kinds}
        notes = {name: found.note for name, found in kinds.items() if found.note}
        notes |= dict.fromkeys(drop, "left out: as asked")
        if isinstance(table, TableFile):
            notes |= {n: f"left out: it holds {kind}" for n, kind in table.left_out.items()}
        _refuse_mistakes(table, kinds)
        used = {name: found.kind for name, found in kinds.items() if found.kind is not None}
        if not used:
            reasons = "; ".join(f"{name!r}: {note}" for name, note in notes.items())
            reasons = reasons or f"the table has the column {target!r} only"
            raise ValueError(f"table: no column to learn from is left: {reasons}")
        encodings = _learn(table, used, rows, most_levels, rare)
        for each in encodings:
            if each.kind == "category":
                shown = f"{len(each.levels)} levels of their own"
                notes[each.name] = f"{notes.get(each.name, 'a category, as asked')}, {shown}"
        return cls(encodings, {name: notes[name] for name in sorted(notes)})

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the matrix's columns."""
        return tuple(title for column in self.columns for title in column.titles)

    def encode(self, table: DataTable) -> Tensor:
        """Encode the rows of a table; columns that are not known are ignored.

        Parameters
        ----------
        table : DataTable
            The rows, with at least the columns of the fit that were not left out.

        Returns
        -------
        Tensor of shape (n, d)
            Numbers, float64.

        Raises
        ------
        ValueError
            If a column is missing, or a cell is of another kind than its column was in the fit;
            the text names both.
        """
        absent = tuple(c.name for c in self.columns if c.name not in table.names)
        if absent:
            raise ValueError(
                f"table: no column {listed(absent)}, which the encoder was fitted with; there are "
                f"{table.listing()}"
            )
        found = np.empty((len(table), len(self.titles)))
        start = 0
        for column in self.columns:
            stop = start + len(column.titles)
            found[:, start:stop] = column.encode(table)
            start = stop
        return torch.from_numpy(found)

    def ignored(self, names: Iterable[str]) -> list[str]:
        """Return which columns of a table are of no use to the encoder."""
        used = {column.name for column in self.columns}
        return [name for name in names if name not in used]

    def to_config(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {"columns": [c.to_config() for c in self.columns], "notes": dict(self.notes)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TableEncoder":
        """Make an encoder of what `to_config` returned."""
        columns = tuple(ColumnEncoding.from_config(each) for each in config["columns"])
        return cls(columns, dict(config["notes"]))


def parts_of(table: DataTable | TableFile) -> Iterable[DataTable]:
    """Return a table in one part, a file in several."""
    return (table,) if isinstance(table, DataTable) else table.chunks()


def _scan(table: DataTable | TableFile, names: list[str]) -> dict[str, ColumnKind]:
    scans = {name: ColumnScan(name) for name in names}
    for part in parts_of(table):
        for name, scan in scans.items():
            scan.update(part.column(name))
    return {name: scan.result() for name, scan in scans.items()}


def _refuse_mistakes(table: DataTable | TableFile, kinds: Mapping[str, ColumnKind]) -> None:
    """Raise where a cell is no number in a column of numbers, and say where it stands."""
    for name, found in kinds.items():
        if found.mistake is None:
            continue
        for part in parts_of(table):
            cells = part.column(name)
            for i in np.flatnonzero(cells == found.mistake)[:1]:
                raise ValueError(
                    f"table: column {name!r}: expected a number, as {found.note}, got "
                    f"{found.mistake!r} in {part.where(int(i))}; correct it, or name the column "
                    "among the categories or those to drop"
                )


def _learn(
    table: DataTable | TableFile,
    kinds: Mapping[str, str],
    rows: Tensor | None,
    most: int,
    rare: int,
) -> tuple[ColumnEncoding, ...]:
    numbers: dict[str, list[np.ndarray]] = {n: [] for n, k in kinds.items() if k != "category"}
    counts: dict[str, Counter[str | None]] = {
        n: Counter() for n, k in kinds.items() if k == "category"
    }
    start = 0
    for part in parts_of(table):
        kept = slice(None)
        if rows is not None:
            kept = rows[start : start + len(part)].numpy()
        start += len(part)
        for name, found in numbers.items():
            found.append(numbers_of(part, name, kinds[name])[kept])
        for name, seen in counts.items():
            seen.update(as_levels(part.column(name))[kept].tolist())
    return tuple(
        fit_category(name, counts[name], most, rare)
        if kind == "category"
        else fit_numbers(name, kind, np.concatenate(numbers[name]))
        for name, kind in kinds.items()
    )
