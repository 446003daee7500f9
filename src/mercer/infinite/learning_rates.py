"""Learning rates of layers for which each contributes alike to the tangent kernel."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from .._core.checks import check_int, check_real
from .affine_layers import affine_layers
from .criticality import criticality
from .gaussian_moments import ActivationLike


@final
@dataclass(frozen=True, eq=False)
class LayerwiseRates:
    """Factors on the learning rates of layers 1 to L, made by `layerwise_learning_rates`.

    Attributes
    ----------
    weight : Tensor of shape (depth,)
        For weights, float64: the rate of a weight matrix with n inputs is this over n times the
        global one, where weights are stored as they are used.
    bias : Tensor of shape (depth,)
        For biases.
    """

    weight: Tensor
    bias: Tensor

    def groups(self, module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Make the parameter groups that an optimiser of ``torch.optim`` takes.

        Parameters
        ----------
        module : Module
            A network with as many ``nn.Linear`` and ``nn.Conv1d`` to ``nn.Conv3d`` as there are
            rates, which follow each other in the order in which it holds them.
        learning_rate : float
            The global rate, of gradient descent without a preconditioner.

        Returns
        -------
        list of dict
            One group for each weight and each bias. Other parameters are in none.

        Raises
        ------
        TypeError, ValueError
            If the number of layers is another, or an argument is not as described.
        """
        rate = check_real("learning_rate", learning_rate, above=0.0)
        layers = affine_layers(module)
        if len(layers) != len(self.weight):
            raise ValueError(
                f"module: expected {len(self.weight)} layers with weights, found {len(layers)}"
            )
        found: list[dict[str, Any]] = []
        for (_, layer), weight, bias in zip(
            layers, self.weight.tolist(), self.bias.tolist(), strict=True
        ):
            inputs = layer.weight[0].numel()
            found.append({"params": [layer.weight], "lr": rate * weight / inputs})
            if layer.bias is not None:
                found.append({"params": [layer.bias], "lr": rate * bias})
        return found


def layerwise_learning_rates(
    activation: ActivationLike, depth: int, residual: float = 0.0
) -> LayerwiseRates:
    r"""Scale learning rates such that all layers of a critical network learn alike.

    At criticality gradients fall at most as a power p of the depth
    (`Criticality.perpendicular_power`). With

    .. math::
        \lambda_b^{(l)} = l^{-p} L^{p - 1}, \qquad \lambda_W^{(l)} = (L / l)^{p - 1}

    for the class "zero", and :math:`1 / L` for the others, each layer contributes the same to the
    neural tangent kernel of the output, which has a limit as L grows.

    Parameters
    ----------
    activation : str, Module or callable
        The activation.
    depth : int
        Number of layers L with weights, the last one included.
    residual : float, default 0.0
        Factor of a skip connection, in [0, 1).

    Returns
    -------
    LayerwiseRates
        Factors for weights and biases.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the activation has no critical point.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165,
    chapter 9.

    Examples
    --------
    >>> from mercer.infinite import layerwise_learning_rates
    >>> layerwise_learning_rates("relu", 4).weight
    tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    >>> layerwise_learning_rates("tanh", 4).bias
    tensor([1.0000, 0.5000, 0.3333, 0.2500], dtype=torch.float64)
    """
    check_int("depth", depth)
    found = criticality(activation, residual)
    if found.kind == "none":
        raise ValueError(f"activation: {found.activation} has no critical point; {found.reason}")
    layer = torch.arange(1, depth + 1, dtype=torch.float64)
    if found.kind != "zero":
        return LayerwiseRates(torch.ones_like(layer) / depth, torch.ones_like(layer) / depth)
    p = found.perpendicular_power
    return LayerwiseRates((depth / layer) ** (p - 1), layer**-p * float(depth) ** (p - 1))
