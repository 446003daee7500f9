"""The kernel matrix of training points as a whole, for what needs all of it."""

import torch
from torch import Tensor

from .._core.config import config, require_memory, resident_memory
from .kernel_input import KernelInput


def training_matrix(given: KernelInput, index: Tensor, *, copies: int, option: str) -> Tensor:
    """Return the kernel matrix (k, k) of some training points, float64.

    Parameters
    ----------
    given : KernelInput
        The points.
    index : Tensor of shape (k,)
        Which of them.
    copies : int
        How many numbers an entry takes until the caller is done.
    option : str
        What a caller can do instead where memory is short.

    Returns
    -------
    Tensor of shape (k, k)
        The matrix, symmetric.

    Raises
    ------
    MemoryError
        If it does not fit the memory budget.
    ValueError
        If a matrix that was given is not positive semi-definite.
    """
    k = len(index)
    require_memory(8 * copies * k * k, f"the kernel matrix of {k} points", option)
    matrix = given.kernel(given.points[index].double())
    if given.precomputed:
        matrix = (matrix + matrix.mT) / 2
        eps = torch.finfo(given.points.dtype).eps
        scale = float(matrix.diagonal().abs().max())
        shifted = matrix.clone()
        shifted.diagonal().add_(max(100 * k * eps, 1e-10) * scale)
        if scale == 0 or int(torch.linalg.cholesky_ex(shifted)[1]):
            values = torch.linalg.eigvalsh(matrix)
            raise ValueError(
                "X: expected a positive semi-definite kernel matrix, got eigenvalues from "
                f"{float(values[0]):.3g} to {float(values[-1]):.3g}"
            )
    return matrix


def matrix_fits(n: int, copies: int) -> bool:
    """Say whether so many numbers an entry of a matrix (n, n) fit half of what memory is left."""
    return 8 * copies * n * n <= max(config.memory_budget - resident_memory(), 0) / 2
