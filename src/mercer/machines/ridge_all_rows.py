"""Kernel ridge regression whose coefficients are those of all rows."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.config import block_rows, require_memory
from ..kernels import Gram
from ..linalg import (
    LinearSolution,
    LowRankPreconditioner,
    RidgePath,
    conjugate_gradient,
    eigenpro,
    pivoted_cholesky,
    solve_refined,
)
from .checkpoint import Checkpoint, fingerprint
from .kernel_input import KernelInput
from .ridge_fit import RidgeFit, RidgeOptions, as_residual, tolerance_of

_RANK = 256  # pivots of the preconditioner


def fit_all_rows(
    rows: Any,
    y: Tensor,
    weights: Tensor | None,
    options: RidgeOptions,
    solver: str,
    reason: str,
    group: ProcessGroup | None,
    checkpoint: Any,
) -> RidgeFit:
    """Solve (K + alpha W^-1) a + b 1 = y, 1^T a = 0; see `fit_ridge`."""
    data = KernelInput.fit(
        options.kernel, rows, weights=weights, standardize=bool(options.standardize)
    )
    if weights is not None and bool((weights == 0).any()):
        # Rows without weight have coefficient zero, whatever they hold.
        known = (weights > 0).nonzero().squeeze(-1)
        fit = _fit(_some(data, known), y[known], weights[known], options, solver, group, checkpoint)
        coef = fit.coef.new_zeros(len(weights), y.shape[1])
        coef[known] = fit.coef
    else:
        fit = _fit(data, y, weights, options, solver, group, checkpoint)
        coef = fit.coef
    kept = data.keep(torch.arange(len(data.points), device=data.points.device))
    return RidgeFit(
        **{**vars(fit), "input": kept, "coef": coef, "solver": solver, "reason": reason}
    )


def _some(data: KernelInput, index: Tensor) -> KernelInput:
    """Return some training points; of a given matrix, the matrix still."""
    points = data.points[index]
    return KernelInput(data.kernel, points, data.center, data.scale, data.size)


def _fit(
    data: KernelInput,
    y: Tensor,
    weights: Tensor | None,
    options: RidgeOptions,
    solver: str,
    group: ProcessGroup | None,
    checkpoint: Any,
) -> RidgeFit:
    """Fit rows of positive weight."""
    gram = data.gram(group)
    # In float32 a smooth kernel is not semi-definite, and a small ridge does not hide it; steps of
    # EigenPro ask for more digits than a product in float32 has.
    if solver == "eigenpro" or (solver == "cholesky" and not data.precomputed):
        gram = data.kernel.gram(data.points.double(), group=group)
    n, q = y.shape
    if isinstance(options.alpha, str):
        return _choose(data, gram, y, weights, options)
    root = torch.ones(n, dtype=torch.float64, device=y.device)
    if weights is not None:
        root = weights.to(root).sqrt()
    center = _center(y, weights, options)
    targets = (y.double() - center) * root.unsqueeze(-1)  # (n, q)
    if options.fit_intercept:
        targets = torch.cat([targets, root.unsqueeze(-1)], 1)
    alphas = np.broadcast_to(np.asarray(options.alpha, dtype=np.float64), (q,))
    coef, bias = targets.new_zeros(n, q), targets.new_zeros(q)
    found: list[LinearSolution] = []
    distinct = np.unique(alphas)
    matrix = None
    if solver == "cholesky":
        option = "use solver='falkon' or 'cg', which never build it"
        require_memory(8 * 3 * n * n, f"the kernel matrix of {n} rows and its factor", option)
        matrix = _scaled(gram.to_dense(), root)
    for number, alpha in enumerate(distinct):
        own = torch.from_numpy(np.flatnonzero(alphas == alpha)).to(y.device)
        columns = torch.cat([own, own.new_tensor([q])]) if options.fit_intercept else own
        if matrix is not None:
            last = len(distinct) == 1
            solved = solve_refined(
                matrix, targets[:, columns], ridge=float(alpha), overwrite=last, symmetric=True
            )
        else:
            # One state a ridge, as each is a system of its own.
            folder = None if checkpoint is None else os.fspath(checkpoint)
            folder = folder if len(distinct) == 1 or folder is None else f"{folder}-{number}"
            solved = _iterate(
                gram, root, targets[:, columns], float(alpha), options, solver, folder
            )
        found.append(solved)
        part = solved.solution
        if options.fit_intercept:
            part, ones = part[:, :-1], part[:, -1]
            bias[own] = (root @ part) / (root @ ones)
            part = part - torch.outer(ones, bias[own])
        coef[:, own] = root.unsqueeze(-1) * part
    return RidgeFit(
        input=data,
        coef=coef,
        intercept=bias + center,
        alpha=options.alpha,
        solver=solver,
        reason="",
        iterations=max(s.iterations for s in found),
        residual=max(as_residual(s.residual) for s in found),
        converged=all(s.converged for s in found),
        jitter=max(s.jitter for s in found),
    )


def _center(y: Tensor, weights: Tensor | None, options: RidgeOptions) -> Tensor:
    """Return what targets are solved around (q,): tolerances must not be those of their mean."""
    wide = y.double()
    if not options.fit_intercept:
        return wide.new_zeros(y.shape[1])
    return wide.mean(0) if weights is None else (weights / weights.sum()) @ wide


def _scaled(matrix: Tensor, root: Tensor) -> Tensor:
    """Return sqrt(w) K sqrt(w), in place."""
    if bool((root != 1.0).any()):
        matrix *= root
        matrix *= root.unsqueeze(-1)
    return matrix


def _choose(
    data: KernelInput, gram: Gram, y: Tensor, weights: Tensor | None, options: RidgeOptions
) -> RidgeFit:
    """Choose the ridge, from one eigendecomposition."""
    center = _center(y, weights, options)
    path = RidgePath(
        gram.to_dense(),
        y.double() - center,
        weights=weights,
        intercept=bool(options.fit_intercept),
    )
    choice = path.minimise(options.alpha)
    coef, bias = path.solve(choice.ridge)
    return RidgeFit(data, coef, bias + center, choice.ridge, "", "", 0, 0.0, True, 0.0, choice)


def _rank(n: int) -> int:
    """Return how many pivots the preconditioner may have: it holds 4 n numbers for each."""
    return block_rows(8 * 4 * n, most=min(_RANK, n), least=0)


def _iterate(
    gram: Gram,
    root: Tensor,
    rhs: Tensor,
    alpha: float,
    options: RidgeOptions,
    solver: str,
    folder: str | None,
) -> LinearSolution:
    """Solve (sqrt(w) K sqrt(w) + alpha I) x = b with products, and checkpoints."""
    own = fingerprint(solver, alpha, *options.identity(gram.kernel), root, rhs, gram.x)
    keeper = Checkpoint(folder, own)
    side = root.unsqueeze(-1)

    def times(v: Tensor) -> Tensor:
        return side * (gram @ (side * v).to(gram.dtype)).double() + alpha * v

    def columns(index: Tensor) -> Tensor:
        return side * gram.columns(index).double() * root[index]

    if solver == "eigenpro":
        steps = eigenpro(
            columns,
            rhs,
            root.square() * gram.diagonal().double(),
            ridge=alpha,
            tolerance=options.tol if options.tol is not None else 1e-4,
            max_epochs=100 if options.max_iter is None else options.max_iter,
            generator=options.seed,
            checkpoint=lambda state: keeper.save("eigenpro", state),
            resume=keeper.part("eigenpro") or None,
            show_progress=options.show_progress,
        )
        keeper.done()
        return LinearSolution(
            steps.solution, steps.residual, steps.iterations, steps.converged, method=solver
        )
    preconditioner = None
    # A resumed iteration goes on with the preconditioner that it had.
    rank = int(keeper.part("setup")["rank"]) if keeper.part("setup") else _rank(len(root))
    keeper.put("setup", {"rank": torch.tensor(rank)})
    if alpha > 0 and rank > 0:
        diagonal = root.square() * gram.diagonal().double()
        factor = pivoted_cholesky(columns, diagonal, rank=rank).factor
        preconditioner = LowRankPreconditioner(factor, ridge=alpha)
    found = conjugate_gradient(
        times,
        rhs,
        preconditioner=preconditioner,
        tolerance=tolerance_of(options, gram.dtype),
        max_iterations=options.max_iter,
        checkpoint=lambda state: keeper.save("cg", state),
        resume=keeper.part("cg") or None,
        show_progress=options.show_progress,
    )
    keeper.done()
    return found
