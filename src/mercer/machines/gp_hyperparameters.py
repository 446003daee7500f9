"""The hyperparameters of a machine as one vector, and its search for the most likely ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..kernels import Kernel

_KERNEL_RANGE = math.log(1e5)  # how far a hyperparameter may go from its start
_RESTART_SPREAD = 1.5  # standard deviation of the logarithms that a restart begins with

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@final
class Hyperparameters:
    """Numbers of a kernel, and further ones, as a vector for an optimiser.

    Parameters
    ----------
    kernel : Kernel
        The kernel, whose parameters are written to.
    fixed : sequence of str
        Names of hyperparameters that stay as they are, such as ``"lengthscale"``.
    extra : dict of str to (float, float, float)
        Further logarithms with their lower and upper bounds.

    Raises
    ------
    ValueError
        If there is nothing of a name that is fixed.
    """

    def __init__(
        self,
        kernel: Kernel,
        fixed: Sequence[str] = (),
        extra: dict[str, tuple[float, float, float]] | None = None,
    ) -> None:
        self.kernel = kernel
        self.extra = {name: v for name, v in (extra or {}).items() if name not in fixed}
        named = dict(kernel.named_parameters())
        known = {plain(name) for name in named} | set(extra or {})
        unknown = [f for f in fixed if not any(_means(f, name) for name in known)]
        if unknown:
            raise ValueError(f"fixed: expected names out of {sorted(known)}, got {unknown}")
        self.free: list[tuple[str, Tensor, np.ndarray]] = []
        for name, value in named.items():
            # The logarithm of zero is no place to start from: zero stays zero.
            mask = torch.isfinite(value.detach()).cpu().numpy().reshape(-1)
            if mask.any() and not any(_means(f, plain(name)) for f in fixed):
                self.free.append((name, value, mask))
        start = self.read()
        low, high = start - _KERNEL_RANGE, start + _KERNEL_RANGE
        logs = np.array(self._are_logs(), dtype=bool)
        low[~logs], high[~logs] = -np.inf, np.inf
        for i, (_, lowest, highest) in enumerate(self.extra.values()):
            low[len(low) - len(self.extra) + i] = lowest
            high[len(high) - len(self.extra) + i] = highest
        self.bounds = np.stack([low, high], 1)

    def _are_logs(self) -> list[bool]:
        found = [n.rpartition(".")[2].startswith("raw_") for n, _, m in self.free for _ in m[m]]
        return found + [True] * len(self.extra)

    @property
    def names(self) -> list[str]:
        """Name of each entry of the vector, such as ``"lengthscale[0]"``."""
        found = []
        for name, value, mask in self.free:
            single = value.numel() == 1
            found += [plain(name) if single else f"{plain(name)}[{i}]" for i in mask.nonzero()[0]]
        return found + list(self.extra)

    def read(self) -> np.ndarray:
        """Return the vector."""
        parts = [v.detach().double().cpu().numpy().reshape(-1)[m] for _, v, m in self.free]
        return np.concatenate([*parts, [v[0] for v in self.extra.values()]]).astype(float)

    def values(self) -> dict[str, float]:
        """Return the further numbers themselves."""
        return {name: math.exp(value[0]) for name, value in self.extra.items()}

    def write(self, theta: np.ndarray) -> None:
        """Set the kernel and the further numbers."""
        theta = np.asarray(theta, dtype=float)
        at = 0
        for _, value, mask in self.free:
            flat = value.data.reshape(-1)
            where = torch.from_numpy(mask.nonzero()[0]).to(flat.device)
            count = int(mask.sum())
            flat[where] = torch.from_numpy(theta[at : at + count].copy()).to(flat)
            value.data = flat.reshape(value.shape)
            at += count
        for name, number in zip(self.extra, theta[at:], strict=True):
            self.extra[name] = (float(number), *self.extra[name][1:])

    def gather(self, gradient: dict[str, Tensor], extra: dict[str, float]) -> np.ndarray:
        """Return derivatives by name as a vector."""
        parts = [gradient[n].double().cpu().numpy().reshape(-1)[m] for n, _, m in self.free]
        return np.concatenate([*parts, [extra[name] for name in self.extra]]).astype(float)


def plain(name: str) -> str:
    """Return the name of a parameter as a user reads it: ``kernel.raw_scale`` is the scale."""
    return ".".join(part.removeprefix("raw_") for part in name.split("."))


def _means(asked: str, name: str) -> bool:
    """Whether a name, or the end of one, is that of a parameter."""
    return name == asked or name.endswith(f".{asked}")


@final
@dataclass(frozen=True, eq=False)
class Search:
    """What a search for hyperparameters found.

    Attributes
    ----------
    theta : ndarray of shape (p,)
        The best vector.
    value : float
        The objective there.
    evaluations : int
        How often the objective was evaluated, restarts included.
    converged : bool
        Whether the best run ended at an optimum.
    """

    theta: np.ndarray
    value: float
    evaluations: int
    converged: bool


def maximise(
    objective: Objective,
    start: np.ndarray,
    bounds: np.ndarray,
    *,
    optimizer: Any = "fmin_l_bfgs_b",
    restarts: int = 0,
    random_state: np.random.RandomState,
    tolerance: float = 2.2e-9,
) -> Search:
    """Maximise a function from a start, and from others drawn around it.

    Parameters
    ----------
    objective : callable
        From a vector to the function's value and gradient.
    start : ndarray of shape (p,)
        Where the first run begins.
    bounds : ndarray of shape (p, 2)
        Lowest and highest values.
    optimizer : "fmin_l_bfgs_b" or callable
        As of scikit-learn: ``optimizer(function, start, bounds)`` returns a minimum and its place.
    restarts : int, default 0
        Further runs.
    random_state : RandomState
        Where their starts come from.
    tolerance : float, default 2.2e-9
        Relative gain under which a run ends, SciPy's own by default.

    Returns
    -------
    Search
        The best of all runs.
    """
    evaluations = 0

    def negative(theta: np.ndarray, eval_gradient: bool = True) -> Any:
        nonlocal evaluations
        evaluations += 1
        value, gradient = objective(np.asarray(theta, dtype=float))
        return (-value, -gradient) if eval_gradient else -value

    starts = [start]
    for _ in range(restarts):
        moved = start + _RESTART_SPREAD * random_state.standard_normal(len(start))
        starts.append(np.clip(moved, bounds[:, 0], bounds[:, 1]))
    best: tuple[float, np.ndarray, bool] | None = None
    for begin in starts:
        if callable(optimizer):
            ended: Any = optimizer(negative, begin, bounds)
            place, lowest = ended
            found = (float(lowest), np.asarray(place, dtype=float), True)
        else:
            from scipy.optimize import minimize

            options = {"ftol": tolerance}
            ended = minimize(
                negative, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            )
            found = (float(ended.fun), ended.x, bool(ended.success))
        if best is None or found[0] < best[0]:
            best = found
    assert best is not None
    return Search(best[1], -best[0], evaluations, best[2])
