"""The register of rules: what a module, a function or a method of a tensor does to signals."""

from collections.abc import Callable, Hashable
from difflib import get_close_matches
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
        What the rule is for: a class of modules (and its subclasses that keep its forward and
        have no rule of their own), a function such as ``torch.relu``, or the name of a method of
        `torch.Tensor`.

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
        kind = _kind_of(target)
        return None if kind is None or kind in _REFUSED else _RULES[kind]
    return _RULES.get(target) if isinstance(target, Hashable) else None


def _kind_of(module: nn.Module) -> type | None:
    """Find the class of a module that is registered, and whose forward it has."""
    for kind in type(module).__mro__:
        if kind in _RULES or kind in _REFUSED:
            return kind if type(module).forward is kind.forward else None
    return None


def refusal_of(target: Any) -> str | None:
    """Find why there is no rule, where that is known."""
    if isinstance(target, nn.Module):
        kind = _kind_of(target)
        return None if kind is None else _REFUSED.get(kind)
    return _REFUSED.get(target) if isinstance(target, Hashable) else None


def supported() -> list[str]:
    """Name the modules, functions and methods that have a rule.

    Besides these, any elementwise function of one tensor is taken for an activation.

    Returns
    -------
    list of str
        Names, in order.

    Examples
    --------
    >>> from mercer.infinite import supported
    >>> [name for name in supported() if name.startswith("Conv")]
    ['Conv1d', 'Conv2d', 'Conv3d']
    """
    # The rules register themselves where the reader is imported.
    names = {t if isinstance(t, str) else getattr(t, "__name__", str(t)) for t in _RULES}
    return sorted(n for n in names if not n.startswith("_") and not n.endswith("_"))


def similar(name: str) -> list[str]:
    """Find names of rules like this one, for messages."""
    known = {n.lower(): n for n in supported()}
    close = get_close_matches(name.lower(), known, 3, 0.7)
    return [known[n] for n in close]
