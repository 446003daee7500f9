"""Find where feed-forward blocks and attentions end, by watching one forward pass.

Nothing is read from names. Every tensor is remembered by what it came from: a linear layer, an
activation of one, attention weights, or a product with such weights. A linear layer that is
called on the last ends an attention; one that is called on an activation, and leads back to the
width that the block started from, ends a feed-forward block. Gated blocks are found too, where
an activation multiplies another linear layer's output.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import Tag, Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from .calibration import Batch
from .linear import computes_linear, sizes_of
from .running import evaluating

_SOFTMAX = {"_softmax", "_safe_softmax"}
_PRODUCTS = {"bmm", "baddbmm", "mm", "matmul"}
_FUSED = "_scaled_dot_product"
# These move numbers, or are pointwise though torch does not tag them so.
_PASS = {
    *("_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "detach", "expand", "permute"),
    *("reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
    *("unbind", "unsqueeze", "view"),
}
_AFFINE = {"add", "add_", "sub", "mul", "mul_", "div", "div_", "neg", "where", "masked_fill"}
_ACTIVATIONS = {"_prelu_kernel", "gelu_", "hardswish", "hardswish_", "mish_", "threshold_"}


class _Kind(IntEnum):
    """What a tensor came from; where several meet, the greatest counts."""

    LINEAR = 0
    ACTIVATED = 1
    WEIGHTS = 2  # of attention
    ATTENDED = 3


@dataclass(frozen=True)
class _Mark:
    kind: _Kind
    width: int  # of what the linear layer was called with


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.marks: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.inside = 0  # how many watched modules are running
        self.ffn: set[str] = set()
        self.attention: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_flatten((args, kwargs))[0]
        # Looked up before the call, which may work in place.
        found = [self.marks[t] for t in leaves if isinstance(t, Tensor) and t in self.marks]
        out = func(*args, **kwargs)
        if not self.inside:
            mark = _after(func, found)
            for tensor in tree_flatten(out)[0] if mark is not None else ():
                if isinstance(tensor, Tensor):
                    self.marks[tensor] = mark
        return out

    def enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.inside += 1
            if isinstance(module, nn.MultiheadAttention):
                self.attention.add(name)
                return
            mark = self.marks.get(args[0]) if args else None
            if mark is None:
                return
            if mark.kind is _Kind.ATTENDED:
                self.attention.add(name)
            elif mark.kind is _Kind.ACTIVATED and mark.width == sizes_of(module)[1]:
                self.ffn.add(name)

        return hook

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.inside -= 1
        if computes_linear(module) and isinstance(output, Tensor):
            self.marks[output] = _Mark(_Kind.LINEAR, sizes_of(module)[0])


def _after(func: Any, found: list[_Mark]) -> _Mark | None:
    """Say what an operation makes of tensors with these marks; None forgets them."""
    operation = str(func).removeprefix("aten.").partition(".")[0]
    if operation.startswith(_FUSED):
        return _Mark(_Kind.ATTENDED, 0)
    if operation in _SOFTMAX:
        return _Mark(_Kind.WEIGHTS, 0)
    if not found:
        return None
    mark = max(found, key=lambda each: each.kind)
    if operation in _PRODUCTS:
        return _Mark(_Kind.ATTENDED, 0) if mark.kind is _Kind.WEIGHTS else None
    if operation in _PASS or operation in _AFFINE:
        return mark
    if Tag.pointwise in func.tags or operation in _ACTIVATIONS:
        return _Mark(_Kind.ACTIVATED, mark.width) if mark.kind is _Kind.LINEAR else mark
    return None


def watch_places(model: nn.Module, batch: Batch) -> dict[str, set[str]]:
    """Find the modules after which feed-forward blocks and attentions are done.

    Parameters
    ----------
    model : Module
        Called once and left as it was.
    batch : Batch
        What to call it with.

    Returns
    -------
    dict
        Names of modules under ``"ffn"`` and ``"attention"``. Torch's own attention counts as a
        whole, since it reads its output projection instead of calling it.
    """
    watch = _Watch()
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if computes_linear(module) or isinstance(module, nn.MultiheadAttention):
                for handle in (
                    module.register_forward_pre_hook(watch.enter(name)),
                    module.register_forward_hook(watch.leave, always_call=True),
                ):
                    hooks.callback(handle.remove)
        hooks.enter_context(evaluating(model))
        hooks.enter_context(watch)
        batch.call(model)
    return {"ffn": watch.ffn, "attention": watch.attention}
