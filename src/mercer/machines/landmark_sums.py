"""Sums over rows of their kernel with landmarks, and factors of what they make."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_DEPENDENT = 1e-13  # share of the largest variance under which a landmark adds nothing


@dataclass(frozen=True, eq=False)
class LandmarkMoments:
    """Sums over rows of k = k_M(x): scatter w k k^T, cross w k y^T, and those of an intercept."""

    scatter: Tensor  # (m, m), on and above the diagonal
    cross: Tensor  # (m, q)
    total: Tensor  # (m,), w k
    target_total: Tensor  # (q,), w y
    target_square: Tensor  # (q,), w y^2
    weight: Tensor  # ()
    counted: Tensor  # (), rows of positive weight

    @classmethod
    def zeros(cls, m: int, q: int, device: torch.device) -> "LandmarkMoments":
        """Start with no row."""

        def make(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(make(m, m), make(m, q), make(m), make(q), make(q), make(), make())


def add_scatter(scatter: Tensor, z: Tensor) -> None:
    """Add Z^T Z (m, m) to a scatter matrix, on and above its diagonal at least.

    SciPy's symmetric product takes half of the work of a general one, which is all that torch
    has.
    """
    if z.device.type != "cpu":
        scatter.add_((z.mT @ z).double())
        return
    from scipy.linalg import blas
    from threadpoolctl import threadpool_limits

    rows: Any = z.numpy().T  # (m, b), as BLAS reads columns
    with threadpool_limits(torch.get_num_threads(), user_api="blas"):
        if z.dtype == torch.float64:
            product: Any = blas.dsyrk  # type: ignore[attr-defined]
            product(1.0, rows, beta=1.0, c=scatter.numpy().T, lower=1, overwrite_c=1)
        else:
            product = blas.ssyrk  # type: ignore[attr-defined]
            scatter.add_(torch.from_numpy(product(1.0, rows, lower=1).T))


def pivoted_factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Factor the kernel of some landmarks, those left out that others determine.

    Parameters
    ----------
    matrix : Tensor of shape (m, m)
        The kernel among them, float64.

    Returns
    -------
    tuple of Tensor
        L (r, r), lower triangular, of the kept ones, and their numbers (r,).

    Raises
    ------
    ValueError
        If the matrix is zero.
    """
    from scipy.linalg import lapack

    # LAPACK reads columns, and the matrix is symmetric.
    largest = float(matrix.diagonal().max())
    if not largest > 0:
        raise ValueError(f"kernel: expected a kernel that is not zero, got {largest:.3g} at most")
    work: Any = matrix.cpu().numpy().copy(order="F")
    pivoted: Any = lapack.dpstrf  # type: ignore[attr-defined]
    factor, pivots, rank, _ = pivoted(work, tol=_DEPENDENT * largest, lower=1, overwrite_a=1)
    kept = torch.from_numpy(pivots[:rank].astype("int64") - 1)
    lower = torch.from_numpy(factor[:rank, :rank]).tril().contiguous()
    return lower.to(matrix), kept.to(matrix.device)


def shifted_factor(matrix: Tensor, ridge: float) -> Tensor:
    """Factor matrix + ridge I, as much more on the diagonal as rounding asks for."""
    shift = ridge
    scale = float(matrix.diagonal().mean()) or 1.0
    while True:
        system = matrix.clone()
        system.diagonal().add_(shift)
        factor, info = torch.linalg.cholesky_ex(system)
        if not int(info):
            return factor
        # Only a preconditioner: what is added here is not in the solution.
        shift = max(10 * shift, 1e-15 * scale)
