"""The border of the room: positive semi-definite matrices and factors, checked once."""

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor
from .._core.config import require_memory


def check_psd_matrix(name: str, value: Tensor) -> Tensor:
    """Return a symmetric matrix (n, n) in float64, its rounding asymmetry averaged out.

    Raises
    ------
    TypeError
        If it is not a floating-point tensor.
    ValueError
        If it is not square, not finite, not symmetric within the square root of its dtype's
        precision, or has a diagonal entry below zero.
    """
    check_tensor(name, value, ndim=2)
    if value.shape[0] != value.shape[1] or value.shape[0] == 0:
        raise ValueError(f"{name}: expected a square matrix, got shape {tuple(value.shape)}")
    check_finite(name, value)
    n = len(value)
    require_memory(8 * 2 * n * n, f"{name} of shape ({n}, {n}) in float64", "use fewer points")
    matrix = value.detach().double()
    gap = float((matrix - matrix.mT).abs().max())
    largest = float(matrix.abs().max())
    if gap > torch.finfo(value.dtype).eps ** 0.5 * largest:
        raise ValueError(
            f"{name}: expected a symmetric matrix, got entries that differ by {gap:.3g} from "
            f"their mirror images (largest entry {largest:.3g}), shape {tuple(value.shape)}"
        )
    if float(matrix.diagonal().min()) < 0:
        raise ValueError(
            f"{name}: expected a positive semi-definite matrix, got the diagonal entry "
            f"{float(matrix.diagonal().min()):.3g}"
        )
    return (matrix + matrix.mT) / 2


def psd_spectrum(
    matrix: Tensor | None, factor: Tensor | None, option: str
) -> tuple[Tensor, Tensor]:
    """Eigenvalues above rounding and eigenvectors of K, given as itself or as K = A A^T.

    Parameters
    ----------
    matrix : Tensor of shape (n, n) or None
        K.
    factor : Tensor of shape (n, p) or None
        A; its thin singular value decomposition serves, and K is never formed.
    option : str
        What a ``MemoryError`` says the caller could do instead.

    Returns
    -------
    tuple of Tensor
        Eigenvalues (rank,), and eigenvectors (n, rank), float64.

    Raises
    ------
    TypeError
        If both or none are given, or the one given is not a floating-point tensor.
    ValueError
        If the matrix is not square, symmetric, finite and positive semi-definite.
    """
    if (matrix is None) == (factor is None):
        given = "both" if factor is not None else "neither"
        raise TypeError(f"matrix, factor: expected exactly one of the two, got {given}")
    if factor is not None:
        n, p = check_tensor("factor", factor, ndim=2).shape
        if not (n and p):
            raise ValueError(f"factor: expected at least one row and column, got shape {(n, p)}")
        check_finite("factor", factor)
        require_memory(8 * 3 * n * p, f"the singular vectors of a factor of shape {(n, p)}", option)
        vectors, singular, _ = torch.linalg.svd(factor.detach().double(), full_matrices=False)
        known = singular > max(n, p) * torch.finfo(factor.dtype).eps * singular[0]
        return singular[known].square(), vectors[:, known]
    assert matrix is not None
    clean = check_psd_matrix("matrix", matrix)
    n = len(clean)
    require_memory(8 * 4 * n * n, f"the eigenvectors of a matrix of shape {(n, n)}", option)
    eigenvalues, vectors = torch.linalg.eigh(clean)  # ascending
    eps = torch.finfo(matrix.dtype).eps
    if float(eigenvalues[0]) < -(eps**0.5) * float(eigenvalues[-1]):
        raise ValueError(
            "matrix: expected a positive semi-definite matrix, got eigenvalues from "
            f"{float(eigenvalues[0]):.3g} to {float(eigenvalues[-1]):.3g}"
        )
    known = eigenvalues > n * eps * eigenvalues[-1]
    return eigenvalues[known], vectors[:, known]
