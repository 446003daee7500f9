"""What kind of column it is: numbers, truth values, dates, categories, or of no use."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .cells import as_days, as_number, as_truth, is_missing, number_text, read_cells

KINDS = ("number", "boolean", "date", "category")
_MOST_COUNTED = 20000  # different values, after which counting them stops
_MOST_LEVELS = 1000  # of a category
_FEW = 20  # values, that may be a category though nearly each is seen once
_NEARLY = 0.9  # share of numbers from which on other cells are mistakes
_LONG_TEXT = 40  # characters, or
_MANY_WORDS = 3
_ID_NAME = re.compile(r"(.*[\W_])?(id|uuid|guid|index|key|rowid|row|row_?number)", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnKind:
    """What a scan found.

    Attributes
    ----------
    kind : str or None
        One of `KINDS`, or None for a column that is left out.
    note : str
        Why it is left out, or what is worth telling; may be empty.
    mistake : str or None
        A cell that is no number in a column of numbers.
    """

    kind: str | None
    note: str = ""
    mistake: str | None = None


class ColumnScan:
    """Look at a column, some rows at a time.

    Parameters
    ----------
    name : str
        Of the column.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows = self._present = 0
        self._numbers = self._dates = True
        self._whole = self._consecutive = True
        self._last: float | None = None
        self._counts: Counter[str] = Counter()
        self._counted = 0  # cells among the counts
        self._length = self._words = 0

    @property
    def rows(self) -> int:
        """How many were looked at."""
        return self._rows

    @property
    def missing(self) -> int:
        """How many cells are missing."""
        return self._rows - self._present

    def update(self, cells: np.ndarray) -> None:
        """Look at further cells (n,)."""
        self._rows += len(cells)
        present = cells[~is_missing(cells)]
        self._present += len(present)
        if not len(present):
            return
        numbers = None
        if self._numbers:
            numbers, bad = read_cells(present, "number")
            self._numbers = bad < 0
        if self._numbers and numbers is not None:
            self._look_at_numbers(numbers)
        elif self._dates:
            self._dates = read_cells(present, "date")[1] < 0
        if len(self._counts) < _MOST_COUNTED:
            texts = present.tolist()
            if present.dtype == np.float64:
                texts = [number_text(value) for value in texts]
            self._counts.update(texts)
            self._counted += len(texts)
            self._length += sum(map(len, texts))
            self._words += sum(text.count(" ") + 1 for text in texts)

    def _look_at_numbers(self, numbers: np.ndarray) -> None:
        if self._whole:
            self._whole = bool((numbers == np.floor(numbers)).all())
        if self._whole and self._consecutive:
            steps = np.diff(numbers if self._last is None else [self._last, *numbers])
            self._consecutive = bool((steps == 1).all())
        self._last = float(numbers[-1])

    def result(self) -> ColumnKind:
        """Say what the column is."""
        if not self._present:
            return ColumnKind(None, "left out: all of its cells are missing")
        distinct = len(self._counts)
        if distinct == 1 and not self.missing:
            (value,) = self._counts
            return ColumnKind(None, f"left out: every cell is {value!r}")
        each_once = distinct == self._counted and self._counted > 1
        if self._numbers:
            return self._number(each_once)
        truths = {text.lower(): as_truth(text) for text in self._counts}
        # Codes such as F and N, or T, Y and N, are no truth values: two would become one.
        if None not in truths.values() and len(set(truths.values())) == len(truths):
            return ColumnKind("boolean")
        # Dates are checked from the first cell that is no number; those before it may be.
        if self._dates and all(as_days(text) is not None for text in self._counts):
            return ColumnKind("date", "dates as days since 1970")
        return self._texts(distinct, each_once)

    def _number(self, each_once: bool) -> ColumnKind:
        if each_once and self._whole and not self.missing and self._counted > _FEW:
            if self._consecutive:
                return ColumnKind(None, "left out: it counts the rows")
            if _ID_NAME.fullmatch(self._name):
                return ColumnKind(None, "left out: each row has a number of its own, by its name")
        return ColumnKind("number")

    def _texts(self, distinct: int, each_once: bool) -> ColumnKind:
        counted = self._counts
        right = sum(n for text, n in counted.items() if as_number(text) is not None)
        if right >= _NEARLY * self._counted and distinct > _FEW:
            wrong = next(text for text in counted if as_number(text) is None)
            share = right / self._counted
            return ColumnKind("number", f"{100 * share:.4g} % of its cells are numbers", wrong)
        length, words = self._length / self._counted, self._words / self._counted
        if distinct <= _FEW or (distinct <= _MOST_LEVELS and distinct <= self._counted / 2):
            return ColumnKind("category", f"{distinct:,} different texts")
        shown = f"'{next(iter(counted))[:30]}'"
        if length > _LONG_TEXT or words > _MANY_WORDS:
            return ColumnKind(None, f"left out: free text, such as {shown}")
        if any(_looks_like_date(text) for text in list(counted)[:3]):
            return ColumnKind(
                None, f"left out: dates not written as 2026-01-31 but as {shown} are not read"
            )
        if each_once:
            return ColumnKind(None, f"left out: a text of its own in each row, such as {shown}")
        many = f"{distinct:,}{' or more' if distinct >= _MOST_COUNTED else ''}"
        return ColumnKind(None, f"left out: {many} different texts, such as {shown}")


def _looks_like_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}.*", text))
