"""From distances or similarities to kernel matrices: centring, repair, bandwidth."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_choice, check_finite, check_real, check_tensor
from .._core.config import require_memory


def _square(name: str, value: Tensor) -> Tensor:
    """Return a symmetric matrix (n, n) in float64, a copy."""
    check_tensor(name, value, ndim=2)
    n = len(value)
    if value.shape != (n, n) or n == 0:
        raise ValueError(f"{name}: expected a square matrix, got shape {tuple(value.shape)}")
    check_finite(name, value)
    require_memory(8 * 3 * n * n, f"{name} of shape ({n}, {n}) in float64", "use fewer points")
    gap = float((value.detach() - value.detach().mT).abs().max())
    largest = float(value.detach().abs().max())
    if gap > torch.finfo(value.dtype).eps ** 0.5 * largest:
        raise ValueError(
            f"{name}: expected a symmetric matrix, got entries that differ by {gap:.3g} from "
            f"their mirror images (largest entry {largest:.3g}), shape {tuple(value.shape)}"
        )
    wide = value.double()
    return (wide + wide.mT) / 2


def center_kernel(matrix: Tensor) -> Tensor:
    r"""Take the mean of the feature vectors out of a kernel matrix.

    .. math:: H K H, \qquad H = I - \tfrac1n 1 1^\top

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric.

    Returns
    -------
    Tensor of shape (n, n)
        The matrix between centred feature vectors, float64; its rows sum to zero.

    Raises
    ------
    TypeError, ValueError
        If it is no symmetric matrix of finite numbers.

    Examples
    --------
    >>> import torch
    >>> center_kernel(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]], dtype=torch.float64)
    """
    k = _square("matrix", matrix)
    means = k.mean(0)  # (n,)
    return k - means - means.unsqueeze(-1) + means.mean()


def distance_kernel(distances: Tensor) -> Tensor:
    r"""Make the kernel matrix of centred points from their distances.

    .. math:: K = -\tfrac12 H D^{\circ 2} H, \qquad H = I - \tfrac1n 1 1^\top

    For Euclidean distances this is the centred matrix of inner products, and its leading
    eigenvectors, times the roots of the eigenvalues, are the points of classical multidimensional
    scaling. Other distances may give eigenvalues below zero; see `nearest_psd`.

    Parameters
    ----------
    distances : Tensor of shape (n, n)
        D, not squared; symmetric, zero on the diagonal.

    Returns
    -------
    Tensor of shape (n, n)
        K, float64.

    Raises
    ------
    TypeError, ValueError
        If they are no symmetric matrix of distances.

    References
    ----------
    Torgerson, "Multidimensional scaling: I. Theory and method", Psychometrika 17 (1952).

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[-3.0], [1.0], [2.0]]).double()
    >>> distance_kernel(torch.cdist(x, x)).round(decimals=6)  # x times its transpose
    tensor([[ 9., -3., -6.],
            [-3.,  1.,  2.],
            [-6.,  2.,  4.]], dtype=torch.float64)
    """
    d = _square("distances", distances)
    least, own = float(d.detach().min()), float(d.detach().diagonal().abs().max())
    # Distances by products of matrices, as torch.cdist takes them, are off by roots of rounding.
    if least < 0 or own > 1e-3 * float(d.detach().max()):
        raise ValueError(
            "distances: expected numbers of at least 0, and 0 on the diagonal, got a smallest one "
            f"of {least:.3g} and {own:.3g} on the diagonal"
        )
    return center_kernel(-0.5 * d.square())


@final
@dataclass(frozen=True, eq=False)
class PSDRepair:
    """A kernel matrix without negative eigenvalues, made by `nearest_psd`.

    Attributes
    ----------
    matrix : Tensor of shape (n, n)
        The repaired matrix, in the dtype of the one given.
    eigenvalues : Tensor of shape (n,)
        Of the matrix as it was, ascending, float64.
    negative : int
        How many of them are below zero by more than rounding.
    share : float
        The sum of their magnitudes, as a share of that of all.
    change : float
        Frobenius norm of what was changed, as a share of that of the matrix.
    """

    matrix: Tensor
    eigenvalues: Tensor
    negative: int
    share: float
    change: float


@torch.no_grad()
def nearest_psd(matrix: Tensor, *, method: str = "clip") -> PSDRepair:
    r"""Repair a similarity matrix that is no kernel matrix, and report what that took.

    ============ ===================================================================
    method       eigenvalues become
    ============ ===================================================================
    ``"clip"``   max(0, lambda): the nearest positive semi-definite matrix
    ``"flip"``   the magnitude of lambda: what is far stays far
    ``"shift"``  lambda less the smallest one: entries off the diagonal stay
    ============ ===================================================================

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        A symmetric matrix of similarities.
    method : {"clip", "flip", "shift"}
        What is done to eigenvalues below zero.

    Returns
    -------
    PSDRepair
        The matrix, and how far it was from one.

    Raises
    ------
    TypeError, ValueError
        If it is no symmetric matrix of finite numbers, or the method is unknown.
    MemoryError
        If the eigenvectors do not fit the memory budget.

    References
    ----------
    Higham, "Computing a nearest symmetric positive semidefinite matrix", Linear Algebra and its
    Applications 103 (1988).

    Chen, Garcia, Gupta, Rahimi, Cazzanti, "Similarity-based classification: concepts and
    algorithms", JMLR 10 (2009): flip and shift.

    Examples
    --------
    >>> import torch
    >>> found = nearest_psd(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> found.matrix
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    >>> found.negative, round(found.share, 3)
    (1, 0.5)
    """
    check_choice("method", method, ("clip", "flip", "shift"))
    k = _square("matrix", matrix)
    n = len(k)
    require_memory(8 * 3 * n * n, f"the eigenvectors of a matrix ({n}, {n})", "use fewer points")
    values, vectors = torch.linalg.eigh(k)  # ascending
    total = float(values.abs().sum())
    rounding = n * torch.finfo(matrix.dtype).eps * float(values.abs().max())
    below = values < -rounding
    if method == "shift":
        fixed = k.clone()
        fixed.diagonal().add_(max(-float(values[0]), 0.0))
    else:
        turned = values.clamp(min=0) if method == "clip" else values.abs()
        fixed = (vectors * turned) @ vectors.mT
        fixed = (fixed + fixed.mT) / 2
    norm = float(k.norm())
    return PSDRepair(
        matrix=fixed.to(matrix.dtype),
        eigenvalues=values,
        negative=int(below.sum()),
        share=float(values[below].abs().sum()) / total if total else 0.0,
        change=float((fixed - k).norm()) / norm if norm else 0.0,
    )


@torch.no_grad()
def perplexity_bandwidths(
    distances: Tensor, perplexity: float = 30.0, *, tolerance: float = 1e-10
) -> Tensor:
    r"""Find a Gaussian lengthscale for each point, at which it has so many neighbours.

    .. math:: \exp\Big(-\sum_{j \ne i} p_{j|i} \log p_{j|i}\Big) = \text{perplexity}, \qquad
        p_{j|i} \propto \exp(-d_{ij}^2 / 2 \ell_i^2)

    It is found by bisection, all points at once.

    Parameters
    ----------
    distances : Tensor of shape (n, n)
        D, not squared; the diagonal is left out.
    perplexity : float, default 30.0
        The number of neighbours, in (1, n - 1).
    tolerance : float, default 1e-10
        Of the logarithm of the perplexity.

    Returns
    -------
    Tensor of shape (n,)
        :math:`\ell`, float64. Where more points than that are equally near, the perplexity cannot
        be so low, and the lengthscale is the smallest that was tried.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Hinton, Roweis, "Stochastic neighbor embedding", NeurIPS 2002.

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(9.0).unsqueeze(-1)
    >>> lengthscales = perplexity_bandwidths(torch.cdist(x, x), 3.0)
    >>> bool(lengthscales[0] > lengthscales[4])  # the end has fewer neighbours nearby
    True
    """
    d = _square("distances", distances)
    n = len(d)
    least = check_real("perplexity", perplexity, above=1.0)
    if least >= n - 1:
        raise ValueError(f"perplexity: expected less than the {n - 1} other points, got {least:g}")
    check_real("tolerance", tolerance, above=0.0)
    squares = d.square()
    squares.fill_diagonal_(torch.inf)
    near = squares.min(1, keepdim=True).values
    gaps = squares - near  # (n, n)
    finite = gaps.masked_fill(gaps.isinf(), 0.0)
    spread = finite.amax(1).clamp(min=1e-300)
    low, high = (1e-12 * spread).log(), (1e6 * spread).log()  # of 2 l^2
    target = math.log(least)
    for _ in range(200):
        middle = (low + high) / 2
        scaled = gaps / middle.exp().unsqueeze(-1)
        weights = (-scaled).exp()
        total = weights.sum(1)
        entropy = total.log() + (weights * scaled.masked_fill(scaled.isinf(), 0.0)).sum(1) / total
        wide = entropy > target
        high, low = torch.where(wide, middle, high), torch.where(wide, low, middle)
        if bool(((entropy - target).abs() <= tolerance).all()):
            break
    return (((low + high) / 2).exp() / 2).sqrt()
