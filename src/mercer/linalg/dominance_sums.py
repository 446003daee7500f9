"""Sums over all points that lie below another one in every coordinate, in near-linear time."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor
from .._core.config import block_rows, require_memory
from .block_halving import halve, halved_size

_LEAF = 64  # points in a block that are compared pair by pair; fits eight bits
_BATCH = 2**15 - 1  # entries of blocks at once: in the caches, and below what torch shares out
_NANOSECONDS = 20.0  # a point and level; measured, it only chooses between two exact ways


@torch.no_grad()
def dominance_sums(
    points: Tensor,
    weights: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    upper: bool | Sequence[bool] = False,
) -> Tensor:
    r"""Sum the weights of all points that lie below each target in every coordinate.

    .. math:: F(z) = \sum_i w_i \prod_k 1\{x_{ik} \le z_k\},

    or :math:`1\{x_{ik} > z_k\}` in the dimensions named by ``upper``, so that over all choices of
    ``upper`` each pair is counted exactly once, ties included. It is the weighted empirical
    distribution function at arbitrary points, without a grid, in
    :math:`O(n \log^{\max(d - 1, 1)} n)`: points are halved at the median of one coordinate after
    the other, what lies low adds to what lies high, all blocks of a level at once, and the last
    coordinate is a cumulative sum. No sum is taken as a difference. Where comparing all pairs is
    cheaper (few targets, many dimensions), they are compared.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        The points, any of them repeated as often as they like.
    weights : Tensor of shape (n,) or (n, q), optional
        Their weights, of any sign; None counts.
    targets : Tensor of shape (m, d), optional
        Where the sums are taken; None takes the points.
    upper : bool or sequence of d bools, default False
        In which dimensions the sum is over what lies strictly above.

    Returns
    -------
    Tensor of shape (m,) or (m, q)
        The sums in the weights' dtype, computed in float64; counts as int64, exact.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit or a number is not finite.
    MemoryError
        If not even one column of weights fits the memory budget.

    References
    ----------
    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Bentley, "Multidimensional divide-and-conquer", Communications of the ACM 1980.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    >>> dominance_sums(x)
    tensor([1, 2, 2, 4])
    >>> dominance_sums(x, targets=torch.tensor([[0.0, 1.0]]), upper=True)
    tensor([2])
    """
    check_points("points", points)
    if targets is not None:
        check_targets(targets, points)
    strict = check_upper(upper, points.shape[1])
    columns = check_columns(weights, points)  # (q, n)
    sign = points.new_tensor([-1.0 if up else 1.0 for up in strict])
    x = points.detach() * sign  # above is strictly below, mirrored
    z = None if targets is None else targets.detach() * sign
    found = _sums(x, columns, z, strict)  # (q, m)
    if weights is None:
        return found[0].round().long()
    return (found[0] if weights.ndim == 1 else found.mT).to(weights.dtype)


def _sums(x: Tensor, columns: Tensor, z: Tensor | None, strict: list[bool]) -> Tensor:
    """Choose the cheaper way."""
    d = x.shape[1]
    count = len(x) if z is None else len(x) + len(z)
    m = len(x) if z is None else len(z)
    divided = count * _NANOSECONDS * visits(count, d)
    if len(x) * m * (1.0 + 0.4 * d) < divided:
        return compared_sums(x, columns, x if z is None else z, strict)
    return divided_sums(x, columns, z, strict)


def visits(count: int, d: int) -> float:
    """Estimate how often divide and conquer comes by each of the points."""
    levels = math.log2(max(count, 2))
    return max(levels**k / math.factorial(k) for k in range(1, max(d, 2)))


def compared_sums(x: Tensor, columns: Tensor, z: Tensor, strict: list[bool]) -> Tensor:
    """Compare all pairs: columns (q, n) to sums (q, m)."""
    found = columns.new_empty(len(columns), len(z))
    step = block_rows(11 * len(x), most=max(1, 2**22 // max(len(x), 1)))
    for start in range(0, len(z), step):
        part = z[start : start + step]
        below = torch.ones(len(part), len(x), dtype=torch.bool, device=x.device)
        for k, over in enumerate(strict):
            a, b = x[:, k], part[:, k : k + 1]
            below &= a < b if over else a <= b
        found[:, start : start + step] = columns @ below.to(columns.dtype).mT
    return found


def divided_sums(x: Tensor, columns: Tensor, z: Tensor | None, strict: list[bool]) -> Tensor:
    """Divide and conquer: columns (q, n) to sums (q, m)."""
    every = x if z is None else torch.cat((x, z))  # targets are points without weight
    group, unique = lexicographic_groups(every)  # (n + m,), (u, d)
    count = len(unique)
    size = halved_size(count, _LEAF)
    require_memory(
        8 * size * (8 * x.shape[1] + 30),
        f"the sums over {count} points in {x.shape[1]} dimensions",
        "ask for fewer targets at once",
    )
    order, ranks = _ranks(unique, strict, size)
    group_of_target = group if z is None else group[len(x) :]
    found = columns.new_empty(len(columns), len(group_of_target))
    step = block_rows(8 * size * 12, most=len(columns))
    for start in range(0, len(columns), step):
        part = columns[start : start + step]
        total = part.new_zeros(len(part), count).index_add_(1, group[: len(x)], part)
        laid = part.new_zeros(len(part), 1, size)
        laid[:, 0, :count] = total[:, order]
        below = sums_below(ranks, laid)[:, 0, :count] if ranks else _exclusive(laid)[:, 0, :count]
        sums = torch.empty_like(total)
        sums[:, order] = below
        if not any(strict):
            sums += total  # the target itself, and what coincides with it
        found[start : start + step] = sums[:, group_of_target]
    return found


def sums_below(ranks: list[Tensor], weights: Tensor) -> Tensor:
    """Sum what comes before in the order of the entries (C, B, S) and is below in all ranks.

    Without ranks, sources and targets are of different halves: an entry's own weight is then
    zero, or its sum is not asked for.
    """
    if not ranks:
        return weights.cumsum(-1)
    blocks, size = weights.shape[1:]
    if blocks > 1 and weights.numel() > _BATCH:
        middle = blocks // 2
        parts = ((0, middle), (middle, blocks))
        return torch.cat(
            [sums_below([r[a:b] for r in ranks], weights[:, a:b]) for a, b in parts], 1
        )
    if size <= _LEAF:
        return _in_leaf(ranks, weights)
    *others, rank = ranks
    halving, rank = halve(rank)
    high = halving.right.to(weights.dtype)  # (B, S)
    found = sums_below(others, torch.addcmul(weights, weights, high, value=-1.0)).mul_(high)
    inner = [*(halving.ranks(other) for other in others), rank]
    return found.add_(halving.unite(sums_below(inner, halving.divide(weights))))


def _in_leaf(ranks: list[Tensor], weights: Tensor) -> Tensor:
    """Compare all pairs of each small block, one entry with all behind it in all blocks."""
    last = weights.permute(2, 0, 1).contiguous()  # (S, C, B)
    small = [rank.to(torch.uint8).mT.contiguous() for rank in ranks]  # (S, B)
    found = torch.zeros_like(last)
    for i in range(len(last) - 1):
        below = small[0][i] < small[0][i + 1 :]  # (S - i - 1, B)
        for rank in small[1:]:
            below &= rank[i] < rank[i + 1 :]
        found[i + 1 :].addcmul_(last[i], below.unsqueeze(1).to(last.dtype))
    return found.permute(1, 2, 0)


def _exclusive(weights: Tensor) -> Tensor:
    """Sum what comes before, without the entry itself."""
    total = weights.cumsum(-1)
    return torch.cat((torch.zeros_like(total[..., :1]), total[..., :-1]), -1)


def _ranks(unique: Tensor, strict: list[bool], size: int) -> tuple[Tensor, list[Tensor]]:
    """Order different points by the first coordinate, and rank them (1, size) by the others.

    Ties go by the lexicographic order of the points where the relation is <=, and against it
    where it is <. Then a rank is below in all coordinates exactly where the relation holds: of
    two different points that do not contradict it, the lexicographically first is the smaller.
    """
    count = len(unique)
    orders = []
    for k, over in enumerate(strict):
        column = unique[:, k]
        if over:
            orders.append(count - 1 - column.flip(0).sort(stable=True).indices)
        else:
            orders.append(column.sort(stable=True).indices)
    place = torch.arange(size, dtype=torch.int32, device=unique.device)
    ranks = []
    for order in orders[1:]:
        rank = torch.empty_like(place[:count])
        rank[order] = place[:count]
        # What fills up the block lies above everything.
        ranks.append(torch.cat((rank[orders[0]], place[count:])).unsqueeze(0))
    return orders[0], ranks


def lexicographic_groups(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers of points (n,) in lexicographic order, equal ones alike; also those (u, d)."""
    order = torch.arange(len(points), device=points.device)
    for k in reversed(range(points.shape[1])):
        order = order[points[order, k].sort(stable=True).indices]
    ordered = points[order]
    new = torch.ones(len(points), dtype=torch.bool, device=points.device)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    group = torch.empty_like(order)
    group[order] = new.cumsum(0) - 1
    return group, ordered[new]


