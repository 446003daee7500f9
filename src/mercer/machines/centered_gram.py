"""A kernel matrix about the mean of its feature vectors, as an operator."""

from typing import final

from torch import Tensor

from .._core.config import require_memory
from ..kernels import Gram
from .dense_or_tiles import dense_or_tiles


@final
class CenteredGram:
    r"""The matrix :math:`H K H`, with :math:`H = I - \tfrac1n 1 1^\top`.

    Parameters
    ----------
    gram : Gram
        K, symmetric; float64 points are asked for where precision matters.
    build : bool, default False
        Whether K is built for products, where it fits the memory budget.

    Attributes
    ----------
    means : Tensor of shape (n,)
        Means of the rows of K.
    mean : Tensor of shape ()
        Their mean.
    trace : Tensor of shape ()
        The trace of H K H.
    """

    def __init__(self, gram: Gram, *, build: bool = False) -> None:
        n = gram.shape[0]
        self.gram = gram
        self._matrix = dense_or_tiles(gram) if build else gram
        self.means = self._times(gram.x.new_full((n, 1), 1 / n)).squeeze(-1)  # (n,)
        self.mean = self.means.mean()
        self.trace = gram.diagonal().sum() - n * self.mean

    def _times(self, v: Tensor) -> Tensor:
        return self._matrix @ v

    def __matmul__(self, v: Tensor) -> Tensor:
        """Multiply by columns (n, c)."""
        found = self._times(v - v.mean(0))
        return found - found.mean(0)

    def rows(self, index: Tensor) -> Tensor:
        """Return some rows, (k, n)."""
        part = self.gram.rows(index)
        return part - self.means - self.means[index].unsqueeze(-1) + self.mean

    def to_dense(self, option: str) -> Tensor:
        """Build the matrix; the option is what a ``MemoryError`` says could be done instead."""
        n = self.gram.shape[0]
        require_memory(8 * 3 * n * n, f"a centred kernel matrix of {n} points", option)
        found = self.gram.to_dense()
        if self.gram.kernel.event_ndim == 0:
            found = found.clone()  # not to centre the matrix that the caller gave
        return found.sub_(self.means).sub_(self.means.unsqueeze(-1)).add_(self.mean)
