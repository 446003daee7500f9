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
        A view, but where it is compiled.
    """
    for axis in reversed(range(len(have))):
        if have[axis] and not want[axis]:
            second = second_axes(have)[axis]
            if torch.compiler.is_compiling():
                # Inductor reuses the buffers behind a view of a diagonal: gradients come out wrong.
                place = torch.arange(cov.shape[axis], device=cov.device)
                cov = cov.movedim((axis, second), (0, 1))[place, place].movedim(0, axis)
            else:
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


def pick(q: Tensor, axis: int, index: tuple[int, ...]) -> Tensor:
    """Pick positions along an axis, zeros for -1."""
    low = next((i for i, v in enumerate(index) if v >= 0), len(index))
    high = next((i for i, v in enumerate(reversed(index)) if v >= 0), 0)
    inner = index[low : len(index) - high]
    if inner != tuple(range(q.shape[axis])):
        kept = [max(v, 0) for v in inner]
        q = q.index_select(axis, torch.tensor(kept, device=q.device, dtype=torch.long))
        if min(inner, default=0) < 0:
            keep = torch.tensor([v >= 0 for v in inner], device=q.device)
            q = q * keep.to(q.dtype).reshape(-1, *[1] * (q.ndim - axis - 1))
    if low or high:
        q = torch.nn.functional.pad(q, [0, 0] * (q.ndim - axis - 1) + [low, high])
    return q


def mix(q: Tensor, axis: int, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Multiply an axis by a matrix."""
    if len(matrix) == 1 and len(set(matrix[0])) == 1:
        return q.sum(axis, keepdim=True) * matrix[0][0]
    m = torch.tensor(matrix, dtype=q.dtype, device=q.device)
    found = torch.tensordot(m, q, dims=([1], [axis]))  # pyright: ignore[reportArgumentType]
    return found.movedim(0, axis)


def same_positions(q: Tensor, full: Full, axes: Sequence[int]) -> Tensor:
    """Set covariances between different positions along some axes to zero."""
    for axis in axes:
        if full[axis]:
            second = second_axes(full)[axis]
            eye = torch.eye(q.shape[axis], dtype=q.dtype, device=q.device)
            shape = [1] * q.ndim
            shape[axis] = shape[second] = q.shape[axis]
            q = q * eye.reshape(shape)
    return q
