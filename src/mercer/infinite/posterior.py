"""Posterior of the Gaussian process that a wide network is before training."""

import torch
from torch import Tensor

from .._core.checks import check_real
from ..kernels import Kernel
from .dynamics import dynamics
from .prediction import Prediction


@torch.no_grad()
def posterior(
    kernel: Kernel, x: Tensor, y: Tensor, x_test: Tensor, *, noise: float = 0.0
) -> Prediction:
    r"""Condition the Gaussian process of a kernel on data.

    .. math::
        \mu = S_{xX} (S_{XX} + \sigma^2 I)^{-1} y, \qquad
        \Sigma = S_{xx} - S_{xX} (S_{XX} + \sigma^2 I)^{-1} S_{Xx}

    With ``NNGP(module)`` this is Bayesian inference with the wide network. The end of training by
    gradient flow of all layers is ``dynamics(NTK(module), x, y).predict(inf, x_test)``: another
    mean, and a covariance that is no posterior.

    Parameters
    ----------
    kernel : Kernel
        S, the prior's covariance.
    x : Tensor of shape (n, *event)
        Training points.
    y : Tensor of shape (n,) or (n, outputs)
        Targets.
    x_test : Tensor of shape (m, *event)
        Where to predict.
    noise : float, default 0.0
        :math:`\sigma^2`, the variance of the noise on the targets. At 0 a singular matrix is
        inverted on its range.

    Returns
    -------
    Prediction
        Mean and covariance of the outputs without noise.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, or a number is out of its range or not finite.

    References
    ----------
    Lee, Bahri, Novak, Schoenholz, Pennington, Sohl-Dickstein: Deep Neural Networks as Gaussian
    Processes, 2018, arXiv 1711.00165.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> x = torch.tensor([[0.0], [1.0]]).double()
    >>> found = posterior(RBF(), x, torch.tensor([1.0, -1.0]).double(), x, noise=1.0)
    >>> found.mean
    tensor([ 0.2824, -0.2824], dtype=torch.float64)
    >>> found.variance
    tensor([0.4494, 0.4494], dtype=torch.float64)
    """
    noise = check_real("noise", noise, least=0.0)
    # What an ensemble comes to whose last layers alone are trained on targets with such noise.
    trained = dynamics(kernel, x, y, ridge=noise, target_noise=noise, prior=kernel)
    return trained.predict(float("inf"), x_test)
