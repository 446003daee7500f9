"""Rows of batches that can be gone through again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .row_source import ArrayRows, RowBlock, RowSource, cut, take_in_a_pass


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
            yield cut(block, start)[1]
            start = 0
        if shape is None:
            raise ValueError("batches: expected at least one batch")
        if self._count is not None and total != self._count:
            raise ValueError(
                f"batches: expected the same rows each time, got {self._count} and then {total}"
            )

    def _take(self, index: Tensor) -> RowBlock:
        return take_in_a_pass(self, index)


def _same(row: Tensor, known: Tensor | None) -> bool:
    return known is None or row.shape != known.shape or bool(torch.equal(row, known))


def _parts(batch: Any) -> Sequence[Any]:
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"batches: expected x, (x, y) or (x, y, weight), got {len(parts)} parts")
    return [p if p is None or isinstance(p, Tensor) else np.asarray(p) for p in parts]
