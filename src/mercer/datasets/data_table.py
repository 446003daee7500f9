"""A table of columns of numbers or texts, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cells import as_objects, text_cells


@dataclass(frozen=True, eq=False)
class DataTable:
    """Columns of numbers or texts with missing cells.

    Attributes
    ----------
    names : tuple of str
        The columns' names, no two alike.
    columns : tuple of ndarray of shape (n,)
        Numbers as float64 with NaN for missing cells, or texts as objects with None for them.
    lines : ndarray of shape (n,)
        Where each row stands, from 1: the line of a text file, otherwise the row.
    unit : str
        What `lines` counts: ``"line"`` or ``"row"``.

    Examples
    --------
    >>> from mercer.datasets import DataTable
    >>> table = DataTable.of({"age": [31, None, 47], "town": ["Ulm", "Bonn", "?"]})
    >>> len(table), table.column("age"), table.column("town")
    (3, array([31., nan, 47.]), array(['Ulm', 'Bonn', None], dtype=object))
    """

    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    lines: np.ndarray
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def of(cls, columns: Any) -> "DataTable":
        """Make a table of a mapping from names to columns, or of a data frame.

        Parameters
        ----------
        columns : mapping of str to sequence, or a data frame
            The columns: numbers, truth values, texts, None or NaN for what is missing.

        Returns
        -------
        DataTable
            The table.

        Raises
        ------
        TypeError
            If it is neither, or a column holds something else.
        ValueError
            If the columns are of different lengths, or there are none.
        """
        if not isinstance(columns, Mapping) and not hasattr(columns, "columns"):
            raise TypeError(
                "columns: expected a mapping from names to columns or a data frame, got "
                f"{type(columns).__name__}"
            )
        names = [str(name) for name in getattr(columns, "columns", columns)]
        raw = [columns[name] for name in getattr(columns, "columns", columns)]
        found = [_column(name, list(values)) for name, values in zip(names, raw, strict=True)]
        if not found:
            raise ValueError("columns: there are none")
        lengths = {len(column) for column in found}
        if len(lengths) > 1:
            raise ValueError(f"columns: expected one length, got {sorted(lengths)}")
        return cls(tuple(names), tuple(found), np.arange(1, len(found[0]) + 1))

    def column(self, name: str) -> np.ndarray:
        """Return the cells (n,) of a column by name.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        if name not in self.names:
            raise ValueError(f"table: no column {name!r}; the columns are {self.listing()}")
        return self.columns[self.names.index(name)]

    def where(self, index: int) -> str:
        """Return how a message names a row."""
        return f"{self.unit} {self.lines[index]}"

    def listing(self) -> str:
        """Return the columns' names as a message shows them."""
        return listed(self.names)


def listed(names: tuple[str, ...], most: int = 20) -> str:
    """Return names as a message shows them, not too many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _column(name: str, values: list[Any]) -> np.ndarray:
    """Make numbers or texts of whatever Python has."""
    kinds = {type(value) for value in values if value is not None}
    if all(issubclass(kind, int | float | np.number | np.bool_) for kind in kinds):
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    # A data frame has NaN where a text is missing.
    plain: list[Any] = [None if isinstance(v, float) and np.isnan(v) else v for v in values]
    if all(v is None or isinstance(v, str) for v in plain):
        return text_cells(plain)
    if all(v is None or hasattr(v, "isoformat") for v in plain):
        return as_objects([None if v is None or v != v else v.isoformat() for v in plain])
    shown = sorted(kind.__name__ for kind in kinds)
    raise TypeError(f"columns: {name!r}: expected numbers or texts, got {', '.join(shown)}")
