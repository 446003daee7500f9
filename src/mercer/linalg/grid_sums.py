"""Sums over all points that lie below the nodes of a rectilinear grid."""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from .._core.config import require_memory
from .dominance_sums import check_axes, check_columns, check_points, check_upper
from .product_profiles import FARTHEST


@torch.no_grad()
def dominance_sums_on_grid(
    points: Tensor,
    axes: Sequence[Tensor],
    weights: Tensor | None = None,
    *,
    upper: bool | Sequence[bool] = False,
) -> Tensor:
    r"""Sum the weights of all points that lie below each node of a grid in every coordinate.

    The sums of `dominance_sums` at all nodes of a rectilinear grid, in
    :math:`O(n \log M + d \prod_k M_k)`: points are counted into the cells, and the cells are
    summed along each axis.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        The points.
    axes : sequence of d Tensors of shapes (M_k,)
        Ascending coordinates of the nodes in each dimension.
    weights : Tensor of shape (n,) or (n, q), optional
        Their weights, of any sign; None counts.
    upper : bool or sequence of d bools, default False
        In which dimensions the sum is over what lies strictly above the node.

    Returns
    -------
    Tensor of shape (M_1, ..., M_d) or (M_1, ..., M_d, q)
        The sums in the weights' dtype, computed in float64; counts as int64, exact.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, or an axis does not ascend.
    MemoryError
        If the grid does not fit the memory budget.

    References
    ----------
    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    >>> dominance_sums_on_grid(x, [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0])])
    tensor([[1, 1],
            [1, 2]])
    """
    check_points("points", points)
    nodes = check_axes(axes, points)
    strict = check_upper(upper, points.shape[1])
    columns = check_columns(weights, points)  # (q, n)
    found = grid_columns(points.detach(), nodes, columns, strict)
    if weights is None:
        return found[0].round().long()
    return (found[0] if weights.ndim == 1 else found.movedim(0, -1)).to(weights.dtype)


def grid_columns(x: Tensor, axes: list[Tensor], columns: Tensor, upper: list[bool]) -> Tensor:
    """Sum columns (q, n) over what lies at or below, or above, each node: (q, M_1, ..., M_d)."""
    cells = [_cell(x[:, k], axis, up) for k, (axis, up) in enumerate(zip(axes, upper, strict=True))]
    found = _binned(cells, [len(axis) for axis in axes], columns)
    for k, up in enumerate(upper):
        found = found.flip(k + 1).cumsum(k + 1).flip(k + 1) if up else found.cumsum(k + 1)
    return found


def decaying_grid_sums(
    x: Tensor, axes: list[Tensor], columns: Tensor, coefficients: tuple[float, ...], unit: Tensor
) -> Tensor:
    r"""Sum :math:`w_i \prod_k p(t_k) e^{-t_k}`, t = |x_i - g| / unit, at each node g of a grid.

    On either side of the nodes each point adds its moments :math:`b^q e^{-b}`, b its distance
    from the nearest node, and they are carried from node to node,

    .. math:: (b + \Delta)^q e^{-(b + \Delta)} =
        e^{-\Delta} \sum_s \binom{q}{s} \Delta^{q-s} \, b^s e^{-b};

    all distances are positive, so nothing overflows and nothing cancels.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Points, float64.
    axes : list of d Tensors of shapes (M_k,)
        The nodes.
    columns : Tensor of shape (q, n)
        Weights.
    coefficients : tuple of float
        Of the polynomial p, constant first.
    unit : Tensor of shape (d,)
        The length over which the exponential decays. Distances are divided by it, not
        coordinates, which are larger and would lose digits.

    Returns
    -------
    Tensor of shape (q, M_1, ..., M_d)
        The sums.
    """
    d, q, terms = len(axes), len(columns), len(coefficients)
    sizes = [len(axis) for axis in axes]
    total = columns.new_zeros(q, *sizes)
    require_memory(
        8 * 3 * terms**d * (columns.numel() + total.numel()),
        f"the sums on a grid of {math.prod(sizes)} nodes",
        "take fewer nodes or fewer columns of weights",
    )
    for signs in product((False, True), repeat=d):
        sources, cells = columns.unsqueeze(0), []  # (terms ** k, q, n)
        for k, (axis, up) in enumerate(zip(axes, signs, strict=True)):
            cell = _cell(x[:, k], axis, up)
            away = (axis[cell.clamp(0, len(axis) - 1)] - x[:, k]).abs() / unit[k]  # (n,)
            away = away.clamp_max(FARTHEST)
            decay = torch.exp(-away)
            moments = torch.stack([decay * away**p for p in range(terms)])  # (terms, n)
            sources = (sources.unsqueeze(1) * moments.unsqueeze(1)).flatten(0, 1)
            cells.append(cell)
        carried = _binned(cells, sizes, sources.flatten(0, 1))
        for k, (axis, up) in enumerate(zip(axes, signs, strict=True)):
            # The first of the moments' axes belongs to this dimension, the others follow.
            state = carried.unflatten(0, (terms, -1)).movedim(k + 2, 0)  # (M_k, terms, rest, ...)
            summed = _carried(
                state, ((axis[1:] - axis[:-1]) / unit[k]).clamp_max(FARTHEST), coefficients, up
            )
            carried = summed.movedim(0, k + 1)
        total += carried
    return total


def _carried(state: Tensor, gaps: Tensor, coefficients: tuple[float, ...], up: bool) -> Tensor:
    """Carry moments along an axis (M, terms, ...), and take the polynomial of them (M, ...)."""
    terms = len(coefficients)
    found = torch.zeros_like(state[:, 0])
    order = list(range(len(state)))[:: -1 if up else 1]
    steps = gaps.tolist()
    before = torch.zeros_like(state[0])
    for place, j in enumerate(order):
        step = steps[min(j, order[place - 1])] if place else 0.0
        now = state[j].clone()
        for p in range(terms):
            for s in range(p + 1):
                now[p] += before[s] * (math.comb(p, s) * step ** (p - s) * math.exp(-step))
        for p, c in enumerate(coefficients):
            found[j] += c * now[p]
        before = now
    return found


def _cell(x: Tensor, axis: Tensor, up: bool) -> Tensor:
    """Find the first node >= x, M where there is none; or the last node < x, -1 for none."""
    return torch.searchsorted(axis, x.contiguous()) - (1 if up else 0)


def _binned(cells: list[Tensor], sizes: list[int], columns: Tensor) -> Tensor:
    """Add columns (q, n) into cells (q, M_1, ..., M_d); what is in no cell is left out."""
    inside = torch.ones_like(cells[0], dtype=torch.bool)
    flat = torch.zeros_like(cells[0])
    for cell, size in zip(cells, sizes, strict=True):
        inside &= (cell >= 0) & (cell < size)
        flat = flat * size + cell
    nodes = math.prod(sizes)
    require_memory(
        8 * 2 * nodes * len(columns), f"a grid of {nodes} nodes", "take fewer nodes or columns"
    )
    if not bool(inside.all()):
        flat, columns = flat[inside], columns[:, inside]
    if len(flat) == 0:  # of nothing bincount makes integers
        return columns.new_zeros(len(columns), *sizes)
    rows = [torch.bincount(flat, weights=row, minlength=nodes) for row in columns]
    return torch.stack(rows).view(len(columns), *sizes)
