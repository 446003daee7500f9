"""Modules with SNNK branches on them, without PEFT: what ``merge_and_unload()`` leaves."""

from collections.abc import Iterable
from typing import Any, final

from torch import Tensor, nn

from .._core.checks import check_last_dim
from ..nn import SNNKAdapter
from .peft_branch import BesideLinear, keep_features

Call = tuple[tuple[Any, ...], dict[str, Any]]


def first_tensor(output: Any, base: nn.Module) -> Tensor:
    """Return the tensor that a module's output is or begins with."""
    y = output[0] if isinstance(output, tuple) and output else output
    if isinstance(y, Tensor) and y.is_floating_point():
        return y
    raise TypeError(
        "target_modules: an adapter follows a module that returns a floating-point tensor, or a "
        f"tuple that begins with one; {type(base).__name__} returned {type(output).__name__}"
    )


def with_first(output: Any, y: Tensor) -> Any:
    """Put another tensor in the place of the one that an output is or begins with."""
    if not isinstance(output, tuple):
        return y
    if hasattr(output, "_fields"):
        return type(output)(y, *output[1:])
    return (y, *output[1:])


def layer_input(call: Call) -> Tensor:
    """Return what a linear layer was called on, whatever it was called by."""
    return call[0][0] if call[0] else next(iter(call[1].values()))


def add_branches(branches: Iterable[nn.Module], h: Tensor, call: Call) -> Tensor:
    """Add branches of a layer's input, and then those of what has become its output.

    Branches compute in the dtype of their own weights. Several of one kind see the same tensor,
    so that their order does not matter.
    """
    dtype, after = h.dtype, []
    for branch in branches:
        if isinstance(branch, BesideLinear):
            h = h + branch(layer_input(call).to(branch.snnk.weight.dtype)).to(dtype)
        elif isinstance(branch, SNNKAdapter):
            check_last_dim("width (the targeted module's output)", h, branch.width)
            after.append(branch)
    if not after:
        return h
    wide = h.to(after[0].snnk.weight.dtype)
    total = after[0].branch(wide)
    for branch in after[1:]:
        total = total + branch.branch(wide.to(branch.snnk.weight.dtype)).to(total.dtype)
    return (wide + total).to(dtype)


def forwarded(wrapper: nn.Module, base: str, name: str) -> Any:
    """Look an attribute up in the wrapped module, as models do that read ``layer.weight``."""
    inner = wrapper.__dict__.get("_modules", {}).get(base)
    if inner is None or name == "_hf_hook":  # a hook of the module inside is its own business
        raise AttributeError(f"{type(wrapper).__name__!r} object has no attribute {name!r}")
    return getattr(inner, name)


@final
class WithBranches(nn.Module):
    """A module with SNNK branches that PEFT has let go: what ``merge_and_unload()`` leaves.

    Parameters
    ----------
    base : Module
        The module.
    branches : list of Module
        What is added to its output.
    """

    def __init__(self, base: nn.Module, branches: list[nn.Module]) -> None:
        super().__init__()
        self.base = base
        self.branches = nn.ModuleList(branches)
        for branch in branches:
            keep_features(branch, True)
        self.train(base.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module and add the branches."""
        output = self.base(*args, **kwargs)
        y = add_branches(self.branches, first_tensor(output, self.base), (args, kwargs))
        return with_first(output, y)

    def __getattr__(self, name: str) -> Any:
        """Look up in the wrapped module what is not here."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return forwarded(self, "base", name)
