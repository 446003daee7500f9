"""A module with named SNNK adapters on it, as PEFT keeps them."""

import warnings
from collections.abc import Sequence
from typing import Any, final

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .._core.counter import CounterGenerator
from .linear import sizes_of
from .peft_branch import make_branch, stream_of
from .peft_config import SNNKConfig
from .peft_plain import WithBranches, add_branches, first_tensor, forwarded, layer_input, with_first
from .peft_targets import output_width


@final
class SNNKLayer(nn.Module, BaseTunerLayer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A frozen module with named SNNK adapters after it or beside it; see `SNNKConfig`.

    Several active adapters add up.

    Parameters
    ----------
    base_layer : Module
        The targeted module.
    adapter_name : str
        Name of the first adapter.
    config : SNNKConfig
        Its settings.
    name : str
        The module's name in the model, from which the stream of the draws is found.
    """

    adapter_layer_names = ("mercer_snnk_branch", "mercer_snnk_down", "mercer_snnk_up")
    other_param_names = ()

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: SNNKConfig, name: str
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.mercer_snnk_branch = nn.ModuleDict()
        self.mercer_snnk_down = nn.ParameterDict()  # (rank, in) each: A
        self.mercer_snnk_up = nn.ParameterDict()  # (out, rank) each: B
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self._unmerged: Tensor | None = None
        self.update_layer(adapter_name, config, name)

    def update_layer(self, adapter_name: str, config: SNNKConfig, name: str) -> None:
        """Add an adapter, or replace the one of that name."""
        base = self.get_base_layer()
        if config.placement == "replacement":
            if not isinstance(base, nn.Linear | Conv1D):
                raise TypeError(
                    f"target_modules: placement='replacement' is for linear layers, {name!r} is a "
                    f"{type(base).__name__}; expected other modules, or placement='adapter'"
                )
            in_features, out_features = sizes_of(base)
        else:
            in_features = out_features = config.width or output_width(base, name)
        like, device = self._base_tensor(), self._base_device()
        wide = like is not None and like.dtype == torch.float64
        factory: dict[str, Any] = {
            "device": "cpu" if device is None or device.type == "meta" else device,
            "dtype": torch.float64 if wide else torch.float32,
        }
        branch = make_branch(config, name, in_features, out_features, factory)
        self.mercer_snnk_branch[adapter_name] = branch.train(self.training)
        if config.rank:
            source = CounterGenerator(config.seed, stream_of(f"{name}:linear"))
            down = (2 * source.uniform((config.rank, in_features)) - 1) / in_features**0.5
            up = torch.zeros(out_features, config.rank, **factory)
            self.mercer_snnk_down[adapter_name] = nn.Parameter(down.to(**factory))
            self.mercer_snnk_up[adapter_name] = nn.Parameter(up)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with its adapters."""
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(*args, **kwargs)
        output = self.base_layer(*args, **kwargs)
        names = [*self.merged_adapters, *self.active_adapters]
        names = [name for name in dict.fromkeys(names) if name in self.mercer_snnk_branch]
        if not names:
            return output
        y, call = first_tensor(output, self.base_layer), (args, kwargs)
        for name in names:
            if name in self.mercer_snnk_down and name not in self.merged_adapters:
                down, up = self.mercer_snnk_down[name], self.mercer_snnk_up[name]
                y = y + F.linear(F.linear(layer_input(call).to(down.dtype), down), up).to(y.dtype)
        return with_first(
            output, add_branches([self.mercer_snnk_branch[n] for n in names], y, call)
        )

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return what an adapter's linear part adds to the weight, in the weight's layout."""
        delta = self.mercer_snnk_up[adapter] @ self.mercer_snnk_down[adapter]  # (out, in)
        return delta.mT if isinstance(self.get_base_layer(), Conv1D) else delta

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the linear parts of adapters to the weight; their branches go on beside it.

        A copy of the weight is kept until `unmerge`, which is exact.
        """
        names = check_adapters_to_merge(self, adapter_names)
        names = [name for name in names if name in self.mercer_snnk_branch]
        for name in names:
            if name not in self.mercer_snnk_down:
                raise ValueError(
                    f"adapter_names: {name!r} has no linear part to merge into a weight; "
                    "merge_and_unload() makes it a part of the model, rank=... in a replacement's "
                    "config gives it one"
                )
        if not names:
            return
        weight: Any = self.get_base_layer().weight
        if not weight.is_floating_point():
            raise TypeError(
                f"target_modules: merging needs a floating-point weight, got {weight.dtype}"
            )
        merged = weight
        for name in names:
            merged = merged + self.get_delta_weight(name)
        merged = merged.to(weight.dtype)
        if safe_merge and not merged.isfinite().all():
            raise ValueError(f"adapter_names: NaNs detected in the weight with {names} merged")
        if self._unmerged is None:
            self._unmerged = weight.detach().clone()
        weight.copy_(merged)
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back as it was, bit by bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        weight: Any = self.get_base_layer().weight
        weight.copy_(self._unmerged)
        self.merged_adapters.clear()
        self._unmerged = None

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: Sequence[str] | None
    ) -> nn.Module:
        """Return the bare module, or one that computes the same as this without PEFT."""
        if not merge:
            if self.merged:
                self.unmerge()
            return self.base_layer
        asked = list(self.active_adapters if adapter_names is None else adapter_names)
        pending = [name for name in asked if name not in self.merged_adapters]
        linear = [name for name in pending if name in self.mercer_snnk_down]
        names = [*self.merged_adapters, *pending]
        kept = {n: self.mercer_snnk_branch[n] for n in names if n in self.mercer_snnk_branch}
        for name, branch in kept.items() if safe_merge else ():
            if not all(parameter.isfinite().all() for parameter in branch.parameters()):
                raise ValueError(f"adapter_names: NaNs detected in the branch of {name!r}")
        if linear:
            self.merge(safe_merge, linear)
        return WithBranches(self.base_layer, list(kept.values())) if kept else self.base_layer

    def cast_adapter(self, adapter_name: str, autocast: bool) -> None:
        """Give an adapter float32, or float64 beside such; with ``autocast=False`` the base's."""
        like = self._base_tensor()
        dtype = torch.float32 if like is None else like.dtype
        if autocast and dtype.itemsize < 4:
            dtype = torch.float32
        if adapter_name in self.mercer_snnk_branch:
            branch: Any = self.mercer_snnk_branch[adapter_name]
            if branch.snnk.weight.dtype != dtype:
                branch.to(dtype)
        for pairs in (self.mercer_snnk_down, self.mercer_snnk_up):
            if adapter_name in pairs:
                pairs[adapter_name].data = pairs[adapter_name].data.to(dtype)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Bring an adapter to a device; its dtype is the business of `cast_adapter`."""
        device = device or self._base_device()
        if device is None or device.type == "meta":
            return
        if adapter_name in self.mercer_snnk_branch:
            branch = self.mercer_snnk_branch[adapter_name]
            if not any(parameter.is_meta for parameter in branch.parameters()):
                branch.to(device)
        for pairs in (self.mercer_snnk_down, self.mercer_snnk_up):
            if adapter_name in pairs and not pairs[adapter_name].is_meta:
                pairs[adapter_name].data = pairs[adapter_name].data.to(device)

    def _base_tensor(self) -> Tensor | None:
        """Return a parameter whose dtype is that of the base module, unless all are quantised."""
        found = (p for p in self.get_base_layer().parameters() if p.is_floating_point())
        return next(found, None)

    def _base_device(self) -> torch.device | None:
        """Return where the base module's numbers are, if it has any."""
        first = next(self.get_base_layer().parameters(), None)
        return None if first is None else first.device

    def __getattr__(self, name: str) -> Any:
        """Look up in the wrapped module what is not here."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return forwarded(self, "base_layer", name)
