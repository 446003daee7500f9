"""Positive hyperparameters: stored as a logarithm, read and written as they are."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn


def read_positive(name: str, value: Any, *, least: float | None = None) -> Tensor:
    """Read a positive number, or several, as a float64 tensor on the value's device.

    Parameters
    ----------
    name : str
        The argument's name, for errors.
    value : float, sequence of floats or Tensor
        A scalar or a vector.
    least : float, optional
        Smallest value allowed; without it values must be above zero.

    Returns
    -------
    Tensor of shape () or (d,)
        The value in float64.

    Raises
    ------
    TypeError
        If it is not a number, nor a sequence or tensor of numbers.
    ValueError
        If it has more than one axis or no entry, or an entry is out of range or not finite.
    """
    if isinstance(value, bool | str):
        raise TypeError(f"{name}: expected a number or a vector of numbers, got {value!r}")
    if not isinstance(value, Tensor | Real | Sequence) and not hasattr(value, "__array__"):
        raise TypeError(
            f"{name}: expected a number or a vector of numbers, got {type(value).__name__}"
        )
    try:
        where = value.device if isinstance(value, Tensor) else "cpu"
        tensor = torch.as_tensor(value, dtype=torch.float64, device=where).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected numbers, got {value!r} ({error})") from None
    if tensor.ndim > 1 or tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected a number or a vector of numbers, got shape {tuple(tensor.shape)}"
        )
    if tensor.is_meta:
        return tensor
    low = tensor > 0 if least is None else tensor >= least
    if not bool((low & torch.isfinite(tensor)).all()):
        bound = "> 0" if least is None else f">= {least:g}"
        raise ValueError(f"{name}: expected finite numbers {bound}, got {tensor.tolist()}")
    return tensor


def register_positive(
    module: nn.Module,
    name: str,
    value: Any,
    *,
    least: float | None = None,
    scalar: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Give a module the parameter ``raw_<name>``, the logarithm of a positive value.

    The parameter is float64 unless a dtype is given: hyperparameters are a handful of numbers,
    and a float32 lengthscale would spoil float64 inputs from the eighth digit on.
    """
    tensor = read_positive(name, value, least=least)
    if scalar and tensor.ndim:
        raise ValueError(f"{name}: expected one number, got shape {tuple(tensor.shape)}")
    raw = tensor.log().to(device or torch.get_default_device(), dtype or torch.float64)
    module.register_parameter(f"raw_{name}", nn.Parameter(raw))


def positive(name: str, doc: str, *, least: float | None = None, scalar: bool = True) -> Any:
    """Make the property that reads and writes a parameter of `register_positive`."""
    raw_name = f"raw_{name}"

    def read(self: nn.Module) -> Tensor:
        return getattr(self, raw_name).exp()

    def write(self: nn.Module, value: Any) -> None:
        raw = getattr(self, raw_name)
        new = read_positive(name, value, least=least).log()
        if new.ndim and (scalar or (raw.ndim and new.shape != raw.shape)):
            wanted = f"shape {tuple(raw.shape)} or a number" if raw.ndim else "one number"
            raise ValueError(f"{name}: expected {wanted}, got shape {tuple(new.shape)}")
        with torch.no_grad():
            if new.ndim > raw.ndim:  # one number becomes one a dimension
                raw.data = new.to(raw)
            else:
                raw.copy_(new)
        if vars(self).get("_waits_for_data"):  # what was left to the data is set by hand
            vars(self)["_waits_for_data"] = False

    return property(read, write, doc=doc)


def plain_value(value: Tensor) -> float | list[float]:
    """Return a scalar tensor as a float, a vector as a list of floats."""
    return value.detach().cpu().double().tolist()
