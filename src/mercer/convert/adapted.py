"""What `adapt` returns: a model with adapters in it, and how they are saved and put back."""

import copy
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._core.saving import load_state, save_state
from ..nn.adapter import SNNKAdapter
from .adapter_places import stated_width
from .linear import computes_linear
from .placing import unfuse
from .running import check_model, check_numbers

CHILD = "snnk_adapter"  # under this name the adapter is a child of the module that it follows
_HANDLE = "_snnk_adapter_handle"
_CLASS = "convert.Adapted"


@dataclass(frozen=True)
class AdapterReport:
    """One adapter in a model.

    Attributes
    ----------
    name : str
        Name of the module that it follows.
    width : int
        Length of the vectors that it changes.
    num_features : int
        How many features it has.
    trainable, stored : int
        Numbers that train, and numbers kept: parameters and buffers.
    """

    name: str
    width: int
    num_features: int
    trainable: int
    stored: int


@dataclass(frozen=True)
class AdaptReport:
    """What `adapt` did.

    Attributes
    ----------
    adapters : tuple of AdapterReport
        The adapters, in the order of the model's modules.
    trained : tuple of str
        Names of the other parameters that train.
    trainable : int
        Numbers that train, in adapters and others.
    model_before : int
        Numbers in the model's own parameters.
    """

    adapters: tuple[AdapterReport, ...]
    trained: tuple[str, ...]
    trainable: int
    model_before: int

    def __str__(self) -> str:
        share = self.trainable / max(self.model_before, 1)
        lines = [
            f"{len(self.adapters)} adapters, {self.trainable:,} trained numbers, {share:.2%} of "
            f"the model's {self.model_before:,}"
        ]
        lines += [
            f"  {each.name}: width {each.width}, {each.num_features} features, "
            f"{each.trainable:,} trained of {each.stored:,}"
            for each in self.adapters
        ]
        lines += [f"  also {name}" for name in self.trained]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A model with adapters, of which nothing else trains but what was named.

    Attributes
    ----------
    model : Module
        The model.
    report : AdaptReport
        Where the adapters are, and how much trains.
    """

    model: nn.Module
    report: AdaptReport

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what training changes, and the adapters' frozen features, to a folder, atomically.

        Running statistics of batch normalisation are among it, since they move though no
        parameter of theirs trains. `load_adapters` puts all of it back into the original model.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing. It will hold ``config.json`` and
            ``model.safetensors``, no pickle.

        Raises
        ------
        ValueError
            If an adapter's activation has no name.
        """
        adapters = {each.name: adapter_of(self.model, each.name) for each in self.report.adapters}
        config = {
            "class": _CLASS,
            "adapters": {name: adapter.to_config() for name, adapter in adapters.items()},
            "report": asdict(self.report),
        }
        save_state(folder, config, _kept(self.model, self.report))


def _kept(model: nn.Module, report: AdaptReport) -> dict[str, Tensor]:
    """Return the tensors that differ from the original model's, by their names in the model."""
    inside = tuple(f"{each.name}.{CHILD}.".lstrip(".") for each in report.adapters)
    state = model.state_dict(keep_vars=True)
    kept = {name: t for name, t in state.items() if name.startswith(inside)}
    # Tied tensors have one name among the parameters; that one is saved.
    kept |= {name: t for name, t in model.named_parameters() if name in report.trained}
    for owner, module in model.named_modules():
        if getattr(module, "running_mean", None) is not None:
            buffers = module.named_buffers(owner, recurse=False)
            kept |= {name: t for name, t in buffers if name in state}
    return kept


def _apply(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Pass a module's output, or the first of several, through its adapter."""
    adapter = getattr(module, CHILD)
    if isinstance(output, Tensor):
        return adapter(output)
    if type(output) in (tuple, list) and output and isinstance(output[0], Tensor):
        return type(output)((adapter(output[0]), *output[1:]))
    raise TypeError(
        f"where: {type(module).__name__} returned a {type(output).__name__}; an adapter follows "
        "modules that return a tensor, or a tuple whose first item is one"
    )


def attach(model: nn.Module, name: str, adapter: SNNKAdapter) -> None:
    """Let an adapter follow the module of that name.

    The adapter becomes a child of the module and a forward hook calls it. So names and classes
    of what was there stay: checkpoints of the original load, and a parent that reads ``.weight``
    or ``.in_features`` finds them.
    """
    module = model.get_submodule(name)
    module.add_module(CHILD, adapter)
    # The handle is kept because torch numbers hooks by a count of the process: unpickled with
    # its handle, a hook raises that count, and no later hook takes its number.
    setattr(module, _HANDLE, module.register_forward_hook(_apply))
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer) and module in layer.modules():
            unfuse(model, layer)


