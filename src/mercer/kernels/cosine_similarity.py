"""The cosine of the angle between two vectors."""

from typing import final

from torch import Tensor

from .base import Kernel


def _normalized(x: Tensor) -> Tensor:
    """Scale rows (..., n, d) to length one; rows of zeros stay."""
    length = x.square().sum(-1, keepdim=True)
    zero = length == 0
    return x / length.masked_fill(zero, 1.0).sqrt()


@final
class CosineSimilarity(Kernel):
    r"""The cosine of the angle between two vectors.

    .. math:: k(x, y) = \frac{x \cdot y}{|x| |y|}

    Zero where a vector is zero. It is what scikit-learn calls ``"cosine"``.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    >>> CosineSimilarity()(x)
    tensor([[1.0000, 0.7071],
            [0.7071, 1.0000]])
    """

    def __init__(self) -> None:
        super().__init__()

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return _normalized(x) @ _normalized(y).mT

    def _diagonal(self, x: Tensor) -> Tensor:
        return (x.detach() != 0).any(-1).to(x.dtype)
