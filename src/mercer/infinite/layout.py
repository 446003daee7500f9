"""Where positions lie in a covariance between two inputs of a wide network.

A layer's channels are exchangeable, so that only the covariance of one channel is kept, between
positions (pixels, tokens) of one input and positions of another. A position axis is *full*,
with an axis for each input, where positions of the two differ, or *diagonal*, with one axis
for both, where only the same position of both is wanted: a flattening read-out needs
``pixels`` numbers a pair of inputs, a pooling one ``pixels ** 2``.

A covariance has shape ``(*positions, *positions of the full axes again, *pair)``; the pair is
``(..., n, m)`` between inputs, or ``(..., n)`` for each input with itself. Pairs come last, so
that moving along positions moves whole blocks of memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Full = tuple[bool, ...]
"""For each position axis, whether both inputs have an axis of their own."""


def second_axes(full: Full) -> tuple[int, ...]:
    """Return where the second input's position axes lie; diagonal ones share the first's.

    Parameters
    ----------
    full : tuple of bool
        The layout.

    Returns
    -------
    tuple of int
        An axis of the covariance for each position axis.
    """
    found, free = [], len(full)
    for axis, both in enumerate(full):
        found.append(free if both else axis)
        free += both
    return tuple(found)


def pair_start(full: Full) -> int:
    """Return the number of axes before those of the pair."""
    return len(full) + sum(full)


def restrict(cov: Tensor, have: Full, want: Full) -> Tensor:
    """Keep only the same positions of both inputs along axes that are full but need not be.

    Parameters
    ----------
    cov : Tensor of shape (*positions, *full positions, *pair)
        A covariance.
    have, want : tuple of bool
        Its layout, and the one to return.

    Returns
    -------
    Tensor of shape (*positions, *full positions, *pair)
        A view.
    """
    for axis in reversed(range(len(have))):
        if have[axis] and not want[axis]:
            second = second_axes(have)[axis]
            cov = torch.diagonal(cov, dim1=axis, dim2=second).movedim(-1, axis)
            have = (*have[:axis], False, *have[axis + 1 :])
    return cov


def spread(values: Tensor, full: Full, side: int, pairs: bool = True) -> Tensor:
    """Lay out numbers of each input so that they broadcast with covariances between inputs.

    Parameters
    ----------
    values : Tensor of shape (*positions, ..., n)
        Numbers of one side's inputs, at each position.
    full : tuple of bool
        The layout of the covariance.
    side : {0, 1}
        Whether they belong to rows or columns.
    pairs : bool, default True
        Whether covariances are between inputs, not of each input with itself.

    Returns
    -------
    Tensor
        A view of shape ``(..., n, 1)`` or ``(..., 1, m)`` after the axes of positions; of shape
        ``(..., n)`` where there are no pairs.
    """
    for axis, place in enumerate(second_axes(full)):
        if full[axis]:
            # The second input's positions move behind, the first's leave a one there.
            values = values.unsqueeze(place)
            if side == 1:
                values = values.transpose(axis, place)
    if not pairs:
        return values
    return values.unsqueeze(-1 if side == 0 else -2)


def take(cov: Tensor, axes: Sequence[int], index: slice) -> Tensor:
    """Take the same slice along each of the axes (as a view)."""
    where: list[slice] = [slice(None)] * cov.ndim
    for axis in axes:
        where[axis] = index
    return cov[tuple(where)]


def both_axes(axis: int, full: Full) -> tuple[int, ...]:
    """Return the axes of a covariance that a position axis has: one, or two where it is full."""
    second = second_axes(full)[axis]
    return (axis,) if second == axis else (axis, second)
