"""The forward of a torch module, traced step by step."""

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from .rules import refusal_of, rule_of
from .signal import Signal
from .tape import BATCH, NoRuleError, Tape
from .weight import Weight

_BATCH = 13  # unlike the sizes that networks have, so that views keep it apart


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
    try:
        graph = tracer.trace(module)
    except Exception as error:
        raise NoRuleError(
            f"module: the forward{tracer.inside} cannot be traced by torch.fx "
            f"({type(error).__name__}: {error}); control flow that depends on data has no kernel"
        ) from error
    modules = dict(module.named_modules())
    values: dict[fx.Node, Any] = {}
    taken = False
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
            values[node] = perform(step, args, options)
    return None
