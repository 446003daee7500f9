"""The components of kernel PCA: from the whole matrix, from products with it, from landmarks."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .._core.config import block_rows, require_memory
from ..features import Nystroem
from ..linalg.top_eigenpairs import fix_signs, top_eigenpairs
from .centered_gram import CenteredGram
from .kernel_input import KernelInput

# Shares of the largest eigenvalue: what counts as zero, and what may be below zero, as in
# scikit-learn (a matrix in float64 may have been computed in float32).
_ZERO = {torch.float64: 1e-12, torch.float32: 2e-7}
_BELOW = {torch.float64: 1e-5, torch.float32: 1e-3}


@final
@dataclass(frozen=True, eq=False)
class KernelComponents:
    """Principal components of training points, and how new ones are projected on them.

    Attributes
    ----------
    values : Tensor of shape (c,)
        Eigenvalues of the centred matrix, descending, float64.
    vectors : Tensor of shape (n, c)
        Its eigenvectors, of each the entry of largest magnitude positive.
    total : float
        Its trace.
    weights : Tensor of shape (n, c) or (m, c)
        What kernel values with the points, or features, are multiplied with.
    offset : Tensor of shape (c,)
        What is added then.
    feature_map : Nystroem or None
        The features, where landmarks stand for the points.
    """

    values: Tensor
    vectors: Tensor
    total: float
    weights: Tensor
    offset: Tensor
    feature_map: Nystroem | None = None

    def without_zeros(self) -> "KernelComponents":
        """Return those of eigenvalues above zero."""
        kept = self.values > 0
        return replace(
            self,
            values=self.values[kept],
            vectors=self.vectors[:, kept].contiguous(),
            weights=self.weights[:, kept].contiguous(),
            offset=self.offset[kept],
        )

    def project(self, known: KernelInput, rows: Any) -> Tensor:
        """Return the scores (m, c) of new rows, float64."""
        phi = self.feature_map
        if phi is None:
            return (known.cross(rows) @ self.weights.to(known.points.dtype)).double() + self.offset
        x = known.prepare(rows).double()
        step = block_rows(8 * 4 * phi.num_features, most=2**14)
        return torch.cat([phi(part) @ self.weights for part in x.split(step)]) + self.offset


def check_eigenvalues(values: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return eigenvalues, descending, with those that are rounding set to zero.

    The scale is the sum of the eigenvalues before the mean was taken out.

    Raises
    ------
    ValueError
        If one is below zero by more than rounding in a dtype explains.
    """
    known = torch.float64 if dtype == torch.float64 else torch.float32
    eps = torch.finfo(known).eps
    least, most = float(values.min()), float(values.abs().max())
    if least < -max(_BELOW[known] * most, 64 * eps * scale):
        raise ValueError(
            "kernel: expected a positive semi-definite kernel matrix, got the eigenvalue "
            f"{least:.6g} beside {most:.6g}; mercer.kernels.nearest_psd repairs a matrix"
        )
    return torch.where(values > max(_ZERO[known] * most, eps * scale), values, 0.0)


def gram_components(
    known: KernelInput, wanted: int, *, dense: bool, tolerance: float, seed: int
) -> KernelComponents:
    """Find components from the matrix H K H, decomposed or only multiplied with.

    Parameters
    ----------
    known : KernelInput
        The points.
    wanted : int
        How many.
    dense : bool
        Whether to decompose it.
    tolerance : float
        Of the residuals otherwise, as a share of the largest eigenvalue.
    seed : int
        Of the start.

    Returns
    -------
    KernelComponents
        The components.
    """
    n = len(known.points)
    if dense:
        option = "use eigen_solver='randomized' or 'nystroem'"
        require_memory(8 * 5 * n * n, f"the eigenvectors of {n} rows", option)
    matrix = getattr(known.kernel, "matrix", known.points)  # whose precision entries have
    centred = CenteredGram(known.kernel.gram(known.points.double()), build=not dense)
    scale = float(centred.gram.diagonal().sum())
    if dense:
        whole = centred.to_dense("use eigen_solver='randomized' or 'nystroem'")
        values, vectors = torch.linalg.eigh(whole)  # ascending
        values = check_eigenvalues(values.flip(0), scale, matrix.dtype)[:wanted]
        vectors = fix_signs(vectors[:, n - wanted :].flip(1))
    else:
        found = top_eigenpairs(
            lambda v: centred @ v,
            n,
            wanted,
            tolerance=tolerance,
            generator=seed,
            device=centred.means.device,
        )
        if not found.converged:
            warnings.warn(
                f"eigen_solver='randomized' stopped after {found.products} products with residuals "
                f"up to {float(found.residuals.max()):.3g}; raise tol or use 'nystroem'",
                ConvergenceWarning,
                stacklevel=4,
            )
        values = check_eigenvalues(found.eigenvalues, scale, matrix.dtype)
        vectors = found.eigenvectors
    inverse = torch.where(values > 0, values.rsqrt(), 0.0)
    weights = vectors * inverse
    weights = weights - weights.mean(0)  # (n, c), which centres the kernel values of a new row
    offset = -(centred.means @ weights)
    return KernelComponents(values, vectors, float(centred.trace), weights.contiguous(), offset)


def landmark_components(
    known: KernelInput, wanted: int, *, landmarks: int, selection: str, seed: int
) -> KernelComponents:
    """Take the principal components of landmark features, a block of rows at a time.

    Parameters
    ----------
    known : KernelInput
        The points.
    wanted : int
        How many components; at most as many as landmarks.
    landmarks : int
        How many landmarks; at most as many as points.
    selection : str
        How they are chosen.
    seed : int
        Of that choice.

    Returns
    -------
    KernelComponents
        The components.
    """
    points = known.points.double()
    n = len(points)
    size = min(landmarks, n)
    phi = Nystroem.from_data(known.kernel, points, size, landmarks=selection, generator=seed)
    blocks = points.split(block_rows(8 * 4 * size, most=2**14))
    shift = phi(blocks[0]).mean(0)  # near the mean, so that little cancels
    total, scatter = points.new_zeros(size), points.new_zeros(size, size)
    for block in blocks:
        features = phi(block) - shift  # (b, m)
        total += features.sum(0)
        scatter.addmm_(features.mT, features)
    scatter -= torch.outer(total, total) / n
    center = shift + total / n
    values, turn = torch.linalg.eigh(scatter)  # ascending
    wanted = min(wanted, size)
    scale = float(known.kernel.diag(points).sum())
    values = check_eigenvalues(values.flip(0)[:wanted], scale, points.dtype)
    turn = turn.flip(1)[:, :wanted]  # (m, c)
    option = "ask for fewer components"
    require_memory(8 * 3 * n * wanted, f"{n} rows of {wanted} scores", option)
    scores = torch.cat([(phi(block) - center) @ turn for block in blocks])  # (n, c)
    lengths = scores.norm(dim=0)
    vectors = scores / torch.where(lengths > 0, lengths, 1.0)
    fixed = fix_signs(vectors)
    turn = torch.where(values > 0, turn * torch.where((fixed * vectors).sum(0) < 0, -1.0, 1.0), 0.0)
    # The trace of the whole matrix, but for the mean of its entries, which the features tell.
    trace = scale - n * float(center.square().sum())
    return KernelComponents(values, fixed, trace, turn.contiguous(), -(center @ turn), phi.eval())
