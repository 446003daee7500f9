"""Sums over rows of their kernel with landmarks, and factors of what they make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.workers import in_order

# Share of the largest variance under which a landmark adds nothing: of what is left, rounding is
# divided by it, so that a scatter which no pass over the rows corrects needs more.
_DEPENDENT, _DEPENDENT_IN_SUMS = 1e-11, 1e-8
_PANEL = 256  # columns at most: fewer make BLAS slow, more leave threads without work


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


def one_thread_a_product() -> Any:
    """Return a context in which NumPy's products take one thread each, and do not wait for more."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def add_scatter(scatter: Tensor, z: Tensor) -> None:
    """Add Z^T Z (m, m), of float64, to a scatter matrix, on and above its diagonal at least.

    On a CPU it goes by panels of columns, each product in one thread, by NumPy's BLAS: the wheels
    of NumPy bring one that is a fifth faster than torch's on some processors, and slower on none
    that was tried.
    """
    m = z.shape[1]
    if z.device.type != "cpu":
        scatter.addmm_(z.mT, z)
        return
    width = -(-m // -(-m // _PANEL))
    panels = [slice(i, min(i + width, m)) for i in range(0, m, width)]
    pairs = [(a, b) for i, a in enumerate(panels) for b in panels[i:]]
    rows = z.numpy()

    def add(pair: int, check: Callable[[], None]) -> None:
        a, b = pairs[pair]
        scatter[a, b] += torch.from_numpy(np.matmul(rows[:, a].T, rows[:, b]))

    for _ in in_order(range(len(pairs)), add, z.device):
        pass


def pivoted_factor(
    matrix: Tensor, precision: float, *, corrected: bool = True
) -> tuple[Tensor, Tensor]:
    """Factor the kernel of some landmarks, those left out that others determine.

    Parameters
    ----------
    matrix : Tensor of shape (m, m)
        The kernel among them, float64.
    precision : float
        That of the dtype in which the kernel is evaluated elsewhere, whose noise must not look
        like a landmark.
    corrected : bool, default True
        Whether passes over the rows take out what rounding does to the scatter.

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
    share = max(_DEPENDENT if corrected else _DEPENDENT_IN_SUMS, 10 * precision)
    work: Any = matrix.cpu().numpy().copy(order="F")
    pivoted: Any = lapack.dpstrf  # type: ignore[attr-defined]
    factor, pivots, rank, _ = pivoted(work, tol=share * largest, lower=1, overwrite_a=1)
    kept = torch.from_numpy(pivots[:rank].astype("int64") - 1)
    lower = torch.from_numpy(factor[:rank, :rank]).tril().contiguous()
    return lower.to(matrix), kept.to(matrix.device)


def shifted_factor(matrix: Tensor, ridge: float) -> Tensor:
    """Factor matrix + ridge I, as much more on the diagonal as rounding asks for."""
    shift = ridge
    scale = float(matrix.diagonal().abs().mean()) or 1.0
    if not scale < float("inf"):  # NaN too, of which no shift would make a factor
        raise ValueError(f"kernel: expected sums within range, got {scale:.3g} on the diagonal")
    while True:
        system = matrix.clone()
        system.diagonal().add_(shift)
        factor, info = torch.linalg.cholesky_ex(system)
        if not int(info):
            return factor
        # Only a preconditioner: what is added here is not in the solution.
        shift = max(10 * shift, 1e-15 * scale)
