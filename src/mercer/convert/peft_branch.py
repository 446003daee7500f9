"""The nonlinear branches of PEFT adapters: how they are built and drawn."""

import hashlib
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.counter import CounterGenerator
from ..nn import SNNK, SNNKAdapter
from ..nn.layer_features import draw_features
from .peft_config import SNNKConfig


@final
class SNNKBranch(nn.Module):
    r"""The branch of an `SNNKAdapter` for outputs of another length than the inputs.

    .. math:: x \mapsto U \, \mathrm{SNNK}(N(x))

    Parameters
    ----------
    in_features, out_features : int
        Lengths of an input and of an output vector.
    config : SNNKConfig
        The other sizes and options.
    factory : dict
        The device and the dtype.
    generator : CounterGenerator
        Source of the draws.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: SNNKConfig,
        factory: dict[str, Any],
        generator: CounterGenerator,
    ) -> None:
        super().__init__()
        self.in_features, self.norm_before = in_features, config.norm_before
        rank, bias = config.bottleneck, config.branch_bias
        universal = config.features == "universal" and config.norm_before
        self._scale = in_features**-0.5 if universal else 1.0  # to norms of about one
        self.snnk = SNNK(
            in_features,
            out_features if rank is None else rank,
            config.activation,
            num_features=config.num_features,
            features=draw_features(
                config.features,
                resolve_activation(config.activation),
                in_features,
                config.num_features,
                norms=(1.0, 3**-0.5),
                bias=True,
                projection=config.projection,
                generator=generator,
                **factory,
            ),
            affine=False,
            bias=bias and rank is None,
            generator=generator,
            **factory,
        )
        self.up = None if rank is None else nn.Linear(rank, out_features, bias=bias, **factory)
        self.gate = None if config.up else nn.Parameter(torch.zeros(out_features, **factory))
        with torch.no_grad():  # what ends the branch starts at zero
            ends = self.snnk if self.up is None else self.up
            for parameter in (ends.weight, ends.bias) if config.up else ():
                if parameter is not None:
                    parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to outputs of shape (..., out_features)."""
        x = F.layer_norm(x, (self.in_features,)) if self.norm_before else x
        z = self.snnk(x * self._scale)  # (..., bottleneck or out)
        if self.up is not None:
            z = self.up(z)  # (..., out)
        return z if self.gate is None else self.gate * z


def stream_of(name: str) -> int:
    """Return the stream of draws that belongs to a module's name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def make_branch(
    config: SNNKConfig, name: str, in_features: int, out_features: int, factory: dict[str, Any]
) -> SNNKAdapter | SNNKBranch:
    """Build the branch that a module of that name gets, with draws that belong to the name."""
    generator = CounterGenerator(config.seed, stream_of(name))
    if config.placement == "adapter":
        branch: SNNKAdapter | SNNKBranch = SNNKAdapter(
            out_features,
            config.num_features,
            config.activation,
            up=config.up,
            bottleneck=config.bottleneck,
            features=config.features,
            projection=config.projection,
            norm_before=config.norm_before,
            bias=config.branch_bias,
            generator=generator,
            **factory,
        )
    else:
        branch = SNNKBranch(in_features, out_features, config, factory, generator)
    keep_features(branch, config.save_projection)
    return branch


def keep_features(branch: nn.Module, saved: bool) -> None:
    """Say whether a branch's frozen features are in its state dict."""
    for module in branch.get_submodule("snnk.features").modules():
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(leaf, buffer, persistent=saved)
