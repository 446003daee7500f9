"""The forward of a torch module, traced step by step."""

import inspect
import operator
from collections.abc import Callable
from typing import Any, final

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from .rules import refusal_of, rule_of
from .signal import Signal
from .tape import BATCH, NoRuleError, Tape
from .weight import Weight

_OPERATORS = {"iadd", "isub", "imul", "itruediv"}
_VIEWS = {
    "Flatten",
    "Unflatten",
    "chunk",
    "contiguous",
    "flatten",
    "getattr",
    "getitem",
    "moveaxis",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "select",
    "split",
    "squeeze",
    "swapaxes",
    "swapdims",
    "transpose",
    "unflatten",
    "unsqueeze",
    "view",
}
_BATCH = 13  # unlike the sizes that networks have, so that views keep it apart


def _in_place(function: Any) -> Any:
    def method(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


@final
class _Proxy(fx.Proxy):
    """Records ``h += y`` as what it is; torch.fx takes it for ``h = h + y``."""

    __iadd__ = _in_place(operator.iadd)
    __isub__ = _in_place(operator.isub)
    __imul__ = _in_place(operator.imul)
    __itruediv__ = _in_place(operator.itruediv)


@final
class _Tracer(fx.Tracer):
    """Traces down to modules that have a rule, or that are known to have none."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            return False
        known = rule_of(m) is not None or refusal_of(m) is not None
        return known or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.inside = self.inside or f" of {self.path_of_module(m)!r}"
            raise


@final
class Step:
    """One node of the traced graph, with where it stands.

    Attributes
    ----------
    node : Node
        The node.
    target : Module, callable or str
        What is called.
    name, layer : str
        Where it stands in the module, for messages and as the name of its layer.
    """

    def __init__(self, node: fx.Node, modules: dict[str, nn.Module]) -> None:
        self.node = node
        stack = node.meta.get("nn_module_stack") or {}
        inside = [path for path, _ in stack.values() if path]
        self.target: Any = node.target
        if node.op == "call_module":
            self.target = modules[str(node.target)]
            self.name = f"{node.target} ({type(self.target).__name__})"
            self.layer = str(node.target)
        else:
            self.name = f"{inside[-1]}: {self.kind}" if inside else self.kind
            self.layer = self.name

    @property
    def kind(self) -> str:
        """Name of the module's class, the function or the method."""
        if isinstance(self.target, nn.Module):
            return type(self.target).__name__
        return str(getattr(self.target, "__name__", self.target))

    @property
    def in_place(self) -> bool:
        """Whether its output is its input, overwritten."""
        if isinstance(self.target, nn.Module):
            return bool(getattr(self.target, "inplace", False))
        name = self.kind
        named = name.endswith("_") and not name.endswith("__")
        return bool(self.node.kwargs.get("inplace")) or named or name in _OPERATORS


Perform = Callable[[Step, Any, Any], Any]


def walk(module: nn.Module, tape: Tape, shape: tuple[int, ...], perform: Perform) -> Any:
    """Follow the forward of a module.

    Parameters
    ----------
    module : Module
        The network.
    tape : Tape
        Where operations are written.
    shape : tuple of int
        Of one input.
    perform : callable
        Takes a step with its arguments and options, and returns its output.

    Returns
    -------
    Signal or object
        What the forward returns.

    Raises
    ------
    NoRuleError
        If it cannot be traced, or takes more than one input.
    """
    tracer = _Tracer()
    _check_hooks(module, "module")
    try:
        graph = tracer.trace(module, _defaults(module))
    except Exception as error:
        raise NoRuleError(
            f"module: the forward{tracer.inside} cannot be traced by torch.fx "
            f"({type(error).__name__}: {error}); control flow that depends on "
            "tensors or on their shapes has no rule"
        ) from error
    modules = dict(module.named_modules())
    values: dict[fx.Node, Any] = {}
    taken = False
    memory = _Memory(graph)
    for node in graph.nodes:
        if node.op == "placeholder":
            if taken and not node.args:
                raise NoRuleError(
                    f"module: its forward takes a second input {node.target!r}; a kernel takes one"
                )
            roles = (BATCH, *[None] * len(shape))
            values[node] = node.args[0] if taken else Signal(tape, roles, (_BATCH, *shape))
            taken = True
        elif node.op == "get_attr":
            found: Any = module
            for name in str(node.target).split("."):
                found = getattr(found, name)
            values[node] = Weight(str(node.target), found) if isinstance(found, Tensor) else found
        elif node.op == "output":
            return map_arg(node.args[0], values.__getitem__)
        else:
            step = Step(node, modules)
            args = map_arg(node.args, values.__getitem__)
            options = map_arg(node.kwargs, values.__getitem__)
            tape.enter(step.layer)
            if isinstance(step.target, nn.Module):
                _check_hooks(step.target, step.name)
            values[node] = perform(step, args, options)
            memory.update(step, values)
    return None


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Find the defaults of what a forward takes besides its input."""
    given = list(inspect.signature(type(module).forward).parameters.values())[2:]
    return {p.name: p.default for p in given if p.default is not p.empty}


def _check_hooks(module: nn.Module, name: str) -> None:
    """Refuse what changes a module's output unseen."""
    for part in module.modules() if name != "module" else [module]:
        hooked = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
        helpers = [type(h).__module__ for h in part._forward_pre_hooks.values()]
        if hooked and not any("torch.nn.utils" in h for h in helpers):
            raise NoRuleError(
                f"{name}: has forward hooks or a forward of its own, which may change what it "
                "computes unseen; remove them"
            )


@final
class _Memory:
    """Which steps share memory, so that what is done in place reaches all of them."""

    def __init__(self, graph: fx.Graph) -> None:
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.roots: dict[fx.Node, fx.Node] = {}

    def update(self, step: Step, values: dict[fx.Node, Any]) -> None:
        """Note a view, or carry what a step did in place to later readers of its input."""
        node = step.node
        first = next((a for a in node.args if isinstance(a, fx.Node)), None)
        if first is None or first not in values:
            return
        root = self.roots.get(first, first)
        if step.in_place and isinstance(values[first], Signal):
            old, new = values[first], values[node]
            for other in [n for n in values if self.roots.get(n, n) is root and n is not node]:
                if not any(self.order[u] > self.order[node] for u in other.users):
                    continue
                if values[other] is not old:
                    raise NoRuleError(
                        f"{step.name}: works in place on a view of a tensor that is used later; "
                        "make it out of place"
                    )
                values[other] = new
        if step.in_place or step.kind in _VIEWS or values[node] is values[first]:
            self.roots[node] = root
