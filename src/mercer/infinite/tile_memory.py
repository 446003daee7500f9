"""Scratch memory of tiles: fresh memory costs more than what is done with it."""

import math
import threading
from collections.abc import Sequence
from typing import final

from torch import Tensor


@final
class Pool(threading.local):
    """Buffers of one thread, handed out and taken back."""

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def empty(self, shape: Sequence[int], order: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor with any numbers in it.

        Parameters
        ----------
        shape : sequence of int
            Its shape.
        order : sequence of int
            Its axes from the one that lies farthest apart in memory to the one that lies nearest.
        like : Tensor
            Whose dtype and device it has.

        Returns
        -------
        Tensor
            Memory to hand back by `back`.
        """
        count = math.prod(shape)
        fits = [t for t in self.free if len(t) >= count and t.dtype == like.dtype]
        if fits:
            flat = min(fits, key=len)
            self.free = [t for t in self.free if t is not flat]
        else:
            if len(self.free) > 8:  # too small by now
                self.free.pop(0)
            flat = like.new_empty(count + count // 8 + 64)
        found = flat[:count].view([shape[a] for a in order])
        if list(order) != sorted(order):
            found = found.permute([order.index(a) for a in range(len(order))])
        found._flat = flat  # type: ignore[attr-defined]
        return found

    def like(self, tensor: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Return a tensor whose axes lie in memory as those of another one do."""
        strides = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda a: (-strides[a], a))
        return self.empty(tensor.shape if shape is None else shape, order, tensor)

    def back(self, *tensors: Tensor | None) -> None:
        """Take buffers back; whatever is not of a pool is left alone."""
        for t in tensors:
            flat = getattr(t, "_flat", None)
            if flat is not None:
                self.free.append(flat)
                del t._flat  # type: ignore[union-attr]


def is_pooled(tensor: Tensor) -> bool:
    """Whether a tensor holds a buffer of a pool."""
    return getattr(tensor, "_flat", None) is not None


def hand_over(old: Tensor, new: Tensor) -> Tensor:
    """Let a view take over the buffer of what it views."""
    if new is not old and is_pooled(old):
        new._flat = old._flat  # type: ignore[attr-defined]
        del old._flat  # type: ignore[attr-defined]
    return new