def check_points(name: str, points: Tensor) -> Tensor:
    """Return finite points (n, d), n and d at least 1."""
    check_tensor(name, points, ndim=2)
    if 0 in points.shape:
        raise ValueError(f"{name}: expected shape (n, d), both >= 1, got {tuple(points.shape)}")
    check_finite(name, points)
    return points


def check_targets(targets: Tensor, points: Tensor) -> Tensor:
    """Return finite targets (m, d) in the points' dtype."""
    check_tensor("targets", targets, ndim=2)
    if targets.shape[1] != points.shape[1] or targets.dtype != points.dtype:
        raise ValueError(
            f"targets: expected shape (m, {points.shape[1]}) and {points.dtype} like the points, "
            f"got {tuple(targets.shape)} and {targets.dtype}"
        )
    check_finite("targets", targets)
    return targets


def check_columns(weights: Tensor | None, points: Tensor) -> Tensor:
    """Return weights as columns (q, n) in float64; ones for None."""
    if weights is None:
        return points.new_ones(1, len(points), dtype=torch.float64)
    check_tensor("weights", weights)
    if weights.ndim not in (1, 2) or len(weights) != len(points):
        raise ValueError(
            f"weights: expected shape ({len(points)},) or ({len(points)}, q), "
            f"got {tuple(weights.shape)}"
        )
    check_finite("weights", weights)
    columns = weights.detach().to(points.device, torch.float64)
    return columns.unsqueeze(0) if weights.ndim == 1 else columns.mT.contiguous()


