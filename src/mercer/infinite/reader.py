"""Reading a torch module: its forward is traced, and each step becomes operations on signals."""

from typing import Any, final

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from .._core.activation import resolve_activation
from . import attention as attention
from . import refusals as refusals
from . import rules_linear as rules_linear
from . import rules_norm as rules_norm
from . import rules_pointwise as rules_pointwise
from . import rules_pool as rules_pool
from . import rules_shape as rules_shape
from .expression import ELEMENTWISE
from .network import Network
from .rules import refusal_of, rule_of, supported
from .signal import Signal
from .tape import BATCH, NoRuleError, Tape
from .weight import Weight

_BATCH = 13  # unlike the sizes that networks have, so that views keep it apart


@final
class _Tracer(fx.Tracer):
    """Traces down to modules that have a rule, or that are known to have none."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            return False
        known = rule_of(m) is not None or refusal_of(m) is not None
        return known or super().is_leaf_module(m, module_qualified_name)


@final
class _Step:
    """One node of the traced graph, with where it stands."""

    def __init__(self, node: fx.Node, modules: dict[str, nn.Module]) -> None:
        self.node = node
        stack = node.meta.get("nn_module_stack") or {}
        inside = [path for path, _ in stack.values() if path] if stack else []
        self.target: Any = node.target
        if node.op == "call_module":
            self.target = modules[str(node.target)]
            self.name = f"{node.target} ({type(self.target).__name__})"
            self.layer = str(node.target)
        else:
            name = node.target if isinstance(node.target, str) else node.target.__name__
            self.name = f"{inside[-1]}: {name}" if inside else str(name)
            self.layer = self.name


def read(module: nn.Module, example: Tensor | None = None) -> Network:
    """Read a torch module as a network of infinite width.

    Parameters
    ----------
    module : Module
        The network; its forward takes one tensor. Its weights are not used, but for their shapes
        and whether they are trained.
    example : Tensor of shape (n, *event), optional
        An input, for its shape; on any device, the meta device too. It may be left out for
        vectors, where the first layer is an ``nn.Linear``.

    Returns
    -------
    Network
        The operations, frozen: the module is not kept.

    Raises
    ------
    TypeError
        If the module is none.
    ValueError
        If an example is needed, or the network does not take it.
    NoRuleError
        If the module does what has no rule; it says what, where, and why.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch module, got {type(module).__name__}")
    shape = _event_shape(module, example)
    tape = Tape()
    out = _walk(module, tape, shape)
    if not isinstance(out, Signal):
        raise NoRuleError(f"module: its forward returns {type(out).__name__}, expected one tensor")
    tape.place = "the output"
    if out.is_data:
        raise NoRuleError("module: has no layer with weights, so that it is no kernel")
    out = out.settled()
    if out.positions:
        raise NoRuleError(
            f"module: its output {out.shape_text} has positions left; flatten or average them, so "
            "that the kernel is between inputs"
        )
    return Network(tuple(tape.operations), tuple(tape.layers), shape)


def _event_shape(module: nn.Module, example: Tensor | None) -> tuple[int, ...]:
    if example is not None:
        if not isinstance(example, Tensor) or example.ndim < 2:
            got = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
            raise ValueError(f"example: expected a tensor of shape (n, *event), got {got}")
        return tuple(example.shape[1:])
    for layer in module.modules():
        if rule_of(layer) is not None and next(layer.parameters(recurse=False), None) is not None:
            if isinstance(layer, nn.Linear):
                return (layer.in_features,)
            break
    raise ValueError(
        "example: needed, as the first layer with weights is no nn.Linear; give an input of "
        "shape (n, *event), such as torch.zeros(1, 3, 32, 32, device='meta')"
    )


def _walk(module: nn.Module, tape: Tape, shape: tuple[int, ...]) -> Any:
    """Follow the traced forward."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(module)
    except Exception as error:
        raise NoRuleError(
            f"module: its forward cannot be traced by torch.fx ({type(error).__name__}: {error}); "
            "control flow that depends on data has no kernel"
        ) from error
    modules = dict(module.named_modules())
    values: dict[fx.Node, Any] = {}
    taken = False
    for node in graph.nodes:
        if node.op == "placeholder":
            if taken:
                if not node.args:
                    raise NoRuleError(
                        f"module: its forward takes a second input {node.target!r}; "
                        "a kernel takes one"
                    )
                values[node] = node.args[0]
                continue
            taken = True
            roles = (BATCH, *[None] * len(shape))
            values[node] = Signal(tape, roles, (_BATCH, *shape))
        elif node.op == "get_attr":
            found = _attribute(module, str(node.target))
            values[node] = Weight(str(node.target), found) if isinstance(found, Tensor) else found
        elif node.op == "output":
            (given,) = node.args
            return map_arg(given, values.__getitem__)
        else:
            step = _Step(node, modules)
            args = map_arg(node.args, values.__getitem__)
            options = map_arg(node.kwargs, values.__getitem__)
            tape.place = step.layer
            values[node] = _call(step, tape, args, options)
    raise NoRuleError("module: its forward returns nothing")


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _call(step: _Step, tape: Tape, args: Any, options: Any) -> Any:
    handler = rule_of(step.target)
    signals = [*_flat(args), *_flat(options)]
    plain = not any(isinstance(a, Signal | Weight) for a in signals)
    if handler is None and plain and step.node.op == "call_function":
        return step.target(*args, **options)  # sizes and other plain numbers
    if handler is None:
        handler = _activation(step)
    if handler is None:
        why = refusal_of(step.target)
        if why is None:
            what = (
                type(step.target).__name__
                if isinstance(step.target, nn.Module)
                else getattr(step.target, "__name__", step.target)
            )
            why = (
                f"{what} has no rule; there are rules for {', '.join(supported())}. Register one "
                "by mercer.infinite.rule, or use mercer.infinite.monte_carlo"
            )
        raise NoRuleError(f"{step.name}: {why}")
    if isinstance(step.target, nn.Module):
        args = (step.target, *args)
    try:
        return handler(*args, **options)
    except NoRuleError as error:
        text = str(error).removeprefix(f"{step.layer}: ")
        raise NoRuleError(f"{step.name}: {text}") from None
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise NoRuleError(f"{step.name}: called in a way that its rule lacks ({error})") from error


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [x for v in value.values() for x in _flat(v)]
    if isinstance(value, tuple | list):
        return [x for v in value for x in _flat(v)]
    return [value]


def _activation(step: _Step) -> Any:
    """Take an elementwise module or function without a rule for an activation."""
    target = step.target
    if refusal_of(target) is not None:
        return None
    if isinstance(target, nn.Module):
        if next(target.parameters(), None) is not None or next(target.buffers(), None) is not None:
            return None
    elif isinstance(target, str) or target in ELEMENTWISE.values():
        return None
    if len(step.node.args) != 1 or step.node.kwargs:
        return None
    try:
        found = resolve_activation(target)
    except (ValueError, TypeError):
        return None

    def apply(*args: Any) -> Signal:
        x = args[-1]
        return x.applied(found.function, x)

    return apply
