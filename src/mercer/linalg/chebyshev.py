"""Chebyshev's iteration: linear systems by products alone, without inner products."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.progress import progress
from .linear_solution import LinearSolution, check_right_hand_sides, relative_norms

Operator = Callable[[Tensor], Tensor]


@torch.no_grad()
def chebyshev_iteration(
    matvec: Operator,
    rhs: Tensor,
    *,
    smallest: float,
    largest: float,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    start: Tensor | None = None,
    show_progress: bool = False,
) -> LinearSolution:
    r"""Solve A x = b for a positive definite A whose spectrum is known to lie in an interval.

    The residual after k steps is a polynomial of A times the first one, the one that is smallest
    on the interval:

    .. math::
        \frac{\|r_k\|}{\|r_0\|} \le \frac{1}{T_k(\theta / \delta)}
            \le 2 \left( \frac{\sqrt{\kappa} - 1}{\sqrt{\kappa} + 1} \right)^k, \qquad
        \theta, \delta = \frac{\lambda_{\max} \pm \lambda_{\min}}{2}, \quad
        \kappa = \frac{\lambda_{\max}}{\lambda_{\min}}

    so that the number of steps is known before the first. No inner product is formed on the way:
    where vectors are spread over processes, a step communicates what the product needs and
    nothing else. Conjugate gradients take fewer steps, as they find out where in the interval
    the eigenvalues are. When the steps are done the residual is computed anew, and as long as it
    is too large and still halves, they are repeated from there.

    Parameters
    ----------
    matvec : callable
        Maps a block of columns (n, c), in the dtype of ``rhs``, to A times it.
    rhs : Tensor of shape (n, r) or (n,)
        b. The iteration keeps its own vectors in float64.
    smallest, largest : float
        Bounds of the spectrum, positive: with a ridge, that and `largest_eigenvalue`. If an
        eigenvalue is larger than ``largest``, the iteration diverges, which is noticed.
    tolerance : float, optional
        Relative residual to reach; by default the square root of the dtype's precision.
    max_iterations : int, optional
        At most so many steps; by default 100,000.
    start : Tensor of the shape of rhs, optional
        Where to start; by default zero.
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
        If shapes do not fit, a number is not finite, or the residual grows: the spectrum is not
        in the interval.
    MemoryError
        If the vectors of the iteration do not fit the memory budget.

    References
    ----------
    Golub, Varga, "Chebyshev semi-iterative methods, successive overrelaxation iterative methods,
    and second order Richardson iterative methods", Numerische Mathematik 3 (1961).

    Saad, "Iterative Methods for Sparse Linear Systems", 2nd edition, section 12.3.

    Examples
    --------
    >>> import torch
    >>> a = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).double()
    >>> b = torch.tensor([1.0, 2.0]).double()
    >>> found = chebyshev_iteration(lambda v: a @ v, b, smallest=2.0, largest=5.0)
    >>> found.solution, found.converged
    (tensor([0.0909, 0.6364], dtype=torch.float64), True)
    """
    b = check_right_hand_sides(rhs)  # (n, r)
    n, r = b.shape
    dtype = rhs.dtype
    low = check_real("smallest", smallest, above=0.0)
    high = check_real("largest", largest, least=low)
    if tolerance is None:
        tolerance = torch.finfo(dtype).eps ** 0.5
    tolerance = check_real("tolerance", tolerance, above=0.0)
    most = 100_000 if max_iterations is None else check_int("max_iterations", max_iterations)
    if not callable(matvec):
        raise TypeError(f"matvec: expected a callable, got {type(matvec).__name__}")
    require_memory(8 * 7 * n * r, f"the vectors of {r} systems of size {n}", "solve fewer at once")
    x = torch.zeros_like(b)
    if start is not None:
        if check_tensor("start", start).shape != rhs.shape:
            raise ValueError(
                f"start: expected the shape of rhs {tuple(rhs.shape)}, got {tuple(start.shape)}"
            )
        check_finite("start", start)
        x = start.detach().to(b.device, dtype).double().reshape(n, r).clone()

    def times(columns: Tensor) -> Tensor:
        found = check_tensor("matvec", matvec(columns.to(dtype)))
        if found.shape != columns.shape:
            raise ValueError(
                f"matvec: expected a result of shape {tuple(columns.shape)}, like the columns "
                f"that it was given, got {tuple(found.shape)}"
            )
        return found.detach().to(columns)

    norms = b.norm(dim=0)  # (r,)
    x[:, norms == 0] = 0.0
    left = b - times(x) if start is not None else b.clone()  # (n, r)
    found = relative_norms(left, norms)  # (r,)
    check_finite("matvec", found)
    best, residual, taken = x, found, 0
    steps = progress(range(most), "Chebyshev", show=show_progress)
    while taken < most and bool((residual > tolerance).any()):
        gain = 0.8 * tolerance / float(residual.max())
        wanted = steps_for(gain, low, high)
        change, more = _run(times, left, low, high, wanted, steps)
        taken += more
        x = (best + change).to(dtype).double()
        left = b - times(x)
        found = relative_norms(left, norms)
        worst = float(found.max())
        if not worst < 10 * float(residual.max()):  # NaN too
            raise ValueError(
                f"smallest, largest: expected bounds of the spectrum, got {low:.6g} and "
                f"{high:.6g}, with which the residual grew from {float(residual.max()):.3g} to "
                f"{worst:.3g}: there is an eigenvalue above the interval or below zero"
            )
        halved = worst <= 0.5 * float(residual.max())
        better = found < residual
        best = torch.where(better, x, best)
        left = b - times(best) if not bool(better.all()) else left
        residual = torch.minimum(found, residual)
        if not halved:
            break
    return LinearSolution(
        solution=best.to(dtype).reshape(rhs.shape),
        residual=residual.reshape(rhs.shape[1:]),
        iterations=taken,
        converged=bool((residual <= tolerance).all()),
    )


def steps_for(gain: float, low: float, high: float) -> int:
    """Return the steps after which the residual is at most ``gain`` of the first."""
    if gain >= 1.0 or high == low:
        return 1
    # T_k(s) = cosh(k arccosh s), with s - 1 written so that it does not cancel.
    excess = 2 * low / (high - low)
    growth = math.log1p(excess + math.sqrt(excess * (excess + 2)))
    return max(1, math.ceil(math.acosh(1 / gain) / growth))


def _run(
    times: Operator, residual: Tensor, low: float, high: float, count: int, steps: Iterator[int]
) -> tuple[Tensor, int]:
    """Take so many steps on A d = residual, or until the counter ends; d (n, r) and the steps."""
    middle, half = (high + low) / 2, (high - low) / 2
    change = torch.zeros_like(residual)
    step = residual / middle
    ratio = half / middle
    taken = 0
    while taken < count and next(steps, None) is not None:
        taken += 1
        change = change + step
        if taken == count or half == 0.0:
            break
        residual = residual - times(step)
        before, ratio = ratio, 1 / (2 * middle / half - ratio)
        step = ratio * before * step + (2 * ratio / half) * residual
    return change, taken
