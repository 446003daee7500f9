"""Systems with a kernel matrix: built and factored where it fits, iterated otherwise."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real, check_tensor
from .._core.config import config, resident_memory
from ..linalg import (
    LinearSolution,
    LowRankPreconditioner,
    conjugate_gradient,
    pivoted_cholesky,
    solve_psd,
)

if TYPE_CHECKING:
    from .gram import Gram

METHODS = ("cholesky", "cg")
_MOST_ROWS = 20_000  # beyond which a factorisation takes longer than iterations do
_RANK = 256


def _fits(n: int) -> bool:
    """Whether the matrix, its copy and its factor fit half of what the budget leaves."""
    return 8 * 3 * n * n <= (config.memory_budget - resident_memory()) / 2


@torch.no_grad()
def solve(
    gram: "Gram",
    rhs: Tensor,
    *,
    ridge: float,
    method: str | None,
    tolerance: float | None,
    max_iterations: int | None,
    preconditioner_rank: int | None,
    start: Tensor | None,
    show_progress: bool,
) -> LinearSolution:
    """Solve (K + ridge I) a = b; see `Gram.solve`."""
    if gram.y is not None:
        raise ValueError(
            f"gram: expected a matrix of one set of points with itself, got two, {gram!r}; "
            "for a least-squares fit between two sets use features or landmarks"
        )
    n = len(gram.x)
    if check_tensor("rhs", rhs).ndim not in (1, 2) or len(rhs) != n or n == 0:
        raise ValueError(
            f"rhs: expected shape ({n},) or ({n}, r) beside a matrix {tuple(gram.shape)}, "
            f"got {tuple(rhs.shape)}"
        )
    if rhs.dtype != gram.dtype or rhs.device != gram.device:
        raise ValueError(
            f"rhs: expected {gram.dtype} on {gram.device} like the points, "
            f"got {rhs.dtype} on {rhs.device}"
        )
    ridge = check_real("ridge", ridge, least=0.0)
    if method is None:
        # One rule for all processes of a group: their budgets may differ.
        method = "cholesky" if gram.group is None and n <= _MOST_ROWS and _fits(n) else "cg"
    if check_choice("method", method, METHODS) == "cholesky":
        return solve_psd(gram.to_dense(), rhs, ridge=ridge)
    rank = min(_RANK, n) if preconditioner_rank is None else preconditioner_rank
    preconditioner = None
    if check_int("preconditioner_rank", rank, least=0) and ridge > 0:
        factor = pivoted_cholesky(gram.columns, gram.diagonal(), rank=min(rank, n)).factor
        preconditioner = LowRankPreconditioner(factor, ridge=ridge)
    return conjugate_gradient(
        lambda v: gram @ v + ridge * v,
        rhs,
        preconditioner=preconditioner,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=start,
        show_progress=show_progress,
    )
