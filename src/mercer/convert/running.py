"""Run a model to see what reaches a place in it, leaving everything as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._core.checks import check_finite
from .calibration import Batch, Calibration
from .observe import Block


def check_model(model: Any) -> nn.Module:
    """Return ``model`` if it is a module whose submodules run when it is called."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if (
            hasattr(module, "_orig_mod")
            or getattr(module, "_compiled_call_impl", None) is not None
            or isinstance(module, torch.jit.ScriptModule)
        ):
            raise ValueError(
                "model: it is compiled, which hides its layers; pass it as it was before "
                "torch.compile or torch.jit and compile the result"
            )
    return model


def check_numbers(model: nn.Module) -> None:
    """Raise where a model, or a part of it, is on the meta device."""
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("model: it is on the meta device and holds no numbers; load them first")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, unfused and without gradients, then put every mode back.

    A module that was placed meanwhile gets the mode of what was there before.
    """
    modes = {module: module.training for module in model.modules()}
    by_name = {name: module.training for name, module in model.named_modules()}
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
        for name, module in model.named_modules():  # a parent comes before its children
            if module not in modes:
                parent = model.get_submodule(name.rpartition(".")[0])
                module.training = by_name.get(name, parent.training)


class _Reached(Exception):  # noqa: N818 - not an error: the rest of the forward is not needed
    pass


@dataclass(frozen=True)
class Reached:
    """What one call of a block saw, as rows that count.

    Attributes
    ----------
    x : Tensor of shape (n, in_features)
        Its input.
    hidden : Tensor of shape (n, hidden_features)
        What its second layer was called with.
    y : Tensor of shape (n, out_features)
        Its output.
    held_out : Tensor of shape (n,)
        True for rows that are not fitted to.
    """

    x: Tensor
    hidden: Tensor
    y: Tensor
    held_out: Tensor


def reaching(
    model: nn.Module, block: Block, batch: Batch, calibration: Calibration
) -> list[Reached]:
    """Run the model up to a block; return what its calls saw."""
    inputs: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    # Copies, because what runs later may work in place.
    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0].clone())

    def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.append((inputs[-1], args[0].clone(), output.clone()))
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
    return [_rows(model, block, batch, calibration, *tensors) for tensors in seen]


def _rows(
    model: nn.Module,
    block: Block,
    batch: Batch,
    calibration: Calibration,
    x: Tensor,
    hidden: Tensor,
    y: Tensor,
) -> Reached:
    (x, held_out), (hidden, _), (y, _) = (
        calibration.rows(batch, tensor, model, block.name) for tensor in (x, hidden, y)
    )
    for tensor in (x, y):
        check_finite(f"calibrate: an activation at block {block.name!r}", tensor)
    return Reached(x, hidden, y, held_out)
