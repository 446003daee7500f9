"""CSV files row by row: their delimiter, their header, and where they are broken."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from .cells import MISSING, as_number

_DELIMITERS = ",;\t|"
_SAMPLE = 200  # rows that are looked at to guess
_LONGEST_CELL = 2**24
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_WITH_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
NumberedRow = tuple[int, list[str]]


def _refuse_bytes(path: Path, start: int) -> ValueError:
    """Say which byte is not UTF-8, and in which line."""
    raw = path.read_bytes()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
    line = raw.count(b"\n", 0, start) + 1
    return ValueError(
        f"file: {path} is not UTF-8: byte 0x{raw[start]:02x} at offset {start}, line {line}; "
        "save it as UTF-8"
    )


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"file: {path} is UTF-16; save it as UTF-8")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise ValueError(f"file: {path} is not text: a zero byte in line {number}")
                yield line
    except UnicodeDecodeError as error:
        raise _refuse_bytes(path, error.start) from None


def csv_rows(path: Path, delimiter: str) -> Iterator[NumberedRow]:
    """Yield each row that is not blank, with the number of its last line.

    Raises
    ------
    ValueError
        If the file is not UTF-8, or a quote is not closed; the text has the line.
    """
    before = csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        start = 1
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                yield reader.line_num, row
            start = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError(
                f"file: {path} ends inside a quoted cell of the row that starts in line {start}: "
                "it was cut off, or a quote is not closed"
            ) from None
        raise ValueError(f"file: {path} is not CSV: line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)


def guess_delimiter(path: Path) -> str:
    """Return the delimiter by which the first rows have the most columns, all alike many.

    Raises
    ------
    ValueError
        If the file holds no rows, or by no delimiter reads as CSV.
    """
    best, rank, problem = "", (False, 0), None
    for delimiter in _DELIMITERS:
        try:
            rows = list(islice(csv_rows(path, delimiter), _SAMPLE))
        except ValueError as error:
            if "is not UTF-8" in str(error) or "is UTF-16" in str(error) or "zero" in str(error):
                raise
            problem = problem or error
            continue
        if not rows:
            raise ValueError(f"file: {path} holds no rows")
        widths = [len(row) for _, row in rows]
        # A cut or faulty row must not hide the delimiter: it is named when it is read.
        usual = max(set(widths), key=lambda width: (widths.count(width), width))
        found = (1 < usual == widths[0], usual)
        if found > rank and widths.count(usual) > 0.5 * len(widths):
            best, rank = delimiter, found
    # One column is what is left of a file that is broken by its own delimiter.
    if not best or (rank == (False, 1) and problem is not None):
        raise problem or ValueError(f"file: {path}: its rows have no common number of columns")
    return best


def has_header(rows: Sequence[NumberedRow]) -> bool:
    """Guess whether the first row names the columns.

    It does not if a cell of it is a number or two are alike; otherwise it does if it stands over
    numbers somewhere, or if none of its cells occurs again below it.
    """
    first = [cell.strip() for cell in rows[0][1]]
    named = first[1:] if not first[0] else first  # an index column often has no name
    if len(set(named)) < len(named) or any(not n or as_number(n) is not None for n in named):
        return False
    below = [[row[i].strip() for _, row in rows[1:] if i < len(row)] for i in range(len(first))]
    filled = [[cell for cell in column if cell.lower() not in MISSING] for column in below]
    if any(c and all(as_number(cell) is not None for cell in c) for c in filled):
        return True
    return not any(name in column for name, column in zip(first, below, strict=True))


def has_decimal_comma(rows: Sequence[NumberedRow], delimiter: str) -> bool:
    """Guess whether 3,5 means three and a half: some cell says so, and none has a point."""
    if delimiter == ",":
        return False
    cells = [cell.strip() for _, row in rows for cell in row]
    commas = any(_WITH_COMMA.fullmatch(cell) for cell in cells)
    return commas and not any(_WITH_POINT.fullmatch(cell) for cell in cells)


def with_points(cell: str) -> str:
    """Write a number with a decimal comma with a point; leave other cells as they are."""
    return cell.replace(",", ".") if _WITH_COMMA.fullmatch(cell.strip()) else cell


def sample(path: Path, delimiter: str) -> list[NumberedRow]:
    """Return the first rows."""
    return list(islice(csv_rows(path, delimiter), _SAMPLE))
