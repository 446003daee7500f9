"""Elementwise functions written in a module's forward, as one activation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from .._core.activation import BY_NAME, Activation, resolve_activation

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    # Activations that torch has by these names, and then arithmetic.
    **{
        name: function
        for name, function in BY_NAME.items()
        if function in (getattr(torch, name, None), getattr(F, name, None))
    },
    "add": torch.add,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "clamp": torch.clamp,
    "cosh": torch.cosh,
    "div": torch.div,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mul": torch.mul,
    "neg": torch.neg,
    "pow": torch.pow,
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sinc": torch.sinc,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "sub": torch.sub,
}


@final
@dataclass(frozen=True)
class Expression:
    """A function of one number, as the tree of calls that computes it.

    Attributes
    ----------
    function : str, callable or None
        The function at the root; a name is one of `ELEMENTWISE`; None is the variable itself.
    arguments : tuple
        Expressions and plain numbers.
    options : tuple of (str, object)
        Keyword arguments.
    """

    function: Any = None
    arguments: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        if self.function is None:
            return z
        found = [a(z) if isinstance(a, Expression) else a for a in self.arguments]
        call = ELEMENTWISE[self.function] if isinstance(self.function, str) else self.function
        if call in (torch.maximum, torch.minimum, torch.add, torch.mul, torch.sub, torch.div):
            found = [a if isinstance(a, Tensor) else torch.full_like(z, a) for a in found]
        return call(*found, **dict(self.options))

    @property
    def __name__(self) -> str:  # what an error calls it
        return str(self)

    def __str__(self) -> str:
        if self.function is None:
            return "x"
        name = self.function
        if not isinstance(name, str):
            name = getattr(name, "__name__", None) or type(name).__name__
        inside = [str(a) if isinstance(a, Expression) else f"{a:g}" for a in self.arguments]
        return f"{name}({', '.join(inside + [f'{k}={v}' for k, v in self.options])})"

    def linear(self) -> float | None:
        """Return c where the expression is c x, else None."""
        if self.function is None:
            return 1.0
        if self.function == "neg":
            inner = self.arguments[0].linear()
            return None if inner is None else -inner
        if self.function in ("mul", "div"):
            number, inner = self._factor()
            if inner is not None:
                below = inner.linear()
                return None if below is None else number * below
        return None

    def _factor(self) -> "tuple[float, Expression | None]":
        """Return a number and what it multiplies, where the root is such a product."""
        if self.function not in ("mul", "div") or len(self.arguments) != 2:
            return 1.0, None
        a, b = self.arguments
        if isinstance(a, Expression) and not isinstance(b, Expression):
            return (float(b) if self.function == "mul" else 1 / float(b)), a
        if self.function == "mul" and isinstance(b, Expression) and not isinstance(a, Expression):
            return float(a), b
        return 1.0, None

    def outer(self) -> "tuple[float, float, Expression]":
        """Write it as a f + b, with the affine part of the root taken off."""
        if self.function == "neg":
            a, b, inner = self.arguments[0].outer()
            return -a, -b, inner
        number, inner = self._factor()
        if inner is not None:
            a, b, rest = inner.outer()
            return number * a, number * b, rest
        if self.function in ("add", "sub") and not self.options and len(self.arguments) == 2:
            one, two = self.arguments
            sign = 1.0 if self.function == "add" else -1.0
            if isinstance(one, Expression) and not isinstance(two, Expression):
                a, b, rest = one.outer()
                return a, b + sign * float(two), rest
            if isinstance(two, Expression) and not isinstance(one, Expression):
                a, b, rest = two.outer()
                return sign * a, sign * b + float(one), rest
        return 1.0, 0.0, self

    def activation(self) -> Activation:
        """Resolve it: a single call of a known function keeps its closed form."""
        if self._is_relu():
            return resolve_activation("relu")
        power = self._power()
        if power is not None:
            return resolve_activation(power)
        if len(self.arguments) == 1 and self.arguments[0] == Expression():
            if not isinstance(self.function, str):
                return resolve_activation(self.function)
            made = self._module()
            if made is not None:
                try:
                    return resolve_activation(made)
                except ValueError:  # a function of torch that has no name of its own
                    return resolve_activation(self)
        return resolve_activation(self)

    def _is_relu(self) -> bool:
        """Whether it is the larger one of the variable and zero."""
        variable, *rest = self.arguments or (None,)
        bounds = {**dict(zip(("min", "max"), rest, strict=False)), **dict(self.options)}
        if self.function == "maximum" and 0 in self.arguments:
            return Expression() in self.arguments
        known = self.function == "clamp" and bounds.get("max") is None
        return known and variable == Expression() and bounds.get("min") == 0

    def _power(self) -> Any:
        """Find powers of the variable, of its positive part and of its absolute value."""
        from ..kernels.activations import PolynomialActivation, PowerActivation

        if self.function in ("pow", "square"):
            base = self.arguments[0]
            k = 2 if self.function == "square" else self.arguments[1]
            if not isinstance(base, Expression) or k not in range(1, 9) or self.options:
                return None
            k = int(k)
        elif self.function == "mul" and self.arguments[0] == self.arguments[1]:
            base, k = self.arguments[0], 2
        else:
            return None
        if base == Expression():
            return PolynomialActivation((0.0,) * k + (1.0,))
        if base == Expression("relu", (Expression(),)):
            return PowerActivation(k)
        if base == Expression("abs", (Expression(),)):
            return PowerActivation(k, negative=1.0)
        return None

    def _module(self) -> Any:
        """Find a name, or a torch module with these options."""
        options = dict(self.options)
        options.pop("inplace", None)
        if not options:
            return self.function if self.function not in ("sinc", "pow") else None
        classes = {"leaky_relu": torch.nn.LeakyReLU, "gelu": torch.nn.GELU}
        known = {"leaky_relu": {"negative_slope"}, "gelu": {"approximate"}}
        if self.function in classes and set(options) <= known[self.function]:
            return classes[self.function](**options)
        return None


def is_number(value: Any) -> bool:
    """Whether a value is a plain finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
