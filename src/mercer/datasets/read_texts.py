"""Texts, with or without labels, from a text, TSV, CSV or Parquet file."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .columns import (
    Table,
    column_index,
    guess_label_column,
    guess_text_column,
    looks_like_header,
)

_FORMATS = {
    ".txt": "text",
    ".text": "text",
    "": "text",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Texts:
    """Texts, with their labels where there are any.

    Attributes
    ----------
    texts : tuple of str
        One text a row; none is empty.
    labels : tuple of str or None
        One label a row, as it stands in the file.
    text_column, label_column : str or None
        The columns they were read from, as the file names or numbers them.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    text_column: str | None = None
    label_column: str | None = None

    def __len__(self) -> int:
        return len(self.texts)


def _read_utf8(path: Path) -> str:
    """Read a whole file as UTF-8, with or without a byte-order mark; lines end in a newline."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"file: {path} is UTF-16; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"file: {path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}, "
            f"line {line}; save it as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"file: {path} is not text: a zero byte in line {line}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _tsv_cell(cell: str) -> str:
    """Unwrap a quoted cell; elsewhere a quote in a TSV file is an ordinary character."""
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _tsv_rows(text: str) -> list[tuple[int, list[str]]]:
    """Split into cells; each row comes with its line number."""
    return [
        (number, [_tsv_cell(cell) for cell in line.split("\t")])
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _csv_rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Split into cells by commas, or by semicolons where the first row has no comma."""
    before = csv.field_size_limit(max(len(text) + 1, 131072))  # a document may be one cell
    try:
        for delimiter in ",;":
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
            if rows and len(rows[0][1]) > 1 and _even(rows):
                return rows
            if delimiter == ",":
                by_commas = rows
        return by_commas
    except csv.Error as error:
        raise ValueError(f"file: {path} is not CSV: line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)


def _even(rows: list[tuple[int, list[str]]]) -> bool:
    return len({len(row) for _, row in rows}) == 1


def _table_of(
    path: Path, rows: list[tuple[int, list[str]]], header: bool | None, by_name: bool
) -> tuple[Table, list[int]]:
    """Make a table, and the line number of each of its rows."""
    if not rows:
        raise ValueError(f"file: {path} holds no rows")
    width = len(rows[0][1])
    for number, row in rows:
        if len(row) != width:
            raise ValueError(
                f"file: {path}: line {number} has {len(row)} columns, the first row has {width}"
            )
    cells = [row for _, row in rows]
    if header is None:
        header = by_name or looks_like_header(cells)
    names = cells[0] if header else None
    body = rows[1:] if header else rows
    if not body:
        raise ValueError(f"file: {path} holds a header and no rows")
    columns = [[row[i] for _, row in body] for i in range(width)]
    return Table(names, columns), [number for number, _ in body]


def _parquet_table(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"file: {path} is Parquet, which needs pyarrow: pip install 'mercer[hf]'"
        ) from None
    try:
        arrow = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"file: {path} is not Parquet: {error}") from None
    names, columns = [], []
    for field in arrow.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        plain = (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_floating(kind)
        )
        if plain:  # images, lists and dates are neither texts nor labels
            cells = arrow.column(field.name).to_pylist()
            names.append(field.name)
            columns.append(["" if cell is None else str(cell) for cell in cells])
    if not columns or not columns[0]:
        raise ValueError(f"file: {path} holds no rows of strings or numbers")
    return Table(names, columns)


def _from_table(
    path: Path,
    table: Table,
    where: Sequence[int] | None,
    text_column: str | int | None,
    label_column: str | int | None,
) -> Texts:
    """Pick the two columns and drop the rows without a text."""
    label: int | None = None
    if label_column not in (None, "none"):
        label = column_index("label_column", label_column, table)
    text = (
        guess_text_column(table, taken=label)
        if text_column is None
        else column_index("text_column", text_column, table)
    )
    if label_column is None:
        label = guess_label_column(table, text)
    if label == text:
        raise ValueError(f"label_column: {table.describe(text)} is the column of the texts")
    texts = table.columns[text]
    kept = [i for i, cell in enumerate(texts) if cell.strip()]
    if not kept:
        raise ValueError(f"file: {path}: column {table.describe(text)} holds no text")
    labels = None
    if label is not None:
        for i in kept:
            if not table.columns[label][i].strip():
                row = f"row {i + 1}" if where is None else f"line {where[i]}"
                raise ValueError(
                    f"file: {path}: {row} has no label in column {table.describe(label)}; "
                    "complete it, or set label_column ('none' for no labels)"
                )
        labels = tuple(table.columns[label][i].strip() for i in kept)
    return Texts(
        tuple(texts[i].strip() for i in kept),
        labels,
        table.describe(text),
        None if label is None else table.describe(label),
    )


def read_texts(
    file: str | os.PathLike[str],
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    header: bool | None = None,
) -> Texts:
    r"""Read texts, and labels where there are any, from a file in UTF-8.

    The ending tells the format: ``.txt`` (one text a line), ``.tsv``, ``.csv``, ``.parquet``.
    Columns that are not given are guessed: the texts by a usual name (``sentence``, ``text``,
    ``review`` ...), otherwise as the clearly longest strings; the labels by a usual name
    (``label``, ``class`` ...), otherwise as the one column with few distinct values. Where the
    guess is not clear, an error says what the columns are. Rows without a text are left out.

    Parameters
    ----------
    file : str or path
        The file. In a TSV file quotes are ordinary characters, except around a whole cell.
    text_column, label_column : str, int or None
        A column by name, or by number from 0; ``label_column="none"`` reads no labels.
    header : bool or None
        Whether the first row of a TSV or CSV file names the columns; None to guess.

    Returns
    -------
    Texts
        The texts and labels, in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If the file is Parquet and pyarrow is missing.
    ValueError
        If the ending is unknown, the file is not UTF-8 or not well formed (the message has the
        line), it holds no text, or a column is missing or not clear.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mercer.datasets import read_texts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "films.tsv")
    ...     _ = file.write_text("sentence\tlabel\na fine film\t1\nvery dull\t0\n")
    ...     read_texts(file)
    Texts(texts=('a fine film', 'very dull'), labels=('1', '0'), text_column="0 'sentence'",
          label_column="1 'label'")
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"file: no file {path}")
    if not path.is_file():
        raise ValueError(f"file: {path} is not a file")
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        endings = ", ".join(ending for ending in _FORMATS if ending)
        raise ValueError(f"file: unknown ending {path.suffix!r} of {path}; expected {endings}")
    if kind == "parquet":
        return _from_table(path, _parquet_table(path), None, text_column, label_column)
    content = _read_utf8(path)
    if kind == "text":
        for option, value in (("text_column", text_column), ("label_column", label_column)):
            if value not in (None, "none"):
                raise ValueError(f"{option}: {path} is plain text, which has no columns")
        lines = tuple(line.strip() for line in content.split("\n") if line.strip())
        if not lines:
            raise ValueError(f"file: {path} holds no text")
        return Texts(lines)
    rows = _tsv_rows(content) if kind == "tsv" else _csv_rows(path, content)
    by_name = any(
        isinstance(column, str) and column != "none" and not column.isdecimal()
        for column in (text_column, label_column)
    )
    table, where = _table_of(path, rows, header, by_name)
    return _from_table(path, table, where, text_column, label_column)
