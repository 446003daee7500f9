"""Bandwidths of densities and local averages, and how many points they rest on."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor
from ..kernels.distance import squared_distance
from ..linalg.dominance_sums import lexicographic_groups
from ..linalg.smoother import Smoothing, smooth
from .local_kernel import LocalKernel, check_bandwidth

_QUERIES = 1024  # points that a bandwidth is judged by, where there are more
_GRID, _STEPS = 17, 24  # bandwidths tried first, and sections after them
_GOLDEN = (5**0.5 - 1) / 2


def distinct_rows(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return different rows (u, d), the sums of their weights (u,), and which row is which (n,)."""
    group, rows = lexicographic_groups(x)
    each = x.new_ones(len(x), dtype=torch.float64) if weights is None else weights
    return rows, each.new_zeros(len(rows)).index_add_(0, group, each), group


def rule_of_thumb(rule: str, count: int, d: int) -> float:
    """Compute Scott's or Silverman's bandwidth for columns of standard deviation one."""
    n = count if rule == "scott" else count * (d + 2) / 4
    return n ** (-1 / (d + 4))


def _nearest(x: Tensor, weights: Tensor) -> Tensor:
    """Compute squared distances to the nearest other row (m,), with their weights (m,), of some."""
    some = _spread(len(x), x.device, _QUERIES)
    found = []
    for part in some.split(max(1, 2**22 // len(x))):
        squared = squared_distance(x[part], x)
        squared[torch.arange(len(part), device=x.device), part] = torch.inf
        found.append(squared.amin(1))
    return torch.stack((torch.cat(found), weights[some]))


def _spread(n: int, device: torch.device, most: int) -> Tensor:
    """Choose some of n items, evenly spaced."""
    if n <= most:
        return torch.arange(n, device=device)
    return torch.linspace(0, n - 1, most, device=device, dtype=torch.float64).round().long()


@torch.no_grad()
def nearest_neighbor_bandwidth(x: Tensor) -> float:
    r"""Choose the bandwidth of a Gaussian density by the distance of nearest neighbours.

    .. math:: h = \sqrt{\frac{1}{d} \, \mathrm{mean}_i \min_{j \ne i} \|x_i - x_j\|^2}

    In many dimensions it is close to the bandwidth that is best by the Kullback-Leibler
    divergence, where Scott's and Silverman's are too large: there a density estimate is a lookup
    of the few nearest points, see `kde_phase`. Repeated rows count as one; of more than 1,024
    rows as many, evenly spaced, are looked at, each among all.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows, at least two of them different.

    Returns
    -------
    float
        The bandwidth, one for all dimensions.

    Raises
    ------
    TypeError
        If x is no floating-point tensor.
    ValueError
        If it has another shape, fewer than two different rows, or a number is not finite.

    References
    ----------
    Biroli, Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.

    Examples
    --------
    >>> import torch
    >>> nearest_neighbor_bandwidth(torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]))
    2.4494897...
    """
    check_finite("x", check_tensor("x", x, ndim=2))
    rows, _, _ = distinct_rows(x.detach(), None)
    if len(rows) < 2:
        raise ValueError(f"x: expected at least two different rows, got shape {tuple(x.shape)}")
    return nearest_rule(rows, rows.new_ones(len(rows)))


def nearest_rule(rows: Tensor, weights: Tensor) -> float:
    """Compute the bandwidth by nearest neighbours of different rows; 1 for a single one."""
    if len(rows) < 2:
        return 1.0
    squared, each = _nearest(rows.double(), weights.double())
    mean = float((squared * each).sum() / each.sum())
    if not 0 < mean < math.inf:
        raise ValueError(
            f"X: squared distances of different rows are {mean:g} in float64; give the columns in "
            "another unit"
        )
    return math.sqrt(mean / rows.shape[1])


@torch.no_grad()
def effective_neighbors(queries: Tensor, x: Tensor | None = None, bandwidth: Any = 1.0) -> Tensor:
    r"""Count the points that a Gaussian density rests on at each query.

    .. math:: n_{\mathrm{eff}}(z) = \frac{1}{\sum_i w_i^2}, \qquad
        w = \mathrm{softmax}_i \left( -\frac{\|z - x_i\|^2}{2 h^2} \right)

    From 1, where the nearest point has all the weight, to n. A few mean that the estimate is no
    average: its fluctuations are as large as itself, see `kde_phase`.

    Parameters
    ----------
    queries : Tensor of shape (m, d)
        Where to look.
    x : Tensor of shape (n, d), optional
        The points; None takes the queries, and leaves each one out at itself.
    bandwidth : float or sequence of d floats, default 1.0
        h.

    Returns
    -------
    Tensor of shape (m,)
        Effective numbers of points; 0 where there is none.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, or a bandwidth is not positive.

    References
    ----------
    Biroli, Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.

    Examples
    --------
    >>> import torch
    >>> points = torch.tensor([[0.0], [1.0], [9.0]])
    >>> effective_neighbors(torch.tensor([[0.5]]), points, bandwidth=1.0)
    tensor([2.])
    """
    check_finite("queries", check_tensor("queries", queries, ndim=2))
    z = queries.detach()
    points = z if x is None else check_tensor("x", x, ndim=2).detach()
    if points.shape[1] != z.shape[1]:
        raise ValueError(
            f"x: expected shape (n, {z.shape[1]}) like the queries, got {tuple(points.shape)}"
        )
    check_finite("x", points)
    h = check_bandwidth(bandwidth, z.shape[1], ())
    assert isinstance(h, Tensor)
    kernel = LocalKernel("gaussian", False, h.to(z.device))
    found = smooth(
        lambda i, j: kernel.log(z[i], points[j]),
        shape=(len(z), len(points)),
        leave_one_out=x is None,
    )
    assert found.neighbours is not None
    return found.neighbours.to(queries.dtype)


def minimise_over_bandwidths(loss: Callable[[float], float], start: float) -> float:
    """Find the bandwidth of the least loss: a grid around ``start``, then golden sections."""
    logs = [math.log(start) + math.log(64.0) * (2 * i / (_GRID - 1) - 1) for i in range(_GRID)]
    losses = [loss(math.exp(log)) for log in logs]
    best = min(range(_GRID), key=losses.__getitem__)
    if not math.isfinite(losses[best]):
        return start
    low, high = logs[max(best - 1, 0)], logs[min(best + 1, _GRID - 1)]
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = loss(math.exp(a)), loss(math.exp(b))
    for _ in range(_STEPS):
        if high - low < 1e-3:
            break
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(math.exp(a))
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(math.exp(b))
    return math.exp((low + high) / 2)


def left_out(
    kernel: LocalKernel,
    rows: Tensor,
    weights: Tensor,
    values: Tensor | None = None,
    most: int = _QUERIES,
    diagnostics: bool = False,
) -> tuple[Tensor, Smoothing]:
    """Smooth at some rows without themselves; which they are, and what was found."""
    some = _spread(len(rows), rows.device, most)
    n = len(rows)

    def log_weights(i: slice, j: slice) -> Tensor:
        tile = kernel.log(rows[some[i]], rows[j])
        own = some[i].unsqueeze(1) == torch.arange(n, device=rows.device)[j]
        return tile.masked_fill_(own, -torch.inf)

    shape = (len(some), n)
    return some, smooth(log_weights, values, shape=shape, weights=weights, diagnostics=diagnostics)
