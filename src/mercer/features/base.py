"""The noun FeatureMap: an explicit map phi with k(x, y) = phi(x) . phi(y)."""

import abc

import torch
from torch import Tensor

from .._core.saving import Saveable


class FeatureMap(Saveable, abc.ABC):
    """An explicit map ``phi(x)`` from ``(..., in_features)`` to ``(..., num_features)``.

    Abstract. ``num_features`` counts real output columns; a complex pair counts two. Random
    draws are made in the constructor or in ``reset_parameters(generator)`` and are buffers;
    ``forward`` never draws.

    Attributes
    ----------
    event_ndim : int
        How many trailing axes of an input make one point; 1 for vectors.
    in_features : int
        Length of an input vector.
    num_features : int
        Length of a feature vector.
    """

    event_ndim: int = 1
    in_features: int
    num_features: int

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""

    @abc.abstractmethod
    def reset_parameters(self, generator: torch.Generator | int | None = None) -> None:
        """Redraw whatever the map draws."""


class TwoSidedFeatureMap(FeatureMap, abc.ABC):
    """A feature map that also has the neuron's side of a network kernel.

    Abstract. ``phi(x) @ phi.dual(weight, bias).mT`` approximates the kernel between inputs and
    neurons, shape ``(..., out_features)``.
    """

    @abc.abstractmethod
    def dual(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map neurons (out, in_features) and (out,) to features of shape (out, num_features)."""
