"""Run a model to see what reaches a place in it, leaving everything as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from .._core.checks import check_finite
from .calibration import Batch
from .observe import Block


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, unfused and without gradients, then put every mode back."""
    modes = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer calls no submodule
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode


class _Reached(Exception):  # noqa: N818 - not an error: the rest of the forward is not needed
    pass


def reaching(model: nn.Module, block: Block, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Run the model up to a block; return its input, hidden neurons and output, for each call."""
    inputs: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        for tensor in (inputs[-1], output):
            if not bool(tensor.sum().isfinite()):
                check_finite(f"calibrate: an activation at block {block.name!r}", tensor)
        seen.append((inputs[-1], args[0], output))
        if len(seen) == block.calls:
            raise _Reached

    hooks = (
        model.get_submodule(block.first).register_forward_pre_hook(enter),
        model.get_submodule(block.second).register_forward_hook(leave),
    )
    try:
        with suppress(_Reached):
            batch.call(model)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
