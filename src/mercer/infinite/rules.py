"""The register of rules: what a module, a function or a method of a tensor does to signals."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Handler = Callable[..., Any]
_T = TypeVar("_T", bound=Handler)

_RULES: dict[Any, Handler] = {}
_REFUSED: dict[Any, str] = {}


def rule(*targets: Any) -> Callable[[_T], _T]:
    """Register a rule for module types, functions or names of methods.

    Parameters
    ----------
    *targets : type of Module, callable or str
        What the rule is for: a class of modules (and its subclasses that have no rule of their
        own), a function such as ``torch.relu``, or the name of a method of `torch.Tensor`.

    Returns
    -------
    callable
        A decorator. The rule of a module is called with the module and what its forward is
        called with; that of a function or method with its arguments. Tensors of the network
        are `Signal` objects, from which it makes and returns new ones.

    Raises
    ------
    TypeError
        If a target is none of these.

    Examples
    --------
    A layer that scales by a number of its own:

    >>> import torch
    >>> from torch import nn
    >>> from mercer.infinite import NNGP, rule
    >>> class Half(nn.Module):
    ...     def forward(self, x):
    ...         return torch.ops.aten.mul(x, 0.5)
    >>> @rule(Half)
    ... def half(module, x):
    ...     return x.scaled(0.5)
    >>> x = torch.ones(1, 3)
    >>> NNGP(nn.Sequential(nn.Linear(3, 8), Half()), w_std=1.0, b_std=0.0)(x).item()
    0.25
    """
    for target in targets:
        if not (
            isinstance(target, str)
            or (isinstance(target, type) and issubclass(target, nn.Module))
            or (callable(target) and not isinstance(target, type))
        ):
            raise TypeError(
                f"rule: expected classes of modules, functions or names of methods, got {target!r}"
            )

    def register(handler: _T) -> _T:
        for target in targets:
            _RULES[target] = handler
        return handler

    return register


def refuse(why: str, *targets: Any) -> None:
    """Register why there is no rule."""
    for target in targets:
        _REFUSED[target] = why


def rule_of(target: Any) -> Handler | None:
    """Find the rule of a module, a function or a method's name."""
    if isinstance(target, nn.Module):
        for kind in type(target).__mro__:
            if kind in _RULES:
                return _RULES[kind]
            if kind in _REFUSED:
                return None
        return None
    return _RULES.get(target)


def refusal_of(target: Any) -> str | None:
    """Find why there is no rule, where that is known."""
    if isinstance(target, nn.Module):
        for kind in type(target).__mro__:
            if kind in _REFUSED:
                return _REFUSED[kind]
        return None
    return _REFUSED.get(target)


def supported() -> list[str]:
    """Name the modules and functions that have a rule."""
    names = {t if isinstance(t, str) else getattr(t, "__name__", str(t)) for t in _RULES}
    return sorted(n for n in names if not n.startswith("_") and not n.endswith("_"))
