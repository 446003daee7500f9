"""Kernel ridge regression by any solver: what estimators that are one share."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.checks import check_choice, check_int, check_real
from .._core.config import block_rows, config, resident_memory
from ..datasets.row_source import RowSource
from ..kernels import Kernel
from ..linalg import RidgeChoice
from .kernel_input import KernelInput
from .rows import as_tensor

SOLVERS = ("auto", "cholesky", "cg", "falkon", "eigenpro")
CRITERIA = ("loo", "gcv")
_MOST_FACTORED = 20_000  # rows beyond which a factorisation takes longer than landmarks do
_PROBES = 64  # points by which the size of predictions is judged
_MOST_NOISE = 1e-5  # share of it that rounding of the kernel in float32 may be
_MOST_DECOMPOSED = 4_000  # the same of an eigendecomposition


@dataclass(frozen=True, eq=False)
class RidgeOptions:
    """The constructor arguments of `KernelRidge`, and a seed."""

    kernel: str | Kernel
    alpha: Any
    solver: str
    landmarks: Any
    selection: str
    fit_intercept: bool
    standardize: bool
    tol: float | None
    max_iter: int | None
    seed: int
    show_progress: bool = False

    def check(self, outputs: int | None) -> "RidgeOptions":
        """Return them with what is not as it should be refused; None is not known yet."""
        check_choice("solver", self.solver, SOLVERS)
        if self.tol is not None:
            check_real("tol", self.tol, above=0.0)
        if self.max_iter is not None:
            check_int("max_iter", self.max_iter)
        for name in ("fit_intercept", "standardize"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if isinstance(self.landmarks, int | np.integer) and not isinstance(self.landmarks, bool):
            check_int("landmarks", self.landmarks)
        elif self.landmarks is not None and np.ndim(self.landmarks) != 2:
            raise TypeError(
                "landmarks: expected a number, points of shape (m, d) or None, "
                f"got {type(self.landmarks).__name__}"
            )
        if self.landmarks is not None and self.solver not in ("auto", "falkon"):
            raise ValueError(f"landmarks: solver {self.solver!r} uses all rows; leave it None")
        alpha: Any = self.alpha
        if isinstance(alpha, str):
            check_choice("alpha", alpha, CRITERIA)
            if self.solver in ("cg", "eigenpro"):
                raise ValueError(
                    f"alpha: solver {self.solver!r} needs a number; {alpha!r} goes with "
                    "'cholesky' and 'falkon'"
                )
        elif np.ndim(alpha) == 0:
            alpha = check_real("alpha", alpha, least=0.0)
        else:
            alpha = np.asarray(alpha, dtype=np.float64)
            outputs = alpha.size if outputs is None else outputs
            if alpha.shape != (outputs,) or not np.isfinite(alpha).all() or (alpha < 0).any():
                raise ValueError(
                    f"alpha: expected a number, or {outputs} of at least 0 beside {outputs} "
                    f"target(s), got {self.alpha!r}"
                )
        return replace(self, alpha=alpha)

    def identity(self, kernel: Kernel) -> list[Any]:
        """Return what tells fits of the same data apart, for a checkpoint."""
        found = {k: v for k, v in vars(self).items() if k not in ("kernel", "show_progress")}
        points = found["landmarks"]
        if points is not None and np.ndim(points) == 2:
            given = isinstance(points, torch.Tensor)
            found["landmarks"] = points if given else as_tensor(np.asarray(points))
        alpha = self.alpha
        found["alpha"] = alpha.tolist() if isinstance(alpha, np.ndarray) else alpha
        # The text of a kernel rounds its numbers, and leaves networks and matrices out.
        numbers = kernel.state_dict()
        return [repr(kernel), *(part for item in (found | numbers).items() for part in item)]


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """f(x) = k(x, points) coef + intercept, and how it was found."""

    input: KernelInput
    coef: Tensor  # (p, q), float64
    intercept: Tensor  # (q,), float64
    alpha: Any
    solver: str
    reason: str
    iterations: int
    residual: float
    converged: bool
    jitter: float = 0.0
    choice: RidgeChoice | None = None


def choose_solver(options: RidgeOptions, n: int, source: bool) -> tuple[str, str]:
    """Return the solver, and why it was taken."""
    if options.solver != "auto":
        if source and options.solver != "falkon":
            raise ValueError(
                f"solver: rows read in blocks are solved by 'falkon', got {options.solver!r}"
            )
        return options.solver, "as asked for"
    precomputed = isinstance(options.kernel, str) and options.kernel == "precomputed"
    free = max(config.memory_budget - resident_memory(), 0)
    fits = 8 * 3 * n * n <= free / 2
    choosing = isinstance(options.alpha, str)
    most = _MOST_DECOMPOSED if choosing else _MOST_FACTORED
    if source:
        return "falkon", "the rows are read in blocks"
    if options.landmarks is not None:
        return "falkon", "landmarks were given"
    if precomputed:
        return "cholesky", "the kernel matrix was given"
    if n <= most and fits:
        what = "its eigendecomposition" if choosing else "its factor"
        return "cholesky", f"the matrix of {n} rows and {what} fit memory and patience"
    why = f"{n} rows are more than {most}" if n > most else "the matrix does not fit the memory"
    if options.tol is not None and not choosing:
        return "cg", f"{why}, and a tolerance was asked for, which landmarks do not have"
    return "falkon", f"{why}, and no tolerance was asked for"


def fit_ridge(
    rows: Any,
    y: Tensor | None,
    weights: Tensor | None,
    options: RidgeOptions,
    *,
    group: ProcessGroup | None = None,
    checkpoint: Any = None,
) -> RidgeFit:
    """Fit by the solver that the options name, or the best for the problem.

    Parameters
    ----------
    rows : ndarray or Tensor of shape (n, d), or RowSource
        Checked rows, or the source of rows with their targets and weights.
    y : Tensor of shape (n, q) or None
        Checked targets; None with a source.
    weights : Tensor of shape (n,), optional
        Checked weights.
    options : RidgeOptions
        What to do.
    group : ProcessGroup, optional
        Processes that share the work, of solvers that iterate.
    checkpoint : str or path, optional
        A folder for the state of a long fit.

    Returns
    -------
    RidgeFit
        The fit.
    """
    # Not at the top, as both are built on what is above.
    from .ridge_all_rows import fit_all_rows
    from .ridge_landmarks import fit_landmarks

    source = isinstance(rows, RowSource)
    options = options.check(None if y is None else y.shape[1])
    solver, reason = choose_solver(options, len(rows), source)
    if solver == "falkon":
        if isinstance(options.kernel, str) and options.kernel == "precomputed":
            raise ValueError("solver: 'falkon' evaluates the kernel; give it, not its matrix")
        return fit_landmarks(rows, y, weights, options, reason, group, checkpoint)
    assert y is not None
    return fit_all_rows(rows, y, weights, options, solver, reason, group, checkpoint)


def tolerance_of(options: RidgeOptions, dtype: torch.dtype) -> float:
    """Return the relative residual at which iterations stop."""
    if options.tol is not None:
        return options.tol
    return 1e-8 if dtype == torch.float64 else 1e-4


def as_residual(residual: Tensor) -> float:
    """Return the largest residual of several targets."""
    return float(torch.as_tensor(residual).max()) if residual.numel() else 0.0


@torch.no_grad()
def evaluate(data: KernelInput, coef: Tensor, intercept: Tensor, rows: Any) -> Tensor:
    """Evaluate f(x) = k(x, points) coef + intercept at new rows, some at a time.

    Parameters
    ----------
    data : KernelInput
        The points and the kernel.
    coef : Tensor of shape (p, q)
        Coefficients.
    intercept : Tensor of shape (q,)
        What is added.
    rows : ndarray or Tensor of shape (m, d)
        Checked rows.

    Returns
    -------
    Tensor of shape (m, q)
        The values, in the dtype and on the device of the points.
    """
    points, m = data.points, len(rows)
    found = points.new_empty(m, coef.shape[1])
    if _needs_digits(data, coef.double()):
        data = replace(data, points=points.double())
    coef = coef.to(data.points)
    step = block_rows(8 * 4 * (rows.shape[1] + coef.shape[1]), most=2**17, least=512)
    for start in range(0, m, step):
        block = data.cross(rows[start : start + step])  # (s, p)
        found[start : start + step] = block @ coef
    return found + intercept.to(points)


def _needs_digits(data: KernelInput, coef: Tensor) -> bool:
    """Whether coefficients cancel so far that products in the points' dtype would be rounding."""
    eps = torch.finfo(data.points.dtype).eps
    if data.precomputed or data.points.dtype == torch.float64 or not len(data.points):
        return False
    step = -(-len(data.points) // _PROBES)
    points = data.points.double()
    some = data.kernel(points[::step], points) @ coef  # (at most 64, q)
    size = float(data.kernel.diag(points[::step]).max())
    noise = eps * size * coef.norm(dim=0)
    return bool((noise > _MOST_NOISE * some.square().mean(0).sqrt()).any())
