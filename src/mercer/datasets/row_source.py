"""Rows that need not be in memory: read block by block, as often as a solver asks."""

import abc
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor


class RowBlock(NamedTuple):
    """Some rows with their targets and weights, as a `RowSource` gives them.

    Attributes
    ----------
    x : Tensor of shape (b, d)
        The rows, in float32 or float64.
    y : Tensor of shape (b, q) or None
        Their targets.
    weight : Tensor of shape (b,) or None
        Their weights.

    Examples
    --------
    >>> import torch
    >>> from mercer.datasets import ArrayRows, RowBlock
    >>> block = next(ArrayRows(torch.ones(5, 2), torch.zeros(5)).blocks(3))
    >>> isinstance(block, RowBlock), block.x.shape, block.y.shape, block.weight
    (True, torch.Size([3, 2]), torch.Size([3, 1]), None)
    """

    x: Tensor
    y: Tensor | None
    weight: Tensor | None


class RowSource(abc.ABC):
    """Rows with targets and weights that are read in blocks.

    Abstract. `ArrayRows` reads arrays, memory-mapped ones too, `ParquetRows` files, and
    `BatchRows` whatever can be iterated over again. Blocks come to a solver in sizes that it
    asks for, so that the same rows give the same bits wherever they lie.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abc.abstractmethod
    def read(self, start: int = 0) -> Iterator[RowBlock]:
        """Yield the rows from one on, in blocks of any size."""

    @abc.abstractmethod
    def _take(self, index: Tensor) -> RowBlock:
        """Return some rows, by ascending number."""

    def take(self, index: Tensor) -> RowBlock:
        """Return some rows.

        Parameters
        ----------
        index : LongTensor of shape (k,)
            Their numbers, ascending.

        Returns
        -------
        RowBlock
            The rows; their numbers are checked to be finite.
        """
        n = len(self)
        if (
            len(index) == 0
            or int(index[0]) < 0
            or int(index[-1]) >= n
            or bool((index.diff() < 0).any())
        ):
            raise ValueError(f"index: expected ascending numbers from 0 to {n - 1}, got {index}")
        return _check(self._take(index), index)

    def blocks(self, size: int, start: int = 0) -> Iterator[RowBlock]:
        """Yield the rows from one on, in blocks of one size; the last may be smaller.

        Parameters
        ----------
        size : int
            Rows in a block.
        start : int, default 0
            The first row.

        Yields
        ------
        RowBlock
            The block; its numbers are checked to be finite.
        """
        waiting: list[RowBlock] = []
        count, number = 0, start
        for piece in self.read(start):
            while len(piece.x):
                part, piece = _cut(piece, size - count)
                waiting.append(part)
                count += len(part.x)
                if count == size:
                    yield _check(_join(waiting), number)
                    waiting, count, number = [], 0, number + size
        if waiting:
            yield _check(_join(waiting), number)


def _cut(block: RowBlock, size: int) -> tuple[RowBlock, RowBlock]:
    left = RowBlock(*(None if t is None else t[:size] for t in block))  # type: ignore[arg-type]
    return left, RowBlock(*(None if t is None else t[size:] for t in block))  # type: ignore[arg-type]


def _join(blocks: list[RowBlock]) -> RowBlock:
    if len(blocks) == 1:
        return blocks[0]
    parts = zip(*blocks, strict=True)
    return RowBlock(*(None if p[0] is None else torch.cat(p) for p in parts))  # type: ignore[arg-type]


def _check(block: RowBlock, numbers: int | Tensor) -> RowBlock:
    for name, tensor in zip(("X", "y", "sample_weight"), block, strict=True):
        # A sum is cheaper than a count, and NaN and infinity survive it.
        if tensor is not None and not bool(tensor.sum().isfinite()):
            bad = (~tensor.isfinite()).reshape(len(tensor), -1).any(-1).nonzero()
            if len(bad):
                first = int(bad[0])
                row = numbers + first if isinstance(numbers, int) else int(numbers[first])
                raise ValueError(
                    f"{name}: expected finite numbers, got NaN or infinity in row {row}"
                )
    return block


def as_floats(values: Any) -> Tensor:
    """Return an array or tensor as a float32 or float64 tensor, copied where it must be."""
    if isinstance(values, Tensor):
        if values.is_complex():
            raise TypeError(f"expected real numbers, got {values.dtype}")
        plain = values.dtype in (torch.float32, torch.float64)
        return values.detach() if plain else values.detach().double()
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TypeError(f"expected real numbers, got {array.dtype}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    # torch refuses negative strides, and warns of arrays that cannot be written to.
    plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if plain else np.array(array))


@final
class ArrayRows(RowSource):
    """Rows of arrays or tensors, which may be memory-mapped files.

    Parameters
    ----------
    X : ndarray or Tensor of shape (n, d)
        The rows.
    y : ndarray or Tensor of shape (n,) or (n, q), optional
        Their targets.
    sample_weight : ndarray or Tensor of shape (n,), optional
        Their weights.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> rows = ArrayRows(np.ones((5, 2)), np.arange(5.0))
    >>> [len(block.x) for block in rows.blocks(2)]
    [2, 2, 1]
    """

    def __init__(self, X: Any, y: Any = None, sample_weight: Any = None) -> None:
        X, y, sample_weight = (_indexable(part) for part in (X, y, sample_weight))
        if X.ndim != 2:
            raise ValueError(f"X: expected shape (n, d), got {tuple(X.shape)}")
        for name, values, axes in (("y", y, (1, 2)), ("sample_weight", sample_weight, (1,))):
            if values is not None and (values.ndim not in axes or len(values) != len(X)):
                raise ValueError(
                    f"{name}: expected {len(X)} rows beside X {tuple(X.shape)}, "
                    f"got shape {tuple(values.shape)}"
                )
        self.X, self.y, self.sample_weight = X, y, sample_weight

    def __len__(self) -> int:
        return len(self.X)

    def _block(self, index: Any) -> RowBlock:
        y = None if self.y is None else as_floats(self.y[index]).reshape(-1, _outputs(self.y))
        weight = self.sample_weight
        return RowBlock(
            as_floats(self.X[index]), y, None if weight is None else as_floats(weight[index])
        )

    def read(self, start: int = 0) -> Iterator[RowBlock]:
        """Yield the rows from one on, in blocks of any size."""
        size = max(1, 2**22 // (8 * max(self.X.shape[1], 1)))
        for i in range(start, len(self.X), size):
            yield self._block(slice(i, i + size))

    def _take(self, index: Tensor) -> RowBlock:
        return self._block(index if isinstance(self.X, Tensor) else index.numpy())


def _indexable(values: Any) -> Any:
    """Return what slices and numbers of rows take from; lists and tables become arrays."""
    plain = values is None or (hasattr(values, "ndim") and not hasattr(values, "to_numpy"))
    return values if plain else np.asarray(values)


def _outputs(y: Any) -> int:
    return 1 if y.ndim == 1 else y.shape[1]


def _take_in_a_pass(source: RowSource, index: Tensor) -> RowBlock:
    """Pick rows by ascending number out of a pass over a source."""
    found, number = [], 0
    for block in source.read():
        inside = index[(index >= number) & (index < number + len(block.x))] - number
        found.append(RowBlock(*(None if t is None else t[inside] for t in block)))  # type: ignore[arg-type]
        number += len(block.x)
        if number > int(index[-1]):
            break
    return _join(found)


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
        return _take_in_a_pass(self, index)


def _columns(table: Any, names: Sequence[str]) -> Tensor:
    """Return columns of an Arrow table as float64 rows, what is missing as NaN."""
    found = np.empty((len(table), len(names)))
    for j, name in enumerate(names):
        found[:, j] = table[name].to_numpy().astype(np.float64)
    return torch.from_numpy(found)


@final
class BatchRows(RowSource):
    """Rows of an iterable of batches that can be gone through again.

    Parameters
    ----------
    batches : callable or iterable
        A function that returns a new iterator at each call, or an iterable such as a list or a
        data loader without shuffling. It gives ``x``, ``(x, y)`` or ``(x, y, weight)`` with
        arrays or tensors.

    Raises
    ------
    TypeError
        If it is an iterator, which can be gone through only once.
    ValueError
        If there is no row, a batch does not fit the first, or the second time brings other rows
        (another number of them, or another first one).

    Examples
    --------
    >>> import torch
    >>> rows = BatchRows([(torch.ones(3, 2), torch.ones(3)), (torch.ones(1, 2), torch.ones(1))])
    >>> len(rows), next(rows.blocks(10)).x.shape
    (4, torch.Size([4, 2]))
    """

    def __init__(self, batches: Callable[[], Iterable[Any]] | Iterable[Any]) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                "batches: expected an iterable that can be gone through again, or a function "
                "that makes an iterator, got an iterator"
            )
        self.batches = batches
        self._count: int | None = None
        self._first: Tensor | None = None

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(len(block.x) for block in self.read())
        return self._count

    def read(self, start: int = 0) -> Iterator[RowBlock]:
        """Yield the rows from one on, in blocks of any size."""
        shape: tuple[Any, ...] | None = None
        total = 0
        made = self.batches() if callable(self.batches) else iter(self.batches)
        for number, batch in enumerate(made):
            block = ArrayRows(*_parts(batch))._block(slice(None))
            outputs = None if block.y is None else block.y.shape[1]
            own = (block.x.shape[1], block.x.dtype, outputs, block.weight is None)
            if self._first is None and len(block.x):
                self._first = block.x[0].clone()
            elif total == 0 and len(block.x) and not _same(block.x[0], self._first):
                raise ValueError("batches: expected the same rows each time, got another first row")
            total += len(block.x)
            if shape is not None and own != shape:
                raise ValueError(
                    f"batches: batch {number} has {own[0]} columns of {own[1]}, "
                    f"the first {shape[0]} of {shape[1]}, or other parts"
                )
            shape = own
            if start >= len(block.x):
                start -= len(block.x)
                continue
            yield _cut(block, start)[1]
            start = 0
        if shape is None:
            raise ValueError("batches: expected at least one batch")
        if self._count is not None and total != self._count:
            raise ValueError(
                f"batches: expected the same rows each time, got {self._count} and then {total}"
            )

    def _take(self, index: Tensor) -> RowBlock:
        return _take_in_a_pass(self, index)


def _same(row: Tensor, known: Tensor | None) -> bool:
    return known is None or row.shape != known.shape or bool(torch.equal(row, known))


def _parts(batch: Any) -> Sequence[Any]:
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"batches: expected x, (x, y) or (x, y, weight), got {len(parts)} parts")
    return [p if p is None or isinstance(p, Tensor) else np.asarray(p) for p in parts]
