"""What every solver of linear systems takes and returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor


@dataclass(frozen=True, eq=False)
class LinearSolution:
    """What `conjugate_gradient` or `solve_psd` found for A x = b.

    Attributes
    ----------
    solution : Tensor of shape (n, r) or (n,)
        x, in the shape and the dtype of the right-hand side.
    residual : Tensor of shape (r,) or ()
        ||b - A x|| / ||b|| for each right-hand side, float64, recomputed from x at the end; zero
        where b is zero.
    iterations : int
        Steps that were taken; 0 for a factorisation.
    converged : bool
        Whether every residual is at most the tolerance.
    jitter : float
        What the library added to the diagonal of A so that it could be factorised; the residual
        is that of A without it.
    method : str
        How it was found, where a solver chooses between ways by itself; empty where it does not.
    """

    solution: Tensor
    residual: Tensor
    iterations: int
    converged: bool
    jitter: float = 0.0
    method: str = ""


def check_right_hand_sides(rhs: Tensor) -> Tensor:
    """Return right-hand sides (n, r) in float64, a single one (n,) as a column."""
    if check_tensor("rhs", rhs).ndim not in (1, 2) or rhs.shape[0] == 0:
        raise ValueError(f"rhs: expected shape (n,) or (n, r), got {tuple(rhs.shape)}")
    check_finite("rhs", rhs)
    block = rhs.detach().double()
    return block.unsqueeze(-1) if rhs.ndim == 1 else block


def relative_norms(columns: Tensor, norms: Tensor) -> Tensor:
    """Norms of columns (n, r) over given ones (r,), zero where those are."""
    return torch.where(norms > 0, columns.norm(dim=0) / torch.where(norms > 0, norms, 1.0), 0.0)
