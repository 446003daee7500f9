"""Callables that tracers see as one step, by the protocol of torch's own functions."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def overridable(call: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Let tensor-like arguments take over a call, as `torch.fx` does while it traces.

    Parameters
    ----------
    call : callable
        The method ``__call__`` of an activation.

    Returns
    -------
    callable
        The same for tensors; a step of the graph for what stands in for one.
    """

    @functools.wraps(call)
    def run(self: Any, z: Tensor) -> Tensor:
        if has_torch_function_unary(z):
            return handle_torch_function(self, (z,), z)  # pyright: ignore[reportArgumentType]
        return call(self, z)

    return run
