"""EigenPro: gradient steps on a few rows of a kernel system at a time, its top eigenvalues cut."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_real, check_tensor
from .._core.config import block_rows, require_memory
from .._core.counter import RandomSource
from .._core.progress import progress
from .._core.random import draw_integers
from .linear_solution import check_right_hand_sides, relative_norms
from .subsampled_spectrum import SubsampledSpectrum, subsampled_spectrum

Columns = Callable[[Tensor], Tensor]

_LARGEST_BATCH = 2048  # beyond it there is little left to gain from wide products on a CPU
_GROWTH = 3.0  # of the residual over the best one, at which a step was too long


@final
@dataclass(frozen=True, eq=False)
class EigenProSolution:
    """What `eigenpro` found for (K + ridge I) a = y.

    Attributes
    ----------
    solution : Tensor of shape (n, r) or (n,)
        a, in the shape and the dtype of the right-hand side.
    residual : Tensor of shape (r,) or ()
        ||y - (K + ridge I) a|| / ||y||, float64, recomputed at the end.
    iterations : int
        Epochs that were taken, each one pass over all columns.
    converged : bool
        Whether every residual is at most the tolerance.
    history : Tensor of shape (iterations, r)
        Residuals as each epoch went by: of each row when its turn came.
    batch_size : int
        Rows of a step.
    rank : int
        Eigenvalues that were cut.
    """

    solution: Tensor
    residual: Tensor
    iterations: int
    converged: bool
    history: Tensor
    batch_size: int
    rank: int


@torch.no_grad()
def eigenpro(
    columns: Columns,
    rhs: Tensor,
    diagonal: Tensor,
    *,
    ridge: float = 0.0,
    subsample: int | None = None,
    rank: int | None = None,
    batch_size: int | None = None,
    tolerance: float = 1e-4,
    max_epochs: int = 100,
    start: Tensor | None = None,
    generator: RandomSource | int | None = None,
    checkpoint: Callable[[dict[str, Tensor]], None] | None = None,
    resume: dict[str, Tensor] | None = None,
    show_progress: bool = False,
) -> EigenProSolution:
    r"""Solve (K + ridge I) a = y by preconditioned gradient steps, a batch of rows at a time.

    For a batch B of m rows, with the q largest eigenpairs :math:`(\sigma_i, v_i)` of
    :math:`K_{SS}` on a random subsample S of s points,

    .. math::
        g = K_{B:} a + \lambda a_B - y_B, \qquad
        a_B \leftarrow a_B - \eta g, \qquad
        a_S \leftarrow a_S + \eta \sum_{i \le q}
            \frac{1}{\sigma_i} \left(1 - \frac{\sigma_{q+1}}{\sigma_i}\right)
            v_i v_i^\top K_{SB} \, g

    The second change takes from the first what it does along the leading eigenfunctions, up to
    the length that is right for the (q+1)-th: the largest eigenvalue that a step sees is
    :math:`\sigma_{q+1}`, and steps can be :math:`\sigma_1 / \sigma_{q+1}` times as long. Only m
    columns of K are there at a time. All is chosen from the subsample: the rank so that the
    batch can be as large as memory allows, as the critical batch size is
    :math:`m^* = 1 + \beta / \lambda_1`, and the step

    .. math:: \eta = \frac{1}{\beta + (m - 1) \lambda_1}

    with :math:`\lambda_1` the largest eigenvalue per point that is left and :math:`\beta` the
    largest diagonal entry that is left. (The ridge stands beside all of these.)

    What y has along an eigenvalue :math:`\sigma` of K shrinks by about
    :math:`e^{-\eta (\sigma + \lambda)}` an epoch, so that smooth targets are learnt in a few
    epochs and noise is fitted last: a ridge as large as the diagonal, or early stopping, is what
    this is for. For small residuals with a small ridge take `conjugate_gradient` with a
    preconditioner, whose passes count for more.

    Parameters
    ----------
    columns : callable
        Maps indices (m,) to those columns (n, m) of K, without the ridge.
    rhs : Tensor of shape (n, r) or (n,)
        y.
    diagonal : Tensor of shape (n,)
        Of K.
    ridge : float, default 0.0
        :math:`\lambda`, at least 0.
    subsample : int, optional
        s; by default 2,000 (or 4,000 for more than 100,000 rows), where n is less, that.
    rank : int, optional
        q, below s; by default chosen, at most a quarter of s.
    batch_size : int, optional
        m; by default chosen: the critical one, at most 2,048 and what memory allows.
    tolerance : float, default 1e-4
        Relative residual to reach.
    max_epochs : int, default 100
        At most so many passes over the columns.
    start : Tensor of the shape of rhs, optional
        Where to start; by default zero.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the subsample and the orders of the rows come from; None is torch's default.
    checkpoint : callable, optional
        Is given the whole state, named tensors, after each epoch; it copies or writes them.
    resume : dict of str to Tensor, optional
        A state that ``checkpoint`` was given in a call with the same arguments (``generator``
        and ``start`` are not looked at); the iteration goes on from there, to the same numbers.
    show_progress : bool, default False
        Whether to show a progress bar on standard error.

    Returns
    -------
    EigenProSolution
        The solution with its residual, the residuals on the way, and what was chosen.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite or out of range, or the residual grows
        however short the steps are: K is not positive semi-definite.
    MemoryError
        If one column does not fit the memory budget, or the subsample's matrix.

    References
    ----------
    Ma, Belkin, "Diving into the shallows: a computational perspective on large-scale shallow
    learning", NeurIPS 2017, arXiv 1703.10622.

    Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training", MLSys
    2019, arXiv 1806.06144.

    Ma, Bassily, Belkin, "The power of interpolation: understanding the effectiveness of SGD in
    modern over-parametrized learning", ICML 2018, arXiv 1712.06559.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 400).double()
    >>> k = torch.exp(-30 * (x[:, None] - x).abs())
    >>> y, d = torch.sin(9 * x), k.diagonal()
    >>> found = eigenpro(lambda i: k[:, i], y, d, ridge=1.0, generator=0)
    >>> found.converged, found.iterations < 20
    (True, True)
    """
    y = check_right_hand_sides(rhs)  # (n, r)
    n, r = y.shape
    ridge = check_real("ridge", ridge, least=0.0)
    tolerance = check_real("tolerance", tolerance, above=0.0)
    most = check_int("max_epochs", max_epochs)
    if not callable(columns):
        raise TypeError(f"columns: expected a callable, got {type(columns).__name__}")
    if check_tensor("diagonal", diagonal).shape != (n,):
        raise ValueError(
            f"diagonal: expected shape ({n},) like rhs {tuple(rhs.shape)}, "
            f"got {tuple(diagonal.shape)}"
        )
    check_finite("diagonal", diagonal)
    if bool((diagonal < 0).any()) or float(diagonal.max()) + ridge == 0.0:
        raise ValueError(
            f"diagonal: expected entries >= 0, and not all zero, got {float(diagonal.min()):.3g} "
            f"to {float(diagonal.max()):.3g}"
        )
    s = (4000 if n > 100_000 else 2000) if subsample is None else check_int("subsample", subsample)
    if subsample is not None and s > n:
        raise ValueError(f"subsample: expected at most the {n} rows, got {s}")
    s = min(s, n)
    if rank is not None and check_int("rank", rank, least=0) >= s:
        raise ValueError(f"rank: expected less than the {s} points of the subsample, got {rank}")
    if batch_size is not None and check_int("batch_size", batch_size) > n:
        raise ValueError(f"batch_size: expected at most the {n} rows, got {batch_size}")
    source = check_generator(generator)
    require_memory(8 * n * (4 * r + 3), f"{r} systems of size {n}", "solve fewer at once")
    room = block_rows(8 * 3 * n, most=min(n, _LARGEST_BATCH))
    if resume is None:
        state = {
            "solution": _check_start(start, rhs).to(y),
            "seed": draw_integers(2**62, (), source).cpu(),
            "epoch": torch.tensor(0),
            "shrink": torch.tensor(1.0, dtype=torch.float64),
            "history": y.new_zeros(0, r),
            "lowest": torch.tensor(1.0 if start is None else math.inf, dtype=torch.float64),
        }
        state["best"] = state["solution"]
    else:
        state = _check_state(resume, n, r)
    ask = _checked(columns, n)
    spectrum = subsampled_spectrum(
        ask,
        diagonal,
        ridge=ridge,
        size=s,
        rank=rank,
        wanted_batch=room if batch_size is None else batch_size,
        block=room,
        seed=int(state["seed"]),
    )
    batch = min(room, spectrum.critical_batch) if batch_size is None else batch_size
    norms = y.norm(dim=0)  # (r,)
    a = state["solution"].to(y).clone()  # (n, r)
    best, lowest = state["best"].to(y), float(state["lowest"])
    history = list(state["history"].to(y))  # (r,) each
    residual: Tensor | None = None
    todo = range(min(int(state["epoch"]), most), most)
    for epoch in progress(todo, "EigenPro", show=show_progress):
        shrink, before = float(state["shrink"]), a.clone()
        found = _epoch(ask, spectrum, a, y, ridge, batch, shrink, int(state["seed"]) + epoch)
        passed = relative_norms(found.unsqueeze(0), norms)  # (r,)
        history.append(passed)
        worst = float(passed.max())
        residual = None
        if not worst <= _GROWTH * lowest:  # NaN too
            if shrink < 1e-3:
                raise ValueError(
                    "columns: expected a positive semi-definite matrix, got one with which the "
                    f"residual grows from {lowest:.3g} to {worst:.3g} in steps of any length"
                )
            state["shrink"] = state["shrink"] / 2
            a = best.clone()
        elif worst < lowest:
            best, lowest = before, worst  # where that residual was seen, not where it led
        state = {
            **state,
            "solution": a,
            "epoch": torch.tensor(epoch + 1),
            "history": torch.stack(history),
            "best": best,
            "lowest": torch.tensor(lowest, dtype=torch.float64),
        }
        if checkpoint is not None:
            checkpoint(state)
        if worst <= tolerance:
            residual = _residual(ask, a.to(rhs.dtype).double(), y, ridge, batch, norms)
            if bool((residual <= tolerance).all()):
                break
    a = a.to(rhs.dtype)
    if residual is None:
        residual = _residual(ask, a.double(), y, ridge, batch, norms)
    return EigenProSolution(
        solution=a.reshape(rhs.shape),
        residual=residual.reshape(rhs.shape[1:]),
        iterations=len(history),
        converged=bool((residual <= tolerance).all()),
        history=torch.stack(history) if history else y.new_zeros(0, r),
        batch_size=batch,
        rank=spectrum.rank,
    )


def _epoch(
    ask: Columns,
    spectrum: SubsampledSpectrum,
    a: Tensor,
    y: Tensor,
    ridge: float,
    batch: int,
    shrink: float,
    seed: int,
) -> Tensor:
    """Take every row once, in batches of a random order; return norms (r,) of what they left."""
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).to(a.device)
    squares = a.new_zeros(a.shape[1])
    for rows in order.split(batch):
        block = ask(rows)  # (n, m)
        # The product runs in the precision of the columns, as they are no better.
        gradient = (block.mT @ a.to(block)).to(a) + ridge * a[rows] - y[rows]  # (m, r)
        squares += gradient.square().sum(0)
        step = shrink * spectrum.step(len(rows))
        a[rows] -= step * gradient
        if spectrum.rank:
            mixed = block[spectrum.points].to(a) @ gradient  # (s, r)
            a[spectrum.points] += step * spectrum.correction(mixed)
    return squares.sqrt()


def _residual(
    ask: Columns, a: Tensor, y: Tensor, ridge: float, batch: int, norms: Tensor
) -> Tensor:
    """Return the relative residuals (r,), by one more pass over the columns."""
    squares = torch.zeros_like(norms)
    for rows in torch.arange(len(a), device=a.device).split(batch):
        block = ask(rows)  # (n, m)
        left = y[rows] - (block.mT @ a.to(block)).to(a) - ridge * a[rows]
        squares += left.square().sum(0)
    return torch.where(norms > 0, squares.sqrt() / torch.where(norms > 0, norms, 1.0), 0.0)


def _checked(columns: Columns, n: int) -> Columns:
    """Wrap the callable so that its answers are checked."""

    def ask(index: Tensor) -> Tensor:
        block = check_tensor("columns", columns(index))
        if block.shape != (n, len(index)):
            raise ValueError(
                f"columns: expected shape ({n}, {len(index)}) for {len(index)} indices, "
                f"got {tuple(block.shape)}"
            )
        return block.detach()

    return ask


def _check_start(start: Tensor | None, rhs: Tensor) -> Tensor:
    """Return the start as (n, r), zeros where there is none."""
    if start is None:
        return torch.zeros_like(rhs, dtype=torch.float64).reshape(len(rhs), -1)
    if check_tensor("start", start).shape != rhs.shape:
        raise ValueError(
            f"start: expected the shape of rhs {tuple(rhs.shape)}, got {tuple(start.shape)}"
        )
    check_finite("start", start)
    return start.detach().double().reshape(len(rhs), -1)


def _check_state(state: dict[str, Tensor], n: int, r: int) -> dict[str, Tensor]:
    """Return a state to resume from, checked."""
    names = {"solution", "best", "lowest", "seed", "epoch", "shrink", "history"}
    if not isinstance(state, dict) or set(state) != names:
        got = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"resume: expected a state with {sorted(names)}, got {got}")
    if state["solution"].shape != (n, r):
        raise ValueError(
            f"resume: expected a state of {n} rows and {r} columns, "
            f"got {tuple(state['solution'].shape)}"
        )
    return dict(state)
