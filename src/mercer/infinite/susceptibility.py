"""Susceptibilities: how much a wide layer stretches one input, and the gap between two."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_real
from .gaussian_moments import ActivationLike, GaussianMoments, check_variance, gaussian_moments


@final
@dataclass(frozen=True, eq=False)
class Susceptibilities:
    """What one wide layer does to small changes, made by `susceptibilities`.

    Attributes
    ----------
    parallel : Tensor of shape (...)
        Factor on a small change of the variance of one input. Above one norms run away.
    perpendicular : Tensor of shape (...)
        Factor on the squared distance of two close inputs of equal variance, and on the squared
        gradient on its way back. Infinite where the activation jumps.
    """

    parallel: Tensor
    perpendicular: Tensor


def of_moments(m: GaussianMoments, weight: Tensor | float, residual: float) -> Susceptibilities:
    """Combine means with the variance of the weights."""
    kept = residual * residual
    return Susceptibilities(kept + weight * m.growth, kept + weight * m.slope)


def check_residual(residual: float) -> float:
    """Return the factor of a skip connection, in [0, 1)."""
    found = check_real("residual", residual, least=0.0)
    if found >= 1:
        raise ValueError(
            f"residual: expected a number below 1, got {residual}; with 1 the variance grows "
            "with every layer, whatever the weights"
        )
    return found


def susceptibilities(
    activation: ActivationLike,
    variance: float | Tensor,
    *,
    w_std: float = 1.0,
    residual: float = 0.0,
) -> Susceptibilities:
    r"""Compute the susceptibilities of a wide layer at a variance of its inputs.

    For z ~ N(0, K) at a neuron and the next layer
    :math:`z' = b + W f(z) + \gamma z` with :math:`E[W^2] = \sigma_w^2 / n`,

    .. math::
        \chi_\parallel = \gamma^2 + \sigma_w^2 \frac{d}{dK} E[f(z)^2], \qquad
        \chi_\perp = \gamma^2 + \sigma_w^2 E[f'(z)^2] .

    Parameters
    ----------
    activation : str, Module or callable
        The activation f: a name, a module of ``torch.nn`` or an elementwise function.
    variance : float or Tensor of shape (...)
        The variance K > 0 before the activation.
    w_std : float, default 1.0
        Standard deviation of the weights times the root of the width, :math:`\sigma_w`.
    residual : float, default 0.0
        The factor :math:`\gamma` of a skip connection around activation and weights, in [0, 1).

    Returns
    -------
    Susceptibilities
        Tensors of the shape of the variance, in double precision.

    Raises
    ------
    TypeError, ValueError
        If the activation is unknown, or a number is not as described.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165.

    Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli: Exponential expressivity in deep neural
    networks through transient chaos, 2016, arXiv 1606.05340.

    Examples
    --------
    >>> from mercer.infinite import susceptibilities
    >>> found = susceptibilities("relu", 3.0, w_std=2**0.5)
    >>> round(found.parallel.item(), 10), round(found.perpendicular.item(), 10)
    (1.0, 1.0)
    >>> susceptibilities("tanh", 0.5, w_std=1.5).perpendicular.round(decimals=4)
    tensor(1.3330, dtype=torch.float64)
    """
    q = check_variance("variance", variance)
    w = check_real("w_std", w_std, least=0.0)
    found = of_moments(gaussian_moments(activation, q), w * w, check_residual(residual))
    if isinstance(variance, Tensor):
        return Susceptibilities(*(t.to(variance.device) for t in vars(found).values()))
    return Susceptibilities(torch.as_tensor(found.parallel), found.perpendicular)
