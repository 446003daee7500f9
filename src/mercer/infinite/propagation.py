"""Signals through a deep wide network, layer by layer: variances, gaps, gradients, fluctuations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_int, check_real, check_tensor
from ..kernels.dual import dual
from .criticality import criticality
from .fluctuation import advance
from .gaussian_moments import ActivationLike, check_variance, gaussian_moments
from .learning_rates import LayerwiseRates
from .susceptibility import check_residual, of_moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {
    "variance": "variance K",
    "correlation": "correlation of two inputs",
    "susceptibility": "susceptibility",
    "ntk": "tangent kernel Θ",
    "fluctuation": "V / K², variance of the squared length × width",
}


@final
@dataclass(frozen=True, eq=False)
class Propagation:
    """What a wide network does to its inputs at each layer, made by `signal_propagation`.

    The entry l - 1 of each tensor speaks of the preactivations of layer l.

    Attributes
    ----------
    variance : Tensor of shape (depth,)
        K, the mean square of a preactivation, float64.
    parallel, perpendicular : Tensor of shape (depth,)
        Susceptibilities of the layer that follows.
    ntk : Tensor of shape (depth,)
        Neural tangent kernel of an input with itself, with that layer as the output.
    fluctuation : Tensor of shape (depth,)
        V / K^2: divided by the width it is the covariance of the squares of two neurons, in
        units of K, to first order in one over the width.
    correlation : Tensor of shape (depth, ...)
        Correlations of pairs of inputs; empty where none were asked for.
    ntk_pair : Tensor of shape (depth, ...)
        Neural tangent kernel of these pairs.
    """

    variance: Tensor
    parallel: Tensor
    perpendicular: Tensor
    ntk: Tensor
    fluctuation: Tensor
    correlation: Tensor
    ntk_pair: Tensor

    def plot(self, ax: "Axes | None" = None, *, what: str = "variance") -> "Axes":
        """Draw one of these over the layers.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        what : {"variance", "correlation", "susceptibility", "ntk", "fluctuation"}
            What to draw.

        Returns
        -------
        matplotlib Axes
            The axes.

        Raises
        ------
        ValueError
            If ``what`` is none of these, or no correlations were propagated.
        """
        check_choice("what", what, tuple(_TITLES))
        layer = torch.arange(1, len(self.variance) + 1)
        ax = axes_or_new(ax)
        if what == "susceptibility":
            ax.plot(layer, self.parallel, color="#0072B2", label="χ∥, norm of one input")
            ax.plot(layer, self.perpendicular, "--", color="#D55E00", label="χ⊥, gap of two")
            ax.legend()
        elif what == "correlation":
            if len(self.correlation) == 0:
                raise ValueError("what: no correlations here; give a correlation")
            for pair in self.correlation.reshape(len(layer), -1).unbind(1):
                ax.plot(layer, pair, label=f"from {float(pair[0]):.3g}")
            ax.legend()
        else:
            ax.plot(layer, getattr(self, what), color="#0072B2")
        ax.set_xlabel("layer")
        ax.set_ylabel(_TITLES[what])
        ax.set_title(f"{_TITLES[what].partition(',')[0].capitalize()} through the layers")
        return ax


def signal_propagation(
    activation: ActivationLike,
    depth: int,
    *,
    w_std: float | None = None,
    b_std: float | None = None,
    variance: float = 1.0,
    correlation: float | Tensor | None = None,
    residual: float = 0.0,
    rates: LayerwiseRates | None = None,
) -> Propagation:
    r"""Propagate variances, correlations, tangent kernels and fluctuations to a depth.

    With z ~ N(0, K) before the activation f of a layer, :math:`\sigma_w`, :math:`\sigma_b` the
    deviations of weights and biases, and :math:`\gamma` the skip connection,

    .. math::
        K' &= \sigma_b^2 + \sigma_w^2 E[f^2] + \gamma^2 K \\
        \Theta' &= \lambda_b + \lambda_W E[f^2] + \chi_\perp \Theta \\
        V' &= \chi_\parallel^2 V + \sigma_w^4 (E[f^4] - E[f^2]^2)
        + 2 \gamma^2 \sigma_w^2 (E[z^2 f^2] - K E[f^2])
        + 2 \chi_\parallel \sigma_w^2 E[(f^2)'] T \\
        T' &= \gamma (\chi_\parallel T + \sigma_w^2 E[z f^2])

    where V over the width is the connected part of :math:`E[z_i^2 z_j^2]` over random networks,
    to first order in one over the width (V = T = 0 in the first layer).

    Parameters
    ----------
    activation : str, Module or callable
        The activation f.
    depth : int
        Number of layers with weights.
    w_std, b_std : float, optional
        Standard deviations of the weights (times the root of the width) and of the biases; the
        critical ones of `criticality` by default.
    variance : float, default 1.0
        K in the first layer.
    correlation : float or Tensor of shape (...), optional
        Correlations, in the first layer, of pairs of inputs of this variance.
    residual : float, default 0.0
        The factor :math:`\gamma` of the skip connection, in [0, 1).
    rates : LayerwiseRates, optional
        The :math:`\lambda` of each layer; by default the NTK parametrisation, in which they are
        :math:`\sigma_w^2` and :math:`\sigma_b^2`.

    Returns
    -------
    Propagation
        One number for each layer, in double precision.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the activation has no critical point and ``w_std``
        is not given.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165,
    chapters 4, 5, 8 (the skip connection's recursions are derived here in the same way).

    Schoenholz, Gilmer, Ganguli, Sohl-Dickstein: Deep information propagation, 2017,
    arXiv 1611.01232.

    Examples
    --------
    >>> from mercer.infinite import signal_propagation
    >>> found = signal_propagation("relu", 5, correlation=0.5)
    >>> found.fluctuation
    tensor([ 0.0000,  5.0000, 10.0000, 15.0000, 20.0000], dtype=torch.float64)
    >>> found.correlation.round(decimals=3)
    tensor([0.5000, 0.6090, 0.6840, 0.7380, 0.7790], dtype=torch.float64)
    """
    check_int("depth", depth)
    gamma = check_residual(residual)
    weight, bias = critical_variances(activation, w_std, b_std, gamma)
    k = check_variance("variance", variance).reshape(())
    pair = dual(activation)
    c = torch.empty(0, dtype=torch.float64) if correlation is None else _correlation(correlation)
    if rates is not None and len(rates.weight) != depth:
        raise ValueError(f"rates: expected {depth} of them, got {len(rates.weight)}")
    if rates is not None and float(k) < bias:
        raise ValueError(f"variance: expected at least that of the biases, {bias:g}, got {k:g}")
    # In the first layer the mean square of the input stands for E[f^2].
    seen = (k - bias) / weight if weight else torch.zeros_like(k)
    mixed = (c * k - bias) / weight if weight else torch.zeros_like(c)
    theta, theta_pair = torch.zeros_like(k), torch.zeros_like(c)
    four, three = torch.zeros_like(k), torch.zeros_like(k)
    chi = torch.zeros_like(k)
    chi_pair = torch.zeros_like(c)
    rows, pairs = [], []
    for layer in range(depth):
        rate_w = weight if rates is None else float(rates.weight[layer])
        rate_b = bias if rates is None else float(rates.bias[layer])
        theta = rate_b + rate_w * seen + chi * theta
        theta_pair = rate_b + rate_w * mixed + chi_pair * theta_pair
        m = gaussian_moments(activation, k)
        both = of_moments(m, weight, gamma)
        rows.append((k, both.parallel, both.perpendicular, theta, four / k.square()))
        pairs.append((c, theta_pair))
        if c.numel():
            mixed, slope = pair(k, k, c * k)
            chi_pair = gamma**2 + weight * slope
            inner = bias + weight * mixed + gamma**2 * c * k
        else:
            inner = c
        seen, chi = m.second, both.perpendicular
        four, three = advance(m, weight, gamma, four, three)
        k = bias + weight * m.second + gamma**2 * k
        c = (inner / k).clamp(-1, 1)
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    of_pairs = [torch.stack(column) for column in zip(*pairs, strict=True)]
    if correlation is None:
        of_pairs = [t.flatten() for t in of_pairs]
    return Propagation(*columns, *of_pairs)  # pyright: ignore[reportCallIssue]


def _correlation(value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        check_tensor("correlation", value)
    else:
        check_real("correlation", value)
    c = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if not bool((c.abs() <= 1).all()):
        raise ValueError("correlation: expected numbers in [-1, 1]")
    return c


def critical_variances(
    activation: ActivationLike, w_std: float | None, b_std: float | None, residual: float
) -> tuple[float, float]:
    """Return the variances of weights and biases, the critical ones where none are given."""
    if w_std is None:
        if b_std is not None:
            raise ValueError("w_std: give it too where b_std is given; see edge_of_chaos")
        found = criticality(activation, residual)
        if found.kind == "none":
            raise ValueError(
                f"w_std: {found.activation} has no critical point ({found.reason}); give w_std"
            )
        return found.w_std**2, found.b_std**2
    w = check_real("w_std", w_std, least=0.0)
    b = 0.0 if b_std is None else check_real("b_std", b_std, least=0.0)
    return w * w, b * b
