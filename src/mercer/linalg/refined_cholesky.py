"""Exact solves with a large dense matrix: a factor in float32, the answer in float64."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._core.checks import check_real, check_tensor
from .._core.config import require_memory
from .blocked_cholesky import (
    copy_lower,
    factorise_in_place,
    multiply,
    multiply_upper,
    restore_lower,
    solve_in_place,
)
from .linear_solution import LinearSolution, check_right_hand_sides, relative_norms

Operator = Callable[[Tensor], Tensor]

_EPS = torch.finfo(torch.float64).eps
_MOST_JITTER = 1e-6  # of the mean diagonal
_ROUND = 8  # steps, after which the residual is computed anew
_ROWS = 512  # copied at once
_MOST_STEPS = 10  # with a factor in float64
# Residuals that rounding leaves, in units of eps ||K||_F / sqrt(n) ||x|| / ||b||: measured as
# 1.2 to 1.7, with blocks of 512 columns as 4.
_SLACK, _COARSE_SLACK = 2.0, 8.0
_MOST_ROUNDING = 1e-8  # above which nothing counts as reached
_OPTION = "let the matrix be overwritten, or solve by conjugate_gradient, which needs products only"


@torch.no_grad()
def solve_refined(
    matrix: Tensor,
    rhs: Tensor,
    *,
    ridge: float = 0.0,
    overwrite: bool = False,
    symmetric: bool = False,
    tolerance: float = 1e-13,
) -> LinearSolution:
    r"""Solve (K + ridge I) x = b to float64 accuracy by a factorisation in float32.

    The factorisation, O(n^3), runs in float32, where it takes half the time and half the memory.
    Conjugate gradients in float64 with it as the preconditioner, O(n^2) a step, then bring the
    residual down: a few steps, as long as the ridge (or K's smallest eigenvalue) is well above
    the rounding of float32, which is about 1e-7 times the square root of n. Where the
    factorisation breaks down, or steps do not help enough, it is done again in float64, and
    refined likewise; where that breaks down too, with a jitter that is reported, as in
    `solve_psd`.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric positive semi-definite. In float64 it is not copied.
    rhs : Tensor of shape (n, r) or (n,)
        b.
    ridge : float, default 0.0
        Added to the diagonal, at least 0.
    overwrite : bool, default False
        Whether ``matrix`` may be destroyed. This saves the second matrix in float64 that is
        needed where float32 does not suffice.
    symmetric : bool, default False
        Whether the matrix is known to be symmetric, as a kernel makes it; else two products
        verify it.
    tolerance : float, default 1e-13
        Relative residual to reach. Rounding x to float64 alone moves the residual by about
        1e-16 ||K||_F / sqrt(n) ||x|| / ||b||; where the tolerance is below four times that, as
        with a small ridge, that much (and at most 1e-8) counts as reached.

    Returns
    -------
    LinearSolution
        x in the dtype of ``rhs``, with its residuals recomputed from x, the number of refining
        steps, the jitter, and as ``method`` the precision of the factor that served, "float32"
        or "float64". For ``rhs`` in a coarser dtype than float64 the square root of that dtype's
        precision is tolerated.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, or K is not symmetric positive
        semi-definite, so that the largest jitter does not help.
    MemoryError
        If the factor does not fit the memory budget.

    References
    ----------
    Higham, Mary, "Mixed precision algorithms in numerical linear algebra", Acta Numerica 31
    (2022), section 5.

    Carson, Higham, "Accelerating the solution of linear systems by iterative refinement in three
    precisions", SIAM Journal on Scientific Computing 40 (2018).

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 200).double()
    >>> k = torch.exp(-5 * (x[:, None] - x).abs())
    >>> found = solve_refined(k, torch.sin(9 * x), ridge=0.1)
    >>> found.method, found.converged, bool(found.residual < 1e-14), found.iterations < 5
    ('float32', True, True, True)
    >>> smooth = torch.exp(-5 * (x[:, None] - x).square())
    >>> found = solve_refined(smooth, torch.sin(9 * x), ridge=1e-10)
    >>> found.method, found.jitter
    ('float64', 0.0)
    """
    b = check_right_hand_sides(rhs)  # (n, r)
    ridge = check_real("ridge", ridge, least=0.0)
    tolerance = check_real("tolerance", tolerance, above=0.0)
    if not isinstance(overwrite, bool):
        raise TypeError(f"overwrite: expected True or False, got {overwrite!r}")
    n = len(b)
    if check_tensor("matrix", matrix).shape != (n, n):
        raise ValueError(
            f"matrix: expected a square matrix of {n} rows like rhs {tuple(rhs.shape)}, "
            f"got shape {tuple(matrix.shape)}"
        )
    # The factors in float32 and in float64 are not there at the same time.
    own = matrix.dtype == torch.float64 and matrix.is_contiguous()
    copies = (0 if own else 8) + (4 if overwrite or not own else 8)
    require_memory(copies * n * n, f"the factorisation of a matrix of shape {(n, n)}", _OPTION)
    k = matrix.detach().to(torch.float64).contiguous()
    overwrite = overwrite or not own
    b = b.to(k.device)
    size = _row_length(k, torch.finfo(matrix.dtype).eps, symmetric) + ridge
    diagonal = k.diagonal().clone()
    if float(diagonal.min()) < 0:
        raise ValueError(
            "matrix: expected a positive semi-definite matrix, got the diagonal entry "
            f"{float(diagonal.min()):.3g}"
        )
    scale = float(diagonal.mean()) + ridge
    if scale == 0.0:
        raise ValueError(f"matrix: expected a nonzero matrix or ridge, got zeros {(n, n)}")

    def times(v: Tensor) -> Tensor:
        return multiply(k, ridge, v)

    def times_upper(v: Tensor) -> Tensor:
        return multiply_upper(k, diagonal + ridge, v)

    def product(v: Tensor) -> Tensor:
        return torch.addmm(v, k, v, beta=ridge)

    low = _factorise_low(k, diagonal + ridge)
    if low is not None:
        found = _refine(times, product, low, b, tolerance, _SLACK * size, max(10, n // 400))
        if found.converged:
            return _finish(found, times, b, rhs, method="float32", jitter=0.0)
    del low

    work = k if overwrite else torch.empty_like(k)
    if not overwrite:
        copy_lower(k, work)
    jitter = _factorise(work, k, diagonal + ridge, scale, torch.finfo(matrix.dtype).eps)
    if overwrite:
        times = product = times_upper
    slack = _COARSE_SLACK if overwrite else _SLACK
    found = _refine(times, product, work, b, tolerance, slack * size, _MOST_STEPS)
    return _finish(found, times, b, rhs, method="float64", jitter=jitter)


def _row_length(k: Tensor, eps: float, symmetric: bool) -> float:
    """Estimate ||K||_F / sqrt(n) from some rows, and raise unless K is finite and symmetric."""
    n = len(k)
    # Numbers without a pattern, and without a source of randomness.
    probe = torch.sin(torch.arange(1.0, n + 1, dtype=torch.float64).square()).to(k)  # (n,)
    probe *= n**0.5 / probe.norm()
    ahead = k @ probe  # (n,)
    if not bool(ahead.isfinite().all()):  # as is any sum with an entry that is not
        bad = sum(part.numel() - int(part.isfinite().sum()) for part in k.split(1024))
        raise ValueError(
            f"matrix: {bad} of {k.numel()} entries are NaN or infinite, shape {tuple(k.shape)}"
        )
    some = k[:: max(1, n // 64)]  # (m, n)
    length = max(float(some.norm()) / len(some) ** 0.5, float(ahead.norm()) / n**0.5)
    if symmetric:
        return length
    gap = float((ahead - k.mT @ probe).norm()) / n**0.5
    if gap > eps**0.5 * length:
        raise ValueError(
            "matrix: expected a symmetric matrix, got one that differs from its transpose by "
            f"about {gap:.3g} in a row of length {length:.3g}, shape {tuple(k.shape)}"
        )
    return length


def _factorise_low(k: Tensor, diagonal: Tensor) -> Tensor | None:
    """Return the factor in float32, lower triangular, or None where there is none."""
    flipped = torch.empty_like(k, dtype=torch.float32)
    for start in range(0, len(k), _ROWS):  # what is above the diagonal, which is below in L
        rows = slice(start, start + _ROWS)
        flipped[rows, start:] = k[rows, start:]
    flipped.diagonal().copy_(diagonal)
    if not bool(flipped.diagonal().isfinite().all()):
        return None
    factor = flipped.mT  # its columns are contiguous, as LAPACK wants them, so nothing is copied
    info = torch.empty((), dtype=torch.int32, device=k.device)
    torch.linalg.cholesky_ex(factor, out=(factor, info))
    return None if int(info) else factor


def _factorise(work: Tensor, k: Tensor, diagonal: Tensor, scale: float, eps: float) -> float:
    """Write the factor of the matrix over its lower triangle; return the jitter that it took."""
    n = len(work)
    most = max(_MOST_JITTER, 10 * n**0.5 * eps) * scale
    jitter, following = 0.0, n * _EPS * scale
    while True:
        shifted = diagonal + jitter
        work.diagonal().copy_(shifted)
        info = factorise_in_place(work)
        # What of a point's variance the earlier ones leave; under this it is rounding.
        if not info and float((work.diagonal().square() / shifted).min()) > 10 * _EPS:
            return jitter
        if following > most:
            raise ValueError(
                "matrix: expected a positive semi-definite matrix, got one whose factorisation "
                f"fails with a jitter of {jitter:.3g} on its diagonal too (mean {scale:.3g}), "
                f"at row {info - 1 if info else int(work.diagonal().argmin())}"
            )
        if work is k:
            restore_lower(work, diagonal)
        else:
            copy_lower(k, work)
        jitter, following = following, 10 * following


def _refine(
    times: Operator,
    product: Operator,
    factor: Tensor,
    b: Tensor,
    tolerance: float,
    noise: float,
    most: int,
) -> LinearSolution:
    """Iterate from the factor's own answer, for as long as it looks as if that would do.

    ``times`` is the careful product, for residuals; ``product`` the quick one, for directions.
    """
    norms = b.norm(dim=0)  # (r,)

    def apply(residual: Tensor) -> Tensor:
        # At length one, as residuals become small and the range of float32 is narrow.
        lengths = residual.norm(dim=0)
        unit = residual / torch.where(lengths > 0, lengths, 1.0)
        found = solve_in_place(factor, unit.to(factor)).double()  # (n, r)
        # Near the limits of its precision, rounding can turn it over: then do without.
        good = ((unit * found).sum(0) > 0) & found.isfinite().all(0)
        return torch.where(good, found, unit) * lengths

    x = apply(b)
    rounding = _EPS * noise * float(relative_norms(x, norms).max())
    reach = max(tolerance, min(rounding, _MOST_ROUNDING))
    left = b - times(x)  # (n, r)
    residual = relative_norms(left, norms)
    if not bool(residual.isfinite().all()):
        x, left = torch.zeros_like(b), b
        residual = relative_norms(left, norms)
    taken = 0
    while taken < most and bool((residual > reach).any()):
        change, more = _run(product, apply, left, 0.3 * reach * norms, min(_ROUND, most - taken))
        taken += more
        before = float(residual.max())
        new = x + change
        rest = b - times(new)
        found = relative_norms(rest, norms)
        better = found < residual
        x, left = torch.where(better, new, x), torch.where(better, rest, left)
        residual = torch.minimum(found, residual)
        worst = float(residual.max())
        pace = math.log(reach) / math.log(worst) if 0.0 < worst < 1.0 else math.inf
        if worst > 0.5 * before or (worst > reach and taken * pace > most):
            break
    return LinearSolution(
        solution=x, residual=residual, iterations=taken, converged=bool((residual <= reach).all())
    )


def _run(
    product: Operator, apply: Operator, residual: Tensor, limits: Tensor, most: int
) -> tuple[Tensor, int]:
    """Take steps of conjugate gradients on A d = residual, to the limits; d (n, r) and steps."""
    change = torch.zeros_like(residual)
    z = apply(residual)
    direction, mass = z, (residual * z).sum(0)  # (n, r), (r,)
    taken = 0
    while True:
        taken += 1
        image = product(direction)
        curvature = (direction * image).sum(0)
        going = (curvature > 0) & (mass > 0)
        step = torch.where(going, mass / torch.where(going, curvature, 1.0), 0.0)  # (r,)
        change = change + step * direction
        residual = residual - step * image
        if taken == most or bool((residual.norm(dim=0) <= limits).all()):
            return change, taken
        z = apply(residual)
        mass, before = (residual * z).sum(0), mass
        direction = z + torch.where(before > 0, mass / before, 0.0) * direction


def _finish(
    found: LinearSolution,
    times: Operator,
    b: Tensor,
    rhs: Tensor,
    *,
    method: str,
    jitter: float,
) -> LinearSolution:
    """Give the answer the shape, the dtype and the device of the right-hand side."""
    solution, residual, converged = found.solution, found.residual, found.converged
    if rhs.dtype != torch.float64:  # the rounded answer is what the caller gets
        solution = solution.to(rhs.dtype)
        residual = relative_norms(b - times(solution.double()), b.norm(dim=0))
        converged = bool((residual <= torch.finfo(rhs.dtype).eps ** 0.5).all())
    return LinearSolution(
        solution=solution.reshape(rhs.shape).to(rhs.device),
        residual=residual.reshape(rhs.shape[1:]).to(rhs.device),
        iterations=found.iterations,
        converged=converged,
        jitter=jitter,
        method=method,
    )
