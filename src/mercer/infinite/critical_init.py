"""Critical initialisation of a module, in place."""

from typing import TypeVar

import torch
from torch import nn

from .._core.checks import check_generator
from .._core.counter import RandomSource
from .._core.random import draw_normal
from .affine_layers import activation_of, affine_layers
from .gaussian_moments import ActivationLike
from .propagation import critical_variances

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def critical_init_(
    module: Module,
    activation: ActivationLike | None = None,
    residual: float = 0.0,
    *,
    generator: RandomSource | int | None = None,
) -> Module:
    r"""Draw all linear and convolutional layers of a module critically, in place.

    .. math::
        W \sim N(0, \sigma_w^2 / n), \qquad b \sim N(0, \sigma_b^2)

    with the number n of inputs of a neuron (channels of its group times the size of the kernel)
    and the `criticality` of the activation. For ReLU these are the weights of He, for tanh those
    of LeCun.

    Parameters
    ----------
    module : Module
        The network. Layers other than ``nn.Linear`` and ``nn.Conv1d`` to ``nn.Conv3d`` are left
        alone.
    activation : str, Module or callable, optional
        The activation between these layers; by default the one that the module holds.
    residual : float, default 0.0
        The factor of a skip connection around every activation and layer, in [0, 1).
    generator : Generator, CounterGenerator or int, optional
        Source of the draws; by default torch's own.

    Returns
    -------
    Module
        The module itself.

    Raises
    ------
    TypeError, ValueError
        If the module has no such layer, no activation or several are found where none is given,
        the activation has no critical point, or parameters are on the meta device.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165.

    Examples
    --------
    >>> from torch import nn
    >>> from mercer.infinite import critical_init_
    >>> net = nn.Sequential(nn.Linear(100, 400), nn.GELU(), nn.Linear(400, 10))
    >>> weight = critical_init_(net, generator=0)[2].weight
    >>> 1.8 < 400 * weight.var() < 2.2
    tensor(True)
    """
    source = check_generator(generator)
    layers = affine_layers(module)
    chosen = activation_of(module) if activation is None else activation
    weight, bias = critical_variances(chosen, None, None, residual)
    for name, layer in layers:
        if layer.weight.is_meta:
            raise ValueError(f"module: {name or 'it'} is on the meta device; use to_empty first")
    for _, layer in layers:
        inputs = layer.weight[0].numel()
        drawn = draw_normal(tuple(layer.weight.shape), source)
        layer.weight.copy_((weight / inputs) ** 0.5 * drawn)
        if layer.bias is not None:
            layer.bias.copy_(bias**0.5 * draw_normal(tuple(layer.bias.shape), source))
    return module
