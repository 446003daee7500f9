"""What learning curves are asked with: numbers, sequences of them and tensors, checked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._core.checks import check_finite, check_tensor

Numbers = float | Sequence[float] | Tensor


def columns(name: str, value: Tensor, rows: int) -> Tensor:
    """Return (rows, outputs) in float64."""
    check_tensor(name, value)
    if value.ndim not in (1, 2) or len(value) != rows:
        raise ValueError(
            f"{name}: expected shape ({rows},) or ({rows}, outputs), got {tuple(value.shape)}"
        )
    check_finite(name, value)
    return value.detach().double().reshape(rows, -1)


def numbers(name: str, value, *, above: float | None = None, least: float | None = None):
    """Return numbers in float64, checked against a bound."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected real numbers, got {type(value).__name__}") from error
    inside = numbers > above if above is not None else numbers >= (least or 0.0)
    if not numbers.numel() or not bool(inside.all()):
        bound = f"> {above:g}" if above is not None else f">= {least:g}"
        raise ValueError(f"{name}: expected numbers {bound}, got {shown(value)}")
    return numbers


def shown(value) -> str:
    """Show what came, not too long."""
    text = str(value.tolist() if isinstance(value, Tensor) else value)
    return text if len(text) <= 60 else text[:57] + "..."
