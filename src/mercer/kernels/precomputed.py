"""A kernel on a finite set, given by its matrix."""

from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor
from .base import Kernel


@final
class Precomputed(Kernel):
    r"""A kernel between numbered items, read from a matrix.

    .. math:: k(i, j) = K_{ij}

    A point is the number of an item, as a floating-point tensor of shape (..., n) so that it
    travels like other points; ``event_ndim`` is 0.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric; positive semi-definite, which is not verified.

    Raises
    ------
    TypeError
        If it is not a floating-point tensor.
    ValueError
        If it is not square, symmetric to rounding, or finite, or later an item is not there.

    Examples
    --------
    >>> import torch
    >>> k = Precomputed(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    >>> k(torch.tensor([1.0, 0.0, 1.0]))
    tensor([[3., 1., 3.],
            [1., 2., 1.],
            [3., 1., 3.]])
    """

    event_ndim = 0
    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix=matrix)
        check_tensor("matrix", matrix, ndim=2)
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: expected a square matrix, got shape {tuple(matrix.shape)}")
        check_finite("matrix", matrix)
        if not matrix.is_meta and matrix.numel():
            gap = float((matrix - matrix.mT).abs().max())
            if gap > 64 * torch.finfo(matrix.dtype).eps * float(matrix.abs().max()):
                raise ValueError(
                    f"matrix: expected a symmetric matrix, entries differ by {gap:.3g}"
                )
        self.register_buffer("matrix", matrix)

    def _index(self, x: Tensor) -> Tensor:
        index = x.long()
        if not x.is_meta and x.numel():
            bad = (index != x) | (index < 0) | (index >= len(self.matrix))
            if bool(bad.any()):
                raise ValueError(
                    f"x: expected numbers of items from 0 to {len(self.matrix) - 1}, "
                    f"got {x[bad].flatten()[0].item():g}"
                )
        return index

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        rows, columns = self._index(x).unsqueeze(-1), self._index(y).unsqueeze(-2)
        return self.matrix[rows, columns].to(x.dtype)

    def _diagonal(self, x: Tensor) -> Tensor:
        index = self._index(x)
        return self.matrix[index, index].to(x.dtype)
