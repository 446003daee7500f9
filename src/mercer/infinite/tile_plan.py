"""How tiles of a wide network's kernel are computed: layouts, distances, what is left out.

Where positions are averaged over an axis (global pooling), all pairs of positions matter, but
convolutions only tie pairs at the same distance: a tile goes through the network once for each
distance along that axis and adds up, so that an axis of length p costs memory p instead of p^2,
and all of it stays in the cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from .layout import Full
from .operations import (
    Affine,
    Concatenate,
    Input,
    Mix,
    Normalize,
    Operation,
    Pointwise,
    Product,
    Select,
    Sum,
    Window,
)
from .propagate import Plan, join


def held(operations: Sequence[Operation], layouts: Sequence[Full | None]) -> int:
    """Count the covariances of a pair of inputs that are held at once, at most."""
    most = 1
    for operation, full in zip(operations, layouts, strict=True):
        if full is not None:
            both = [n for n, f in zip(operation.positions, full, strict=True) if f]
            most = max(most, math.prod(operation.positions) * math.prod(both))
    return most


@final
@dataclass(frozen=True)
class Stream:
    """An average over an axis that is taken distance by distance.

    Attributes
    ----------
    node : int
        The operation that averages.
    length : int
        Positions along the axis.
    axes : dict of int to int
        For each operation before it: which of its position axes that is.
    strides : dict of int to int
        For each operation before it: by how much a distance at the average grows there.
    """

    node: int
    length: int
    axes: dict[int, int]
    strides: dict[int, int]


def find_stream(operations: Sequence[Operation]) -> Stream | None:
    """Find the first average over a whole axis whose operations before keep distances."""
    for node, operation in enumerate(operations):
        if not isinstance(operation, Mix):
            continue
        (below,) = operation.inputs
        row = operation.matrix[0]
        if len(operation.matrix) > 1 or len(set(row)) > 1 or len(row) < 3:
            return None
        axes, strides = {below: operation.axis}, {below: 1}
        for i in reversed(range(below + 1)):
            if i not in axes:
                continue
            found = _distances(operations[i], axes[i])
            if found is None:
                return None
            axis, stride = found
            if (len(row) - 1) * strides[i] >= operations[i].positions[axes[i]]:
                return None  # padding makes positions that are farther apart than any of these
            for n in operations[i].inputs:
                wanted = (axis, strides[i] * stride)
                if (axes.setdefault(n, axis), strides.setdefault(n, wanted[1])) != wanted:
                    return None
        if set(axes) != set(range(node)):
            return None
        if any(n in axes for later in operations[node + 1 :] for n in later.inputs):
            return None  # what another reading takes must not be summed up here
        return Stream(node, len(row), axes, strides)
    return None


def _distances(operation: Operation, axis: int) -> tuple[int, int] | None:
    """Return the input's axis and stride, if positions at one distance depend on such alone."""
    if isinstance(operation, Input | Affine | Pointwise | Sum | Product | Concatenate):
        return axis, 1
    if isinstance(operation, Window):
        return axis, operation.stride[axis]
    if isinstance(operation, Select) and not operation.drop:
        if operation.axis != axis:
            return axis, 1
        return (axis, 1) if padding(operation) is not None else None
    if isinstance(operation, Normalize) and not operation.axes:
        return axis, 1
    return None


def padding(operation: Select) -> tuple[int, int] | None:
    """Return how many zeros a selection puts on both sides, if it does nothing else."""
    index = operation.index
    inside = [i for i in index if i >= 0]
    if not inside or inside != list(range(len(inside))):
        return None
    low = index.index(0)
    if list(index[low : low + len(inside)]) != inside:
        return None
    return low, len(index) - low - len(inside)


@final
class TilePlan:
    """In which layouts tiles are computed, and how large they are.

    Parameters
    ----------
    operations : sequence of Operation
        The network.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self.plan = Plan(operations)
        self.stream = find_stream(operations)
        last = len(self.operations) - 1
        needed: dict[int, Full] = {last: ()}
        for i in reversed(range(last + 1)):
            if i not in needed:
                continue
            operation = self.operations[i]
            wanted = list(operation.wants(needed[i]))
            if self.stream is not None and i == self.stream.node:
                (full,) = wanted
                axis = self.stream.axes[operation.inputs[0]]
                wanted = [(*full[:axis], False, *full[axis + 1 :])]
            for node, full in zip(operation.inputs, wanted, strict=True):
                join(needed, node, full)
        self.layouts = tuple(needed.get(i) for i in range(last + 1))
        self.last_use = {n: i for i, op in enumerate(self.operations) for n in op.inputs}
        self.pads: dict[int, list[tuple[int, int]]] = {}
        self.skipped: set[int] = set()
        self.unscaled: set[int] = set()  # windows that add up, and leave the mean to their layer
        self.shares: dict[int, float] = {}  # what these layers multiply by
        for i, operation in enumerate(self.operations):
            if isinstance(operation, Window):
                self._fuse(i, operation)

    def _fuse(self, node: int, window: Window) -> None:
        """Let a window read zeros outside of its input, instead of a padded copy."""
        pads = [(0, 0)] * len(window.positions)
        (below,) = window.inputs
        users = [n for op in self.operations for n in op.inputs]
        above = [i for i, op in enumerate(self.operations) if node in op.inputs]
        if len(above) == 1 and isinstance(self.operations[above[0]], Affine):
            self.shares[above[0]] = 1 / math.prod(window.size)
            self.unscaled.add(node)
        while isinstance(operation := self.operations[below], Select):
            sides = None if operation.drop else padding(operation)
            if sides is None or users.count(below) > 1 or pads[operation.axis] != (0, 0):
                break
            pads[operation.axis] = sides
            self.skipped.add(below)
            (below,) = operation.inputs
        self.pads[node] = pads

    @property
    def entries(self) -> int:
        """The largest number of covariances of one pair of inputs that are held at once."""
        layouts = [None if i in self.skipped else full for i, full in enumerate(self.layouts)]
        return held(self.operations, layouts)
