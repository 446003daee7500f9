"""The tuner that puts SNNK adapters into a model for PEFT."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from .peft_config import SNNKConfig
from .peft_layer import SNNKLayer
from .peft_registration import PREFIX
from .peft_targets import default_targets
from .placing import fused_paths


@final
class SNNKModel(BaseTuner):
    """A model with SNNK adapters; made by ``peft.get_peft_model(model, SNNKConfig(...))``.

    Parameters
    ----------
    model : Module
        Any module; changed in place.
    config : SNNKConfig or dict
        Settings, or a dictionary of them by adapter name.
    adapter_name : str
        Name of the adapter.
    low_cpu_mem_usage : bool, default False
        Whether adapters start on the meta device, to be loaded.
    """

    prefix: str = PREFIX
    tuner_layer_cls = SNNKLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}  # see `_prepare_adapter_config`

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        """Put an adapter into a model, and keep torch from paths that would pass it by."""
        config: Any = self.peft_config[adapter_name]
        config.forget_draws()
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        paths = fused_paths(model)
        if "_fused" not in vars(self):
            self._fused = paths
        for module, attribute, value in paths:
            if any(isinstance(inner, SNNKLayer) for inner in module.modules()):
                setattr(module, attribute, type(value)(0))

    def unload(self) -> nn.Module:
        """Return the base model as it was."""
        model = super().unload()
        for module, attribute, value in self._fused:
            setattr(module, attribute, value)
        return model

    def _prepare_adapter_config(
        self, peft_config: SNNKConfig, model_config: dict[str, Any]
    ) -> SNNKConfig:
        """Find the targets where none are given."""
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(  # pyright: ignore
                peft_config.placement, model_config.get("model_type")
            )
        return peft_config

    def _prepare_model(self, peft_config: SNNKConfig, model: nn.Module) -> None:
        """Refuse targets one inside the other: the inner one would be out of reach."""
        if str(peft_config.target_modules).lower() == "all-linear":
            return  # leaves only
        found: list[str] = []
        for name, _ in model.named_modules():
            outer = next((each for each in found if name.startswith(f"{each}.")), None)
            if outer is None or isinstance(model.get_submodule(outer), BaseTunerLayer):
                if name and self._check_target_module_exists(peft_config, name):
                    found.append(name)
            elif self._check_target_module_exists(peft_config, name):
                raise ValueError(
                    f"target_modules: {name!r} is inside {outer!r}, which is a target too; "
                    "expected targets apart from one another"
                )

    def _create_and_replace(
        self,
        peft_config: SNNKConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        """Put an adapter on one module."""
        name = re.sub(r"(^|\.)_orig_mod\.", r"\1", current_key)  # what torch.compile put in
        if isinstance(parent, nn.MultiheadAttention):
            raise ValueError(
                f"target_modules: {name!r} is a part of an nn.MultiheadAttention, which reads its "
                f"weight and does not call it; expected {name.rpartition('.')[0]!r}, or this name "
                "in exclude_modules"
            )
        peft_config.note_draw(name)
        if isinstance(target, SNNKLayer):
            target.update_layer(adapter_name, peft_config, name)
            return
        layer = SNNKLayer(target, adapter_name, peft_config, name)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Put a module in another's place; branches are made where they belong."""
        setattr(parent, child_name, new_module)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Give an adapter, features and all, the dtype in which it computes."""
        for module in self.model.modules():
            if isinstance(module, SNNKLayer):
                module.cast_adapter(adapter_name, autocast_adapter_dtype)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Return a tensor's name in files, where adapters have none."""
        head, found, tail = key.rpartition(f".{PREFIX}branch.{adapter_name}.")
        if found:
            return f"{head}.{PREFIX}branch.{tail}"
        return super()._remove_adapter_name_from_key(key, adapter_name)

    @contextmanager
    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> Iterator[None]:
        """Refuse batches in which each row names its adapter."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "adapter_names: SNNK adapters work on whole batches; expected no adapter_names, "
                "and set_adapter(name) before the call"
            )
        yield
