"""The top eigenpairs of a kernel matrix on a subsample, and the steps that they allow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite
from .._core.config import require_memory
from .psd import check_psd_matrix

_EPS = torch.finfo(torch.float64).eps
_CHECKED = 1000  # further points at which the diagonal that is left is looked at
_SAFETY = 1.2  # as eigenvalues and diagonals of a subsample are estimates


@final
@dataclass(frozen=True, eq=False)
class SubsampledSpectrum:
    """What `eigenpro` needs of the spectrum.

    Attributes
    ----------
    points : LongTensor of shape (s,)
        The subsample.
    vectors : Tensor of shape (s, q)
        Leading eigenvectors of its matrix.
    factors : Tensor of shape (q,)
        (1 - what is left of the eigenvalue) / eigenvalue.
    largest_diagonal : float
        Of K + ridge I once these are cut.
    largest_eigenvalue : float
        Of K + ridge I once these are cut, per point.
    """

    points: Tensor
    vectors: Tensor
    factors: Tensor
    largest_diagonal: float
    largest_eigenvalue: float

    @property
    def rank(self) -> int:
        """How many eigenvalues are cut."""
        return len(self.factors)

    @property
    def critical_batch(self) -> int:
        """The batch beyond which steps no longer get longer with it."""
        return max(1, round(1 + self.largest_diagonal / self.largest_eigenvalue))

    def step(self, batch: int) -> float:
        """Return the length of a step on a batch of that size."""
        return 1 / (self.largest_diagonal + (batch - 1) * self.largest_eigenvalue)

    def correction(self, mixed: Tensor) -> Tensor:
        """Return what the subsample's coefficients gain, from K_SB g of shape (s, r)."""
        return self.vectors @ (self.factors.unsqueeze(-1) * (self.vectors.mT @ mixed))


def subsampled_spectrum(
    columns: Callable[[Tensor], Tensor],
    diagonal: Tensor,
    *,
    ridge: float,
    size: int,
    rank: int | None,
    wanted_batch: int,
    block: int,
    seed: int,
) -> SubsampledSpectrum:
    """Choose a subsample, and the rank at which the wanted batch is the critical one.

    Parameters
    ----------
    columns : callable
        Maps indices (m,) to columns (n, m).
    diagonal : Tensor of shape (n,)
        Of K.
    ridge : float
        Of the system.
    size : int
        s.
    rank : int or None
        q, where it is given.
    wanted_batch : int
        The batch that steps are to be good for.
    block : int
        Columns at a time.
    seed : int
        Of the choice of points.

    Returns
    -------
    SubsampledSpectrum
        The eigenpairs and what they leave.
    """
    n = len(diagonal)
    require_memory(8 * 5 * size * size, f"the matrix of {size} points", "take a smaller subsample")
    source = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(n, generator=source).to(diagonal.device)
    points, others = drawn[:size], drawn[size : size + _CHECKED]
    parts = [columns(part)[drawn[: size + _CHECKED]] for part in points.split(block)]
    found = torch.cat(parts, -1)  # (s + c, s)
    check_finite("columns", found)
    values, vectors = torch.linalg.eigh(check_psd_matrix("columns", found[:size]))
    found = found.double()
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)  # the largest first
    shift = ridge * size / n  # the ridge beside eigenvalues of s points in place of n
    useful = int((values > size * _EPS * values[0]).sum())
    whole = diagonal.double()
    top = max(float(values[0]), float(whole.max()))

    def cut(q: int) -> SubsampledSpectrum:
        after = float(values[q]) if q < size else 0.0
        # By what an eigenvalue is too large for steps that are right for the next one.
        excess = 1 - (after + shift) / (values[:q] + shift)  # (q,)
        factors = excess / values[:q]
        scores = found @ vectors[:, :q]  # (s + c, q): eigenvalue times eigenvector, extended
        taken = (scores.square() * factors).sum(-1)
        seen = torch.cat([points, others])
        left = float((whole[seen] - taken).max()) if q else float(whole.max())
        return SubsampledSpectrum(
            points=points,
            vectors=vectors[:, :q].contiguous(),
            factors=factors,
            largest_diagonal=min(_SAFETY * max(left, 0.0), float(whole.max())) + ridge,
            largest_eigenvalue=max(_SAFETY * after, _EPS * top) / size + ridge / n,
        )

    if rank is not None:
        return cut(min(rank, useful))
    # The critical batch grows with the rank: the smallest one that does, by bisection.
    low, high = 0, max(0, min(useful, size // 4) - 1)
    if cut(high).critical_batch < wanted_batch:
        return cut(high)
    while low < high:
        middle = (low + high) // 2
        if cut(middle).critical_batch >= wanted_batch:
            high = middle
        else:
            low = middle + 1
    return cut(high)
