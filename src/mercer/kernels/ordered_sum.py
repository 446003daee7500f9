"""Sums over processes that do not depend on how many there are.

The work is cut into slabs whose number depends on the problem alone; each slab is computed by
one process, and slabs are added in their order, so that one process and many give the same bits.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.workers import in_order

MOST_SLABS = 32  # also the number of processes beyond which more have nothing to do


def cut(count: int) -> list[range]:
    """Cut a number of items into at most 32 slabs of nearly equal size."""
    slabs = min(count, MOST_SLABS)
    edges = [count * s // slabs for s in range(slabs + 1)] if slabs else [0]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def owners(costs: Sequence[float], processes: int) -> list[int]:
    """Give each slab to the process that has least to do so far, the dearest slabs first."""
    load = [0.0] * processes
    owner = [0] * len(costs)
    for slab in sorted(range(len(costs)), key=lambda s: (-costs[s], s)):
        owner[slab] = min(range(processes), key=lambda p: (load[p], p))
        load[owner[slab]] += costs[slab]
    return owner


def ordered_sum(
    totals: Sequence[Tensor],
    extents: Sequence[Sequence[tuple[int, int]]],
    work: Callable[[int, Callable[[], None]], Sequence[Tensor]],
    costs: Sequence[float],
    group: ProcessGroup | None,
) -> None:
    """Add the contributions of all slabs to the totals, in the order of the slabs.

    Parameters
    ----------
    totals : sequence of Tensor
        What is added to, in place; zero at first.
    extents : sequence of sequences of (int, int)
        For each slab and each total, the first rows that the slab contributes to, and their end.
    work : callable
        From the number of a slab to its contributions, one a total, of those rows; see
        `in_order`.
    costs : sequence of float
        Relative cost of each slab.
    group : ProcessGroup or None
        The processes; None is this one alone.
    """
    device = totals[0].device
    if group is None:
        with contextlib.closing(in_order(range(len(extents)), work, device)) as found:
            for rows, parts in zip(extents, found, strict=True):
                for total, (start, stop), part in zip(totals, rows, parts, strict=True):
                    total[start:stop] += part
        return
    rank = dist.get_rank(group)
    owner = owners(costs, dist.get_world_size(group))
    own = [s for s in range(len(extents)) if owner[s] == rank]
    found = in_order(own, work, device)
    mine = {s: [p.contiguous() for p in parts] for s, parts in zip(own, found, strict=True)}
    for slab, rows in enumerate(extents):
        source = dist.get_global_rank(group, owner[slab])
        for k, (total, (start, stop)) in enumerate(zip(totals, rows, strict=True)):
            part = mine[slab][k] if owner[slab] == rank else torch.empty_like(total[start:stop])
            dist.broadcast(part, src=source, group=group)
            total[start:stop] += part
        mine.pop(slab, None)


def _digest(tensors: Sequence[Tensor]) -> Tensor:
    """Return 32 bytes, as four integers, that tell tensors apart by shape, dtype and bits."""
    summary = hashlib.sha256()
    for tensor in tensors:
        summary.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
        if tensor.numel():
            bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            summary.update(bits.numpy().tobytes())
    return torch.frombuffer(bytearray(summary.digest()), dtype=torch.int64)


def check_same(
    group: ProcessGroup, names: str, tensors: Sequence[Tensor], failure: str | None = None
) -> None:
    """Raise, in every process, if the processes hold different data or one of them failed.

    Raises
    ------
    ValueError
        If bits, shapes or dtypes differ.
    MemoryError
        With the text ``failure``, in the process that has one. (A text, as an exception kept in
        a local name keeps its own frames alive, and the group with them.)
    RuntimeError
        If another process failed.
    """
    device = tensors[0].device
    own = torch.cat([_digest(tensors), torch.tensor([int(failure is not None)])]).to(device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    if failure is not None:
        raise MemoryError(failure)
    rank = dist.get_rank(group)
    failed = [p for p, other in enumerate(found) if int(other[-1])]
    if failed:
        raise RuntimeError(f"group: process {failed[0]} of the group failed; see its error")
    differ = [p for p, other in enumerate(found) if not torch.equal(other[:-1], found[0][:-1])]
    if differ:
        raise ValueError(
            f"group: the processes must hold the same {names}, but those of process {differ[0]} "
            f"differ from those of process 0 (this is process {rank}, with shapes "
            f"{[tuple(t.shape) for t in tensors]}); a Gram operator shards its work itself"
        )
