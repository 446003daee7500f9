"""What every probe must do: measure a model, and leave everything as it was."""

import abc
import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Describe all that a probe could change in a model; tensors by identity and by value."""
    found: dict[str, Any] = {"names": [name for name, _ in model.named_modules()]}
    for path, module in model.named_modules():
        found[f"{path}/mode"] = module.training
        found[f"{path}/kind"] = type(module)
        for kind in _HOOKS:
            found[f"{path}/{kind}"] = list(getattr(module, kind).items())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        found[f"{name}/identity"] = (id(tensor), tensor.data_ptr(), tensor._version)
        found[f"{name}/value"] = tensor.detach().clone()
        found[f"{name}/trains"] = tensor.requires_grad
        found[f"{name}/gradient"] = None if tensor.grad is None else tensor.grad.clone()
        found[f"{name}/gradient of"] = id(tensor.grad)
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what is not as it was."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and a == b

    names = before.keys() | after.keys()
    return sorted(name for name in names if not same(before.get(name), after.get(name)))


def numbers(result: Any) -> dict[str, Tensor]:
    """Return the tensors among the fields of a result."""
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


class ProbeContract(abc.ABC):
    """Tests that every probe passes: `model` makes what is probed, `probe` probes it.

    Attributes
    ----------
    random : bool
        Whether the probe draws; then it takes a generator and reports standard errors, in fields
        named after the estimates with ``_error`` at the end.
    """

    random: bool = True

    @abc.abstractmethod
    def model(self) -> nn.Module:
        """Build a module, with several submodules where the probe can take them."""

    @abc.abstractmethod
    def probe(self, model: nn.Module, generator: Any) -> Any:
        """Probe it; the result is what is tested."""

    def prepared(self) -> nn.Module:
        """Build the module in a state that a careless probe would disturb."""
        model = self.model()
        modules = list(model.modules())
        modules[-1].eval()  # modes differ
        modules[-1].register_forward_hook(lambda *_: None)
        parameters = list(model.parameters())
        for parameter in parameters[1:]:
            parameter.grad = torch.ones_like(parameter)
        parameters[0].requires_grad_(False)
        return model

    def test_model_is_left_alone(self):
        model = self.prepared()
        before = snapshot(model)
        self.probe(model, 0)
        assert differences(before, snapshot(model)) == []

    def test_gradient_mode_and_default_dtype_are_left_alone(self):
        state = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        self.probe(self.prepared(), 0)
        assert state == (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )
        assert deterministic == torch.are_deterministic_algorithms_enabled()

    def test_global_random_state_is_left_alone(self, global_state_unchanged):
        state = torch.get_rng_state()
        model = self.model()
        torch.set_rng_state(state)
        self.probe(model, 0)

    def test_a_seed_repeats_the_numbers(self):
        model = self.model()
        first, second = (numbers(self.probe(model, 7)) for _ in range(2))
        assert first and first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
        if self.random:
            other = numbers(self.probe(model, torch.Generator().manual_seed(8)))
            assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_result_is_a_frozen_dataclass_of_numbers(self):
        result = self.probe(self.model(), 0)
        assert dataclasses.is_dataclass(result)
        field = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, None)
        assert copy.deepcopy(result) is not result
        for name, value in numbers(result).items():
            assert not value.requires_grad, name
            assert torch.isfinite(value).all(), name

    def test_standard_errors_stand_beside_estimates(self):
        found = numbers(self.probe(self.model(), 0))
        errors = {name for name in found if name.endswith("_error")}
        assert bool(errors) == self.random
        for name in errors:
            assert found[name].shape == found[name.removesuffix("_error")].shape
            assert (found[name] >= 0).all() and found[name].any()

    def test_plot_draws_on_given_axes_and_makes_its_own(self):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        result = self.probe(self.model(), 0)
        figure, ax = plt.subplots()
        opened = plt.get_fignums()
        assert result.plot(ax) is ax
        assert plt.get_fignums() == opened, "a figure was opened beside the one given"
        assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel()
        figure.canvas.draw()  # what is drawn only then can fail too
        own = result.plot()
        assert own is not ax and own.get_title() == ax.get_title()
        plt.close("all")
