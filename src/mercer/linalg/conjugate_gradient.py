"""Conjugate gradients for blocks of right-hand sides, with the residual that is really left."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

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
    checkpoint: Callable[[dict[str, Tensor]], None] | None = None,
    resume: dict[str, Tensor] | None = None,
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
    checkpoint : callable, optional
        Is given the whole state of the iteration, named tensors, after each step; it copies or
        writes what it keeps before it returns.
    resume : dict of str to Tensor, optional
        A state that ``checkpoint`` was given in a call with the same arguments; the iteration
        goes on from there to the same bits. ``start`` is then not looked at.
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
    active = (norms > 0).nonzero().squeeze(-1)  # (c,)
    state = _State(
        best=best,
        residuals=torch.full_like(norms, torch.inf).masked_fill_(norms == 0, 0.0),  # of the best
        active=active,
        x=best[:, active],  # (n, c)
        taken=torch.tensor(0),
    )
    if resume is not None:
        state = _resumed(state, resume)
    ahead = range(min(int(state.taken), most), most)
    steps = progress(ahead, "conjugate gradients", show=show_progress)
    while state.active.numel():
        if state.inner is None:
            left = b[:, state.active] - times(state.x)  # (n, c)
            found = relative_norms(left, norms[state.active])  # (c,)
            before = state.residuals[state.active]
            better = found < before
            state.best[:, state.active[better]] = state.x[:, better]
            state.residuals[state.active] = torch.minimum(found, before)
            again = (found > tolerance) & (found <= 0.5 * before)
            state.active, state.x, left = state.active[again], state.x[:, again], left[:, again]
            if int(state.taken) >= most or not state.active.numel():
                break
            state.inner = _begin(precondition, left)
        # Somewhat below the tolerance, so that rounding alone seldom asks for a second round.
        limits = 0.8 * tolerance * norms[state.active]
        _run(times, precondition, state, limits, steps, dtype, checkpoint)
        state.x = (state.x + state.inner.answer).to(dtype).double()
        state.inner = None
    best, residuals, taken = state.best, state.residuals, int(state.taken)
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


@dataclass(eq=False)
class _Inner:
    """A d = residual, on its way: all of the columns, of which some move still."""

    answer: Tensor  # (n, c)
    moving: Tensor  # (k,), columns of the answer
    x: Tensor  # (n, k), as are the next two
    residual: Tensor
    direction: Tensor
    mass: Tensor  # (k,)
    largest: Tensor  # a lower bound of the norm of A


@dataclass(eq=False)
class _State:
    """The whole iteration between two steps."""

    best: Tensor  # (n, r)
    residuals: Tensor  # (r,)
    active: Tensor  # (c,), columns that are not done
    x: Tensor  # (n, c)
    taken: Tensor
    inner: _Inner | None = None


def _tensors(state: _State) -> dict[str, Tensor]:
    """Return a state as named tensors."""
    found = {k: v for k, v in vars(state).items() if k != "inner"}
    assert state.inner is not None
    return found | {f"inner.{k}": v for k, v in vars(state.inner).items()}


def _resumed(fresh: _State, tensors: dict[str, Tensor]) -> _State:
    """Read what `_tensors` wrote, for the system that a fresh state belongs to."""
    names = [*(f.name for f in fields(_State) if f.name != "inner")]
    inner = [f.name for f in fields(_Inner)]
    missing = {*names, *(f"inner.{name}" for name in inner)} - set(tensors)
    if missing:
        raise ValueError(f"resume: expected what checkpoint was given, {sorted(missing)} missing")
    if tensors["best"].shape != fresh.best.shape:
        raise ValueError(
            f"resume: expected a state of right-hand sides {tuple(fresh.best.shape)}, "
            f"got {tuple(tensors['best'].shape)}"
        )
    device = fresh.best.device
    own = {name: tensors[name].detach().to(device, copy=True) for name in tensors}
    return _State(
        **{name: own[name] for name in names},
        inner=_Inner(**{name: own[f"inner.{name}"] for name in inner}),
    )


def _begin(precondition: Operator | None, residual: Tensor) -> _Inner:
    """Start on A d = residual."""
    z = _apply(precondition, residual)
    return _Inner(
        answer=torch.zeros_like(residual),
        moving=torch.arange(residual.shape[1], device=residual.device),
        x=torch.zeros_like(residual),
        residual=residual,
        direction=z,
        mass=(residual * z).sum(0),
        largest=residual.new_zeros(()),
    )


def _run(
    times: Operator,
    precondition: Operator | None,
    state: _State,
    limits: Tensor,
    steps: Iterator[int],
    dtype: torch.dtype,
    checkpoint: Callable[[dict[str, Tensor]], None] | None,
) -> None:
    """Iterate on A d = residual until all columns are within their limits, or the steps end."""
    it = state.inner
    assert it is not None
    noise = min(len(it.residual) * torch.finfo(dtype).eps, torch.finfo(dtype).eps ** 0.5)
    while it.moving.numel() and next(steps, None) is not None:
        state.taken = state.taken + 1
        # As the product will see it, so that x and the residual stay in step.
        direction = it.direction.to(dtype).double()
        product = times(direction)
        curvature = (direction * product).sum(0)
        squares = direction.square().sum(0)
        growth = (product.square().sum(0) / squares).sqrt().max()
        it.largest = torch.maximum(it.largest, growth)
        lowest = float((curvature / squares).min())
        if lowest < -noise * float(it.largest):
            raise ValueError(
                "matvec: expected a positive semi-definite operator, got p^T A p / p^T p = "
                f"{lowest:.3g} for a direction p, where the norm of A is at least "
                f"{float(it.largest):.3g}"
            )
        # No step along a direction that A does not see: the right-hand side left its range.
        flat = curvature <= 0
        step = torch.where(flat, 0.0, it.mass / torch.where(flat, 1.0, curvature))  # (k,)
        it.x = it.x + step * direction
        it.residual = it.residual - step * product
        stops = flat | (it.residual.norm(dim=0) <= limits[it.moving])
        if bool(stops.any()):
            it.answer[:, it.moving[stops]] = it.x[:, stops]
            goes = ~stops
            it.moving, it.mass, it.x = it.moving[goes], it.mass[goes], it.x[:, goes]
            it.residual, direction = it.residual[:, goes], direction[:, goes]
            if not it.moving.numel():
                break
        z = _apply(precondition, it.residual)
        it.mass, before = (it.residual * z).sum(0), it.mass
        it.direction = z + it.mass / before * direction
        if checkpoint is not None:
            checkpoint(_tensors(state))
    it.answer[:, it.moving] = it.x


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
