"""One column of a table as columns of numbers of comparable size."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cells import as_levels, read_cells
from .data_table import DataTable

_LARGEST = 1e140  # number, whose square is summed


@dataclass(frozen=True)
class ColumnEncoding:
    """How a column becomes numbers: plain values, set from the rows of a fit.

    A number becomes (x - mean) / scale, with the median where it is missing, and is followed by
    one column that says where it was missing, if it was in the fit. A category becomes one column
    for each of its levels, one for all others and one for missing cells, if there were any; they
    are centred and scaled together so that their variances add up to one, as that of a number.

    Attributes
    ----------
    name : str
        Of the column.
    kind : str
        ``"number"``, ``"boolean"``, ``"date"`` or ``"category"``.
    fill : float
        The median, for missing numbers.
    mean : tuple of float
        Of each column that it becomes.
    scale : tuple of float
        What each is divided by.
    levels : tuple of str
        Of a category.
    missing : bool
        Whether cells were missing.
    """

    name: str
    kind: str
    fill: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    levels: tuple[str, ...]
    missing: bool

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the columns that it becomes."""
        missing = (f"{self.name} missing",) if self.missing else ()
        if self.kind != "category":
            return (self.name, *missing)
        return (
            *(f"{self.name} = {level}" for level in self.levels),
            f"{self.name} other",
            *missing,
        )

    def to_config(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ColumnEncoding":
        """Make it of what `to_config` returned."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        return cls(**values)

    def encode(self, table: DataTable) -> np.ndarray:
        """Encode the column of a table, (n, columns).

        Raises
        ------
        ValueError
            If the table has no such column, or a cell is of another kind; the text has the row.
        """
        cells = table.column(self.name)
        if self.kind == "category":
            raw = _one_hot(as_levels(cells), self.levels, self.missing)
        else:
            raw = numbers_of(table, self.name, self.kind)[:, None]
            if self.missing:
                raw = np.concatenate([raw, np.isnan(raw)], axis=1)
            raw[:, 0][np.isnan(raw[:, 0])] = self.fill
        return (raw - np.array(self.mean)) / np.array(self.scale)


def numbers_of(table: DataTable, name: str, kind: str) -> np.ndarray:
    """Read a column as numbers (n,), NaN for missing cells.

    Raises
    ------
    ValueError
        If a cell is of another kind or infinite; the text has the row.
    """
    cells = table.column(name)
    numbers, bad = read_cells(cells, kind)
    if bad >= 0:
        expected = {"number": "a number", "boolean": "true or false", "date": "a date"}[kind]
        raise ValueError(
            f"table: column {name!r}: expected {expected}, got {cells[bad]!r} in {table.where(bad)}"
        )
    infinite = np.isinf(numbers)
    if infinite.any():
        raise ValueError(
            f"table: column {name!r}: infinite in {table.where(int(infinite.argmax()))}"
        )
    return numbers.copy()


def _one_hot(texts: np.ndarray, levels: tuple[str, ...], missing: bool) -> np.ndarray:
    """Return (n, levels + 1) or, with a column for missing cells, (n, levels + 2)."""
    place = {level: i for i, level in enumerate(levels)}
    other = len(levels)
    # Where no cell was missing in the fit, a missing one is as unknown as a new level.
    nothing = other + 1 if missing else other
    where = [nothing if text is None else place.get(text, other) for text in texts]
    found = np.zeros((len(texts), other + 1 + missing))
    found[np.arange(len(texts)), where] = 1.0
    return found


def fit_numbers(name: str, kind: str, numbers: np.ndarray) -> ColumnEncoding:
    """Set an encoding from numbers (n,) with NaN for missing ones."""
    present = numbers[~np.isnan(numbers)]
    fill = float(np.median(present)) if len(present) else 0.0
    missing = len(present) < len(numbers)
    filled = np.where(np.isnan(numbers), fill, numbers)
    largest = float(np.abs(filled).max(initial=0))
    if largest > _LARGEST:
        raise ValueError(
            f"table: column {name!r}: numbers up to {largest:.2g}, whose squares are beyond "
            "float64; give it in another unit, or drop it"
        )
    centre = float(filled.mean()) if len(filled) else 0.0
    spread = float(filled.std()) if len(filled) else 0.0
    # Below rounding all are alike, and what is left would be noise of size one.
    scale = spread if spread > 1e-12 * max(abs(centre), largest) else 1.0
    mean, scales = (centre,), (scale or 1.0,)
    if missing:  # zero or one as it is: scaled to variance one, a rare gap would outweigh all else
        mean, scales = (*mean, 1 - len(present) / len(numbers)), (*scales, 1.0)
    return ColumnEncoding(name, kind, fill, mean, scales, (), missing)


def fit_category(name: str, counts: Counter[str | None], most: int, rare: int) -> ColumnEncoding:
    """Set an encoding from how often each text was seen, None for missing cells."""
    total = sum(counts.values())
    missing = counts.get(None, 0) > 0
    frequent = [(text, n) for text, n in counts.items() if text is not None and n >= rare]
    # By alphabet among equals, so that the order of the rows does not matter.
    frequent = sorted(frequent, key=lambda each: (-each[1], each[0]))[:most]
    levels = tuple(sorted(text for text, _ in frequent))
    seen = [counts[level] for level in levels]
    seen += [total - sum(seen) - counts.get(None, 0)]
    seen += [counts[None]] if missing else []
    shares = [n / max(total, 1) for n in seen]
    variance = sum(p * (1 - p) for p in shares)
    scale = variance**0.5 if variance > 0 else 1.0
    return ColumnEncoding(
        name, "category", 0.0, tuple(shares), (scale,) * len(shares), levels, missing
    )
