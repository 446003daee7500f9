"""Rows of Parquet files, read row group by row group."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .row_source import RowBlock, RowSource, take_in_a_pass


@final
class ParquetRows(RowSource):
    """Rows of one or several Parquet files, read row group by row group.

    Parameters
    ----------
    path : str or path, or a sequence of them
        The files, in order; a pattern such as ``"part-*.parquet"`` stands for those it matches,
        sorted.
    target : str or sequence of str, optional
        The columns of the targets.
    columns : sequence of str, optional
        The columns of the rows; None takes all others.
    weight : str, optional
        The column of the weights.

    Attributes
    ----------
    columns : list of str
        The columns of the rows.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is damaged, or lacks a column, or a column does not hold numbers.
    ImportError
        If pyarrow is missing (``pip install mercer[hf]``).

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> table = pa.table({"a": [1.0, 2.0, 3.0], "b": [0, 1, 0], "t": [5.0, 6.0, 7.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(table, f"{folder}/rows.parquet", row_group_size=2)
    ...     rows = ParquetRows(f"{folder}/rows.parquet", target="t")
    ...     len(rows), rows.columns, next(rows.blocks(3)).y.flatten().tolist()
    (3, ['a', 'b'], [5.0, 6.0, 7.0])
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        target: str | Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        weight: str | None = None,
    ) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ImportError("Parquet files need pyarrow: pip install 'mercer[hf]'") from None
        given = [path] if isinstance(path, str | os.PathLike) else list(path)
        self.paths: list[Path] = []
        for item in given:
            text = os.fspath(item)
            matches = sorted(glob.glob(text)) if glob.has_magic(text) else [text]  # noqa: PTH207
            self.paths += [Path(match) for match in matches]
        if not self.paths:
            raise FileNotFoundError(f"path: no file matches {given}")
        self.target = [target] if isinstance(target, str) else list(target or [])
        self.weight = weight
        self._groups: list[tuple[int, int, int]] = []  # file, group, rows
        for i, file in enumerate(self.paths):
            if not file.is_file():
                raise FileNotFoundError(f"path: {file} is not a file")
            try:
                opened = pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"path: {file} is no whole Parquet file: {error}") from None
            names = opened.schema_arrow.names
            if i == 0:
                others = {*self.target, weight}
                self.columns = list(columns or [n for n in names if n not in others])
            wanted = [*self.columns, *self.target, *([weight] if weight else [])]
            missing = [name for name in wanted if name not in names]
            if missing:
                raise ValueError(f"path: {file} has no column {missing}, only {names}")
            for name in wanted:
                kind = opened.schema_arrow.field(name).type
                if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and (
                    not pa.types.is_boolean(kind)
                ):
                    raise ValueError(f"path: column {name!r} of {file} holds {kind}, not numbers")
            meta = opened.metadata
            self._groups += [(i, g, meta.row_group(g).num_rows) for g in range(meta.num_row_groups)]
        if not self.columns:
            raise ValueError(f"columns: expected at least one, {self.paths[0]} leaves none")

    def __len__(self) -> int:
        return sum(rows for _, _, rows in self._groups)

    def read(self, start: int = 0) -> Iterator[RowBlock]:
        """Yield the rows from one on, in blocks of any size."""
        import pyarrow.parquet as pq

        wanted = [*self.columns, *self.target, *([self.weight] if self.weight else [])]
        file, opened = -1, None
        for number, group, rows in self._groups:
            if start >= rows:
                start -= rows
                continue
            if number != file or opened is None:
                file, opened = number, pq.ParquetFile(self.paths[number])
            table = opened.read_row_group(group, columns=list(dict.fromkeys(wanted))).slice(start)
            start = 0
            yield RowBlock(
                _columns(table, self.columns),
                _columns(table, self.target) if self.target else None,
                _columns(table, [self.weight]).squeeze(-1) if self.weight else None,
            )

    def _take(self, index: Tensor) -> RowBlock:
        return take_in_a_pass(self, index)


def _columns(table: Any, names: Sequence[str]) -> Tensor:
    """Return columns of an Arrow table as float64 rows, what is missing as NaN."""
    found = np.empty((len(table), len(names)))
    for j, name in enumerate(names):
        found[:, j] = table[name].to_numpy().astype(np.float64)
    return torch.from_numpy(found)
