"""One eigendecomposition of a kernel matrix, and functions of its eigenvalues between points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.config import require_memory

_LARGE = torch.finfo(torch.float64).eps ** -0.5
_NOT_PSD = 1e-3  # of the largest eigenvalue: a negative one beyond that is no rounding


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""The eigendecomposition :math:`T = V \Lambda V^\top` of a kernel matrix, in float64.

    Eigenvalues under the rounding are set to zero. What counts as rounding is n eps times the
    largest, or as much as the most negative one shows there to be.

    Parameters
    ----------
    eigenvalues : Tensor of shape (n,)
        Descending, at least 0.
    vectors : Tensor of shape (n, n)
        Columns.
    rank : int
        How many eigenvalues are above rounding.
    rounding : float
        What they are above of.
    """

    eigenvalues: Tensor
    vectors: Tensor
    rank: int
    rounding: float

    @classmethod
    def of(cls, name: str, matrix: Tensor) -> "Spectrum":
        """Decompose a symmetric matrix (n, n); its name is for errors."""
        n = len(matrix)
        what = f"the eigenvectors of a matrix of shape {(n, n)}"
        require_memory(8 * 4 * n * n, what, "use fewer points")
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        largest, least = float(values[0]), float(values[-1])
        if largest <= 0 or least < -_NOT_PSD * largest:
            raise ValueError(
                f"{name}: expected a positive semi-definite kernel that is not zero, got a matrix "
                f"{(n, n)} with eigenvalues from {least:.3g} to {largest:.3g}"
            )
        rounding = max(n * torch.finfo(torch.float64).eps * largest, -2 * least)
        rank = int((values > rounding).sum())
        values = torch.where(torch.arange(n, device=values.device) < rank, values, 0.0)
        return cls(values, vectors, rank, rounding)

    def rotate(self, rows: Tensor) -> Tensor:
        """Turn rows (n, k) at the points into coefficients of the eigenvectors."""
        return self.vectors.mT @ rows  # (n, k)

    def project(self, cross: Tensor) -> Tensor:
        """Turn kernel values (m, n) into those of the eigenvectors."""
        return cross @ self.vectors  # (m, n)

    def tame(self, gain: Tensor, ridge: float) -> Tensor:
        """Leave out factors (T, n) that would only blow up rounding.

        A mode whose eigenvalue is rounding has values between points of at most the root of it,
        which count where the factor is moderate, as it is early in training and with a ridge.
        Beyond that the mode is taken as one on which the kernel is singular, and has nothing there.
        """
        if ridge > self.rounding:
            return gain
        beyond = torch.arange(gain.shape[-1], device=gain.device) >= self.rank
        return torch.where(beyond & (gain * self.eigenvalues[0] > _LARGE), 0.0, gain)
