"""Nystroem features of rows that are never stored: products with them, and their moments."""

import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.config import config, require_memory, resident_memory
from .._core.random import draw_permutation
from ..features.landmark_choice import choose_landmarks
from ..kernels import Gram
from .kernel_input import KernelInput

SELECTIONS = ("greedy", "kdpp", "kmeans", "leverage", "uniform")
_LEAST_SAMPLE = 2_000  # rows from which second moments are estimated
_MOST_FINE = 2**24  # numbers up to which single precision is not worth its loss


@final
@dataclass(frozen=True, eq=False)
class LandmarkBasis:
    r"""Centred features :math:`\phi(x) = T^\top k(L, x) - \mu` with uncorrelated entries.

    Attributes
    ----------
    input : KernelInput
        The landmarks L, (m, d), with their kernel.
    cross : Tensor or Gram of shape (n, m)
        The kernel between rows and landmarks; not stored where it does not fit.
    root : Tensor of shape (m, r)
        T; :math:`T T^\top` is the inverse of the landmarks' matrix. (Where all rows are landmarks,
        ``cross`` is the eigenvectors of their matrix, and T takes these to the features.)
    shift : Tensor of shape (r,)
        :math:`\mu`, zero where features are not centred.
    moments : Tensor of shape (r,)
        Mean squares of the features, of a sample of the rows.
    dual : Tensor of shape (m, r)
        From coefficients of the features to those of the landmarks.
    """

    input: KernelInput
    cross: Tensor | Gram
    root: Tensor
    shift: Tensor
    moments: Tensor
    dual: Tensor

    def __matmul__(self, w: Tensor) -> Tensor:
        """Multiply the features (n, r) by w (r, q), float64."""
        return (self.cross @ (self.root @ w).to(self.cross.dtype)).double() - self.shift @ w

    def transposed(self, u: Tensor) -> Tensor:
        """Multiply the transposed features (r, n) by u (n, q), float64."""
        inner = (self.cross.mT @ u.to(self.cross.dtype)).double()
        return self.root.mT @ inner - torch.outer(self.shift, u.sum(0))

    def on_rows(self, rows: Tensor) -> "LandmarkBasis":
        """Return the same features of some rows (k,) only."""
        if isinstance(self.cross, Tensor):
            return dataclasses.replace(self, cross=self.cross[rows])
        gram = self.cross
        return dataclasses.replace(self, cross=gram.kernel.gram(gram.x[rows], gram.y))

    def coefficients(self, w: Tensor) -> Tensor:
        """Return the coefficients (m, q) of the landmarks; the intercept falls by shift @ w."""
        return self.dual @ w


def landmark_basis(
    given: KernelInput,
    index: Tensor,
    num_landmarks: int,
    *,
    method: str,
    center: bool,
    generator: torch.Generator,
) -> LandmarkBasis:
    """Choose landmarks among rows, and make the features of these rows.

    Parameters
    ----------
    given : KernelInput
        All rows.
    index : Tensor of shape (n,)
        Which of them count.
    num_landmarks : int
        How many landmarks; at most n.
    method : str
        How they are chosen; see `mercer.features.landmark_choice`.
    center : bool
        Whether features have mean zero.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    LandmarkBasis
        The features.

    Raises
    ------
    MemoryError
        If the landmarks' matrix does not fit the memory budget.
    ValueError
        If that matrix is not positive semi-definite.
    """
    kernel, points = given.kernel, given.points[index]
    n = len(points)
    m = min(num_landmarks, n)
    require_memory(8 * 5 * m * m, f"the eigenvectors of {m} landmarks", "use fewer landmarks")
    if given.precomputed or method == "uniform":
        chosen = points[draw_permutation(n, generator)[:m].to(points.device)]
    else:
        chosen = choose_landmarks(kernel, points, m, method=method, generator=generator)
    matrix = kernel(chosen.double())  # (m, m)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)  # ascending
    if float(values[0]) < -(torch.finfo(points.dtype).eps ** 0.5) * float(values.abs().max()):
        raise ValueError(
            f"{'X' if given.precomputed else 'kernel'}: expected a positive semi-definite kernel, "
            f"got eigenvalues of the landmarks' matrix from {float(values[0]):.3g} to "
            f"{float(values[-1]):.3g}"
        )
    if points.dtype != torch.float64 and n * m <= _MOST_FINE:
        points = points.double()
    # The matrix is float64 whatever the rows are; their own products blur by one rounding.
    share = max(m * torch.finfo(torch.float64).eps, torch.finfo(points.dtype).eps)
    known = values > share * values[-1].clamp_min(1e-300)
    root = vectors[:, known] * values[known].rsqrt()  # (m, r)
    cross: Tensor | Gram = kernel.gram(points, chosen.to(points.dtype))
    spare = max(config.memory_budget - resident_memory(), 0)
    if 2 * n * m * points.element_size() <= spare:
        cross = cross.to_dense()
    # The second moments only steer the iterations, so a sample of the rows does.
    count = min(n, max(_LEAST_SAMPLE, 4 * m), max(2 * m, int(spare / 4 / (8 * 3 * m))))
    rows = torch.linspace(0, n - 1, count, device=points.device).long()
    part = cross[rows] if isinstance(cross, Tensor) else cross.rows(rows)
    phi = part.double() @ root  # (count, r)
    shift = phi.mean(0) if center else phi.new_zeros(phi.shape[1])
    phi -= shift
    moments, turn = torch.linalg.eigh(phi.mT @ phi / count)
    kept = dataclasses.replace(given.keep(index[:0]), points=chosen)
    root = root @ turn
    return LandmarkBasis(kept, cross, root, turn.mT @ shift, moments.clamp_min(0), root)


def exact_basis(
    given: KernelInput, index: Tensor, matrix: Tensor, *, center: bool
) -> LandmarkBasis:
    """Make the features of which all rows are landmarks, from the eigenvectors of their matrix.

    Parameters
    ----------
    given : KernelInput
        All rows.
    index : Tensor of shape (n,)
        Which of them count.
    matrix : Tensor of shape (n, n)
        Their kernel matrix, float64.
    center : bool
        Whether features have mean zero.

    Returns
    -------
    LandmarkBasis
        The features; directions whose eigenvalues are rounding are left out.
    """
    values, vectors = torch.linalg.eigh(matrix)
    known = values > len(values) * torch.finfo(torch.float64).eps * values[-1].clamp_min(1e-300)
    scale, vectors = values[known].sqrt(), vectors[:, known]  # (r,), (n, r)
    shift = scale * vectors.mean(0) if center else torch.zeros_like(scale)
    turn, moments = torch.eye(len(scale)).to(scale), scale.square() / len(values)
    if center:
        moments, turn = torch.linalg.eigh(torch.diag(moments) - torch.outer(shift, shift))
    root, dual = scale.unsqueeze(-1) * turn, vectors @ (turn / scale.unsqueeze(-1))
    shift = turn.mT @ shift
    return LandmarkBasis(given.keep(index), vectors, root, shift, moments.clamp_min(0), dual)
