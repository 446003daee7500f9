"""A network of infinite width: the operations that were read from a module, frozen."""

import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self, final

from .._core.activation import Activation, resolve_activation
from ..kernels import activations
from . import operations as kinds
from .expression import Expression
from .operations import Input, Operation, Pointwise
from .propagate import Plan


@final
@dataclass(frozen=True)
class Network:
    """What a torch module does to covariances, layer by layer; made by `read`.

    Attributes
    ----------
    operations : tuple of Operation
        In the order in which they are computed; the last one is the output.
    layers : tuple of str
        Names of the layers with weights, in the order in which they are used: entries of
        ``w_std`` and ``b_std``.
    event_shape : tuple of int
        Shape of one input.
    plan : Plan
        Which layouts each operation is computed in.
    """

    operations: tuple[Operation, ...]
    layers: tuple[str, ...]
    event_shape: tuple[int, ...]
    plan: Plan = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Plan the layouts at once: compilers do not follow what is done on first use.

        Raises
        ------
        ValueError
            If an operation takes what comes after it, or a layer that there is not.
        """
        for i, operation in enumerate(self.operations):
            layers = getattr(operation, "layers", ())
            if hasattr(operation, "layer"):
                layers = (operation.layer,)  # pyright: ignore[reportAttributeAccessIssue]
            if any(not 0 <= n < i for n in operation.inputs):
                raise ValueError(
                    f"operations: number {i} takes {operation.inputs}, expected lower ones"
                )
            if any(not 0 <= n < len(self.layers) for n in layers):
                raise ValueError(
                    f"operations: number {i} has layer {layers}, of {len(self.layers)} in layers"
                )
        if not self.operations:
            raise ValueError("operations: expected at least one, got none")
        object.__setattr__(self, "plan", Plan(self.operations))

    @cached_property
    def tile_plan(self) -> Any:
        """How its tiles are computed."""
        from .tile_plan import TilePlan

        return TilePlan(self.operations)

    def __repr__(self) -> str:
        """Say what it takes and which layers it has."""
        names = [
            f"{type(op).__name__}" if not isinstance(op, Pointwise) else repr(op.activation)
            for op in self.operations
            if not isinstance(op, Input)
        ]
        event = "x".join(map(str, self.event_shape))
        return f"Network({event}: {', '.join(names)})"

    def to_config(self) -> dict[str, Any]:
        """Return it as a dictionary that JSON can hold.

        Raises
        ------
        ValueError
            If an activation is a callable of the user's.
        """
        return {
            "class": "infinite.Network",
            "network": [_encode(op) for op in self.operations],
            "layers": list(self.layers),
            "event_shape": list(self.event_shape),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build what `to_config` described.

        Raises
        ------
        ValueError
            If the config is not one of a network.
        """
        try:
            operations = tuple(_decode(op) for op in config["network"])
            return cls(operations, tuple(config["layers"]), tuple(config["event_shape"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"config: not a network that this version of Mercer reads ({error!r})"
            ) from error


_KINDS = {
    name: kind
    for name, kind in vars(kinds).items()
    if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation
}
_ACTIVATIONS = {
    name: kind for name, kind in vars(activations).items() if name.endswith("Activation")
}


def _encode(value: Any) -> Any:
    if isinstance(value, Operation):
        return {
            "operation": type(value).__name__,
            **{f.name: _encode(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Activation):
        known = (
            isinstance(value.function, Expression) or type(value.function).__name__ in _ACTIVATIONS
        )
        if value.spec is None and known:
            return {"function": _encode(value.function)}
        return {"activation": value.to_spec()}
    if isinstance(value, Expression):
        if value.function is not None and not isinstance(value.function, str):
            return {"expression": _encode(resolve_activation(value.function))}
        return {
            "expression": value.function,
            "arguments": _encode(value.arguments),
            "options": _encode(value.options),
        }
    if type(value).__name__ in _ACTIVATIONS:
        return {
            "kind": type(value).__name__,
            **{f.name: _encode(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, tuple | list | range):
        return [_encode(v) for v in value]
    json.dumps(value)  # a plain value
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "operation" in value:
        rest = {k: _decode(v) for k, v in value.items() if k != "operation"}
        return _KINDS[value["operation"]](**rest)
    if "activation" in value:
        return resolve_activation(value["activation"])
    if "function" in value:
        return resolve_activation(_decode(value["function"]))
    if "kind" in value:
        rest = {k: _decode(v) for k, v in value.items() if k != "kind"}
        return _ACTIVATIONS[value["kind"]](**rest)
    if isinstance(value["expression"], dict):
        return Expression(_decode(value["expression"]).function, (Expression(),))
    return Expression(value["expression"], _decode(value["arguments"]), _decode(value["options"]))
