"""Rows that need not be in memory: read block by block, as often as a solver asks."""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor


class RowBlock(NamedTuple):
    """Some rows with their targets and weights, as a `RowSource` gives them.

    Parameters
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
                part, piece = cut(piece, size - count)
                waiting.append(part)
                count += len(part.x)
                if count == size:
                    yield _check(_join(waiting), number)
                    waiting, count, number = [], 0, number + size
        if waiting:
            yield _check(_join(waiting), number)


def cut(block: RowBlock, size: int) -> tuple[RowBlock, RowBlock]:
    """Part a block after some rows."""
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


def take_in_a_pass(source: RowSource, index: Tensor) -> RowBlock:
    """Pick rows by ascending number out of a pass over a source."""
    found, number = [], 0
    for block in source.read():
        inside = index[(index >= number) & (index < number + len(block.x))] - number
        found.append(RowBlock(*(None if t is None else t[inside] for t in block)))  # type: ignore[arg-type]
        number += len(block.x)
        if number > int(index[-1]):
            break
    return _join(found)
