"""A kernel matrix to multiply with many times: built where it fits, else evaluated in tiles."""

from torch import Tensor

from .._core.config import config, resident_memory
from ..kernels import Gram

_MOST_DENSE = 20_000  # points of which the matrix is built


def dense_or_tiles(gram: Gram) -> Gram | Tensor:
    """Return the matrix itself where three of it fit half of what the memory budget leaves.

    Parameters
    ----------
    gram : Gram
        The lazy matrix.

    Returns
    -------
    Gram or Tensor of shape (n, m)
        What can be multiplied with by ``@``.
    """
    n, m = gram.shape
    fits = 8 * 3 * n * m <= (config.memory_budget - resident_memory()) / 2
    return gram.to_dense() if max(n, m) <= _MOST_DENSE and fits else gram
