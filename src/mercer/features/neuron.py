"""Features that are neurons: an activation of affine functions of the input."""

import math
from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import (
    check_finite,
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
    check_tensor,
)
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .base import FeatureMap
from .draws import make_projection


@final
class NeuronFeatures(FeatureMap):
    r"""Neurons as features: chosen rows of a layer, or random ones.

    .. math:: \phi(x) = f(G x + c)

    With rows of a trained layer this is the map for compressing that layer: its remaining
    neurons are predicted from the chosen ones (see `mercer.nn.select_neurons`). Random rows come
    from `NeuronFeatures.random`.

    Parameters
    ----------
    weight : Tensor of shape (num_features, in_features)
        The rows G; copied.
    bias : Tensor of shape (num_features,) or None
        The offsets c; copied.
    activation : str, Module or callable
        The function f, elementwise.

    Raises
    ------
    TypeError
        If ``weight`` or ``bias`` is not a floating-point tensor.
    ValueError
        If the shapes do not fit, there is no row, an entry is NaN or infinite, or the activation
        is unknown.

    References
    ----------
    Rahimi, Recht: Weighted Sums of Random Kitchen Sinks, 2008.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import NeuronFeatures
    >>> layer = torch.nn.Linear(3, 8)
    >>> phi = NeuronFeatures(layer.weight[:4], layer.bias[:4], "gelu")
    >>> phi(torch.ones(2, 3)).shape
    torch.Size([2, 4])
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: str | nn.Module | Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        check_tensor("weight", weight, ndim=2)
        self.num_features = check_int("weight.shape[0]", weight.shape[0])
        self.in_features = check_int("weight.shape[1]", weight.shape[1])
        check_finite("weight", weight)
        if bias is not None:
            if check_tensor("bias", bias, ndim=1).shape != weight.shape[:1]:
                raise ValueError(
                    f"bias: expected shape {tuple(weight.shape[:1])} beside weight "
                    f"{tuple(weight.shape)}, got {tuple(bias.shape)}"
                )
            check_finite("bias", bias)
        self.activation = resolve_activation(activation)
        self.draw = "orthogonal"
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().to(weight).clone())

    @classmethod
    def random(
        cls,
        in_features: int,
        num_features: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor],
        *,
        draw: str = "orthogonal",
        bias: bool = True,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        r"""Draw random neurons (random kitchen sinks).

        The rows of G are :math:`d^{-1/2} g` with g like N(0, I), so that G x is like
        :math:`N(0, \|x\|^2 / d)`: of order one where the entries of x are. The offsets c are
        uniform in :math:`[-d^{-1/2}, d^{-1/2}]`, as those of `torch.nn.Linear`.

        Parameters
        ----------
        in_features, num_features : int
            Lengths of an input and of a feature vector.
        activation : str, Module or callable
            The function f, elementwise.
        draw : {"orthogonal", "gaussian", "sobol", "hadamard", "fastfood"}, default "orthogonal"
            How G is drawn; see `make_projection`. It is stored as a dense matrix.
        bias : bool, default True
            Whether there are offsets.
        generator : torch.Generator, CounterGenerator, int or None, optional
            Source of the draw; None means torch's default generator.
        device, dtype : optional
            Of the buffers.

        Returns
        -------
        NeuronFeatures
            The map.

        Raises
        ------
        ValueError
            If a size is below one, or the draw or the activation is unknown.
        """
        check_int("in_features", in_features)
        check_int("num_features", num_features)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        weight = torch.zeros(num_features, in_features, **factory)
        phi = cls(weight, torch.zeros(num_features, **factory) if bias else None, activation)
        phi.draw = draw
        phi.reset_parameters(generator)
        return phi

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Replace all rows and offsets by random ones, drawn as in `random`.

        As with `torch.nn.Linear`, it does not matter where the numbers came from: rows that were
        given are forgotten too.
        """
        generator = check_generator(generator)
        shape = (self.num_features, self.in_features)
        drawn = make_projection(
            self.draw,
            *shape,
            generator=generator,
            device="meta" if self.weight.is_meta else "cpu",
            dtype=torch.float64,
        )
        if self.weight.is_meta:
            return
        lengths = drawn.draw_lengths(generator).unsqueeze(-1)  # (m, 1)
        self.weight.copy_(drawn.rows() * lengths / math.sqrt(self.in_features))
        if self.bias is not None:
            offsets = 2 * draw_uniform((self.num_features,), generator) - 1
            self.bias.copy_(offsets / math.sqrt(self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.weight, x)
        return self.activation(F.linear(x, self.weight, self.bias))

    def _config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "num_features": self.num_features,
            "activation": self.activation.to_spec(),
            "bias": self.bias is not None,
            "draw": self.draw,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        return cls.random(**config, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return (
            f"in_features={self.in_features}, num_features={self.num_features}, "
            f"activation={self.activation!r}, bias={self.bias is not None}"
        )
