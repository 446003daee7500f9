"""Greedy pivoted Cholesky: a low-rank factor from a few columns of a kernel matrix."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from .._core.config import require_memory
from .psd import check_psd_matrix


@dataclass(frozen=True, eq=False)
class PivotedCholesky:
    """What `pivoted_cholesky` found.

    Attributes
    ----------
    pivots : LongTensor of shape (r,)
        The chosen points, in the order in which they were chosen.
    factor : Tensor of shape (n, r)
        L with K close to ``L @ L.mT``, exact in the rows and columns of the pivots.
    residual_diagonal : Tensor of shape (n,)
        Diagonal of ``K - L @ L.mT``: the variance that the pivots leave at each point.
    trace_error : float
        Its sum, which is also the nuclear norm of the error.
    exhausted : bool
        Whether nothing was left to choose: the error fell under the tolerance, or the
        numerical rank was reached. Then r may be smaller than the rank asked for.
    """

    pivots: Tensor
    factor: Tensor
    residual_diagonal: Tensor
    trace_error: float
    exhausted: bool


def _read_matrix(matrix: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    clean = check_psd_matrix("columns", matrix)
    return lambda idx: clean[:, idx], clean.diagonal().clone()


def _read_diagonal(diagonal: Tensor | None) -> Tensor:
    if diagonal is None:
        raise TypeError("diagonal: expected a tensor beside callable columns, got None")
    check_tensor("diagonal", diagonal, ndim=1)
    check_finite("diagonal", diagonal)
    if len(diagonal) == 0 or bool((diagonal < 0).any()):
        raise ValueError(
            f"diagonal: expected n >= 1 entries >= 0, got shape {tuple(diagonal.shape)} "
            f"with {int((diagonal < 0).sum())} below zero"
        )
    return diagonal.detach().double().clone()


@torch.no_grad()
def pivoted_cholesky(
    columns: Tensor | Callable[[Tensor], Tensor],
    diagonal: Tensor | None = None,
    *,
    rank: int,
    tolerance: float = 0.0,
) -> PivotedCholesky:
    r"""Choose, one by one, the points of largest residual variance.

    At each step the pivot is :math:`i = \arg\max_i (K - L L^\top)_{ii}`, and L gains the column
    :math:`(K - L L^\top)_{:,i} / \sqrt{(K - L L^\top)_{ii}}`: O(n r^2) work, n r numbers kept,
    r columns of K asked for.

    Parameters
    ----------
    columns : Tensor of shape (n, n) or callable
        K, or a function that maps indices (m,) to those columns (n, m) of K.
    diagonal : Tensor of shape (n,), optional
        Diagonal of K; needed beside a callable, not used beside a matrix.
    rank : int
        Most pivots to choose.
    tolerance : float, default 0.0
        Stop once the trace of the residual is at most this share of the trace of K.

    Returns
    -------
    PivotedCholesky
        Pivots, factor and residual; computed in float64, returned in the input's dtype.

    Raises
    ------
    TypeError
        If ``columns`` is neither, ``diagonal`` is missing beside a callable, or ``rank`` is
        not an integer.
    ValueError
        If shapes do not fit, a number is not finite, K is found not to be positive
        semi-definite, ``rank`` is below 1 or above n, or ``tolerance`` is negative.
    MemoryError
        If the factor does not fit the memory budget.

    References
    ----------
    Harbrecht, Peters, Schneider, "On the low-rank approximation by the pivoted Cholesky
    decomposition", Applied Numerical Mathematics 62 (2012).

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 101)
    >>> rbf = lambda idx: torch.exp(-8 * (x[:, None] - x[idx]).square())
    >>> found = pivoted_cholesky(rbf, torch.ones(101), rank=6)
    >>> found.pivots.tolist()[:2], found.exhausted
    ([0, 100], False)
    >>> found.trace_error < 0.02 * 101
    True
    """
    if isinstance(columns, Tensor):
        get, residual = _read_matrix(columns)
        dtype = columns.dtype
    elif callable(columns):
        get, residual = columns, _read_diagonal(diagonal)
        assert diagonal is not None
        dtype = diagonal.dtype
    else:
        raise TypeError(f"columns: expected a matrix or a callable, got {type(columns).__name__}")
    n = len(residual)
    if check_int("rank", rank) > n:
        raise ValueError(f"rank: expected at most the {n} points, got {rank}")
    tolerance = check_real("tolerance", tolerance, least=0.0)
    require_memory(8 * n * rank, f"a factor of shape ({n}, {rank})", "ask for a smaller rank")

    # Entries of K carry the rounding of their dtype; under it a residual is noise.
    noise = n * torch.finfo(dtype).eps * float(residual.max())
    enough = tolerance * float(residual.sum())
    rows = residual.new_empty(rank, n)  # L^T: a column of L is contiguous
    pivots: list[int] = []
    while len(pivots) < rank:
        pivot = int(residual.argmax())
        variance = float(residual[pivot])
        if variance <= noise or float(residual.sum()) <= enough:
            break
        column = _ask(get, pivot, residual)  # (n,)
        done = rows[: len(pivots)]  # (k, n)
        column -= done[:, pivot] @ done
        column *= variance**-0.5
        column[pivots] = 0.0  # exactly so, where rounding would leave traces
        column[pivot] = variance**0.5
        residual = residual - column.square()
        if float(residual.min()) < -max(noise, torch.finfo(dtype).eps ** 0.5 * variance):
            raise ValueError(
                "columns: expected a positive semi-definite matrix; the columns asked for "
                f"exceed what the diagonal allows by {-float(residual.min()):.3g}"
            )
        residual.clamp_min_(0.0)
        residual[pivot] = 0.0
        rows[len(pivots)] = column
        pivots.append(pivot)

    error = float(residual.sum())
    return PivotedCholesky(
        pivots=torch.tensor(pivots, dtype=torch.long, device=residual.device),
        factor=rows[: len(pivots)].mT.to(dtype).contiguous(),
        residual_diagonal=residual.to(dtype),
        trace_error=error,
        exhausted=float(residual.max()) <= noise or error <= enough,
    )


def _ask(get: Callable[[Tensor], Tensor], pivot: int, like: Tensor) -> Tensor:
    """Get one column (n,) as a fresh float64 tensor."""
    column = check_tensor("columns", get(torch.tensor([pivot], device=like.device)))
    if column.shape != (len(like), 1):
        raise ValueError(
            f"columns: expected columns(idx) of shape ({len(like)}, 1) for one index, "
            f"got {tuple(column.shape)}"
        )
    check_finite("columns", column)
    return column.detach().squeeze(-1).to(like.device, torch.float64, copy=True)
