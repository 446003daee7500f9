"""Networks trained with surrogate gradients: the law of the ensemble, by a general LU."""

import math

import torch
from torch import Tensor

from .._core.config import require_memory
from .surrogate_spectrum import SurrogateSpectrum


def influence(matrix: Tensor, cross: Tensor, time: float) -> Tensor:
    r"""Map targets to outputs: :math:`A_t = I_{xX} \int_0^t e^{-s I} ds`.

    Where I has an inverse this is :math:`I_{xX} I^{-1} (1 - e^{-t I})`.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        I between training points, float64; not symmetric.
    cross : Tensor of shape (m, n)
        I between other points and these.
    time : float
        Time, with the learning rate and the number of targets in it; may be infinite.

    Returns
    -------
    Tensor of shape (m, n)
        A.

    Raises
    ------
    ValueError
        If time is infinite and the flow does not converge.
    """
    n = len(matrix)
    if math.isinf(time):
        found = SurrogateSpectrum.of(matrix)
        if not found.converges:
            raise ValueError(
                "t: training does not converge, as the kernel matrix has an eigenvalue with real "
                f"part {found.least_real_part:.3g} (largest {float(found.eigenvalues[0].real):.3g})"
                "; expected a finite time"
            )
        return torch.linalg.solve(matrix, cross, left=False)
    what = f"the exponential of a matrix of shape {(2 * n, 2 * n)}"
    require_memory(8 * 6 * 4 * n * n, what, "use fewer points")
    # exp of [[-t I, t], [0, 0]] has the integral in its corner, also where I has no inverse.
    block = matrix.new_zeros(2 * n, 2 * n)
    block[:n, :n] = -time * matrix
    block[:n, n:] = time * torch.eye(n, dtype=matrix.dtype, device=matrix.device)
    return cross @ torch.linalg.matrix_exp(block)[:n, n:]


def trained_covariance(prior: Tensor, cross: Tensor, own: Tensor, weights: Tensor) -> Tensor:
    r"""Propagate the covariance of the initial outputs through :math:`f = f_0 + A (y - f_0(X))`.

    Parameters
    ----------
    prior : Tensor of shape (m, m)
        Covariance N of the initial outputs at the points.
    cross : Tensor of shape (m, n)
        That with the training points.
    own : Tensor of shape (n, n)
        That of the training points.
    weights : Tensor of shape (m, n)
        A.

    Returns
    -------
    Tensor of shape (m, m)
        :math:`N_{xx} - N_{xX} A^T - A N_{Xx} + A N_{XX} A^T`.
    """
    mixed = weights @ cross.mT  # (m, m)
    return prior - mixed - mixed.mT + weights @ own @ weights.mT
