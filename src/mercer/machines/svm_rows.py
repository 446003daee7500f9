"""What support vector machines share: which rows count, how they are solved, how they continue."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .kernel_input import KernelInput
from .landmark_basis import LandmarkBasis
from .losses import Loss
from .newton_cg import NewtonFit, newton_cg
from .training_matrix import matrix_fits

SOLVERS = ("auto", "dual", "nystroem")
COPIES = 4  # of the kernel matrix, while its dual is solved
_MOST_EXACT = 10_000  # rows up to which "auto" solves the dual
_WIDTH = 0.03  # of the rounded corners of losses, in the end
_MOST_WIDTHS = 20


def merge_rows(
    source: KernelInput, targets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Take rows that are equal, with equal targets, as one of their summed weight.

    The order of what is left does not depend on how often rows came, so weights are exactly the
    same as repeated rows.

    Parameters
    ----------
    source : KernelInput
        The rows.
    targets : Tensor of shape (n,)
        Their targets.
    weights : Tensor of shape (n,) or None
        Their weights.

    Returns
    -------
    tuple of Tensor
        Which rows stay, (k,), and their weights, (k,), positive and float64. The rows of a
        precomputed matrix stay apart.
    """
    n = len(source.points)
    own = source.points.new_ones(n, dtype=torch.float64) if weights is None else weights.double()
    index = own.nonzero().squeeze(-1)
    if source.precomputed:
        return index, own[index]
    table = torch.cat([source.points.double(), targets.double().unsqueeze(-1)], -1)[index]
    _, where = table.unique(dim=0, return_inverse=True)
    count = int(where.max()) + 1
    first = index.new_full((count,), n).scatter_reduce_(0, where, index, "amin")
    return first, own.new_zeros(count).index_add_(0, where, own[index])


def plan(
    source: KernelInput, targets: Tensor, weights: Tensor | None, solver: str
) -> tuple[Tensor, Tensor, str, str]:
    """Merge rows, and choose the solver by how many are left.

    Parameters
    ----------
    source, targets, weights : object
        As in `merge_rows`.
    solver : str
        What was asked for.

    Returns
    -------
    tuple
        Which rows stay, (k,), their weights, (k,), the solver, and why it was taken.
    """
    index, own = merge_rows(source, targets, weights)
    n, reason = len(index), "it was asked for"
    if solver == "auto":
        solver = "nystroem"
        if n > _MOST_EXACT:
            reason = f"{n} different rows are more than {_MOST_EXACT}"
        elif not matrix_fits(n, COPIES):
            reason = f"{COPIES} matrices of {n} rows do not fit half of what memory is left"
        else:
            solver, reason = "dual", f"the matrix of {n} different rows fits memory and patience"
    if solver == "nystroem":  # landmarks are drawn by the place of rows, not by their numbers
        order = index.argsort()
        index, own = index[order], own[order]
    return index, own, solver, reason


def sharpen(
    basis: LandmarkBasis,
    loss: Callable[[float], Loss],
    scale: Callable[[Any], float],
    *,
    tilt: float = 0.0,
    start: NewtonFit | None = None,
    tol: float,
    max_iter: int,
) -> NewtonFit:
    """Minimise a loss with a corner, rounded over smaller and smaller widths.

    Parameters
    ----------
    basis : LandmarkBasis
        The features.
    loss : callable
        From a width to the loss.
    scale : callable
        From a fit to the unit of widths; the last is 0.03 of it.
    tilt, start, tol, max_iter : object
        As in `newton_cg`; the most steps are for each width.

    Returns
    -------
    NewtonFit
        The fit at the smallest width, with all iterations.
    """
    fit, steps, width = start, 0, 2 * scale(start)
    for _ in range(_MOST_WIDTHS):
        fit = newton_cg(
            basis, loss(width), 1.0, tilt=tilt, start=fit, tol=max(tol, 1e-4), max_iter=max_iter
        )
        steps += fit.iterations
        least = _WIDTH * scale(fit)
        if width <= 1.1 * least:
            break
        width = max(0.3 * width, least)
    fit = newton_cg(basis, loss(width), 1.0, tilt=tilt, start=fit, tol=tol, max_iter=max_iter)
    return dataclasses.replace(fit, iterations=steps + fit.iterations)
