"""What SNNK adapters share: a branch of frozen features that is zero until it is trained."""

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import check_generator, check_int, check_last_dim, check_real
from .._core.counter import RandomSource
from ..features.base import FeatureMap
from .layer_features import check_sizes, draw_features
from .snnk import SNNK


class SNNKBranch(nn.Module, abc.ABC):
    r"""A branch with few trained numbers, zero until they are trained.

    .. math:: B(x) = U \, \mathrm{SNNK}(N(x)) \;\text{ or }\; g \odot \mathrm{SNNK}(N(x))

    Abstract: what a branch is added to is the subclass's business. `SNNKAdapter` says what the
    arguments mean.
    """

    gate: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_features: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "gelu",
        *,
        up: bool = True,
        bottleneck: int | None = None,
        features: str | FeatureMap = "neuron",
        projection: str = "orthogonal",
        norm_before: bool = True,
        bias: bool = True,
        scale: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: RandomSource | int | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int("in_features", in_features)
        self.out_features = check_int("out_features", out_features)
        self.num_features = check_int("num_features", num_features)
        self.bottleneck = None if bottleneck is None else check_int("bottleneck", bottleneck)
        if bottleneck is not None and not up:
            raise ValueError(
                f"bottleneck: without an up-projection the SNNK has {out_features} outputs, "
                f"got bottleneck={bottleneck} with up=False"
            )
        self.activation = resolve_activation(activation)
        generator = check_generator(generator)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        if scale is None:
            # A normalised input has norm sqrt(d).
            usual = features == "universal" if isinstance(features, str) else False
            self.scale = in_features**-0.5 if usual and norm_before else 1.0
        else:
            self.scale = check_real("scale", scale, above=0)
        if not isinstance(features, FeatureMap):
            features = draw_features(
                features,
                self.activation,
                in_features,
                num_features,
                norms=(1.0, 3**-0.5),
                bias=True,
                projection=projection,
                generator=generator,
                **factory,
            )
        self.snnk = SNNK(
            in_features,
            out_features if bottleneck is None else bottleneck,
            self.activation,
            num_features=num_features,
            features=check_sizes(features, in_features, num_features),
            affine=False,
            bias=bias and bottleneck is None,
            generator=generator,
            **factory,
        )
        # On the meta device nothing is drawn: the draws of nn.Linear would be torch's own.
        self.up = None
        if bottleneck is not None:
            empty = nn.Linear(bottleneck, out_features, bias=bool(bias), device="meta", dtype=dtype)
            self.up = empty.to_empty(device=self.snnk.weight.device)
        self.gate = None if up else nn.Parameter(torch.empty(out_features, **factory))
        self.norm_before = bool(norm_before)
        self._start_at_zero()

    @torch.no_grad()
    def _start_at_zero(self) -> None:
        """Zero what ends the branch; the features and what comes before it are as drawn."""
        if self.gate is not None:
            self.gate.zero_()
            return
        last = self.snnk if self.up is None else self.up
        last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()

    def _reset_branch(self, generator: RandomSource | int | None) -> None:
        """Redraw features and weights; on the meta device nothing is drawn."""
        self.snnk.reset_parameters(generator)
        self._start_at_zero()

    def branch(self, x: Tensor) -> Tensor:
        """Compute the branch.

        Parameters
        ----------
        x : Tensor of shape (..., in_features)
            Inputs.

        Returns
        -------
        Tensor of shape (..., out_features)
            The branch's outputs, in the dtype of the inputs.
        """
        check_last_dim("x", x, self.in_features)
        z = F.layer_norm(x, (self.in_features,)) if self.norm_before else x
        z = self.snnk(z if self.scale == 1.0 else z * self.scale)  # (..., bottleneck or out)
        if self.up is not None:
            z = self.up(z)  # (..., out)
        if self.gate is not None:
            z = self.gate * z
        return z.to(x.dtype)  # autocast must not change what is added to the residual stream

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to outputs of shape (..., out_features)."""

    @property
    def num_trainable(self) -> int:
        """How many numbers train: entries of parameters that require a gradient."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def num_stored(self) -> int:
        """How many numbers are kept: entries of all parameters and buffers."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))
