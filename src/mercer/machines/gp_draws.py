"""Draws from Gaussians with a covariance that may be singular."""

import numpy as np
import torch
from torch import Tensor

from ..linalg.solve_psd import factorise


def draw_gaussian(covariance: Tensor, count: int, state: np.random.RandomState) -> Tensor:
    """Draw columns (m, count) from N(0, covariance), one by one in the order of the source.

    Parameters
    ----------
    covariance : Tensor of shape (m, m)
        The covariance, float64; a jitter of rounding's size makes up for what it lacks.
    count : int
        Number of draws.
    state : RandomState
        The source.

    Returns
    -------
    Tensor of shape (m, count)
        The draws.
    """
    factor = covariance_factor(covariance)
    normals = torch.from_numpy(state.standard_normal((count, len(covariance)))).to(covariance)
    return factor @ normals.mT


def covariance_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor (m, m) of a posterior covariance, which rounding may leave indefinite."""
    clean = (covariance + covariance.mT) / 2
    scale = float(clean.diagonal().mean())
    if scale <= 0:  # nothing is unknown
        return torch.zeros_like(clean)
    # What is a posteriori known is the difference of numbers of the prior's size: more rounding.
    return factorise(clean, scale, torch.finfo(torch.float32).eps)[0]
