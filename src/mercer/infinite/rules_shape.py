"""Rules of what moves, merges and picks axes."""

import operator
from typing import Any

import torch
from torch import nn

from .rules import rule
from .signal import Signal
from .tape import CHANNEL


@rule(nn.Flatten)
def flatten_module(module: nn.Flatten, x: Signal) -> Signal:
    """Merge axes."""
    return flatten(x, module.start_dim, module.end_dim)


@rule(torch.flatten, "flatten")
def flatten(x: Signal, start_dim: int = 0, end_dim: int = -1) -> Signal:
    """Merge axes."""
    a, b = x.axis(start_dim), x.axis(end_dim)
    product = 1
    for n in x.shape[a : b + 1]:
        product *= n
    return x.reshaped((*x.shape[:a], product, *x.shape[b + 1 :]))


@rule(nn.Unflatten)
def unflatten_module(module: nn.Unflatten, x: Signal) -> Signal:
    """Split an axis."""
    return unflatten(x, module.dim, module.unflattened_size)


@rule(torch.unflatten, "unflatten")
def unflatten(x: Signal, dim: Any, sizes: Any) -> Signal:
    """Split an axis."""
    a = x.axis(dim)
    sizes = list(sizes)
    if -1 in sizes:
        rest = 1
        for n in sizes:
            rest *= n if n != -1 else 1
        sizes[sizes.index(-1)] = x.shape[a] // rest
    return x.reshaped((*x.shape[:a], *sizes, *x.shape[a + 1 :]))


