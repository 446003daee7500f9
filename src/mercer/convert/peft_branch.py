"""The nonlinear branches of PEFT adapters: how they are built and drawn."""

import hashlib
from typing import Any, final

from torch import Tensor, nn

from .._core.counter import CounterGenerator
from ..nn import SNNKAdapter
from ..nn.branch import SNNKBranch
from .peft_config import SNNKConfig


@final
class BesideLinear(SNNKBranch):
    r"""The branch beside a linear layer, whose outputs may be of another length than its inputs.

    .. math:: x \mapsto U \, \mathrm{SNNK}(N(x))
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to outputs of shape (..., out_features)."""
        return self.branch(x)


def stream_of(name: str) -> int:
    """Return the stream of draws that belongs to a module's name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def make_branch(
    config: SNNKConfig, name: str, in_features: int, out_features: int, factory: dict[str, Any]
) -> SNNKAdapter | BesideLinear:
    """Build the branch that a module of that name gets, with draws that belong to the name."""
    options: dict[str, Any] = {
        "num_features": config.num_features,
        "activation": config.activation,
        "up": config.up,
        "bottleneck": config.bottleneck,
        "features": config.features,
        "projection": config.projection,
        "norm_before": config.norm_before,
        "bias": config.branch_bias,
        "generator": CounterGenerator(config.seed, stream_of(name)),
        **factory,
    }
    if config.placement == "adapter":
        branch: SNNKAdapter | BesideLinear = SNNKAdapter(out_features, **options)
    else:
        branch = BesideLinear(in_features, out_features, **options)
    keep_features(branch, config.save_projection)
    return branch


def keep_features(branch: nn.Module, saved: bool) -> None:
    """Say whether a branch's frozen features are in its state dict."""
    for module in branch.get_submodule("snnk.features").modules():
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(leaf, buffer, persistent=saved)
