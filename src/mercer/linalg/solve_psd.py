"""Solve with a dense positive semi-definite matrix, by Cholesky in float64."""

import torch
from torch import Tensor

from .._core.checks import check_real
from .._core.config import require_memory
from .linear_solution import LinearSolution, check_right_hand_sides, relative_norms
from .psd import check_psd_matrix

_EPS = torch.finfo(torch.float64).eps
_MOST_JITTER = 1e-6  # of the mean diagonal


@torch.no_grad()
def solve_psd(matrix: Tensor, rhs: Tensor, *, ridge: float = 0.0) -> LinearSolution:
    r"""Solve (K + ridge I) x = b by a Cholesky factorisation in float64.

    Where the factorisation breaks down, or a pivot is mere rounding, a jitter is added to the
    diagonal: first n eps times its mean, then ten times as much, until it goes through. It is
    never more than 1e-6 of the mean (or what the rounding of a coarser dtype accounts for), and
    it is reported; the residual is that of the system without it.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric positive semi-definite.
    rhs : Tensor of shape (n, r) or (n,)
        b.
    ridge : float, default 0.0
        Added to the diagonal, at least 0.

    Returns
    -------
    LinearSolution
        x in the dtype of ``rhs``, the residuals, and the jitter. It counts as converged where
        the residuals are at most the square root of the dtype's precision.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes do not fit, a number is not finite, or K is not symmetric positive
        semi-definite, so that the largest jitter does not help.
    MemoryError
        If the factorisation does not fit the memory budget.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor([[4.0, 2.0], [2.0, 2.0]]).double()
    >>> found = solve_psd(k, torch.tensor([6.0, 4.0]).double())
    >>> found.solution, found.jitter
    (tensor([1., 1.], dtype=torch.float64), 0.0)
    >>> found = solve_psd(torch.ones(3, 3).double(), torch.ones(3).double())
    >>> 0 < found.jitter < 1e-13, found.converged
    (True, True)
    """
    b = check_right_hand_sides(rhs)  # (n, r)
    ridge = check_real("ridge", ridge, least=0.0)
    system = check_psd_matrix("matrix", matrix)  # (n, n), a copy
    n = len(system)
    if len(b) != n:
        raise ValueError(
            f"rhs: expected {n} rows beside matrix {tuple(matrix.shape)}, got {tuple(rhs.shape)}"
        )
    option = "solve by conjugate_gradient, which needs products with the matrix only"
    require_memory(8 * 3 * n * n, f"the factorisation of a matrix of shape {(n, n)}", option)
    system.diagonal().add_(ridge)
    scale = float(system.diagonal().mean())
    norms = b.norm(dim=0)  # (r,)
    if scale == 0.0:
        raise ValueError(f"matrix: expected a nonzero matrix or ridge, got zeros {(n, n)}")
    factor, jitter = factorise(system, scale, torch.finfo(matrix.dtype).eps)
    x = torch.cholesky_solve(b.to(system), factor)  # (n, r)
    # The rounded answer is what the caller gets.
    solution = x.to(rhs.dtype)
    residual = relative_norms(b.to(system) - system @ solution.double(), norms.to(system))
    return LinearSolution(
        solution=solution.reshape(rhs.shape).to(rhs.device),
        residual=residual.reshape(rhs.shape[1:]).to(rhs.device),
        iterations=0,
        converged=bool((residual <= torch.finfo(rhs.dtype).eps ** 0.5).all()),
        jitter=jitter,
    )


def factorise(system: Tensor, scale: float, eps: float) -> tuple[Tensor, float]:
    """Cholesky factor of a matrix of mean diagonal ``scale``, and the jitter that it took."""
    n = len(system)
    most = max(_MOST_JITTER, 10 * n**0.5 * eps) * scale  # rounding moves eigenvalues by sqrt(n)
    jitter, following = 0.0, n * _EPS * scale
    while True:
        trial = system
        if jitter:
            trial = system.clone()
            trial.diagonal().add_(jitter)
        factor, info = torch.linalg.cholesky_ex(trial)
        if not int(info):
            # What of a point's variance the earlier ones leave; under this it is rounding.
            shares = factor.diagonal().square() / trial.diagonal()  # (n,)
            if float(shares.min()) > 10 * _EPS:
                return factor, jitter
        if following > most:
            lowest = float(torch.linalg.eigvalsh(system)[0])
            raise ValueError(
                "matrix: expected a positive semi-definite matrix, got one whose factorisation "
                f"fails with a jitter of {jitter:.3g} on its diagonal too (mean {scale:.3g}); the "
                f"smallest eigenvalue, ridge included, is {lowest:.3g}"
            )
        jitter, following = following, 10 * following
