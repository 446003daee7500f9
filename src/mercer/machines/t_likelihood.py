"""The marginal likelihood of a Student-t process with its derivatives."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..kernels import Kernel
from .gp_exact import ExactFactor
from .multivariate_t import t_log_density

_OPTION = "fit to fewer rows, or use GaussianProcessRegressor(method='inducing')"


@final
@dataclass(frozen=True, eq=False)
class TLikelihood:
    """The logarithm of a density of Student-t, under a kernel and a prior of the variance.

    Attributes
    ----------
    value : float
        The logarithm.
    factor : ExactFactor
        That of the kernel matrix with the noise; used up where there are derivatives.
    by_kernel : dict of str to Tensor
        Derivatives by the parameters of the kernel.
    by_shape : dict of str to float
        Derivatives by the logarithms of ``"alpha"``, ``"beta"`` and ``"noise"``.
    """

    value: float
    factor: ExactFactor
    by_kernel: dict[str, Tensor]
    by_shape: dict[str, float]


def t_likelihood(
    kernel: Kernel, points: Tensor, targets: Tensor, shape: dict[str, float], *, gradient: bool
) -> TLikelihood:
    """Evaluate the log marginal likelihood of targets (n, 1).

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    points : Tensor of shape (n, *event)
        Training points, float64.
    targets : Tensor of shape (n, 1)
        Their targets.
    shape : dict of str to float
        ``"alpha"`` and ``"beta"`` of the inverse gamma prior, and the ``"noise"``.
    gradient : bool
        Whether to differentiate.

    Returns
    -------
    TLikelihood
        The value, and what else was asked for.
    """
    from scipy.special import digamma

    alpha, beta, n = shape["alpha"], shape["beta"], len(targets)
    noise = torch.tensor(shape["noise"], dtype=torch.float64, device=targets.device)
    factor = ExactFactor.fit(kernel, points, targets, noise, _OPTION)
    # The shape matrix is C beta / alpha.
    quadratic = factor.quadratic * alpha / beta
    log_determinant = factor.log_determinant + n * math.log(beta / alpha)
    value = float(t_log_density(quadratic, log_determinant, n, 2 * alpha))
    if not gradient:
        return TLikelihood(value, factor, {}, {})
    under = float(factor.quadratic)  # y^T C^-1 y
    share = (2 * alpha + n) / (2 * beta + under)
    by_kernel, by_row = factor.gradient(kernel, points, share)
    by_alpha = float(digamma(alpha + n / 2) - digamma(alpha)) - math.log1p(under / (2 * beta))
    by_shape = {
        "alpha": alpha * by_alpha,
        "beta": (share * under - n) / 2,
        "noise": shape["noise"] * float(by_row.sum()),
    }
    return TLikelihood(value, factor, by_kernel, by_shape)
