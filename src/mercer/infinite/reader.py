"""Reading a torch module: its forward is traced, and each step becomes operations on signals."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

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
from .rules import refusal_of, rule_of, similar
from .signal import Signal
from .tape import NoRuleError, Tape
from .trace import Step, walk
from .weight import Weight


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

    Examples
    --------
    >>> from torch import nn
    >>> read(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)))
    Network(2: Affine, relu, Affine)
    """
    shape = event_shape(module, example)
    tape = Tape()
    seen: dict[int, int] = {}

    def perform(step: Step, args: Any, options: Any) -> Any:
        return call(step, tape, seen, args, options)

    out = output_of(walk(module, tape, shape, perform), tape)
    if out.positions:
        raise NoRuleError(
            f"module: its output {out.shape_text} has positions left; flatten or average them, so "
            "that the kernel is between inputs"
        )
    return Network(tuple(tape.operations), tuple(tape.layers), shape)


def output_of(out: Any, tape: Tape) -> Signal:
    """Check what a forward returns."""
    if not isinstance(out, Signal):
        raise NoRuleError(f"module: its forward returns {type(out).__name__}, expected one tensor")
    if out.is_data:
        raise NoRuleError("module: has no layer with weights, so that it is no kernel")
    tape.enter("the output")
    return out.settled()


def event_shape(module: nn.Module, example: Tensor | None) -> tuple[int, ...]:
    """Find the shape of one input."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule | nn.DataParallel) or hasattr(module, "_orig_mod"):
        raise NoRuleError(
            f"module: {type(module).__name__} hides the layers; give the module that was compiled "
            "or wrapped"
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise NoRuleError("module: has lazy layers without shapes; call it once on an input first")
    if example is not None:
        if not isinstance(example, Tensor) or example.ndim < 2:
            got = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
            raise ValueError(f"example: expected a tensor of shape (n, *event), got {got}")
        return tuple(example.shape[1:])
    for layer in module.modules():
        known = rule_of(layer) is not None or refusal_of(layer) is not None
        if known and next(layer.parameters(), None) is not None:
            if isinstance(layer, nn.Linear):
                return (layer.in_features,)
            break
    raise ValueError(
        "example: needed, as the first layer with weights is no nn.Linear; give an input of "
        "shape (n, *event), such as torch.zeros(1, 3, 32, 32, device='meta')"
    )


def call(step: Step, tape: Tape, seen: dict[int, int], args: Any, options: Any) -> Any:
    """Take one step by its rule.

    Parameters
    ----------
    step : Step
        The step.
    tape : Tape
        Where operations are written.
    seen : dict of int to int
        Parameters that earlier steps have used, and which step; this one's are added.
    args, options : tuple, dict
        What it is called with.

    Returns
    -------
    Signal or object
        Its output.

    Raises
    ------
    NoRuleError
        If it has no rule, or its rule refuses.
    """
    handler = rule_of(step.target)
    given = list(flat((args, options)))
    plain = not any(isinstance(a, Signal | Weight) for a in given)
    if handler is None and plain and step.node.op == "call_function":
        return step.target(*args, **options)  # sizes and other plain numbers
    if handler is None:
        handler = _activation(step)
    if handler is None:
        raise NoRuleError(f"{step.name}: {refusal_of(step.target) or _unknown(step.kind)}")
    if isinstance(step.target, nn.Module):
        _check_parametrization(step)
        args = (step.target, *args)
    try:
        found = handler(*args, **options)
    except NoRuleError as error:
        text = str(error).removeprefix(f"{step.layer}: ")
        raise NoRuleError(f"{step.name}: {text}") from None
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise NoRuleError(
            f"{step.name}: its rule does not take what it is called with "
            f"({type(error).__name__}: {error})"
        ) from error
    _check_shared(step, tape, seen, given)
    return found


def _unknown(kind: str) -> str:
    alike = similar(kind)
    hint = f" (there is one for {', '.join(alike)})" if alike else ""
    return (
        f"{kind} has no rule{hint}. There are rules for linear layers, convolutions, activations, "
        "norms, average pooling, sums, products and reshapes: mercer.infinite.supported() lists "
        "them, explain(module) shows every step; register one by mercer.infinite.rule, or use "
        "mercer.infinite.monte_carlo"
    )


def _check_parametrization(step: Step) -> None:
    hooks = [type(hook).__module__ for hook in step.target._forward_pre_hooks.values()]
    if parametrize.is_parametrized(step.target) or any("torch.nn.utils" in h for h in hooks):
        raise NoRuleError(
            f"{step.name}: its parameters are computed from others (a parametrization such as "
            "weight_norm), which has no rule; remove it"
        )


def _check_shared(step: Step, tape: Tape, seen: dict[int, int], given: list[Any]) -> None:
    """Refuse parameters that several steps use, but for frozen vectors as of norms."""
    used = list(step.target.parameters()) if isinstance(step.target, nn.Module) else []
    used += [a.tensor for a in given if isinstance(a, Weight)]
    for parameter in used:
        first = seen.setdefault(id(parameter), tape.step)
        if first != tape.step and (parameter.requires_grad or parameter.ndim > 1):
            raise NoRuleError(
                f"{step.name}: shares a parameter with {tape.steps[first]!r}; a layer that is used "
                "more than once has no rule, as its uses share random weights; use "
                "mercer.infinite.monte_carlo"
            )


def flat(value: Any) -> Iterator[Any]:
    """Go through what tuples, lists and dictionaries hold."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for inner in value:
            yield from flat(inner)
    else:
        yield value


def _activation(step: Step) -> Any:
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
