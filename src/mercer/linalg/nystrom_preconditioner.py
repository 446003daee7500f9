"""A preconditioner from products with random vectors: the randomised Nyström approximation."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_normal
from .preconditioner import LowRankPreconditioner

_EPS = torch.finfo(torch.float64).eps
_FIRST_RANK = 32


@torch.no_grad()
def nystrom_preconditioner(
    matvec: Callable[[Tensor], Tensor],
    size: int,
    *,
    ridge: float,
    rank: int | None = None,
    most_rank: int = 1024,
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> LowRankPreconditioner:
    r"""Build a preconditioner for K + ridge I from a few products with K.

    .. math::
        \hat K = (K \Omega) (\Omega^\top K \Omega)^{+} (K \Omega)^\top
            = U \hat\Lambda U^\top, \qquad
        P = U (\hat\Lambda + \lambda I) U^\top + (\hat\lambda_k + \lambda) (I - U U^\top)

    with random orthonormal :math:`\Omega` of k columns. With about twice as many columns as the
    effective dimension tr K (K + ridge I)^-1 the preconditioned matrix has a condition number
    below 28, in expectation. Where the rank is left to the library it is doubled, each time
    keeping the products that were taken, until the smallest eigenvalue found is below the ridge.

    A `pivoted_cholesky` reads columns instead, O(n k) numbers of K, and is the cheaper way where
    they can be had; products look at all of K, which is what its large eigenvalues need when no
    few columns show them.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, c) to K times them, without the ridge.
    size : int
        n.
    ridge : float
        Of the system, positive.
    rank : int, optional
        k, at most n; by default it is found.
    most_rank : int, default 1024
        At most so many columns where it is found.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the columns come from; None is torch's default generator.
    device : torch.device or str, optional
        Of the vectors that ``matvec`` is given.
    dtype : torch.dtype, default float64
        Of these vectors.

    Returns
    -------
    LowRankPreconditioner
        The inverse of P; its ``eigenvalues`` (k,) estimate the largest ones of K, from below.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, or K is not positive semi-definite.
    MemoryError
        If the columns do not fit the memory budget.

    References
    ----------
    Frangella, Tropp, Udell, "Randomized Nyström preconditioning", SIAM Journal on Matrix Analysis
    and Applications 44 (2023), arXiv 2110.02820.

    Examples
    --------
    >>> import torch
    >>> from mercer.linalg import conjugate_gradient
    >>> x = torch.linspace(0, 1, 300).double()
    >>> k = torch.exp(-50 * (x[:, None] - x).square())
    >>> p = nystrom_preconditioner(lambda v: k @ v, 300, ridge=1e-6, generator=0)
    >>> p
    LowRankPreconditioner(n=300, rank=32, ridge=1e-06)
    >>> system, b = k + 1e-6 * torch.eye(300), torch.sin(9 * x)
    >>> conjugate_gradient(lambda v: system @ v, b, preconditioner=p).iterations < 10
    True
    """
    n = check_int("size", size)
    ridge = check_real("ridge", ridge, above=0.0)
    most = min(check_int("most_rank", most_rank), n)
    wanted = min(_FIRST_RANK, most)
    if rank is not None:
        wanted = most = check_int("rank", rank)
        if rank > n:
            raise ValueError(f"rank: expected at most the size {n} of the matrix, got {rank}")
    if not callable(matvec):
        raise TypeError(f"matvec: expected a callable, got {type(matvec).__name__}")
    source = check_generator(generator)
    omega = torch.empty(n, 0, dtype=torch.float64, device=device)
    products = torch.empty_like(omega)
    while True:
        require_memory(
            8 * 6 * n * wanted,
            f"a sketch of {wanted} columns of size {n}",
            "ask for a smaller rank",
        )
        fresh = draw_normal((n, wanted - omega.shape[1]), source).to(omega)  # (n, c)
        for _ in range(2):
            fresh = torch.linalg.qr(fresh - omega @ (omega.mT @ fresh)).Q
        omega = torch.cat([omega, fresh], -1)  # (n, k)
        products = torch.cat([products, _times(matvec, fresh, dtype)], -1)
        left, values = _eigenpairs(omega, products, torch.finfo(dtype).eps)
        if wanted == most or float(values[-1]) <= ridge:
            break
        wanted = min(2 * wanted, most)
    return LowRankPreconditioner(left * values.sqrt(), ridge=ridge, rest=float(values[-1]) + ridge)


def _eigenpairs(omega: Tensor, products: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors (n, k) and eigenvalues (k,) of the approximation, the largest first."""
    # Shifted by what rounding may have taken from zero, which is subtracted at the end.
    shift = len(omega) ** 0.5 * eps * float(products.norm())
    if shift == 0.0:  # a zero matrix
        return omega, omega.new_zeros(omega.shape[1])
    moved = products + shift * omega
    core = omega.mT @ moved  # (k, k)
    factor, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    if int(info):
        lowest = float(torch.linalg.eigvalsh((core + core.mT) / 2)[0]) - shift
        raise ValueError(
            "matvec: expected a positive semi-definite operator, got one with the Rayleigh "
            f"quotient {lowest:.3g}"
        )
    half = torch.linalg.solve_triangular(factor.mT, moved, upper=True, left=False)  # (n, k)
    q, triangle = torch.linalg.qr(half)
    inner, singular, _ = torch.linalg.svd(triangle)
    return q @ inner, (singular.square() - shift).clamp_min(0.0)


def _times(matvec: Callable[[Tensor], Tensor], columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Return K times columns (n, c), checked and in float64."""
    found = check_tensor("matvec", matvec(columns.to(dtype)))
    if found.shape != columns.shape:
        raise ValueError(
            f"matvec: expected a result of shape {tuple(columns.shape)}, like the columns that "
            f"it was given, got {tuple(found.shape)}"
        )
    check_finite("matvec", found)
    return found.detach().to(columns)
