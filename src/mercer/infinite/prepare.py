"""What a module does to its data before any random weights: done to the data themselves."""

from typing import Any

from torch import Tensor

from .expression import Expression
from .layout import mix, pick

Step = tuple[Any, ...]


def prepare(x: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """Apply steps to data.

    Parameters
    ----------
    x : Tensor of shape (*lead, *event)
        The data, with any leading axes.
    steps : tuple
        ``("reshape", old sizes, new sizes)``, ``("permute", order)``, ``("apply", expression)``,
        ``("pick", axis, index)``, ``("mix", axis, matrix)``; axes count within the event.

    Returns
    -------
    Tensor of shape (*lead, *new event)
        The data after all steps.
    """
    for kind, *arguments in steps:
        if kind == "reshape":
            before, after = arguments
            x = x.reshape(*x.shape[: x.ndim - len(before)], *after)
        elif kind == "permute":
            (order,) = arguments
            lead = x.ndim - len(order)
            x = x.permute(*range(lead), *(lead + i for i in order))
        elif kind == "apply":
            (expression,) = arguments
            assert isinstance(expression, Expression)
            x = expression(x)
        else:
            axis, argument, size = arguments  # `size`: axes of the event
            change = pick if kind == "pick" else mix
            x = change(x, x.ndim - size + axis, argument)
    return x
