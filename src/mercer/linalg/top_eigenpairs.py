"""The largest eigenvalues of a symmetric matrix that is only multiplied with, and their vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_normal

_OVERSAMPLING = 8  # directions beyond those asked for, so that the last ones converge too


@final
@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """Eigenvalues and eigenvectors, made by `top_eigenpairs`.

    Attributes
    ----------
    eigenvalues : Tensor of shape (k,)
        In descending order, float64.
    eigenvectors : Tensor of shape (n, k)
        Orthonormal columns; of each the entry of largest magnitude is positive.
    residuals : Tensor of shape (k,)
        Norms of A v - lambda v; some eigenvalue of A lies within it of each one here.
    products : int
        How many vectors were multiplied with A.
    converged : bool
        Whether all residuals are within the tolerance.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


def fix_signs(vectors: Tensor) -> Tensor:
    """Turn columns (n, k) so that the entry of largest magnitude is positive in each."""
    if not len(vectors):
        return vectors
    largest = vectors.abs().argmax(0, keepdim=True)  # (1, k)
    return vectors * torch.where(vectors.gather(0, largest) < 0, -1.0, 1.0).to(vectors)


@torch.no_grad()
def top_eigenpairs(
    matvec: Callable[[Tensor], Tensor],
    n: int,
    k: int,
    *,
    tolerance: float = 1e-10,
    max_products: int | None = None,
    start: Tensor | None = None,
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
) -> TopEigenpairs:
    r"""Find the k largest eigenvalues of a symmetric A by a block Krylov method with restarts.

    .. math:: \mathrm{span}\,\{X, A X, A^2 X, \dots\} \ni v, \qquad A v \approx \lambda v

    A random block is multiplied, the residuals of the best vectors in the space join it, kept
    orthonormal in float64, and so on; when the space is full it shrinks to its best vectors.
    As long as it does not, that is the randomised block Lanczos method, which needs far fewer
    products than powers of A do.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, c) in float64 to A times them.
    n : int
        Size of A.
    k : int
        How many eigenvalues, at most n.
    tolerance : float, default 1e-10
        Largest residual, as a share of the largest eigenvalue in magnitude.
    max_products : int, optional
        At most so many columns are multiplied; by default 100 for each column of a block.
    start : Tensor of shape (n, c), optional
        Vectors to begin with, such as those of a similar matrix; random ones join them.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the random vectors; None means torch's default generator.
    device : torch.device or str, optional
        Where the vectors are; that of torch's default tensors otherwise.

    Returns
    -------
    TopEigenpairs
        The best pairs found, their residuals, and whether all are within the tolerance.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If sizes do not fit, or a product is not finite or of another shape.
    MemoryError
        If the vectors do not fit the memory budget.

    References
    ----------
    Musco, Musco, "Randomized block Krylov methods for stronger and faster approximate singular
    value decomposition", NeurIPS 2015, arXiv 1504.05477.

    Wu, Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM
    Journal on Matrix Analysis and Applications 22 (2000).

    Examples
    --------
    >>> import torch
    >>> a = torch.diag(torch.arange(300.0, dtype=torch.float64))
    >>> found = top_eigenpairs(lambda v: a @ v, 300, 3, generator=0)
    >>> found.eigenvalues.round(decimals=8)
    tensor([299., 298., 297.], dtype=torch.float64)
    >>> found.converged
    True
    """
    if not callable(matvec):
        raise TypeError(f"matvec: expected a callable, got {type(matvec).__name__}")
    n, k = check_int("n", n), check_int("k", k)
    if k > n:
        raise ValueError(f"k: expected at most the size {n} of the matrix, got {k}")
    tolerance = check_real("tolerance", tolerance, above=0.0)
    source = check_generator(generator)
    width = min(n, k + _OVERSAMPLING)
    room = min(n, max(4 * width, 40))  # columns of the space
    most = 100 * width if max_products is None else check_int("max_products", max_products)
    require_memory(
        8 * 5 * n * room, f"the {room} vectors of {k} eigenvectors of size {n}", "ask for fewer"
    )
    where = torch.get_default_device() if device is None else torch.device(device)
    draw = draw_normal((n, width), source).to(where)
    if start is not None:
        check_finite("start", check_tensor("start", start, ndim=2))
        if len(start) != n:
            raise ValueError(f"start: expected shape ({n}, c), got {tuple(start.shape)}")
        draw = torch.cat([start.detach().to(draw), draw], 1)[:, :width]
    space = draw.new_empty(n, 0)
    images = draw.new_empty(n, 0)
    fresh = _new_directions(space, draw)
    products = 0
    while True:
        images = torch.cat([images, _checked(matvec, fresh)], 1)
        space = torch.cat([space, fresh], 1)  # (n, p)
        products += fresh.shape[1]
        small = space.mT @ images
        values, turn = torch.linalg.eigh((small + small.mT) / 2)  # ascending
        values, turn = values.flip(0), turn.flip(1)
        kept = min(width, space.shape[1])
        vectors, moved = space @ turn[:, :kept], images @ turn[:, :kept]  # (n, kept)
        left = moved - vectors * values[:kept]
        norms = left.norm(dim=0)
        scale = max(float(values.abs().max()), torch.finfo(torch.float64).tiny)
        open_ = norms > tolerance * scale
        done = not bool(open_[:k].any())
        if done or products >= most:
            break
        if space.shape[1] + kept > room and space.shape[1] > kept:
            # Half again of what is wanted survives, which keeps what the next ones have gained.
            stay = min(space.shape[1], 2 * width, max(room - kept, kept))
            space, images = space @ turn[:, :stay], images @ turn[:, :stay]
        fresh = _new_directions(space, left[:, open_])
        if fresh.shape[1] == 0:  # the space is invariant: more of it has to be found elsewhere
            fresh = _new_directions(space, draw_normal((n, width), source).to(space))
            if fresh.shape[1] == 0:
                break
        fresh = fresh[:, : max(1, most - products)]
    return TopEigenpairs(
        eigenvalues=values[:k].clone(),
        eigenvectors=fix_signs(vectors[:, :k]),
        residuals=norms[:k].clone(),
        products=products,
        converged=not bool(open_[:k].any()),
    )


def _new_directions(space: Tensor, block: Tensor) -> Tensor:
    """Return orthonormal columns that span what a block (n, c) adds to a space (n, p)."""
    n, p = space.shape
    if p == n:
        return block[:, :0]
    norms = block.norm(dim=0)
    block = block[:, norms > 0] / norms[norms > 0]
    for _ in range(2):  # twice is enough
        block = block - space @ (space.mT @ block)
        # Columns that the others or the space explain have lengths of rounding: they go.
        basis, singular, _ = torch.linalg.svd(block, full_matrices=False)
        block = basis[:, singular > 1e-10]
    block = block - space @ (space.mT @ block)
    return torch.linalg.qr(block).Q[:, : n - p] if block.shape[1] else block


def _checked(matvec: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """Multiply, and judge what came."""
    found = matvec(v)
    if not isinstance(found, Tensor) or found.shape != v.shape:
        came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"matvec: expected a tensor of shape {tuple(v.shape)}, got {came}")
    check_finite("matvec(v)", found)
    return found.detach().to(v)
