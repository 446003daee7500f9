"""An activation with a surrogate derivative, as an operation on covariances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from ..kernels.activations import PowerActivation
from ..kernels.dual import Dual, dual
from ..kernels.dual_closed_forms import closed_form
from ..kernels.surrogate import SurrogateActivation
from .expression import Expression
from .layout import Full, same_positions
from .operation import Operation, Place, State
from .operations_activation import Pointwise


@final
@dataclass(frozen=True)
class SurrogatePointwise(Operation):
    """An activation whose tangents take the true derivative in rows, another one in columns.

    Attributes
    ----------
    forward : Pointwise
        The activation as such.
    rule : Dual
        Its dual with the surrogate.
    """

    forward: Pointwise
    rule: Dual

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Apply the mixed dual."""
        ((s, t),) = states
        if place.same and not any(place.full):
            value, slope = self.rule.diagonal(s)
        else:
            value, slope = self.rule(*place.variances(self.inputs[0], place.full), s)
        if t is None:
            return value, None
        # A trained gain before it has the tangent z, and z times the delta of a jump is zero.
        for axes in self.forward.gains:
            t = t - same_positions(s, place.full, axes)
        return value, slope * t

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return self.forward.wants(full)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its input."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the function of a normal variable."""
        return self.forward.mean((), place)

    @property
    def cost(self) -> str:
        """The dual of its function."""
        return self.forward.cost


def with_surrogate(
    operation: Operation, surrogate: str | Callable[[Tensor], Tensor] | None
) -> Operation:
    """Give an activation the surrogate, unless it brings its own; refuse one that jumps.

    Parameters
    ----------
    operation : Operation
        Any; what is no activation comes back.
    surrogate : str, callable or None
        See `mercer.kernels.surrogate_derivative`.

    Returns
    -------
    Operation
        The operation to compute with.

    Raises
    ------
    ValueError
        If an activation jumps and has no surrogate, a surrogate is part of a larger function, or
        has the trained weight of a norm before it.
    """
    if not isinstance(operation, Pointwise):
        return operation
    function = operation.activation.function
    if isinstance(function, Expression) and _mentions_surrogate(function):
        # Autograd would take the surrogate for the derivative of the row too.
        raise ValueError(
            f"module: at {operation.place} a SurrogateActivation is part of the function "
            f"{function}; expected it alone, and a layer with weights after it"
        )
    if isinstance(function, SurrogateActivation):
        found = dual(operation.activation)
    elif surrogate is not None:
        found = dual(operation.activation, surrogate=surrogate)
    elif operation.slope is not None:
        raise ValueError(
            f"module: {operation.activation!r} at {operation.place} jumps, and its tangent kernel "
            "is infinite; expected a surrogate: mercer.kernels.SurrogateActivation in its place, "
            "or surrogate=..."
        )
    else:
        return operation
    form = closed_form(found.activation)
    if operation.gains and not (isinstance(form, PowerActivation) and form.order == 0):
        raise ValueError(
            f"module: {operation.activation!r} at {operation.place} has a surrogate, and the "
            "trained weight of a norm right before it, for which there is no rule but at a sign "
            "or step; expected a norm without one, or a layer with weights between them"
        )
    # As such, so that its own closed form is found.
    forward = replace(operation, activation=found.activation)
    return SurrogatePointwise(
        operation.inputs, operation.positions, operation.place, forward, found
    )


def without_surrogate(operation: Operation) -> Operation:
    """Return the activation as such, for the kernel of untrained networks."""
    return operation.forward if isinstance(operation, SurrogatePointwise) else operation


def _mentions_surrogate(expression: Expression) -> bool:
    inner = (a for a in expression.arguments if isinstance(a, Expression))
    return isinstance(expression.function, SurrogateActivation) or any(
        map(_mentions_surrogate, inner)
    )
