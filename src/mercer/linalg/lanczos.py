"""Lanczos' iteration with full re-orthogonalisation, from one start or from many side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_normal

Operator = Callable[[Tensor], Tensor]

_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True, eq=False)
class LanczosResult:
    """What `lanczos` found: A as a tridiagonal matrix T on a Krylov space, A Q = Q T + rest.

    With a start of shape (n,) the axis of s starts is missing everywhere.

    Attributes
    ----------
    diagonal : Tensor of shape (s, m)
        Of T, float64. Behind the step at which a start was exhausted it is zero.
    off_diagonal : Tensor of shape (s, m - 1)
        Beside it, positive, or zero behind that step.
    basis : Tensor of shape (s, n, m)
        Q, orthonormal columns, the first the start at length one; zeros behind that step.
    residual : Tensor of shape (s,)
        The length of the rest, which is in the last column only.
    norm : Tensor of shape (s,)
        The lengths of the starts.
    steps : LongTensor of shape (s,)
        How many steps each start was good for, at most m.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    basis: Tensor
    residual: Tensor
    norm: Tensor
    steps: Tensor

    @property
    def exhausted(self) -> Tensor:
        """Whether each start reached an invariant space (s,): then T's eigenvalues are A's."""
        return self.residual == 0

    def tridiagonal(self) -> Tensor:
        """Return T of shape (s, m, m)."""
        return (
            torch.diag_embed(self.diagonal)
            + torch.diag_embed(self.off_diagonal, 1)
            + torch.diag_embed(self.off_diagonal, -1)
        )

    def quadrature(self) -> tuple[Tensor, Tensor]:
        r"""Return nodes and weights (s, m) with start^T f(A) start close to sum w f(node).

        These are T's eigenvalues and the squares of the first entries of its eigenvectors, times
        the squared length of the start: exact for polynomials of degree 2 m - 1. Behind the
        step at which a start was exhausted weights are zero, and nodes are the mean.
        """
        matrix = self.tridiagonal()  # (..., m, m)
        m = matrix.shape[-1]
        # Nodes that weigh nothing must not fall outside the spectrum, where f may be undefined.
        used = torch.arange(m, device=matrix.device) < self.steps.unsqueeze(-1)  # (..., m)
        mean = self.diagonal.sum(-1, keepdim=True) / self.steps.unsqueeze(-1).clamp_min(1)
        matrix = matrix + torch.diag_embed(torch.where(used, 0.0, mean))
        nodes, vectors = torch.linalg.eigh(matrix)
        return nodes, vectors[..., 0, :].square() * self.norm.square().unsqueeze(-1)