def check_upper(upper: bool | Sequence[bool], d: int) -> list[bool]:
    """Return one bool for each dimension."""
    if isinstance(upper, bool):
        return [upper] * d
    if not isinstance(upper, Sequence) or not all(isinstance(up, bool) for up in upper):
        raise TypeError(f"upper: expected a bool or {d} of them, got {upper!r}")
    if len(upper) != d:
        raise ValueError(f"upper: expected {d} bools, got {len(upper)}")
    return list(upper)


def check_axes(axes: Sequence[Tensor], points: Tensor) -> list[Tensor]:
    """Return the d ascending axes of a grid in the points' dtype."""
    d = points.shape[1]
    if isinstance(axes, Tensor) or not isinstance(axes, Sequence):
        raise TypeError(f"axes: expected a sequence of {d} tensors, got {type(axes).__name__}")
    if len(axes) != d:
        raise ValueError(f"axes: expected one tensor for each of {d} dimensions, got {len(axes)}")
    for k, axis in enumerate(axes):
        check_tensor(f"axes[{k}]", axis, ndim=1)
        check_finite(f"axes[{k}]", axis)
        if len(axis) == 0 or any(b <= a for a, b in pairwise(axis.tolist())):
            raise ValueError(f"axes[{k}]: expected ascending numbers, all different, at least one")
    return [axis.detach().to(points) for axis in axes]