def adapter_of(model: nn.Module, name: str) -> SNNKAdapter:
    """Return the adapter that follows the module of that name."""
    return model.get_submodule(f"{name}.{CHILD}".lstrip("."))  # pyright: ignore[reportReturnType]


def freeze_rest(model: nn.Module, names: Collection[str], trained: Collection[str]) -> AdaptReport:
    """Let the adapters and the named parameters train, nothing else; say what that makes."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = []
    for name in names:
        adapter = adapter_of(model, name)
        for parameter in adapter.parameters():
            parameter.requires_grad_(True)
        found.append(
            AdapterReport(
                name, adapter.width, adapter.num_features, adapter.num_trainable, adapter.num_stored
            )
        )
    own = sum(p.numel() for p in model.parameters())
    own -= sum(p.numel() for name in names for p in adapter_of(model, name).parameters())
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return AdaptReport(tuple(found), tuple(trained), trainable, own)


def gather(model: nn.Module) -> Adapted:
    """Describe a model with adapters again, as `adapt` did when it put them in."""
    names = tuple(name for name, module in model.named_modules() if hasattr(module, CHILD))
    inside = tuple(f"{name}.{CHILD}.".lstrip(".") for name in names)
    trained = tuple(
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(inside)
    )
    return Adapted(model, freeze_rest(model, names, trained))


@torch.no_grad()
def load_adapters(
    folder: str | os.PathLike[str], model: nn.Module, *, inplace: bool = False
) -> Adapted:
    """Put adapters that `Adapted.save_pretrained` wrote into the model that they were made for.

    Parameters
    ----------
    folder : str or path
        The folder.
    model : Module
        The original model, with the numbers it had when it was adapted.
    inplace : bool, default False
        Whether to change that model instead of a copy.

    Returns
    -------
    Adapted
        The model with its adapters, on the device, of the dtype and in the mode of ``model``.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved adapters.
    ValueError
        If it holds something else, or the model does not fit or is on the meta device.

    Examples
    --------
    >>> import tempfile, torch
    >>> from mercer.convert import adapt, load_adapters
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> adapted = adapt(net, where=["0"], num_features=16, train=["2"], generator=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adapted.save_pretrained(folder)
    ...     again = load_adapters(folder, net)
    >>> x = torch.randn(3, 4)
    >>> torch.equal(again.model(x), adapted.model(x))
    True
    """
    check_model(model)
    check_numbers(model)
    config, state = load_state(folder)
    if config.get("class") != _CLASS:
        raise ValueError(
            f"folder: {folder} holds a {config.get('class')}, not adapters of mercer.convert.adapt"
        )
    misfit = f"model: it does not fit the adapters in {folder}: "
    model = model if inplace else copy.deepcopy(model)
    trained = tuple(config["report"]["trained"])
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    adapters: dict[str, SNNKAdapter] = {}
    for name, description in config["adapters"].items():
        module = dict(model.named_modules()).get(name)
        if module is None:
            raise ValueError(f"{misfit}it has no module {name!r}")
        if hasattr(module, CHILD):
            raise ValueError(f"{misfit}{name!r} has an adapter already")
        adapters[name] = SNNKAdapter.build(description)
        width = None  # others may return another one than they say
        if computes_linear(module) or isinstance(module, nn.LayerNorm):
            width = stated_width(module)
        if width not in (None, adapters[name].width):
            raise ValueError(
                f"{misfit}{name!r} returns vectors of length {width}, the adapter after it takes "
                f"{adapters[name].width}"
            )
        start = f"{name}.{CHILD}.".lstrip(".")
        inside = {
            key.removeprefix(start): state.pop(key) for key in list(state) if key.startswith(start)
        }
        try:
            # Assigned, not copied: a buffer that is finer than the adapter's dtype stays so.
            adapters[name].load_state_dict(inside, assign=True)
        except RuntimeError as error:
            raise ValueError(f"folder: {folder} is damaged: {error}") from None
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            shape = tuple(own[name].shape) if name in own else "none"
            raise ValueError(f"{misfit}{name} has shape {tuple(tensor.shape)} there, here {shape}")
    # All of it fits: only now is anything changed.
    for name, adapter in adapters.items():
        device, dtype = device_and_dtype(model, name)
        adapter.to(device)
        if adapter.snnk.weight.dtype != dtype:
            adapter.to(dtype)
        attach(model, name, adapter.train(model.get_submodule(name).training))
    for name, tensor in state.items():
        own[name].copy_(tensor)
    return Adapted(model, freeze_rest(model, tuple(adapters), trained))


def device_and_dtype(model: nn.Module, name: str) -> tuple[torch.device, torch.dtype]:
    """Where an adapter after a module belongs: where that module's numbers are."""
    for owner in (model.get_submodule(name), model):
        for parameter in owner.parameters():
            if parameter.is_floating_point():  # quantised weights are not
                return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()
