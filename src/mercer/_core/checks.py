"""Input checks: errors name the argument, what came and what was expected."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .counter import RandomSource


def check_int(name: str, value: Any, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value}")
    return int(value)


def check_real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    """Return ``value`` as a finite float inside the given bounds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    number = float(value)
    bounds = [
        *([f"> {above:g}"] if above is not None else []),
        *([f">= {least:g}"] if least is not None else []),
        *([f"<= {most:g}"] if most is not None else []),
    ]
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (least is None or number >= least)
        and (most is None or number <= most)
    )
    if not inside:
        expected = " and ".join(["finite", *bounds])
        raise ValueError(f"{name}: expected a number that is {expected}, got {value!r}")
    return number


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {sorted(choices)}, got {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name}: expected one of {sorted(choices)}, got {value!r}")
    return value


def check_tensor(name: str, value: Any, *, ndim: int | None = None) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor with ``ndim`` axes."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {tuple(value.shape)}")
    return value


def check_last_dim(name: str, value: Tensor, size: int) -> None:
    """Raise unless a value is a floating-point tensor whose last axis has ``size`` entries."""
    check_tensor(name, value)
    if value.ndim == 0 or value.shape[-1] != size:
        raise ValueError(f"{name}: expected shape (..., {size}), got {tuple(value.shape)}")


def check_finite(name: str, value: Tensor) -> None:
    """Raise if a tensor holds NaN or infinity."""
    if value.is_meta:
        return
    bad = value.numel() - int(torch.isfinite(value).sum())
    if bad:
        raise ValueError(
            f"{name}: {bad} of {value.numel()} entries are NaN or infinite, "
            f"shape {tuple(value.shape)}"
        )


def check_materialized(owner: str, stored: Tensor, x: Tensor) -> None:
    """Raise if a module's numbers are still on the meta device while its input is not."""
    if stored.is_meta and not x.is_meta:
        raise RuntimeError(
            f"{owner}: built on the meta device and not set yet; call to_empty(device=...) and "
            "then reset_parameters() or load_state_dict(...) before use"
        )


def check_generator(generator: Any) -> RandomSource | None:
    """Return a source: the one given, one seeded by an integer, or None for torch's own."""
    if generator is None or isinstance(generator, RandomSource):
        return generator
    if isinstance(generator, Integral) and not isinstance(generator, bool):
        return torch.Generator().manual_seed(int(generator))
    raise TypeError(
        "generator: expected a torch.Generator, an integer seed, a CounterGenerator or None, "
        f"got {type(generator).__name__}"
    )
