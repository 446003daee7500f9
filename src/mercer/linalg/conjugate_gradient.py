"""Conjugate gradients for blocks of right-hand sides, with the residual that is really left."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.progress import progress
from .linear_solution import LinearSolution, check_right_hand_sides, relative_norms

Operator = Callable[[Tensor], Tensor]


@torch.no_grad()
def conjugate_gradient(
    matvec: Operator,
    rhs: Tensor,
    *,
    preconditioner: Operator | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    start: Tensor | None = None,
    show_progress: bool = False,
) -> LinearSolution:
    r"""Solve A x = b for a positive semi-definite A that is only ever multiplied with.

    .. math::
        x_+ = x + \alpha p, \quad r_+ = r - \alpha A p, \quad z_+ = P^{-1} r_+, \quad
        p_+ = z_+ + \frac{r_+^\top z_+}{r^\top z} p, \qquad
        \alpha = \frac{r^\top z}{p^\top A p}

    Every right-hand side has its own step sizes and leaves the block when its residual has
    reached the tolerance, so that the products get cheaper. When none is left, the residuals are
    computed anew from x; where one is larger than the recursion believed, the iteration starts
    again from there, for as long as this halves it. The same call gives the same numbers, and no
    gradient flows through it.

    Parameters
    ----------
    matvec : callable
        Maps a block of columns (n, c), in the dtype of ``rhs``, to A times it.
    rhs : Tensor of shape (n, r) or (n,)
        b. The iteration keeps its own vectors in float64.
    preconditioner : callable, optional
        Maps residuals (n, c) to P^-1 times them, with P positive definite and close to A, such
        as a `LowRankPreconditioner`.
    tolerance : float, optional
        Relative residual to reach; by default the square root of the dtype's precision, which is
        1.5e-8 in float64.
    max_iterations : int, optional
        At most so many steps; by default 10 n, and never more than 10,000.
    start : Tensor of the shape of rhs, optional
        Where to start, such as the solution of a call that was cut short; by default zero.
    show_progress : bool, default False
        Whether to show a progress bar on standard error.

    Returns
    -------
    LinearSolution
        The best x found, its residuals, and whether all of them reached the tolerance.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, A turns out not to be positive
        semi-definite, or P not to be positive definite.
    MemoryError
        If the vectors of the iteration do not fit the memory budget.

    References
    ----------
    Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.

    van der Vorst, Ye, "Residual replacement strategies for Krylov subspace iterative methods
    for the convergence of true residuals", SIAM Journal on Scientific Computing 22 (2000).

    Examples
    --------
    >>> import torch
    >>> a = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).double()
    >>> found = conjugate_gradient(lambda v: a @ v, torch.tensor([1.0, 2.0]).double())
    >>> found.solution
    tensor([0.0909, 0.6364], dtype=torch.float64)
    >>> found.iterations, found.converged
    (2, True)
    """
    b = check_right_hand_sides(rhs)  # (n, r)
    n, r = b.shape
    dtype = rhs.dtype
    if tolerance is None:
        tolerance = torch.finfo(dtype).eps ** 0.5
    tolerance = check_real("tolerance", tolerance, above=0.0)
    if max_iterations is None:
        most = min(10 * n, 10_000)
    else:
        most = check_int("max_iterations", max_iterations)
    require_memory(8 * 9 * n * r, f"the vectors of {r} systems of size {n}", "solve fewer at once")
    times = _checked("matvec", matvec, dtype)
    precondition = None
    if preconditioner is not None:
        precondition = _checked("preconditioner", preconditioner, dtype)
    best = torch.zeros_like(b)
    if start is not None:
        if check_tensor("start", start).shape != rhs.shape:
            raise ValueError(
                f"start: expected the shape of rhs {tuple(rhs.shape)}, got {tuple(start.shape)}"
            )
        check_finite("start", start)
        # What the caller gets is rounded to its dtype: that is what residuals are taken of.
        best = start.detach().to(b.device, dtype).double().reshape(n, r).clone()

    norms = b.norm(dim=0)  # (r,)
    best[:, norms == 0] = 0.0
    residuals = torch.full_like(norms, torch.inf).masked_fill_(norms == 0, 0.0)  # of the best
    active = (norms > 0).nonzero().squeeze(-1)  # (c,)
    x = best[:, active]  # (n, c)
    steps = progress(range(most), "conjugate gradients", show=show_progress)
    taken = 0
    while active.numel():
        left = b[:, active] - times(x)  # (n, c)
        found, before = relative_norms(left, norms[active]), residuals[active]  # (c,)
        better = found < before
        best[:, active[better]] = x[:, better]
        residuals[active] = torch.minimum(found, before)
        again = (found > tolerance) & (found <= 0.5 * before)
        active, x, left = active[again], x[:, again], left[:, again]
        if taken == most or not active.numel():
            break
        # Somewhat below the tolerance, so that rounding alone seldom asks for a second round.
        limits = 0.8 * tolerance * norms[active]
        change, more = _run(times, precondition, left, limits, steps, dtype)
        x = (x + change).to(dtype).double()
        taken += more
    return LinearSolution(
        solution=best.to(dtype).reshape(rhs.shape),
        residual=residuals.reshape(rhs.shape[1:]),
        iterations=taken,
        converged=bool((residuals <= tolerance).all()),
    )


def _checked(name: str, apply: Operator, dtype: torch.dtype) -> Operator:
    """Wrap a callable so that it is given one dtype, and its answers are checked float64."""
    if not callable(apply):
        raise TypeError(f"{name}: expected a callable, got {type(apply).__name__}")

    def run(columns: Tensor) -> Tensor:
        found = check_tensor(name, apply(columns.to(dtype)))
        if found.shape != columns.shape:
            raise ValueError(
                f"{name}: expected a result of shape {tuple(columns.shape)}, like the columns "
                f"that it was given, got {tuple(found.shape)}"
            )
        check_finite(name, found)
        return found.detach().to(columns.device, torch.float64)

    return run


def _run(
    times: Operator,
    precondition: Operator | None,
    residual: Tensor,
    limits: Tensor,
    steps: Iterator[int],
    dtype: torch.dtype,
) -> tuple[Tensor, int]:
    """Iterate on A d = residual until all columns are within their limits, or the steps end.

    Returns d (n, c) and the number of steps taken.
    """
    noise = min(len(residual) * torch.finfo(dtype).eps, torch.finfo(dtype).eps ** 0.5)
    answer = torch.zeros_like(residual)
    moving = torch.arange(residual.shape[1], device=residual.device)  # columns of the answer
    x = torch.zeros_like(residual)  # (n, c), as are the next ones
    z = _apply(precondition, residual)
    mass = (residual * z).sum(0)  # (c,)
    direction, largest, taken = z, 0.0, 0
    while moving.numel() and next(steps, None) is not None:
        taken += 1
        # As the product will see it, so that x and the residual stay in step.
        direction = direction.to(dtype).double()
        product = times(direction)
        curvature = (direction * product).sum(0)
        squares = direction.square().sum(0)
        growth = (product.square().sum(0) / squares).sqrt().max()
        largest = max(largest, float(growth))  # a lower bound of the norm of A
        lowest = float((curvature / squares).min())
        if lowest < -noise * largest:
            raise ValueError(
                "matvec: expected a positive semi-definite operator, got p^T A p / p^T p = "
                f"{lowest:.3g} for a direction p, where the norm of A is at least {largest:.3g}"
            )
        # No step along a direction that A does not see: the right-hand side left its range.
        flat = curvature <= 0
        step = torch.where(flat, 0.0, mass / torch.where(flat, 1.0, curvature))  # (c,)
        x = x + step * direction
        residual = residual - step * product
        stops = flat | (residual.norm(dim=0) <= limits[moving])
        if bool(stops.any()):
            answer[:, moving[stops]] = x[:, stops]
            goes = ~stops
            moving, mass, x = moving[goes], mass[goes], x[:, goes]
            residual, direction = residual[:, goes], direction[:, goes]
            if not moving.numel():
                break
        z = _apply(precondition, residual)
        mass, before = (residual * z).sum(0), mass
        direction = z + mass / before * direction
    answer[:, moving] = x
    return answer, taken


def _apply(precondition: Operator | None, residual: Tensor) -> Tensor:
    """Return P^-1 residual, and raise where P is not positive definite."""
    if precondition is None:
        return residual
    z = precondition(residual)
    mass = (residual * z).sum(0)
    if bool((mass <= 0).any()):
        raise ValueError(
            "preconditioner: expected a positive definite map, got r^T P^-1 r = "
            f"{float(mass.min()):.3g} for a residual of length "
            f"{float(residual.norm(dim=0)[mass.argmin()]):.3g}"
        )
    return z
