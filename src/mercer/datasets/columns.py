"""Which column of a table holds the texts, and which the labels."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# Names as they stand in the headers of public data sets, lower case.
_TEXT = "text|sentence|review|comment|question|document|message|tweet|utterance|phrase|passage"
TEXT_NAMES = re.compile(rf"({_TEXT})s?|content|body|comment_text|description")
LABEL_NAMES = re.compile(r"labels?|class(es)?|targets?|category|sentiment|y|gold|gold_label|stars")
_CLEARLY_LONGER = 1.5  # of two columns of strings, the texts are this much longer on average
_MOST_CLASSES = 100
_MOST_WORDS = 4  # of a column's name, where it is not one of the usual ones


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes
    ----------
    names : sequence of str or None
        The header; None where the table has none.
    columns : sequence of sequence of str
        The cells, column by column.
    """

    names: Sequence[str] | None
    columns: Sequence[Sequence[str]]

    def describe(self, index: int) -> str:
        """Return how a message names a column."""
        return f"{index}" if self.names is None else f"{index} {self.names[index]!r}"

    def listing(self) -> str:
        """Return all columns as a message shows them, each with its first cell."""
        shown = []
        for i, column in enumerate(self.columns):
            first = next((cell for cell in column if cell.strip()), "")
            shown.append(f"{self.describe(i)} ({first[:30]!r}{'...' if len(first) > 30 else ''})")
        return ", ".join(shown)


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Guess whether the first row names the columns.

    It does if it holds a usual name, or if one of its cells differs in kind from all below it:
    a word over numbers, or a value seen once over values that all come back.
    """
    first, rest = rows[0], rows[1:]
    cells = [cell.strip().lower() for cell in first]
    if len(set(cells)) < len(cells) or "" in cells or any(map(is_number, cells)):
        return False
    if any(TEXT_NAMES.fullmatch(cell) or LABEL_NAMES.fullmatch(cell) for cell in cells):
        return True
    if max(len(cell.split()) for cell in cells) > _MOST_WORDS:
        return False
    for i, cell in enumerate(first):
        counts = Counter(row[i] for row in rest)
        if not counts or cell in counts:
            continue
        if all(map(is_number, counts)) or min(counts.values()) > 1:
            return True
    return False


def column_index(option: str, wanted: str | int, table: Table) -> int:
    """Return the position of a column given by name or by number.

    Raises
    ------
    ValueError
        If the table has no such column.
    """
    if isinstance(wanted, str) and table.names is not None and wanted in table.names:
        return list(table.names).index(wanted)
    by_number = isinstance(wanted, int) or wanted.isdecimal()
    if by_number and 0 <= int(wanted) < len(table.columns):
        return int(wanted)
    raise ValueError(f"{option}: no column {wanted!r}; the columns are {table.listing()}")


def _named(names: re.Pattern[str], table: Table) -> list[int]:
    return [i for i, name in enumerate(table.names or ()) if names.fullmatch(name.strip().lower())]


def guess_text_column(table: Table, taken: int | None) -> int:
    """Return the column of the texts: by its usual name, otherwise the one with long strings.

    Raises
    ------
    ValueError
        If several columns could be it, or none.
    """
    ask = f"set text_column; the columns are {table.listing()}"
    named = [i for i in _named(TEXT_NAMES, table) if i != taken]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise ValueError(f"text_column: {len(named)} columns have usual names for texts: {ask}")
    lengths = {
        i: sum(map(len, column)) / len(column)
        for i, column in enumerate(table.columns)
        if i != taken and not all(is_number(cell) for cell in column if cell.strip())
    }
    if not lengths:
        raise ValueError(f"text_column: no column holds texts: {ask}")
    longest, *others = sorted(lengths, key=lambda i: lengths[i], reverse=True)
    if others and lengths[longest] < _CLEARLY_LONGER * lengths[others[0]]:
        raise ValueError(f"text_column: two columns hold strings of similar length: {ask}")
    return longest


def guess_label_column(table: Table, text: int) -> int | None:
    """Return the column of the labels: by its usual name, otherwise the one with few values.

    Raises
    ------
    ValueError
        If several columns could be it.
    """
    ask = f"set label_column ('none' for no labels); the columns are {table.listing()}"
    named = [i for i in _named(LABEL_NAMES, table) if i != text]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise ValueError(f"label_column: {len(named)} columns have usual names for labels: {ask}")
    few = []
    for i, column in enumerate(table.columns):
        most = min(_MOST_CLASSES, max(2, len(column) // 4))
        if i != text and 2 <= len(set(column)) <= most and len(column) > 2:
            few.append(i)
    if len(few) > 1:
        raise ValueError(f"label_column: {len(few)} columns have few distinct values: {ask}")
    return few[0] if few else None
