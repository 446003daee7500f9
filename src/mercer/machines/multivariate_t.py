"""The multivariate Student-t distribution: a Gaussian of one random scale."""

import math

import numpy as np
import torch
from torch import Tensor


def t_log_density(quadratic: Tensor, log_determinant: float, n: int, df: float) -> Tensor:
    r"""Logarithm of the density, from what a factor of the shape matrix S gives.

    Parameters
    ----------
    quadratic : Tensor
        :math:`(y - \mu)^\top S^{-1} (y - \mu)`.
    log_determinant : float
        That of S.
    n : int
        Number of coordinates.
    df : float
        Degrees of freedom.

    Returns
    -------
    Tensor like quadratic
        The logarithm.
    """
    constant = math.lgamma((df + n) / 2) - math.lgamma(df / 2) - n / 2 * math.log(df * math.pi)
    return constant - 0.5 * log_determinant - (df + n) / 2 * torch.log1p(quadratic / df)


def draw_t(factor: Tensor, df: float, count: int, state: np.random.RandomState) -> Tensor:
    """Draw columns (m, count) of location 0, each with one scale for all its coordinates.

    A scale for each coordinate would give other tails: coordinates are rarely large together.

    Parameters
    ----------
    factor : Tensor of shape (m, m)
        Cholesky factor of the shape matrix.
    df : float
        Degrees of freedom.
    count : int
        Number of draws.
    state : RandomState
        Their source.

    Returns
    -------
    Tensor of shape (m, count)
        The draws.
    """
    normals = torch.from_numpy(state.standard_normal((count, len(factor)))).to(factor)
    squares = torch.from_numpy(state.chisquare(df, count)).to(factor)
    return factor @ normals.mT / (squares / df).sqrt()
