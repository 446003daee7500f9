"""Contexts and questions about how a computation runs: autocast, transforms, dtypes."""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make a context in which autocast leaves the matrix products of a device alone."""
    if x.is_meta:  # autocast does not know that device
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32 for half precisions, else the same."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def is_plain(*tensors: Tensor) -> bool:
    """Whether tensors hold numbers that may be looked at and written to in place.

    False while a function is traced, compiled or transformed (vmap, jvp, fake tensors, meta).
    """
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level >= 0:
        return False
    if torch.jit.is_tracing():  # what is written in place would be taken for a constant  # pyright: ignore
        return False
    return all(
        type(t) in (Tensor, torch.nn.Parameter)
        and not t.is_meta
        and not is_functorch_wrapped_tensor(t)
        for t in tensors
    )
