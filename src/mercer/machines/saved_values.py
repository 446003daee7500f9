"""What a fitted estimator holds, as JSON beside named tensors, and back: no pickle."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.saving import Saveable

_KIND = "kind"  # marks a dictionary that stands for something else


def name_of(kind: type) -> str:
    """Return where a class of Mercer's is found, such as ``machines.kernel_pca:KernelPCA``."""
    return f"{kind.__module__.removeprefix('mercer.')}:{kind.__qualname__}"


def class_of(name: Any) -> type:
    """Find a class of Mercer's by what `name_of` wrote.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    module, _, kind = str(name).partition(":")
    try:
        found = getattr(importlib.import_module(f"mercer.{module}"), kind)
    except (ImportError, AttributeError, TypeError, ValueError):
        raise ValueError(f"config: Mercer has no {name!r}; it may be of a newer version") from None
    if not isinstance(found, type) or name_of(found) != name:
        raise ValueError(f"config: {name!r} is no class of Mercer's")
    return found


def encode(
    value: Any,
    path: str,
    tensors: dict[str, Tensor],
    other: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Turn a value into what JSON can hold; its arrays and tensors go to a dictionary.

    Parameters
    ----------
    value : object
        A number, text, None, list, tuple, dictionary, array (also of texts), tensor, dtype or
        device, kernel or feature map, `numpy.random.RandomState`, or a dataclass of Mercer's.
    path : str
        The name under which tensors are kept, such as ``dual_coef_``.
    tensors : dict of str to Tensor
        Where tensors go.
    other : callable, optional
        ``other(value, path)`` encodes what is none of these, or returns None.

    Returns
    -------
    object
        What `decode` reads.

    Raises
    ------
    TypeError
        If there is no rule for the value; the text names its path.
    """

    def inner(part: Any, name: Any) -> Any:
        return encode(part, f"{path}.{name}", tensors, other)

    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return {_KIND: "scalar", "dtype": value.dtype.str, "value": value.item()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf" and value.dtype.isnative and value.dtype.itemsize <= 8:
            tensors[path] = torch.from_numpy(np.array(value))  # its own, writeable and contiguous
            return {_KIND: "array", "key": path}
        items = [inner(item, i) for i, item in enumerate(value.ravel().tolist())]
        return {_KIND: "texts", "dtype": value.dtype.str, "shape": value.shape, "items": items}
    if isinstance(value, Tensor):
        tensors[path] = value
        return {_KIND: "tensor", "key": path}
    if isinstance(value, torch.dtype | torch.device):
        return {_KIND: type(value).__name__, "value": str(value).removeprefix("torch.")}
    if isinstance(value, Saveable):
        state = value.state_dict()
        tensors |= {f"{path}.{name}": tensor for name, tensor in state.items()}
        trains = any(p.requires_grad for p in value.parameters())
        names = list(state)
        return {_KIND: "module", "key": path, "names": names, "trains": trains} | {
            "config": value.to_config()
        }
    if isinstance(value, list):
        return [inner(item, i) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": [inner(item, i) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        items = [[inner(k, f"{i}.key"), inner(v, i)] for i, (k, v) in enumerate(value.items())]
        return {_KIND: "dict", "items": items}
    if isinstance(value, np.random.RandomState):
        state = value.get_state(legacy=False)
        return {_KIND: "random_state", "state": inner(state, "state")}
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("mercer."):
        fields = {f.name: inner(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
        return {_KIND: "record", "class": name_of(type(value)), "fields": fields}
    found = None if other is None else other(value, path)
    if found is None:
        raise TypeError(
            f"{path}: expected numbers, texts, arrays, tensors, kernels or containers of them, "
            f"which can be saved without pickle, got {type(value).__module__}."
            f"{type(value).__qualname__}"
        )
    return found


def decode(
    value: Any,
    tensors: dict[str, Tensor],
    other: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:
    """Make what `encode` turned into JSON.

    Parameters
    ----------
    value : object
        What `encode` returned.
    tensors : dict of str to Tensor
        The tensors that it named.
    other : callable, optional
        ``other(value)`` decodes what the callable of `encode` wrote.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError
        If something in it is unknown, or a tensor is missing.
    """

    def inner(part: Any) -> Any:
        return decode(part, tensors, other)

    def tensor(key: str) -> Tensor:
        if key not in tensors:
            raise ValueError(f"config: the weights file holds no {key!r}")
        return tensors[key]

    if isinstance(value, list):
        return [inner(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(_KIND):
        case "scalar":
            return np.dtype(value["dtype"]).type(value["value"])
        case "array":
            return tensor(value["key"]).numpy()
        case "texts":
            found = np.empty(len(value["items"]), dtype=value["dtype"])
            for i, item in enumerate(value["items"]):  # one by one, as an item may be a list
                found[i] = inner(item)
            return found.reshape(value["shape"])
        case "tensor":
            return tensor(value["key"])
        case "dtype":
            found = getattr(torch, value["value"], None)
            if not isinstance(found, torch.dtype):
                raise ValueError(f"config: {value['value']!r} is no dtype of torch")
            return found
        case "device":
            return torch.device(value["value"])
        case "module":
            module = Saveable.build(value["config"])
            state = {name: tensor(f"{value['key']}.{name}") for name in value["names"]}
            module.load_state_dict(state, assign=True)
            return module.requires_grad_(value["trains"]).eval()
        case "tuple":
            return tuple(inner(item) for item in value["items"])
        case "dict":
            return {inner(key): inner(item) for key, item in value["items"]}
        case "random_state":
            made = np.random.RandomState()
            made.set_state(inner(value["state"]))
            return made
        case "record":
            kind = class_of(value["class"])
            if not dataclasses.is_dataclass(kind):
                raise ValueError(f"config: {value['class']!r} is no record of Mercer's")
            return kind(**{name: inner(field) for name, field in value["fields"].items()})
    found = None if other is None else other(value)
    if found is None:
        raise ValueError(f"config: expected a known kind of value, got {value.get(_KIND)!r}")
    return found
