"""How far a network of finite width is from the infinitely wide one: fluctuations and depth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from .._core.axes import axes_or_new
from .._core.checks import check_int
from .affine_layers import activation_of, affine_layers
from .criticality import criticality
from .gaussian_moments import ActivationLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _rate(activation: ActivationLike, residual: float) -> tuple[str, float]:
    found = criticality(activation, residual)
    if found.kind == "none":
        raise ValueError(f"activation: {found.activation} has no critical point; {found.reason}")
    return found.activation, found.fluctuation_rate


def optimal_depth(
    activation: ActivationLike, width: int, outputs: int, residual: float = 0.0
) -> float:
    r"""Compute the depth at which a critical network of a width tells most about its inputs.

    .. math:: L^* = \frac{4 n}{(20 + 3 n_L)\,\nu}

    With depth, groups of outputs share more of a random scale, which is what features are learnt
    from, until the fluctuations drown them: the mutual information of two halves of the
    :math:`n_L` outputs, to third order in :math:`\nu L / n`, is largest at this depth.

    Parameters
    ----------
    activation : str, Module or callable
        The activation.
    width : int
        Number n of neurons of a hidden layer.
    outputs : int
        Number :math:`n_L` of outputs.
    residual : float, default 0.0
        Factor of a skip connection, in [0, 1).

    Returns
    -------
    float
        The number of layers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the activation has no critical point.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165,
    appendix A.

    Examples
    --------
    >>> from mercer.infinite import optimal_depth
    >>> [round(optimal_depth(name, 1000, 10), 9) for name in ("identity", "relu", "tanh")]
    [40.0, 16.0, 120.0]
    """
    n, outputs = check_int("width", width), check_int("outputs", outputs)
    _, rate = _rate(activation, residual)
    return 4 * n / ((20 + 3 * outputs) * rate)


@final
@dataclass(frozen=True, eq=False)
class FiniteWidthReport:
    r"""How much a network of finite width fluctuates, made by `finite_width_report`.

    Attributes
    ----------
    activation : str
        Its name.
    names : tuple of str
        The layers with weights, in order.
    widths : tuple of int
        Their neurons, or channels; those of the last layer are the outputs.
    w_std, b_std : Tensor of shape (layers,)
        Standard deviations of the weights as they are, times the root of the inputs of a neuron,
        and of the biases.
    critical_w_std, critical_b_std : float
        What `criticality` would have.
    aspect_ratio : float
        Depth over width: the sum of 1 / width over the hidden layers, L / n for L of them.
    fluctuation : float
        The aspect ratio times the rate :math:`\nu` of the activation: the relative variance of
        the squared length of the last preactivations over random critical networks, to first
        order. Kernels of infinite width describe the network where this is small.
    optimal_aspect_ratio : float
        The one of `optimal_depth`.
    warnings : tuple of str
        What to be aware of.
    """

    activation: str
    names: tuple[str, ...]
    widths: tuple[int, ...]
    w_std: Tensor
    b_std: Tensor
    critical_w_std: float
    critical_b_std: float
    aspect_ratio: float
    fluctuation: float
    optimal_aspect_ratio: float
    warnings: tuple[str, ...]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw how the fluctuation grows through the layers.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        ratio = torch.cumsum(torch.tensor([0.0, *(1 / n for n in self.widths[:-1])]), 0)
        rate = self.fluctuation / self.aspect_ratio if self.aspect_ratio else 0.0
        layer = torch.arange(1, len(ratio) + 1)
        ax.plot(layer, rate * ratio, "o-", color="#0072B2", markersize=4, label="this network")
        best = rate * self.optimal_aspect_ratio
        ax.axhline(best, color="#009E73", linestyle="--", label="most information")
        if self.fluctuation > 0.3:
            ax.axhline(1.0, color="#D55E00", linestyle=":", label="as large as the signal")
        ax.set_xlabel("layer")
        ax.set_ylabel("relative variance of the squared length")
        ax.set_title(f"Fluctuations of width: {len(ratio) - 1} hidden layers of {self.activation}")
        ax.set_ylim(bottom=0)
        ax.legend()
        return ax


@torch.no_grad()
def finite_width_report(
    module: nn.Module, activation: ActivationLike | None = None, residual: float = 0.0
) -> FiniteWidthReport:
    r"""Say how far a network is from infinitely wide, from its widths.

    At `criticality` the relative variance, over random networks, of the squared length of a
    layer's preactivations grows as

    .. math:: \frac{V}{n K^2} = \nu r, \qquad r = \sum_{\text{hidden}} \frac{1}{n_l}

    with :math:`\nu` = 2 for linear networks, 5 for ReLU and 2/3 for tanh
    (`Criticality.fluctuation_rate`).

    Parameters
    ----------
    module : Module
        A network whose ``nn.Linear`` and ``nn.Conv1d`` to ``nn.Conv3d`` follow each other in the
        order in which it holds them; the last one makes the outputs. It is not changed. For
        convolutions the number of channels is the width: an upper bound, since averages over
        places fluctuate less.
    activation : str, Module or callable, optional
        The activation between these layers; by default the one that the module holds.
    residual : float, default 0.0
        The factor of a skip connection around every activation and layer, in [0, 1).

    Returns
    -------
    FiniteWidthReport
        Numbers and warnings.

    Raises
    ------
    TypeError, ValueError
        If the module has no such layer, no activation or several are found where none is given,
        or the activation has no critical point.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165,
    chapters 4 and 5.

    Examples
    --------
    >>> from torch import Tensor, nn
    >>> from mercer.infinite import finite_width_report
    >>> widths = [20, *[50] * 15, 3]
    >>> layers = [nn.Sequential(nn.ReLU(), nn.Linear(a, b)) for a, b in zip(widths, widths[1:])]
    >>> found = finite_width_report(nn.Sequential(*layers))
    >>> round(found.aspect_ratio, 3), round(found.fluctuation, 3)
    (0.3, 1.5)
    >>> found.warnings[0]
    'fluctuations of 1.50 exceed the signal: 15 hidden layers are too many for their widths'
    """
    layers = affine_layers(module)
    chosen = activation_of(module) if activation is None else activation
    name, rate = _rate(chosen, residual)
    critical = criticality(chosen, residual)
    widths = tuple(len(layer.weight) for _, layer in layers)
    w_std, b_std = [], []
    for _, layer in layers:
        weight = layer.weight.double()
        w_std.append(float(weight.square().mean() * weight[0].numel()) ** 0.5)
        bias = layer.bias
        b_std.append(0.0 if bias is None else float(bias.double().square().mean()) ** 0.5)
    ratio = sum(1 / n for n in widths[:-1])
    best = 4 / ((20 + 3 * widths[-1]) * rate)
    return FiniteWidthReport(
        activation=name,
        names=tuple(name for name, _ in layers),
        widths=widths,
        w_std=torch.tensor(w_std, dtype=torch.float64),
        b_std=torch.tensor(b_std, dtype=torch.float64),
        critical_w_std=critical.w_std,
        critical_b_std=critical.b_std,
        aspect_ratio=ratio,
        fluctuation=rate * ratio,
        optimal_aspect_ratio=best,
        warnings=tuple(_warnings(module, rate * ratio, len(widths) - 1, w_std, critical.w_std)),
    )


def _warnings(
    module: nn.Module, fluctuation: float, hidden: int, w_std: list[float], critical: float
) -> list[str]:
    found = []
    if fluctuation > 1:
        found.append(
            f"fluctuations of {fluctuation:.2f} exceed the signal: {hidden} hidden layers are too "
            "many for their widths"
        )
    # The norm changes by the square of this ratio with each layer.
    off = [w / critical for w in w_std[1:]]
    gain = torch.tensor([1.0, *off]).log().sum().mul(2).exp()
    if not 0.1 <= float(gain) <= 10:
        found.append(
            f"not critical: squared norms change by a factor of about {float(gain):.2g} through "
            "the layers; see critical_init_"
        )
    norms = sorted(
        {
            type(part).__name__
            for part in module.modules()
            if type(part).__module__.rpartition(".")[2] in ("normalization", "batchnorm")
        }
    )
    if norms:
        found.append(f"{', '.join(norms)} changes the recursions: these numbers ignore it")
    return found
