"""The smoother: weighted means, weights given by their logarithms, never all at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_tensor
from .._core.config import block_rows, require_memory

LogWeights = Callable[[slice, slice], Tensor]

_TILE_ROWS, _TILE_COLUMNS = 512, 4096
_COPIES = 5  # of a tile, at once
_NOTHING = -1e4  # a logarithm whose exponential is zero in every dtype


@dataclass(frozen=True, eq=False)
class Smoothing:
    """What `smooth` found, for each of m queries.

    Attributes
    ----------
    log_total : Tensor of shape (m,)
        Logarithm of the sum of the weights; minus infinity where all of them are zero.
    means : Tensor of shape (m, ...) or None
        Weighted means of the values, NaN where all weights are zero; None without values.
    neighbours : Tensor of shape (m,) or None
        Effective number of neighbours, 1 / sum(w^2) of the normalised weights: from 1 (one point
        has all the weight) to n (all have the same), 0 where all weights are zero.
    entropy : Tensor of shape (m,) or None
        -sum(w log w) of the normalised weights, from 0 to log n; NaN where all are zero.
    largest : Tensor of shape (m,)
        The largest of the normalised weights; 0 where all are zero.
    """

    log_total: Tensor
    means: Tensor | None
    neighbours: Tensor | None
    entropy: Tensor | None
    largest: Tensor


@torch.no_grad()
def smooth(
    log_weights: Tensor | LogWeights,
    values: Tensor | None = None,
    *,
    shape: tuple[int, int] | None = None,
    weights: Tensor | None = None,
    leave_one_out: bool = False,
    diagnostics: bool = True,
) -> Smoothing:
    r"""Average values with weights that are given by their logarithms.

    .. math::
        f(x_i) = \sum_j w_{ij} v_j, \qquad w_{ij} = e^{l_{ij} - L_i}, \qquad
        L_i = \log \sum_j e^{l_{ij}}

    This is the Nadaraya-Watson estimate where l is the logarithm of a kernel, L - log n that of
    a kernel density, and attention where l are scores. The weights are asked for in tiles and
    summed up relative to the largest so far, so that a query far from all points keeps the
    weights of the nearest ones, whose kernel values would underflow. Memory grows with m + n.
    Tiles are computed in their own dtype, what is carried from one to the next in float64. No
    gradient flows.

    Parameters
    ----------
    log_weights : Tensor of shape (m, n) or callable
        l, or a function of two slices, rows and columns, that returns that part of it, such as
        ``lambda i, j: -(x[i, None] - y[j]).square().sum(-1) / 2``. Minus infinity is a weight of
        zero.
    values : Tensor of shape (n,) or (n, r), optional
        v, real numbers.
    shape : tuple of two int, optional
        m and n; needed beside a callable.
    weights : Tensor of shape (n,), optional
        Further weights of the points, at least 0, such as how often each was seen; they multiply
        the others.
    leave_one_out : bool, default False
        Whether query i does not see point i; then m must be n.
    diagnostics : bool, default True
        Whether to compute ``neighbours`` and ``entropy`` too, for half as much time again.

    Returns
    -------
    Smoothing
        Log-totals, means and how many points they rest on, in the dtype and on the device of the
        log-weights.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a log-weight is NaN or plus infinity, a value is not finite, or a
        weight is negative or not finite.
    MemoryError
        If the results do not fit the memory budget.

    References
    ----------
    Nadaraya, "On estimating regression", Theory of Probability and its Applications 9 (1964).

    Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018, arXiv 1805.02867.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 101).double()
    >>> log_kernel = lambda i, j: -50 * (x[i, None] - x[j]).square()
    >>> found = smooth(log_kernel, x.square(), shape=(101, 101))
    >>> found.means[50].item(), found.neighbours[50].item()  # x^2 + bandwidth^2, in 2 h sqrt(pi)
    (0.259999..., 35.4490...)
    """
    m, n = _read_shape(log_weights, shape)
    table = _read_values(values, n)  # (n, r)
    log_prior = _read_weights(weights, n)
    for name, flag in (("leave_one_out", leave_one_out), ("diagnostics", diagnostics)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name}: expected True or False, got {type(flag).__name__}")
    if leave_one_out and m != n:
        raise ValueError(
            f"leave_one_out: expected as many queries as points, got shape {(m, n)} of log_weights"
        )
    width = 0 if table is None else table.shape[1]
    require_memory(
        8 * (m * (4 + 2 * width) + n * width), f"the means of {m} queries", "ask for fewer queries"
    )
    columns = min(n, _TILE_COLUMNS)
    step = block_rows(8 * (_COPIES * columns + 2 * width), most=min(m, _TILE_ROWS))
    parts: list[tuple[Tensor | None, ...]] = []
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        running = _Running(table, diagnostics)
        for left in range(0, n, columns):
            part = slice(left, min(left + columns, n))
            tile = _ask(log_weights, rows, part)  # (b, c)
            if log_prior is not None:
                tile = tile + log_prior[part].to(tile)
            if leave_one_out and left < rows.stop and rows.start < part.stop:
                own = torch.arange(max(left, start), min(part.stop, rows.stop))
                tile = tile.clone()
                tile[own - start, own - left] = -torch.inf
            running.add(tile, part)
        parts.append(running.result())
    log_total, means, neighbours, entropy, largest = (
        None if found[0] is None else torch.cat([one for one in found if one is not None])
        for found in zip(*parts, strict=True)
    )
    assert log_total is not None and largest is not None
    if means is not None and values is not None:
        means = means.reshape(m, *values.shape[1:])
    return Smoothing(log_total, means, neighbours, entropy, largest)


class _Running:
    """Sums over the tiles of some rows, relative to the largest log-weight so far."""

    def __init__(self, values: Tensor | None, diagnostics: bool) -> None:
        self.values, self.diagnostics = values, diagnostics
        self.dtype = torch.float64
        self.peak: Tensor | None = None

    def add(self, tile: Tensor, part: slice) -> None:
        """Add the weights (b, c) of some points."""
        highest = tile.amax(1).double()  # (b,), NaN where there is one
        if bool((highest.isnan() | (highest == torch.inf)).any()):
            raise ValueError(
                "log_weights: expected numbers or minus infinity, got NaN or plus infinity"
            )
        if self.peak is None:
            self._start(tile)
        assert self.peak is not None
        peak = torch.maximum(self.peak, highest)
        level = torch.where(peak == -torch.inf, 0.0, peak)  # (b,)
        shrink = (self.peak - level).clamp_min(_NOTHING)
        factor = shrink.exp()
        shifted = (tile - level.to(tile.dtype).unsqueeze(1)).clamp_min_(_NOTHING)  # (b, c)
        weight = shifted.exp()
        if self.diagnostics:
            self.logs = factor * (self.logs + shrink * self.total)
            self.logs += torch.linalg.vecdot(weight, shifted)
            squares = torch.linalg.vector_norm(weight, dim=1).square()
            self.squares = factor.square() * self.squares + squares
        self.total = factor * self.total + weight.sum(1)
        if self.values is not None:
            known = self.values[part].to(tile)
            self.sums = factor.unsqueeze(1) * self.sums + weight @ known  # (b, r)
        self.peak = peak

    def _start(self, tile: Tensor) -> None:
        self.dtype = tile.dtype
        zero = torch.zeros(len(tile), dtype=torch.float64, device=tile.device)
        self.peak = zero - torch.inf
        self.total = self.logs = self.squares = zero
        if self.values is not None:
            self.sums = zero.new_zeros(len(tile), self.values.shape[1])

    def result(self) -> tuple[Tensor | None, ...]:
        """Normalise: log-totals, means, neighbours, entropies, largest weights."""
        assert self.peak is not None
        some = self.peak > -torch.inf
        total = torch.where(some, self.total, torch.nan)
        log_total = torch.where(some, self.peak + total.log(), -torch.inf)
        largest = torch.where(some, 1 / total, 0.0).clamp_max(1.0)
        means = neighbours = entropy = None
        if self.values is not None:
            means = (self.sums / total.unsqueeze(1)).to(self.dtype)
        if self.diagnostics:
            neighbours = torch.where(some, total.square() / self.squares, 0.0).to(self.dtype)
            entropy = (total.log() - self.logs / total).clamp_min(0.0).to(self.dtype)
        return log_total.to(self.dtype), means, neighbours, entropy, largest.to(self.dtype)


def _read_shape(log_weights: Tensor | LogWeights, shape: tuple[int, int] | None) -> tuple[int, int]:
    if isinstance(log_weights, Tensor):
        own = tuple(check_tensor("log_weights", log_weights, ndim=2).shape)
        if shape is not None and tuple(shape) != own:
            raise ValueError(f"shape: expected that of log_weights {own}, got {shape}")
        shape = (own[0], own[1])
    elif not callable(log_weights):
        raise TypeError(
            f"log_weights: expected a tensor or a callable, got {type(log_weights).__name__}"
        )
    if shape is None:
        raise TypeError("shape: expected two integers beside callable log_weights, got None")
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise TypeError(f"shape: expected two integers, got {shape!r}")
    m, n = (check_int("shape", size) for size in shape)
    return m, n


def _read_values(values: Tensor | None, n: int) -> Tensor | None:
    if values is None:
        return None
    check_finite("values", check_tensor("values", values))
    if values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(
            f"values: expected shape ({n},) or ({n}, r) for {n} points, got {tuple(values.shape)}"
        )
    return values.detach().reshape(n, -1)


def _read_weights(weights: Tensor | None, n: int) -> Tensor | None:
    if weights is None:
        return None
    check_finite("weights", check_tensor("weights", weights))
    if weights.shape != (n,):
        raise ValueError(f"weights: expected shape ({n},), got {tuple(weights.shape)}")
    if bool((weights < 0).any()):
        raise ValueError(f"weights: expected numbers >= 0, got {float(weights.min()):.3g}")
    return weights.detach().double().log()


def _ask(log_weights: Tensor | LogWeights, rows: slice, columns: slice) -> Tensor:
    if isinstance(log_weights, Tensor):
        return log_weights.detach()[rows, columns]
    tile = check_tensor("log_weights", log_weights(rows, columns)).detach()
    expected = (rows.stop - rows.start, columns.stop - columns.start)
    if tuple(tile.shape) != expected:
        raise ValueError(
            f"log_weights: expected log_weights(rows, columns) of shape {expected} for slices of "
            f"these lengths, got {tuple(tile.shape)}"
        )
    return tile
