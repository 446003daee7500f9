"""A table in a CSV or Parquet file, read some rows at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np

from .._core.checks import check_int
from .cells import text_cells
from .csv_rows import (
    NumberedRow,
    csv_rows,
    guess_delimiter,
    has_decimal_comma,
    has_header,
    sample,
    with_points,
)
from .data_table import DataTable, listed
from .parquet_rows import open_parquet, parquet_batches, readable

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@final
class TableFile:
    r"""A table in a CSV or Parquet file, of any length, read some rows at a time.

    A CSV file is in UTF-8. Its delimiter (comma, semicolon, tab or bar), whether its first row is
    a header and whether 3,5 means 3.5 are guessed from its first rows where they are not given.
    Cells are missing where they are empty or say ``NA``, ``N/A``, ``NaN``, ``null``, ``none`` or
    ``?``. Of a Parquet file, columns of lists, bytes and the like are left out and listed.

    Parameters
    ----------
    file : str or path
        A file that ends in ``.csv``, ``.tsv``, ``.tab``, ``.txt``, ``.data``, ``.parquet`` or
        ``.pq``.
    header : bool, optional
        Whether the first row of a CSV file names the columns; without it they are called by
        their numbers from 0.
    delimiter : str, optional
        One character.
    named : str, optional
        A column, not by its number: where it stands in the first row, that is a header.

    Attributes
    ----------
    path : Path
        The file.
    names : tuple of str
        The columns that can be read.
    left_out : dict of str to str
        The others, with their types.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If it is Parquet and pyarrow is missing.
    ValueError
        If the ending is unknown, or the file is broken; the text has the line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mercer.datasets import TableFile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "boats.csv")
    ...     _ = file.write_text("length;sails\n8,5;2\n12,25;\n")
    ...     boats = TableFile(file)
    ...     boats.names, [part.columns for part in boats.chunks(1000)]
    (('length', 'sails'), [(array(['8.5', '12.25'], dtype=object),
                            array(['2', None], dtype=object))])
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        header: bool | None = None,
        delimiter: str | None = None,
        named: str | None = None,
    ) -> None:
        self.path = Path(file)
        if not self.path.exists():
            raise FileNotFoundError(f"file: no file {self.path}")
        if not self.path.is_file():
            raise ValueError(f"file: {self.path} is not a file")
        kind = _FORMATS.get(self.path.suffix.lower())
        if kind is None:
            raise ValueError(
                f"file: unknown ending {self.path.suffix!r} of {self.path}; expected "
                f"{', '.join(_FORMATS)}"
            )
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"delimiter: expected one character, got {delimiter!r}")
        self._parquet: Any = None
        self.left_out: dict[str, str] = {}
        if kind == "parquet":
            self._parquet = open_parquet(self.path)
            found, self.left_out = readable(self._parquet)
            self._check_names(found)
            self.names = tuple(found)
        else:
            self._open_csv(header, delimiter, named)

    def _open_csv(self, header: bool | None, delimiter: str | None, named: str | None) -> None:
        if self.path.stat().st_size == 0:
            raise ValueError(f"file: {self.path} is empty")
        self._delimiter = guess_delimiter(self.path) if delimiter is None else delimiter
        rows = sample(self.path, self._delimiter)
        if not rows:
            raise ValueError(f"file: {self.path} holds no rows")
        first = [cell.strip() for cell in rows[0][1]]
        if header is None:
            # A number is where a column stands, or a cell.
            by_name = named is not None and not named.removeprefix("-").isdecimal()
            header = (by_name and named in first) or has_header(rows)
        if header and len(rows) == 1:
            raise ValueError(f"file: {self.path} holds a header and no rows")
        self._header, self._point = header, not has_decimal_comma(rows, self._delimiter)
        found = first if header else [str(i) for i in range(len(first))]
        found = [name or f"unnamed {i}" for i, name in enumerate(found)]
        self._check_names(found)
        self.names = tuple(found)

    def _check_names(self, names: list[str]) -> None:
        if not names:
            raise ValueError(f"file: {self.path} has no columns of numbers or texts")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"file: {self.path}: {names.count(twice)} columns are named {twice!r}")

    def find(self, wanted: str) -> str:
        """Return the name of a column given by its name or by its number from 0.

        Parameters
        ----------
        wanted : str
            The name, or the number; a negative one counts from the end.

        Returns
        -------
        str
            The name.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        if wanted in self.names:
            return wanted
        number = int(wanted) if wanted.removeprefix("-").isdecimal() else None
        if number is not None and -len(self.names) <= number < len(self.names):
            return self.names[number]
        if wanted in self.left_out:
            raise ValueError(
                f"column {wanted!r} of {self.path} holds {self.left_out[wanted]}; expected "
                "numbers, texts or dates"
            )
        raise ValueError(f"no column {wanted!r}; the columns are {listed(self.names)}")

    def chunks(self, rows: int = 65536) -> Iterator[DataTable]:
        """Read the table from its start, some rows at a time.

        Parameters
        ----------
        rows : int, default 65536
            Most rows of a part.

        Yields
        ------
        DataTable
            The next rows; the cells of a CSV file are texts.

        Raises
        ------
        ValueError
            If the file is broken; the text has the line.
        """
        yield from self.parts(check_int("rows", rows), text_cells)

    def parts(self, rows: int, read: Callable[[Sequence[str]], np.ndarray]) -> Iterator[DataTable]:
        """Read the table some rows at a time, the cells of a text file by a function."""
        if self._parquet is not None:
            start = 1
            for columns in parquet_batches(self.path, self._parquet, list(self.names), rows):
                stop = start + len(columns[0])
                yield DataTable(self.names, columns, np.arange(start, stop))
                start = stop
            return
        source = self._rows()
        while part := list(islice(source, rows)):
            cells = zip(*(row for _, row in part), strict=True)
            if not self._point:
                cells = ([with_points(cell) for cell in column] for column in cells)
            lines = np.array([line for line, _ in part])
            yield DataTable(self.names, tuple(map(read, cells)), lines, "line")

    def _rows(self) -> Iterator[NumberedRow]:
        """Yield the rows below the header, each of the right width."""
        rows = csv_rows(self.path, self._delimiter)
        if self._header:
            next(rows)
        width, bad = len(self.names), None
        for line, row in rows:
            if bad is not None:
                raise self._wrong(*bad, last=False)
            if len(row) == width:
                yield line, row
            else:
                bad = line, len(row)
        if bad is not None:
            raise self._wrong(*bad, last=True)

    def _wrong(self, line: int, width: int, last: bool) -> ValueError:
        cut = last and width < len(self.names)
        return ValueError(
            f"file: {self.path}: line {line} has {width} cells, the first row has "
            f"{len(self.names)}" + ("; it is the last: the file was cut off" if cut else "")
        )
