"""Parameters of finite networks: how they are drawn, and what their gradients are scaled by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from .._core.checks import check_real
from .._core.counter import RandomSource
from .._core.random import draw_normal

Scales = float | Mapping[str, float]

DEFAULTS = {"w_std": 2**0.5, "b_std": 0.1}

_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORMS = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *_BATCH_NORMS,
)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Drawn:
    """One parameter of a module: its size, its standard deviation and its gradient's factor."""

    shape: torch.Size
    spread: float | None  # None: as the module was made
    factor: float


def read_scales(name: str, value: Any) -> Scales:
    """Check one number, or numbers by the names of layers; None stands for the default."""
    if value is None:
        return DEFAULTS[name]
    if isinstance(value, Mapping):
        return {str(key): check_real(f"{name}[{key!r}]", v, least=0.0) for key, v in value.items()}
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{name}: expected a number, or a mapping from names of layers to numbers, "
            f"got {type(value).__name__}"
        )
    return check_real(name, value, least=0.0)


def _of_layer(name: str, scales: Scales, layer: str) -> float:
    """Look a layer up, by its own name or that of the innermost module around it."""
    if not isinstance(scales, Mapping):
        return scales
    names = [key for key in scales if _contains(key, layer)]
    return scales[max(names, key=len)] if names else DEFAULTS[name]


def _contains(name: str, layer: str) -> bool:
    return not name or name == layer or layer.startswith(f"{name}.")


def _is_affine(owner: nn.Module, name: str) -> bool:
    if isinstance(owner, nn.MultiheadAttention):
        return name in (*_ATTENTION_WEIGHTS, "in_proj_bias")
    return isinstance(owner, _AFFINE)


def plan_draws(
    module: nn.Module, parametrization: str, w_std: Scales, b_std: Scales
) -> dict[str, Drawn]:
    """Say for each parameter of a module how it is drawn.

    A weight of an affine layer is normal with variance ``w_std^2 / fan_in``, a bias with variance
    ``b_std^2``; what norms learn stays as it was made. In the parametrisation of the neural
    tangent kernel, ``z = w_std / sqrt(fan_in) W a + b_std b`` with standard normal W and b, so
    that gradients are those of the drawn numbers times the same factors.
    """
    plan, layers = {}, set()
    for path, owner in module.named_modules():
        if isinstance(owner, _BATCH_NORMS) and owner.training:
            raise ValueError(
                f"module_factory: {path or type(owner).__name__} is a {type(owner).__name__} in "
                "training mode, which mixes the inputs of a batch: the network has no kernel; "
                "expected one in evaluation mode"
            )
        for name, parameter in owner.named_parameters(recurse=False):
            if parametrization == "torch" or isinstance(owner, _NORMS):
                spread, factor = None, 1.0
            elif not _is_affine(owner, name):
                raise ValueError(
                    f"module_factory: expected parameters of linear and convolutional layers, "
                    f"attention and norms, got {name!r} of {path or 'the network'} "
                    f"({type(owner).__name__}), for which the parametrization "
                    f'{parametrization!r} says nothing; use "torch"'
                )
            elif name.endswith("bias"):
                layers.add(path)
                spread = _of_layer("b_std", b_std, path)
                factor = spread
            else:
                layers.add(path)
                # channels / groups times the positions of a convolution
                fan_in = math.prod(parameter.shape[1:])
                spread = _of_layer("w_std", w_std, path) / math.sqrt(fan_in)
                factor = spread
            if parametrization != "ntk":
                factor = 1.0
            plan[f"{path}.{name}" if path else name] = Drawn(parameter.shape, spread, factor)
    for argument, scales in (("w_std", w_std), ("b_std", b_std)):
        names = scales if isinstance(scales, Mapping) else ()
        unknown = [name for name in names if not any(_contains(name, one) for one in layers)]
        if unknown:
            raise ValueError(
                f"{argument}: expected names of layers among {sorted(layers)}, or of modules that "
                f"contain them, got {unknown}"
            )
    # A parameter that two layers share is drawn once, under the name that torch gives it.
    return {name: plan[name] for name, _ in module.named_parameters()}


def draw_state(
    module: nn.Module, plan: Mapping[str, Drawn], source: RandomSource | None, like: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw the parameters of one network; also its buffers. The module stays as it is."""
    parameters = {}
    for name, parameter in module.named_parameters():
        spread = plan[name].spread
        value = (
            parameter.detach()
            if spread is None
            else spread * draw_normal(tuple(plan[name].shape), source)
        )
        parameters[name] = value.to(like)
    buffers = {
        name: buffer.detach().to(like if buffer.is_floating_point() else like.device, copy=True)
        for name, buffer in module.named_buffers()
    }
    return parameters, buffers