@rule(torch.reshape, "reshape", "view")
def reshape(x: Signal, *shape: Any) -> Signal:
    """Merge and split axes."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size):
        shape = tuple(shape[0])
    return x.reshaped(shape)


@rule(torch.permute, "permute")
def permute(x: Signal, *dims: Any) -> Signal:
    """Put axes in another order."""
    return x.permuted(dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)


@rule(torch.transpose, torch.swapaxes, torch.swapdims, "transpose", "swapaxes", "swapdims")
def transpose(x: Signal, dim0: int, dim1: int) -> Signal:
    """Exchange two axes."""
    order = list(range(x.ndim))
    a, b = x.axis(dim0), x.axis(dim1)
    order[a], order[b] = b, a
    return x.permuted(order)


@rule(torch.movedim, torch.moveaxis, "movedim", "moveaxis")
def movedim(x: Signal, source: Any, destination: Any) -> Signal:
    """Move axes."""
    a = [source] if isinstance(source, int) else list(source)
    b = [destination] if isinstance(destination, int) else list(destination)
    moved = {x.axis(to): x.axis(of) for of, to in zip(a, b, strict=True)}
    rest = iter(i for i in range(x.ndim) if i not in moved.values())
    return x.permuted([moved[i] if i in moved else next(rest) for i in range(x.ndim)])


@rule(torch.squeeze, "squeeze")
def squeeze(x: Signal, dim: Any = None) -> Signal:
    """Drop axes of one."""
    dims = range(1, x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {x.axis(d) for d in dims if x.shape[d] == 1}
    if not x.is_data:
        x = x.settled()
        if any(x.roles[a] == CHANNEL for a in gone):
            # A read-out of one channel: only its axis goes.
            if len(x.positions) > len(gone) - 1:
                raise x.tape.refuse("drops the axis of a single channel between positions")
            return x.without_channels(gone)
    return x.reshaped([n for i, n in enumerate(x.shape) if i not in gone])


@rule(torch.unsqueeze, "unsqueeze")
def unsqueeze(x: Signal, dim: int) -> Signal:
    """Add an axis of one."""
    a = dim % (x.ndim + 1)
    return x.reshaped((*x.shape[:a], 1, *x.shape[a:]))


@rule("contiguous", torch.clone, "clone", "to", "float", "double", "type_as")
def unchanged(x: Signal, *args: Any, **options: Any) -> Signal:
    """Keep what concerns memory alone; kernels choose their own precision."""
    return x


@rule("size")
def size(x: Signal, dim: int | None = None) -> Any:
    """Return the shape."""
    return x.shape if dim is None else x.shape[dim]


@rule("dim", "ndimension")
def dim(x: Signal) -> int:
    """Return the number of axes."""
    return x.ndim


@rule(torch.narrow, "narrow")
def narrow(x: Signal, dim: int, start: int, length: int) -> Signal:
    """Pick a range of positions."""
    return x.picked(dim, range(start, start + length))


@rule(torch.select, "select")
def select(x: Signal, dim: int, index: int) -> Signal:
    """Pick one position."""
    return x.picked(dim, [range(x.shape[dim])[index]], drop=True)


@rule(torch.flip, "flip")
def flip(x: Signal, *dims: Any) -> Signal:
    """Turn axes of positions around."""
    for d in dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims:
        x = x.picked(d, range(x.shape[d])[::-1])
    return x


@rule(torch.roll, "roll")
def roll(x: Signal, shifts: Any, dims: Any = None) -> Signal:
    """Roll axes of positions."""
    if dims is None:
        raise x.tape.refuse("rolls without dims")
    pairs = [(shifts, dims)] if isinstance(dims, int) else zip(shifts, dims, strict=True)
    for shift, d in pairs:
        n = x.shape[d]
        x = x.picked(d, [(i - shift) % n for i in range(n)])
    return x


@rule(operator.getitem)
def getitem(x: Any, index: Any) -> Any:
    """Pick positions, or an entry of a tuple."""
    if not isinstance(x, Signal):
        return x[index]
    index = index if isinstance(index, tuple) else (index,)
    if sum(i is Ellipsis for i in index) == 1:
        k = index.index(Ellipsis)
        rest = len([i for i in index if i is not None]) - 1
        index = (*index[:k], *[slice(None)] * (x.ndim - rest), *index[k + 1 :])
    axis = 0
    for i in index:
        if i is None:
            x = unsqueeze(x, axis)
            axis += 1
        elif i == slice(None):
            axis += 1
        elif isinstance(i, int):
            x = select(x, axis, i)
        elif isinstance(i, slice) and axis:
            channels = not x.is_data and x.settled().roles[axis] == CHANNEL
            picked = range(x.shape[axis])[i]
            if channels and picked.step == 1:
                a, b = picked.start, picked.stop
                sizes = [n for n in (a, b - a, x.shape[axis] - b) if n]
                x = x.split(sizes, axis)[1 if a else 0]
            else:
                x = x.picked(axis, picked)
            axis += 1
        else:
            raise x.tape.refuse(f"indexing by {i!r} has no rule")
    return x


@rule(torch.chunk, "chunk")
def chunk(x: Signal, chunks: int, dim: int = 0) -> tuple[Signal, ...]:
    """Split an axis into equal parts."""
    n = x.shape[dim]
    part = -(-n // chunks)
    return x.split([min(part, n - i) for i in range(0, n, part)], dim)


@rule(torch.split, "split")
def split(x: Signal, split_size_or_sections: Any, dim: int = 0) -> tuple[Signal, ...]:
    """Split an axis."""
    if isinstance(split_size_or_sections, int):
        n, part = x.shape[dim], split_size_or_sections
        return x.split([min(part, n - i) for i in range(0, n, part)], dim)
    return x.split(list(split_size_or_sections), dim)


@rule(torch.cat, torch.concat, torch.concatenate)
def cat(tensors: Any, dim: int = 0) -> Signal:
    """Put channels beside channels."""
    first, *rest = tensors
    return first.joined(rest, dim)


@rule(getattr)
def attribute(x: Any, name: str, *default: Any) -> Any:
    """Return the shape and the like."""
    if not isinstance(x, Signal):
        return getattr(x, name, *default)
    if name == "shape":
        return x.shape
    if name == "ndim":
        return x.ndim
    if name in ("T", "mT"):
        if x.ndim < 3:
            raise x.tape.refuse("transposes the batch axis")
        return transpose(x, -1, -2)
    if name in ("device", "dtype", "requires_grad"):
        return None
    raise x.tape.refuse(f"the attribute {name!r} of a tensor has no rule")
