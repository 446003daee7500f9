"""Rules of elementwise functions and of arithmetic."""

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from ..kernels.surrogate import SurrogateActivation
from .expression import ELEMENTWISE, is_number
from .rules import rule
from .signal import Signal
from .weight import Weight


def _number(value: Any) -> Any:
    """Read a buffer of one number as that number."""
    if isinstance(value, Weight) and value.tensor.numel() == 1 and not value.tensor.requires_grad:
        return float(value.tensor)
    return value


def _signal(*values: Any) -> Signal:
    found = next(v for v in values if isinstance(v, Signal))
    for value in values:
        if isinstance(value, Weight):
            raise found.tape.refuse(
                f"uses the parameter {value.name!r} outside of a layer; register a rule for the "
                "module that does (mercer.infinite.rule)"
            )
    return found


def _elementwise(name: str) -> Any:
    def apply(*args: Any, **options: Any) -> Signal:
        args = tuple(map(_number, args))
        x = _signal(*args)
        options.pop("inplace", None)
        for other in args:
            if isinstance(other, Signal) and other is not x and not x.same_base(other):
                raise x.tape.refuse(f"{name} of two different signals has no rule")
        # Options given in order, such as a slope, get their names where they have one.
        signals = [a for a in args if isinstance(a, Signal) or is_number(a)]
        if len(signals) != len(args):
            raise x.tape.refuse(f"{name} of {args!r} has no rule")
        if name == "leaky_relu" and len(args) == 2:
            args, options = args[:1], {"negative_slope": args[1], **options}
        return x.applied(name, *args, **options)

    return apply


_OPERATORS = {"add", "sub", "mul", "div", "maximum", "minimum"}
for _name, _function in ELEMENTWISE.items():
    if _name in _OPERATORS:
        continue
    _targets: list[Any] = [_function, _name, f"{_name}_"]
    for _home in (torch, F, torch.special):
        for _also in (_name, f"{_name}_"):
            _other = getattr(_home, _also, None)
            if _other is not None and _other not in _targets:
                _targets.append(_other)
    rule(*_targets)(_elementwise(_name))
for _name, _function in (("maximum", torch.maximum), ("minimum", torch.minimum)):
    rule(_function, _name)(_elementwise(_name))
rule(torch.clip, "clip", "clip_")(_elementwise("clamp"))
rule(operator.pow)(_elementwise("pow"))
rule(operator.abs)(_elementwise("abs"))


@rule(operator.add, torch.add, operator.iadd, "add", "add_")
def add(a: Any, b: Any, alpha: float = 1) -> Any:
    """Add signals, or a number."""
    a, b = _number(a), _number(b)
    if not isinstance(a, Signal) and not isinstance(b, Signal):
        return a + alpha * b
    _signal(a, b)
    return a + (b if alpha == 1 else alpha * b)


@rule(operator.sub, torch.sub, operator.isub, "sub", "sub_")
def sub(a: Any, b: Any, alpha: float = 1) -> Any:
    """Subtract signals, or a number."""
    a, b = _number(a), _number(b)
    if not isinstance(a, Signal) and not isinstance(b, Signal):
        return a - alpha * b
    _signal(a, b)
    return a - (b if alpha == 1 else alpha * b)


@rule(operator.mul, torch.mul, torch.multiply, operator.imul, "mul", "mul_", "multiply")
def mul(a: Any, b: Any) -> Any:
    """Multiply signals, or by a number."""
    a, b = _number(a), _number(b)
    if isinstance(a, Signal) or isinstance(b, Signal):
        _signal(a, b)
    return a * b


@rule(operator.truediv, torch.div, torch.divide, operator.itruediv, "div", "div_", "divide")
def div(a: Any, b: Any) -> Any:
    """Divide by a number, or functions of one signal."""
    a, b = _number(a), _number(b)
    if isinstance(a, Signal) or isinstance(b, Signal):
        _signal(a, b)
    return a / b


@rule(operator.neg)
def neg(a: Any) -> Any:
    """Change the sign."""
    return -a


def _plain(function: Any) -> Any:
    def apply(*args: Any) -> Any:
        if any(isinstance(a, Signal) for a in args):
            raise _signal(*args).tape.refuse(f"{function.__name__} of a signal has no rule")
        return function(*args)

    return apply


for _function in (operator.floordiv, operator.mod, operator.eq, operator.lt, operator.gt):
    rule(_function)(_plain(_function))


@rule(F.threshold, torch.threshold)
def threshold(input: Signal, threshold: float, value: float, inplace: bool = False) -> Signal:
    """Keep what is larger than a number."""
    return input.applied(resolve_activation(nn.Threshold(threshold, value)).function, input)


@rule(F.glu)
def functional_glu(input: Signal, dim: int = -1) -> Signal:
    """Multiply half of the channels by the sigmoid of the other half."""
    n = input.shape[dim]
    a, b = input.split([n // 2, n - n // 2], dim)
    return a * b.applied("sigmoid", b)


@rule(nn.GLU)
def glu(module: nn.GLU, x: Signal) -> Signal:
    """Do the same as a module."""
    return functional_glu(x, module.dim)


@rule(nn.Identity)
def identity(module: nn.Module, x: Signal) -> Signal:
    """Do nothing."""
    return x


_NAMES: dict[type, str] = {
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.LogSigmoid: "logsigmoid",
    nn.Mish: "mish",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SELU: "selu",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Softsign: "softsign",
    nn.Tanh: "tanh",
    nn.Tanhshrink: "tanhshrink",
}


def _module(module: nn.Module, x: Signal) -> Signal:
    """Apply the function of a module without parameters; the same as its functional form."""
    if isinstance(module, nn.RReLU) and module.training:
        raise x.tape.refuse("random slopes have no rule in training; call eval() on it")
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return x.applied("gelu", x)
    name = _NAMES.get(type(module))
    return x.applied(name or resolve_activation(module).function, x)


rule(
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)(_module)


@rule(SurrogateActivation)
def surrogate(module: SurrogateActivation, x: Signal) -> Signal:
    """Apply the function; its derivative is another one."""
    return x.applied(module, x)
