"""What the cells of a table say: missing, numbers, truth values, dates, names."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

# Case does not matter. In a category the missing cells are a level of their own, so a name that
# happens to be among these loses nothing.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "<na>", "#n/a"})
_LONGEST = max(map(len, MISSING))
TRUE = frozenset({"true", "t", "yes", "y"})
FALSE = frozenset({"false", "f", "no", "n"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86400.0


def text_cells(cells: Iterable[str | None]) -> np.ndarray:
    """Strip texts, put None for what is missing; an object array (n,)."""
    stripped = [None if cell is None else cell.strip() for cell in cells]
    found = [
        None if s is None or (len(s) <= _LONGEST and s.lower() in MISSING) else s for s in stripped
    ]
    return as_objects(found)


def as_objects(values: list[Any]) -> np.ndarray:
    """Put values into an object array (n,), whatever they are."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def is_missing(cells: np.ndarray) -> np.ndarray:
    """Say which cells are missing: NaN among numbers, None among texts; booleans (n,)."""
    if cells.dtype == np.float64:
        return np.isnan(cells)
    return np.fromiter((cell is None for cell in cells), dtype=bool, count=len(cells))


def as_number(text: str) -> float | None:
    """Read a number, or None; an underscore is a name's, not a number's."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def as_truth(text: str) -> float | None:
    """Read a truth value, as 1.0 or 0.0, or None."""
    low = text.lower()
    if low in TRUE or text == "1":
        return 1.0
    return 0.0 if low in FALSE or text == "0" else None


def as_days(text: str) -> float | None:
    """Read an ISO date or time as days since 1970, or None; without a zone it counts as UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - _EPOCH).total_seconds() / _DAY


_READERS = {"number": as_number, "boolean": as_truth, "date": as_days}


def read_cells(cells: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    """Read cells as numbers of a kind.

    Parameters
    ----------
    cells : ndarray of shape (n,)
        Numbers (float64) or texts with None for what is missing.
    kind : str
        ``"number"``, ``"boolean"`` or ``"date"``.

    Returns
    -------
    tuple of ndarray and int
        Numbers (n,), float64, NaN for what is missing; and the position of the first cell that
        cannot be read so, or -1.
    """
    if cells.dtype == np.float64:
        return cells, -1
    if kind == "number":
        try:  # all at once, as nearly always nothing is wrong
            plain = [math.nan if cell is None else float(cell) for cell in cells]
        except ValueError:
            pass
        else:
            if not any(cell is not None and "_" in cell for cell in cells):
                return np.array(plain, dtype=np.float64), -1
    read = _READERS[kind]
    found = np.full(len(cells), math.nan)
    for i, cell in enumerate(cells):
        if cell is not None:
            value = read(cell)
            if value is None:
                return found, i
            found[i] = value
    return found, -1


def number_cells(cells: Sequence[str]) -> np.ndarray:
    """Read raw texts as numbers where all of them are, else as `text_cells` does; (n,)."""
    try:  # empty cells alone are missing, nearly always
        found = np.array([float(cell or "nan") for cell in cells], dtype=np.float64)
    except ValueError:
        texts = text_cells(cells)
        numbers, bad = read_cells(texts, "number")
        return texts if bad >= 0 else numbers
    return text_cells(cells) if any("_" in cell for cell in cells) else found


def as_levels(cells: np.ndarray) -> np.ndarray:
    """Write cells as the levels of a category (n,): numbers in one way, 1.0 as 1; None stays."""
    if cells.dtype == np.float64:
        return as_texts(cells)
    known: dict[str | None, str | None] = {None: None}
    for cell in set(cells.tolist()) - {None}:
        number = as_number(cell)
        known[cell] = cell if number is None else number_text(number)
    return as_objects([known[cell] for cell in cells.tolist()])


def as_texts(cells: np.ndarray) -> np.ndarray:
    """Write cells as texts (n,), whole numbers without a point; None stays."""
    if cells.dtype != np.float64:
        return cells
    return as_objects([None if math.isnan(value) else number_text(value) for value in cells])


def number_text(value: float) -> str:
    """Write a number as a CSV file would have it."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < 2**53
    return str(int(value)) if whole else repr(float(value))
