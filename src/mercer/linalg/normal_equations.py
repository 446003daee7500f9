"""Ridge regression from second moments: (G + ridge I) W^T = C, the ridge chosen on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .gcv import GCVCurve

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class NormalSolution:
    """What `solve_normal_equations` found.

    Attributes
    ----------
    weight : Tensor of shape (outputs, features)
        W, float64.
    ridge : float
        The ridge that was used.
    curve : GCVCurve
        The criterion as a function of the ridge.
    ridges : Tensor of shape (grid,)
        The ridges that were scanned; the one given where the ridge was a number.
    gcv_path : Tensor of shape (grid,)
        The criterion at each of them.
    """

    weight: Tensor
    ridge: float
    curve: GCVCurve
    ridges: Tensor
    gcv_path: Tensor


def solve_normal_equations(
    gram: Tensor, cross: Tensor, total: float, *, count: float, free: float, ridge: float | None
) -> NormalSolution:
    r"""Solve a ridge regression whose data have been reduced to moments.

    The curve of the criterion comes from one eigendecomposition of G. The weight comes from a
    Cholesky factorisation scaled to unit diagonal, which does not mind features of very
    different scales; where that is singular to rounding, from the eigenvectors of G's numerical
    rank: the solution of smallest norm.

    Parameters
    ----------
    gram : Tensor of shape (features, features)
        G, symmetric, float64: the sum of products of features, centred if there is an intercept.
    cross : Tensor of shape (features, outputs)
        C, the sum of products of features and targets.
    total : float
        Sum of squares of the targets, over all outputs.
    count : float
        Number of rows.
    free : float
        Degrees of freedom spent outside W: 1 for an intercept, else 0.
    ridge : float or None
        The ridge, at least 0; None chooses it by generalised cross-validation.

    Returns
    -------
    NormalSolution
        The weight, the ridge and the criterion.

    Examples
    --------
    >>> import torch
    >>> g, c = torch.eye(2).double() * 3, torch.tensor([[4.0], [8.0]]).double()
    >>> solve_normal_equations(g, c, 40.0, count=9.0, free=0.0, ridge=1.0).weight
    tensor([[1., 2.]], dtype=torch.float64)
    """
    p = len(gram)
    eigenvalues, vectors = torch.linalg.eigh(gram)  # ascending
    known = eigenvalues > p * _EPS * eigenvalues[-1].clamp_min(0.0)
    eigenvalues, vectors = eigenvalues[known], vectors[:, known]  # (rank,), (p, rank)
    rotated = vectors.mT @ cross  # (rank, q)
    curve = GCVCurve.from_spectrum(eigenvalues.cpu(), rotated.cpu(), total, count, free)
    if ridge is None:
        mean_eigenvalue = float(gram.trace()) / p
        ridge, ridges, path = curve.minimise(mean_eigenvalue if mean_eigenvalue > 0 else 1.0)
    else:
        ridges = torch.tensor([ridge], dtype=torch.float64)
        path = torch.tensor([curve(ridge)], dtype=torch.float64)
    solution = _solve_scaled(gram, cross, ridge)  # (p, q)
    if solution is None:
        solution = vectors @ (rotated / (eigenvalues + ridge).unsqueeze(-1))
    return NormalSolution(solution.mT.contiguous(), ridge, curve, ridges, path)


def _solve_scaled(gram: Tensor, cross: Tensor, ridge: float) -> Tensor | None:
    """Solve (gram + ridge I) w = cross, or return None where that is singular to rounding."""
    system = gram.clone()
    system.diagonal().add_(ridge)
    diagonal = system.diagonal()
    if not bool((diagonal > 0).all()):
        return None
    scale = diagonal.rsqrt().unsqueeze(-1)  # (p, 1)
    factor, info = torch.linalg.cholesky_ex(scale * system * scale.mT)
    # With unit diagonal, a pivot is the share of a feature that the earlier ones do not explain.
    if int(info) or float(factor.diagonal().square().min()) <= 10 * len(gram) * _EPS:
        return None
    return scale * torch.cholesky_solve(scale * cross, factor)