@torch.no_grad()
def lanczos(matvec: Operator, start: Tensor, steps: int) -> LanczosResult:
    r"""Make a symmetric A tridiagonal on the Krylov space of a vector.

    .. math::
        \beta_j q_{j+1} = A q_j - \alpha_j q_j - \beta_{j-1} q_{j-1}, \qquad
        \alpha_j = q_j^\top A q_j

    Each new vector is made orthogonal to all before it, twice, so that no eigenvalue is found
    more than once, and the Krylov space is known to be exhausted when nothing is left of it.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, s), in the dtype of ``start``, to A times them.
    start : Tensor of shape (n, s) or (n,)
        Where to start; several starts are iterated side by side, each by itself.
    steps : int
        m, at most n.

    Returns
    -------
    LanczosResult
        T, its basis, what was left, and how far each start went.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, a start is zero, or there are more steps
        than n.
    MemoryError
        If the basis does not fit the memory budget.

    References
    ----------
    Lanczos, "An iteration method for the solution of the eigenvalue problem", 1950.

    Golub, Meurant, "Matrices, Moments and Quadrature with Applications", 2010.

    Examples
    --------
    >>> import torch
    >>> a = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    >>> found = lanczos(lambda v: a @ v, torch.ones(4).double(), 4)
    >>> torch.linalg.eigvalsh(found.tridiagonal())
    tensor([1.0000, 2.0000, 3.0000, 4.0000], dtype=torch.float64)
    >>> found = lanczos(lambda v: a @ v, torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), 4)
    >>> int(found.steps), bool(found.exhausted)
    (2, True)
    """
    if not callable(matvec):
        raise TypeError(f"matvec: expected a callable, got {type(matvec).__name__}")
    if check_tensor("start", start).ndim not in (1, 2) or start.numel() == 0:
        raise ValueError(f"start: expected shape (n,) or (n, s), got {tuple(start.shape)}")
    check_finite("start", start)
    n = len(start)
    m = check_int("steps", steps)
    if m > n:
        raise ValueError(f"steps: expected at most the size {n} of the matrix, got {m}")
    first = start.detach().double().reshape(n, -1)  # (n, s)
    s = first.shape[1]
    require_memory(
        8 * n * s * (m + 4), f"the basis of {m} steps from {s} starts of size {n}", "take fewer"
    )
    norm = first.norm(dim=0)  # (s,)
    if bool((norm == 0).any()):
        raise ValueError("start: expected vectors other than zero, got a zero one")
    basis = first.new_zeros(s, m, n)  # a vector of the basis is contiguous
    basis[:, 0] = (first / norm).mT
    diagonal, off = first.new_zeros(s, m), first.new_zeros(s, m)
    count = torch.zeros(s, dtype=torch.long, device=first.device)
    going = torch.ones(s, dtype=torch.bool, device=first.device)
    size = first.new_zeros(s)  # a lower bound of the norm of A
    for j in range(m):
        q = basis[:, j]  # (s, n)
        product = _times(matvec, q.mT, start.dtype).mT  # (s, n)
        size = torch.maximum(size, product.norm(dim=-1))
        count += going
        diagonal[:, j] = (q * product).sum(-1)
        done = basis[:, : j + 1]  # (s, j + 1, n)
        left = product.unsqueeze(-1)  # (s, n, 1)
        for _ in range(2):
            left = left - done.mT @ (done @ left)
        left = left.squeeze(-1)  # (s, n)
        beta = left.norm(dim=-1)  # (s,)
        # What the rounding of the products leaves is not a direction.
        noise = n**0.5 * torch.finfo(start.dtype).eps * size
        going &= beta > noise
        off[:, j] = torch.where(going, beta, 0.0)
        if j + 1 == m or not bool(going.any()):
            break
        basis[:, j + 1] = torch.where(
            going.unsqueeze(-1), left / torch.where(going, beta, 1.0).unsqueeze(-1), 0.0
        )
    residual = torch.where(going, off[:, m - 1], 0.0)  # zero for those that stopped before
    shape = start.shape[1:]
    return LanczosResult(
        diagonal=diagonal.reshape(*shape, m),
        off_diagonal=off[:, : m - 1].reshape(*shape, m - 1),
        basis=basis.mT.reshape(*shape, n, m),
        residual=residual.reshape(shape),
        norm=norm.reshape(shape),
        steps=count.reshape(shape),
    )


@torch.no_grad()
def largest_eigenvalue(
    matvec: Operator,
    size: int,
    *,
    steps: int = 20,
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> float:
    """Bound the largest eigenvalue of a symmetric matrix from above, by a few products.

    The largest eigenvalue that Lanczos' iteration finds from a random start is too small; the
    length of what the last step left is added to it, which is more than it can have missed unless
    the start hardly sees the eigenvector. For kernel matrices, whose largest eigenvalues stand
    apart, the bound is within a few per cent after 20 steps; for an evenly filled spectrum it is
    up to a third or a half too large.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, 1) to A times them.
    size : int
        n.
    steps : int, default 20
        Products to spend.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the start comes from; None is torch's default generator.
    device : torch.device or str, optional
        Of the vectors that ``matvec`` is given.
    dtype : torch.dtype, default float64
        Of these vectors.

    Returns
    -------
    float
        The bound.

    References
    ----------
    Zhou, Li, "Bounding the spectrum of large Hermitian matrices", Linear Algebra and its
    Applications 435 (2011).

    Examples
    --------
    >>> import torch
    >>> a = torch.diag(torch.linspace(0, 1, 1000).double())
    >>> 1.0 <= largest_eigenvalue(lambda v: a @ v, 1000, generator=0) < 1.3
    True
    """
    n = check_int("size", size)
    source = check_generator(generator)
    start = draw_normal((n,), source).to(device=device, dtype=dtype)
    found = lanczos(matvec, start, min(check_int("steps", steps), n))
    top = float(torch.linalg.eigvalsh(found.tridiagonal())[-1])
    return top + float(found.residual)


def _times(matvec: Operator, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A times columns (n, s), checked and in float64."""
    found = check_tensor("matvec", matvec(columns.to(dtype)))
    if found.shape != columns.shape:
        raise ValueError(
            f"matvec: expected a result of shape {tuple(columns.shape)}, like the columns that "
            f"it was given, got {tuple(found.shape)}"
        )
    check_finite("matvec", found)
    return found.detach().to(columns)
