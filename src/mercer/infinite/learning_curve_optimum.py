"""The best ridge: a scan of the effective ridge, then golden sections, all questions at once."""

import math

import torch
from torch import Tensor

from .learning_curve_law import moments, risks, solve_gamma

_GRID, _SECTIONS = 129, 50
_TINY = 1e-9  # of the smallest eigenvalue: without a ridge where every mode is fitted
_HUGE = 1e3  # times the trace: nothing is learnt


def ends(eigenvalues: Tensor, population: float, n: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return gamma without a ridge, and one that leaves nothing of the target learnt; (b,)."""
    positive = eigenvalues[eigenvalues > 0]
    rooted = torch.minimum(n, k) < len(positive)
    # A stand-in keeps the others' bracket valid; they have no root.
    n, k = torch.where(rooted, n, 0.5), torch.where(rooted, k, 0.5)
    root = solve_gamma(eigenvalues, n, k, torch.zeros_like(n), population)
    low = torch.where(rooted, root, float(positive.min()) * _TINY)
    return low, torch.maximum(low, positive.sum()) * _HUGE


def best_gamma(
    eigenvalues: Tensor, power: Tensor, noise: float, population: float, n: Tensor, k: Tensor
) -> Tensor:
    """Minimise the test risk over gamma for each pair of samples and features, (b,)."""
    low, high = (end.log() for end in ends(eigenvalues, population, n, k))

    def value(log_gamma: Tensor) -> Tensor:
        return risks(moments(eigenvalues, power, log_gamma.exp()), n, k, population, noise)[0]

    width = (high - low) / (_GRID - 1)
    scan = torch.stack([value(low + width * i) for i in range(_GRID)])  # (grid, b)
    best = scan.argmin(0)
    a = low + width * (best - 1).clamp(min=0)
    b = low + width * (best + 1).clamp(max=_GRID - 1)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_SECTIONS):
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        left = value(c) < value(d)
        a, b = torch.where(left, a, c), torch.where(left, d, b)
    found = (a + b) / 2
    # The best may be the end without a ridge, which sections only approach.
    return torch.where(scan[0] <= value(found), low, found).exp()
