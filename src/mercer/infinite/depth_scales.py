"""Depth scales: how many layers norms, correlations and gradients survive."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_real
from ..kernels.dual import dual
from .gaussian_moments import ActivationLike, gaussian_moments
from .root import root
from .susceptibility import check_residual, of_moments

_LAYERS = 400  # plain ones, before Newton's steps
_SMALLEST, _LARGEST = 1e-20, 1e20


@final
@dataclass(frozen=True)
class DepthScales:
    r"""Depth scales of a wide network, made by `depth_scales`.

    Attributes
    ----------
    variance : float
        The fixed point that the variance of an input approaches; 0 or infinity where it has no
        positive one.
    correlation : float
        The one that the correlation of two inputs approaches: 1 in the ordered phase, below 1 in
        the chaotic one.
    parallel, perpendicular : float
        Susceptibilities at the fixed point.
    norm_scale : float
        Layers over which a deviation of the variance changes by a factor e,
        :math:`1 / |\log \chi_\parallel|`.
    correlation_scale : float
        The same for a deviation of the correlation from its fixed point.
    gradient_scale : float
        The same for squared gradients, :math:`1 / |\log \chi_\perp|`; they explode where
        :math:`\chi_\perp > 1`.
    """

    variance: float
    correlation: float
    parallel: float
    perpendicular: float
    norm_scale: float
    correlation_scale: float
    gradient_scale: float


def depth_scales(
    activation: ActivationLike,
    w_std: float,
    b_std: float = 0.0,
    residual: float = 0.0,
    *,
    variance: float = 1.0,
) -> DepthScales:
    r"""Compute over how many layers signals and gradients of a wide network live.

    Near their fixed points variances, correlations c and squared gradients change by the factors

    .. math::
        \chi_\parallel, \qquad
        \gamma^2 + \sigma_w^2 E[f'(u) f'(v)]_{c}, \qquad \chi_\perp

    with each layer; a factor :math:`\chi` lasts :math:`1 / |\log \chi|` layers, for ever at
    `criticality`. A network much deeper than the scale of its correlations cannot be trained.

    Parameters
    ----------
    activation : str, Module or callable
        The activation f.
    w_std, b_std : float
        Standard deviations of the weights (times the root of the width) and of the biases.
    residual : float, default 0.0
        The factor :math:`\gamma` of a skip connection, in [0, 1).
    variance : float, default 1.0
        Where the variance starts.

    Returns
    -------
    DepthScales
        Fixed points, susceptibilities and scales in layers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Schoenholz, Gilmer, Ganguli, Sohl-Dickstein: Deep information propagation, 2017,
    arXiv 1611.01232.

    Examples
    --------
    >>> from mercer.infinite import depth_scales
    >>> found = depth_scales("tanh", w_std=1.2, b_std=0.05**0.5)
    >>> round(found.variance, 3), round(found.correlation_scale, 1)
    (0.386, 12.4)
    >>> depth_scales("relu", w_std=2**0.5).gradient_scale
    inf
    """
    gamma = check_residual(residual)
    weight = check_real("w_std", w_std, above=0.0) ** 2
    bias = check_real("b_std", b_std, least=0.0) ** 2
    start = check_real("variance", variance, above=0.0)
    k = _fixed_variance(activation, weight, bias, gamma, start)
    # Where the variance vanishes or grows without end, susceptibilities go to those far out.
    at = torch.tensor(min(max(k, _SMALLEST), _LARGEST), dtype=torch.float64)
    chi = of_moments(gaussian_moments(activation, at), weight, gamma)
    parallel, perpendicular = float(chi.parallel), float(chi.perpendicular)
    c, slope = 1.0, perpendicular
    if perpendicular > 1 + 1e-12 and 0 < k < math.inf:
        c, slope = _fixed_correlation(activation, weight, bias, gamma, at)
    return DepthScales(
        k, c, parallel, perpendicular, _layers(parallel), _layers(slope), _layers(perpendicular)
    )


def _layers(factor: float) -> float:
    if not 0 < factor < math.inf:
        return 0.0
    rate = abs(math.log(factor))
    return math.inf if rate < 1e-12 else 1 / rate


def _fixed_variance(
    activation: ActivationLike, weight: float, bias: float, gamma: float, start: float
) -> float:
    k = torch.tensor(start, dtype=torch.float64)
    for layer in range(_LAYERS + 50):
        m = gaussian_moments(activation, k)
        after = bias + weight * m.second + gamma**2 * k
        if not _SMALLEST < float(after) < _LARGEST:
            return 0.0 if float(after) <= _SMALLEST else math.inf
        if abs(float(after / k) - 1) < 1e-15:
            return float(after)
        if layer >= _LAYERS:  # slow: Newton's steps from nearby
            slope = float(gamma**2 + weight * m.growth)
            newton = k + (after - k) / (1 - slope) if slope < 1 else after
            after = newton if 0.5 < float(newton / k) < 2 else k / 2 if newton < k else k * 2
        k = after
    return float(k)


def _fixed_correlation(
    activation: ActivationLike, weight: float, bias: float, gamma: float, k: Tensor
) -> tuple[float, float]:
    pair = dual(activation)

    def change(c: float) -> float:
        value, _ = pair(k, k, c * k)
        return float((bias + weight * value + gamma**2 * c * k) / k) - c

    # One is a fixed point too, the one that is left.
    low, high = 0.0, 1 - 1e-9
    if change(low) < 0:
        low = -1.0
    c = root(change, low, high) if change(high) < 0 else 1.0
    return c, float(gamma**2 + weight * pair(k, k, c * k)[1])
