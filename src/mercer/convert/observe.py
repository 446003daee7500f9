"""Find Linear -> activation -> Linear in any module, by watching one forward pass.

Nothing is read from names: the data flow is. While the model runs, every tensor that is a
pointwise function of one linear layer's output is remembered; if a second linear layer is
called on such a tensor, the two are a block, however the activation between them was written
(a module, ``torch.nn.functional``, a formula of several operations).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from .calibration import Batch
from .linear import is_linear, sizes_of

# Pointwise, though torch does not tag them so.
_POINTWISE = {
    *("_prelu_kernel", "abs_", "gelu_", "hardswish", "hardswish_", "log_sigmoid_forward"),
    *("masked_fill_", "mish_", "threshold_"),
}
REACHES_OUTPUT = "is an output of the model"  # how the reason ends for a layer at the model's end
_DIVIDES = {"chunk", "glu", "split", "split_with_sizes", "unbind"}
_VIEWS = {"view", "_unsafe_view", "reshape", "alias", "clone", "detach", "_to_copy", "contiguous"}


@dataclass(frozen=True)
class Block:
    """Two linear layers with an activation between them.

    Attributes
    ----------
    name : str
        Where it is in the model: the name of its first layer.
    first, second : str
        Names of the two linear layers.
    activation : str or None
        Name of the module that computes the activation of this block alone; None where a
        function does, or a module that other layers use too.
    in_features, hidden_features, out_features : int
        The widths.
    calls : int
        How often one forward pass runs through it.
    """

    name: str
    first: str
    second: str
    activation: str | None
    in_features: int
    hidden_features: int
    out_features: int
    calls: int


@dataclass(frozen=True)
class Skipped:
    """A linear layer that starts no block, and why.

    Attributes
    ----------
    name : str
        Its name in the model.
    reason : str
        Why not.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class _Trace:
    """How a tensor came from a linear layer: which one, through which modules, if at all."""

    origin: str
    features: int
    through: frozenset[str] = frozenset()
    functions: bool = False  # some of the work was done outside any activation module


class _Watch(TorchDispatchMode):
    """Follow the pointwise descendants of linear layers through one forward pass."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.names = names
        self.traces: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.stack: list[nn.Module] = []  # the leaf modules that are running
        self.pairs: dict[str, list[tuple[str, _Trace]]] = {}
        self.calls: dict[str, int] = {}
        self.blocked: dict[str, str] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        found = [self.traces[leaf] for leaf in leaves if leaf in self.traces]
        out = func(*args, **kwargs)
        if found and not (self.stack and is_linear(self.stack[-1])):
            self._follow(func, leaves, found, out)
        return out

    def _follow(self, func: Any, leaves: list[Tensor], found: list[_Trace], out: Any) -> None:
        origins = sorted({trace.origin for trace in found})
        operation = str(func).removeprefix("aten.").partition(".")[0]
        pointwise = torch.Tag.pointwise in func.tags or operation in _POINTWISE
        if operation == "log_sigmoid_forward":
            out = out[0]  # beside it is what the backward pass needs
        if len(origins) > 1:
            kind = "gated: its output multiplies" if "mul" in operation else "its output meets"
            for name in origins:
                others = ", ".join(other for other in origins if other != name)
                self._block(name, f"{kind} that of {others} in {operation!r}")
            return
        name, trace = origins[0], found[0]
        others = [t for t in leaves if t not in self.traces and t.numel() > 1]
        same = isinstance(out, Tensor) and out.ndim and out.shape[-1] == trace.features
        if others:
            self._block(name, f"{operation!r} combines its output with another tensor")
        elif same and (pointwise or operation in _VIEWS):
            through, functions = trace.through, trace.functions
            for other in found:
                through, functions = through | other.through, functions or other.functions
            if pointwise and operation not in _VIEWS:
                inside = self.names.get(self.stack[-1]) if self.stack else None
                through = through | ({inside} if inside is not None else set())
                functions = functions or inside is None
            self.traces[out] = _Trace(name, trace.features, frozenset(through), functions)
        elif operation in _DIVIDES:
            self._block(
                name, f"{operation!r} divides its output, as in gated blocks and fused attention"
            )
        elif not _only_reads_shape(out):
            self._block(name, f"its output goes through {operation!r}, not a pointwise activation")

    def _block(self, name: str, reason: str) -> None:
        self.blocked.setdefault(name, reason)

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Keep hooks on the leaf modules while the model runs."""
        with ExitStack() as hooks:
            for module in self.names:
                if is_linear(module) or next(module.children(), None) is None:
                    for handle in (
                        module.register_forward_pre_hook(self._enter),
                        module.register_forward_hook(self._leave, always_call=True),
                    ):
                        hooks.callback(handle.remove)
            yield

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.stack.append(module)
        name = self.names[module]
        self.calls[name] = self.calls.get(name, 0) + 1
        if is_linear(module) and not args:
            self._block(name, "it is called with a keyword argument")
        elif is_linear(module) and args[0] in self.traces:
            trace = self.traces[args[0]]
            self.pairs.setdefault(trace.origin, []).append((name, trace))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.stack.pop()
        if is_linear(module) and isinstance(output, Tensor):
            self.traces[output] = _Trace(self.names[module], output.shape[-1])


