"""The edge of chaos: weights for which gradients neither explode nor vanish, given the biases."""

import math

import torch

from .._core.checks import check_real
from .criticality import criticality
from .gaussian_moments import ActivationLike, gaussian_moments
from .root import root
from .susceptibility import check_residual


def edge_of_chaos(activation: ActivationLike, b_std: float = 0.0, residual: float = 0.0) -> float:
    r"""Find the ``w_std`` on the line between order and chaos for a ``b_std``.

    On the line :math:`\chi_\perp = 1` at the fixed point K of the variance: two close inputs keep
    their distance and gradients their size, while the variance itself settles at K
    (:math:`\chi_\parallel \le 1`). With K as the parameter the line is

    .. math::
        \sigma_w^2 = \frac{1 - \gamma^2}{E[f'^2]}, \qquad
        \sigma_b^2 = (1 - \gamma^2) \left(K - \frac{E[f^2]}{E[f'^2]}\right), \qquad z \sim N(0, K).

    Parameters
    ----------
    activation : str, Module or callable
        The activation f.
    b_std : float, default 0.0
        Standard deviation of the biases, :math:`\sigma_b`.
    residual : float, default 0.0
        The factor :math:`\gamma` of a skip connection, in [0, 1).

    Returns
    -------
    float
        The standard deviation of the weights times the root of the width, :math:`\sigma_w`. Where
        every variance has the same susceptibilities (ReLU) it does not depend on ``b_std``; the
        variance then grows with every layer unless that is zero.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there is no such point for these biases.

    References
    ----------
    Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli: Exponential expressivity in deep neural
    networks through transient chaos, 2016, arXiv 1606.05340.

    Schoenholz, Gilmer, Ganguli, Sohl-Dickstein: Deep information propagation, 2017,
    arXiv 1611.01232.

    Examples
    --------
    >>> from mercer.infinite import edge_of_chaos
    >>> edge_of_chaos("tanh")
    1.0
    >>> round(edge_of_chaos("tanh", b_std=0.05**0.5), 4)
    1.327
    """
    gamma = check_residual(residual)
    rest = 1 - gamma * gamma
    bias = check_real("b_std", b_std, least=0.0) ** 2
    found = criticality(activation, gamma)
    if found.kind == "scale-invariant" or (found.kind == "zero" and bias == 0):
        return found.w_std
    grid = torch.logspace(-10, 4, 141, dtype=torch.float64)

    def off(log_k: float) -> float:
        m = gaussian_moments(activation, math.exp(log_k), strict=False)
        return float(rest * (m.variance - m.second / m.slope)) - bias

    m = gaussian_moments(activation, grid, strict=False)
    values = rest * (grid - m.second / m.slope) - bias
    settles = m.growth <= m.slope * (1 + 1e-9)  # chi_parallel at most one
    for i in (values[:-1] * values[1:] <= 0).nonzero().flatten().tolist():
        if not bool(settles[i] | settles[i + 1]):
            continue
        log_k = root(off, math.log(grid[i]), math.log(grid[i + 1]))
        at = gaussian_moments(activation, math.exp(log_k))
        if float(at.growth / at.slope) <= 1 + 1e-7:
            return math.sqrt(rest / float(at.slope))
    raise ValueError(
        f"b_std: for {found.activation} there is no fixed point of the variance at the edge of "
        f"chaos with b_std = {b_std:g}"
    )
