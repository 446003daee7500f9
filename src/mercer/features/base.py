"""The noun FeatureMap: an explicit map phi with k(x, y) = phi(x) . phi(y)."""

import abc

import torch
from torch import Tensor

from .._core.checks import check_last_dim, check_tensor
from .._core.counter import RandomSource
from .._core.saving import Saveable
from ..kernels.base import Kernel


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
    # In a tuple, so that torch does not take it for a part with parameters of its own: its
    # float64 values are in the config, and stay as they are when the map changes its dtype.
    _approximated: tuple[Kernel, ...] = ()

    @property
    def kernel(self) -> Kernel | None:
        """What the map approximates: a frozen kernel on the CPU, or None where none is known."""
        return self._approximated[0] if self._approximated else None

    def _approximate(self, kernel: Kernel) -> Kernel:
        """Keep a frozen copy of a kernel of vectors as what the map approximates, and return it."""
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
        if kernel.event_ndim != 1:
            raise ValueError(
                f"kernel: expected a kernel of vectors, got {kernel!r} of points with "
                f"{kernel.event_ndim} axes"
            )
        kernel._check_set()
        with torch.device("cpu"):  # whatever the default is
            self._approximated = (kernel.to_spec().cpu().requires_grad_(False).eval(),)
        return self._approximated[0]

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""

    @abc.abstractmethod
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw whatever the map draws."""


class TwoSidedFeatureMap(FeatureMap, abc.ABC):
    """A feature map that also has the neuron's side of a network kernel.

    Abstract. ``phi(x) @ phi.dual(weight, bias).mT`` approximates the kernel between inputs and
    neurons, shape ``(..., out_features)``.

    Attributes
    ----------
    bias : bool
        Whether a neuron may have a bias.
    """

    bias: bool

    @abc.abstractmethod
    def dual(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map neurons (out, in_features) and (out,) to features of shape (out, num_features)."""

    def _check_neurons(self, weight: Tensor, bias: Tensor | None) -> None:
        """Raise unless weight is (out, in_features) and bias, where allowed, is (out,)."""
        check_last_dim("weight", check_tensor("weight", weight, ndim=2), self.in_features)
        if bias is None:
            return
        if not self.bias:
            raise ValueError(f"bias: expected None with bias=False, got shape {tuple(bias.shape)}")
        if check_tensor("bias", bias).shape != weight.shape[:1]:
            raise ValueError(
                f"bias: expected shape {tuple(weight.shape[:1])} beside weight "
                f"{tuple(weight.shape)}, got {tuple(bias.shape)}"
            )