def _only_reads_shape(out: Any) -> bool:
    return not any(isinstance(leaf, Tensor) for leaf in tree_flatten(out)[0])


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in what a model returned."""
    for leaf in tree_flatten(value)[0]:
        if isinstance(leaf, Tensor):
            yield leaf
        elif is_dataclass(leaf):
            yield from _tensors(list(vars(leaf).values()))


@torch.no_grad()
def observe(model: nn.Module, batch: Batch) -> tuple[list[Block], list[Skipped]]:
    """Find the blocks of a model, in the order in which they run.

    Parameters
    ----------
    model : Module
        In evaluation mode; it is called once and left as it was.
    batch : Batch
        What to call it with.

    Returns
    -------
    blocks : list of Block
        What can be replaced.
    skipped : list of Skipped
        The linear layers that start no block, with the reason.
    """
    names = {module: name for name, module in model.named_modules()}
    watch = _Watch(names)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer calls no submodule
    try:
        with watch.attached(model), watch:
            output = batch.call(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    for tensor in _tensors(output):
        if tensor in watch.traces:
            watch._block(*_reached_output(watch.traces[tensor]))

    shared = _shared_parameters(model)
    blocks, skipped = [], []
    seconds: dict[str, str] = {}
    for module, name in names.items():
        if not is_linear(module):
            continue
        reason = _why_not(name, watch, names, shared, seconds, model)
        if reason is not None:
            skipped.append(Skipped(name, reason))
            continue
        (second, *_), *_ = watch.pairs[name]
        seconds[second] = name
        in_features, hidden = sizes_of(module)
        blocks.append(
            Block(
                name=name,
                first=name,
                second=second,
                activation=_activation_name(name, watch, model),
                in_features=in_features,
                hidden_features=hidden,
                out_features=sizes_of(model.get_submodule(second))[1],
                calls=watch.calls[name],
            )
        )
    order = {name: position for position, name in enumerate(watch.calls)}
    return sorted(blocks, key=lambda block: order[block.first]), skipped


def _reached_output(trace: _Trace) -> tuple[str, str]:
    what = "an activation of its output" if trace.through or trace.functions else "its output"
    return trace.origin, f"{what} {REACHES_OUTPUT}"


def _activation_name(name: str, watch: _Watch, model: nn.Module) -> str | None:
    """Name of the one place that holds a block's activation and no other block's, or None."""
    trace, *others = {trace for _, trace in watch.pairs[name]}
    if others:  # it runs with one activation, then with another
        return None
    if trace.functions:
        parent = name.rpartition(".")[0]
        if isinstance(model.get_submodule(parent), nn.TransformerEncoderLayer):
            return f"{parent}.activation".removeprefix(".")  # a function kept as an attribute
        return None
    if len(trace.through) != 1:
        return None
    (found,) = trace.through
    alone = watch.calls[found] == watch.calls[name]
    return found if alone and not _is_hooked(model.get_submodule(found)) else None


def _is_hooked(module: nn.Module) -> bool:
    """Whether more than the class's forward runs, which a replacement would lose."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(module)


def _why_not(
    name: str,
    watch: _Watch,
    names: dict[nn.Module, str],
    shared: dict[str, str],
    seconds: dict[str, str],
    model: nn.Module,
) -> str | None:
    """Why a linear layer starts no block, or None if it does."""
    if name not in watch.calls:
        return "it did not run on the first calibration batch"
    if name in watch.blocked:
        return watch.blocked[name]
    pairs = watch.pairs.get(name, [])
    if not pairs:
        return "no linear layer follows"
    targets = {second for second, _ in pairs}
    if len(targets) > 1:
        return f"several linear layers follow: {', '.join(sorted(targets))}"
    (second,) = targets
    if not any(trace.through or trace.functions for _, trace in pairs):
        return f"no activation between it and {second}"
    if len(pairs) != watch.calls[name] or watch.calls[second] != len(pairs):
        return f"it and {second} are not always called one after the other"
    if second in seconds:
        return f"{second} follows {seconds[second]} too"
    for linear in (name, second):
        if linear in shared:
            return shared[linear]
        if _is_hooked(model.get_submodule(linear)):
            return f"{linear} carries hooks, which a replacement would lose"
    return None


def _shared_parameters(model: nn.Module) -> dict[str, str]:
    """Say of each module with a parameter that another module has too where that is."""
    owners: dict[nn.Parameter, tuple[nn.Module, str]] = {}
    shared: dict[str, str] = {}
    for module_name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            full = f"{module_name}.{parameter_name}"
            owner, elsewhere = owners.setdefault(parameter, (module, full))
            if owner is not module:
                shared[module_name] = f"{full} is tied to {elsewhere}"
                shared[elsewhere.rpartition(".")[0]] = f"{elsewhere} is tied to {full}"
    return shared
