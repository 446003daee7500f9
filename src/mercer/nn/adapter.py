"""A residual adapter whose inside is a scalable neural network kernel."""

from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import check_generator, check_int, check_last_dim
from .._core.counter import RandomSource
from .._core.saving import Saveable
from ..features.base import FeatureMap
from .layer_features import check_sizes, draw_features
from .snnk import SNNK


@final
class SNNKAdapter(Saveable):
    r"""A residual branch with few trained numbers, the identity until it is trained.

    .. math:: y = h + U \, \mathrm{SNNK}(N(h)), \qquad \mathrm{SNNK}(x) = W' \phi(x) + b'

    The features :math:`\phi` are frozen. What trains depends on how the branch ends:

    =================== =============================== ========================================
    up, bottleneck      branch                          trained numbers for width d, m features
    =================== =============================== ========================================
    ``True``, None      :math:`U W' \phi + b` as one    d m + d
                        matrix, zero at the start
    ``True``, r         :math:`U (W' \phi) + b`, U zero r m + d r + d
                        at the start
    ``False``, None     :math:`g \odot (W' \phi + b')`, d m + 2 d
                        the gate g zero at the start
    =================== =============================== ========================================

    Parameters
    ----------
    width : int
        Length d of the vectors that the adapter changes.
    num_features : int
        Number m of features.
    activation : str, Module or callable, default "gelu"
        The function f, elementwise.
    up : bool, default True
        Whether an up-projection ends the branch; otherwise a learned gate does.
    bottleneck : int, optional
        Rank r of what is learned: outputs of the SNNK, before the up-projection.
    features : {"neuron", "universal", "arc_cosine"} or FeatureMap, default "neuron"
        The frozen map, or which one to draw; see `SNNK`.
    projection : str, default "orthogonal"
        How its directions are drawn; see `make_projection`. Not used with a given map.
    norm_before : bool, default True
        Whether inputs are normalised first (layer norm without trained numbers), so that the
        features see the same scale in every network.
    norm_after : bool, default False
        Whether a layer norm with trained numbers follows the residual sum; the adapter is then
        the identity up to normalisation.
    bias : bool, default True
        Whether the branch has b.
    device, dtype : optional
        Of parameters and buffers.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws; None means torch's default generator.
    """

    def __init__(
        self,
        width: int,
        num_features: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "gelu",
        *,
        up: bool = True,
        bottleneck: int | None = None,
        features: str | FeatureMap = "neuron",
        projection: str = "orthogonal",
        norm_before: bool = True,
        norm_after: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: RandomSource | int | None = None,
    ) -> None:
        super().__init__()
        self.width = check_int("width", width)
        self.num_features = check_int("num_features", num_features)
        self.bottleneck = None if bottleneck is None else check_int("bottleneck", bottleneck)
        if bottleneck is not None and not up:
            raise ValueError(
                f"bottleneck: without an up-projection the SNNK has {width} outputs, "
                f"got bottleneck={bottleneck} with up=False"
            )
        self.activation = resolve_activation(activation)
        generator = check_generator(generator)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # A normalised input has norm sqrt(d); universal features are for norms of about one.
        self._scale = width**-0.5 if features == "universal" and norm_before else 1.0
        if not isinstance(features, FeatureMap):
            features = draw_features(
                features,
                self.activation,
                width,
                num_features,
                norms=(1.0, 3**-0.5),
                bias=True,
                projection=projection,
                generator=generator,
                **factory,
            )
        self.snnk = SNNK(
            width,
            width if bottleneck is None else bottleneck,
            self.activation,
            num_features=num_features,
            features=check_sizes(features, width, num_features),
            affine=False,
            bias=bias and bottleneck is None,
            generator=generator,
            **factory,
        )
        self.up = None if bottleneck is None else nn.Linear(bottleneck, width, bias=bias, **factory)
        self.gate = None if up else nn.Parameter(torch.empty(width, **factory))
        self.norm_before = bool(norm_before)
        self.norm_after = nn.LayerNorm(width, **factory) if norm_after else None
        self._start_at_identity()

    @torch.no_grad()
    def _start_at_identity(self) -> None:
        """Zero what ends the branch; the features and what comes before it are as drawn."""
        if self.gate is not None:
            self.gate.zero_()
            return
        last = self.snnk if self.up is None else self.up
        last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw features and weights: the identity again; on the meta device nothing is drawn."""
        self.snnk.reset_parameters(generator)
        if self.norm_after is not None:
            self.norm_after.reset_parameters()
        self._start_at_identity()

    def branch(self, h: Tensor) -> Tensor:
        """Return what the adapter adds to inputs of shape (..., width)."""
        x = F.layer_norm(h, (self.width,)) if self.norm_before else h
        z = self.snnk(x * self._scale)  # (..., bottleneck or width)
        if self.up is not None:
            z = self.up(z)  # (..., width)
        return z if self.gate is None else self.gate * z

    def forward(self, h: Tensor) -> Tensor:
        """Map inputs of shape (..., width) to outputs of the same shape."""
        check_last_dim("h", h, self.width)
        y = h + self.branch(h)
        return y if self.norm_after is None else self.norm_after(y)

    @property
    def num_trainable(self) -> int:
        """How many numbers train: entries of parameters that require a gradient."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def num_stored(self) -> int:
        """How many numbers are kept: entries of all parameters and buffers."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))

    def _config(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "bottleneck": self.bottleneck,
            "activation": self.activation.to_spec(),
            "features": self.snnk.features.to_config(),
            "scale": self._scale,
            "up": self.gate is None,
            "bias": (self.snnk if self.up is None else self.up).bias is not None,
            "norm_before": self.norm_before,
            "norm_after": self.norm_after is not None,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        features, scale = FeatureMap.build(config.pop("features")), config.pop("scale")
        adapter = cls(num_features=features.num_features, features=features, **config)
        adapter._scale = scale
        return adapter

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return (
            f"in_features={self.width}, out_features={self.width}, "
            f"num_features={self.num_features}, up={self.gate is None}, "
            f"bottleneck={self.bottleneck}, norm_before={self.norm_before}"
        )
