"""A whole table from a CSV or Parquet file."""

import os
from collections.abc import Sequence

import numpy as np

from .cells import as_objects, as_texts, number_cells
from .data_table import DataTable
from .table_file import TableFile


def read_table(
    file: str | os.PathLike[str], *, header: bool | None = None, delimiter: str | None = None
) -> DataTable:
    r"""Read a whole table; `TableFile` reads one that does not fit memory.

    Parameters
    ----------
    file : str or path
        A CSV or Parquet file, see `TableFile`.
    header : bool, optional
        Whether the first row of a CSV file names the columns; guessed without it.
    delimiter : str, optional
        One character; guessed without it.

    Returns
    -------
    DataTable
        The columns; the cells of a CSV file are texts, of which `TableEncoder` makes numbers.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, ValueError
        As of `TableFile`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mercer.datasets import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "boats.csv")
    ...     _ = file.write_text("length,flag\n8.5,red\n?,blue\n")
    ...     read_table(file).column("length")
    array(['8.5', None], dtype=object)
    """
    return joined(TableFile(file, header=header, delimiter=delimiter))


def joined(table: TableFile) -> DataTable:
    """Read all rows of an open table."""
    return _join(table, list(table.chunks()))


def compact(table: TableFile) -> DataTable:
    """Read all rows of an open table in little memory: numbers as such, equal texts once."""
    known: dict[str | None, str | None] = {}

    def read(cells: Sequence[str]) -> np.ndarray:
        found = number_cells(cells)
        if found.dtype == np.float64:
            return found
        return as_objects([known.setdefault(cell, cell) for cell in found.tolist()])

    return _join(table, list(table.parts(2**16, read)))


def _join(table: TableFile, parts: list[DataTable]) -> DataTable:
    if not parts:
        return DataTable(table.names, tuple(np.empty(0) for _ in table.names), np.arange(0))
    columns = []
    for same in zip(*(part.columns for part in parts), strict=True):
        # A column may begin with numbers; of Parquet, nulls alone are numbers.
        mixed = len({column.dtype for column in same}) > 1
        columns.append(np.concatenate([as_texts(c) for c in same] if mixed else same))
    lines = np.concatenate([part.lines for part in parts])
    return DataTable(table.names, tuple(columns), lines, parts[0].unit)
