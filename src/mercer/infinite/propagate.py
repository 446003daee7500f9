"""Covariances carried through a network, operation by operation: the naive twin of the tiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from .layout import Full, restrict, spread
from .operations import Affine, Attention, Input, Operation, Pointwise, State


@final
@dataclass(frozen=True)
class Scales:
    """What a parametrization makes of a layer's parameters.

    Attributes
    ----------
    parametrization : {"ntk", "standard", "torch"}
        See `mercer.infinite.NTK`.
    w_std, b_std : Tensor of shape () or (layers,), or None
        Standard deviations; None in the parametrization "torch".
    """

    parametrization: str
    w_std: Tensor | None
    b_std: Tensor | None

    def _at(self, values: Tensor | None, layer: int) -> Tensor:
        assert values is not None, "the parametrization 'torch' has its own"
        return (values if values.ndim == 0 else values[layer]).square()

    def affine(self, operation: Affine, like: Tensor) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        if self.parametrization == "torch":
            return operation.torch_weight, operation.torch_bias, operation.fan_in
        w2 = self._at(self.w_std, operation.layer).to(like.dtype)
        b2 = self._at(self.b_std, operation.layer).to(like.dtype)
        # In the NTK parametrization, a layer's tangents are its own output's covariances.
        return w2, b2, w2 if self.parametrization == "ntk" else operation.fan_in

    def attention(self, operation: Attention, like: Tensor) -> tuple[Any, Any, Any, Any, Any]:
        """Variances of keys, of values times outputs and of biases, and both's own tangents."""
        if self.parametrization == "torch":
            key, value, out, bias = 1 / 3, 1 / 3, 1 / 3, 1 / (3 * operation.width)
        else:
            key, value, out = (self._at(self.w_std, i).to(like.dtype) for i in operation.layers)
            bias = self._at(self.b_std, operation.layers[2]).to(like.dtype)
        if self.parametrization == "ntk":
            own = (operation.trains_value + operation.trains_out) * value * out
            return key, value * out, bias, own, bias
        own = operation.trains_value * operation.fan_in * out
        return key, value * out, bias, own + operation.trains_out * operation.width * value, 1.0


@final
class Plan:
    """Which layouts each operation of a network is computed in, from its output backwards.

    Parameters
    ----------
    operations : sequence of Operation
        The network.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        last = len(self.operations) - 1
        self.cross = self._backwards({last: ()})
        needed: dict[int, Full] = {}
        for i, operation in enumerate(self.operations):
            if self.cross[i] is None:
                continue
            for node in operation.wants_self():
                count = len(self.operations[node].positions)
                join(needed, node, (isinstance(operation, Attention),) * count)
        self.selves = self._backwards(needed)
        self.diagonal = self._backwards({**needed, **join({}, last, ())})

    def _backwards(self, needed: dict[int, Full]) -> tuple[Full | None, ...]:
        needed = dict(needed)
        for i in reversed(range(len(self.operations))):
            if i not in needed:
                continue
            operation = self.operations[i]
            for node, full in zip(operation.inputs, operation.wants(needed[i]), strict=True):
                join(needed, node, full)
            for node in operation.wants_self():
                count = len(self.operations[node].positions)
                join(needed, node, (isinstance(operation, Attention),) * count)
        return tuple(needed.get(i) for i in range(len(self.operations)))


def join(needed: dict[int, Full], node: int, full: Full) -> dict[int, Full]:
    """Add a layout to those that a node is wanted in."""
    before = needed.get(node, (False,) * len(full))
    needed[node] = tuple(a or b for a, b in zip(before, full, strict=True))
    return needed


@final
class Selves:
    """Covariances of each input with itself, operation by operation.

    Parameters
    ----------
    plan : Plan
        The network's plan.
    scales : Scales
        The values of its hyperparameters.
    x : Tensor of shape (*lead, n, *event)
        Inputs.
    output : bool, default False
        Whether the last operation is wanted too, with tangents.
    """

    def __init__(self, plan: Plan, scales: Scales, x: Tensor, output: bool = False) -> None:
        self.plan, self.scales = plan, scales
        self.data: dict[int, Tensor] = {}
        self.states: dict[int, State] = {}
        self._means: dict[int, Tensor | None] = {}
        layouts = list(plan.diagonal if output else plan.selves)
        self.layouts = layouts
        last_use = {
            n: i
            for i, op in enumerate(plan.operations)
            if layouts[i] is not None
            for n in op.inputs
        }
        for i, operation in enumerate(plan.operations):
            if isinstance(operation, Input):
                self.data[i] = operation.arrange(x)
            full = layouts[i]
            if full is None:
                continue
            if isinstance(operation, Input):
                self.states[i] = operation.variance(self.data[i], full), None
                continue
            wanted = operation.wants(full)
            states = [self._state(n, w) for n, w in zip(operation.inputs, wanted, strict=True)]
            place = SelfPlace(self, full)
            s, t = operation.apply(states, place)
            self.states[i] = s, (t if output else None)
            for node in set(operation.inputs):
                if last_use[node] == i:
                    self._let_go(node)

    def _let_go(self, node: int) -> None:
        """Keep no more of a node than what is asked for later: variances, or nothing."""
        users = [op for op in self.plan.operations if node in op.wants_self()]
        full = self.layouts[node]
        assert full is not None
        if not users:
            del self.states[node]
        elif not any(isinstance(op, Attention) for op in users):
            diagonal = (False,) * len(full)
            s = restrict(self.states[node][0], full, diagonal)
            # A view would keep the covariances of all positions alive.
            self.states[node] = (s.clone() if any(full) else s), None
            self.layouts[node] = diagonal

    def _state(self, node: int, full: Full) -> State:
        have = self.layouts[node]
        assert have is not None
        s, t = self.states[node]
        return restrict(s, have, full), None if t is None else restrict(t, have, full)

    def variance(self, node: int) -> Tensor:
        """Variances at each position, (*positions, *lead, n)."""
        have = self.layouts[node]
        assert have is not None
        return restrict(self.states[node][0], have, (False,) * len(have))

    def whole(self, node: int) -> Tensor:
        """Covariances of all positions, (*positions, *positions, *lead, n)."""
        return self.states[node][0]

    def mean(self, node: int) -> Tensor | None:
        """Means of the channels at each position, (*positions, *lead, n); None is zero."""
        if node not in self._means:
            operation = self.plan.operations[node]
            if isinstance(operation, Input):
                self._means[node] = self.data[node].mean(-1)
            else:
                below = (
                    []
                    if isinstance(operation, Affine | Attention | Pointwise)
                    else [self.mean(n) for n in operation.inputs]
                )
                place = SelfPlace(self, (False,) * len(operation.positions))
                self._means[node] = operation.mean(below, place)
        return self._means[node]


@final
@dataclass(frozen=True)
class SelfPlace:
    """Where an operation maps the covariances of each input with itself."""

    owner: Selves
    full: Full
    same: bool = True

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        q = self.owner.variance(node)
        return spread(q, full, 0, pairs=False), spread(q, full, 1, pairs=False)

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        q = self.owner.mean(node)
        if q is None:
            return None
        return spread(q, full, 0, pairs=False), spread(q, full, 1, pairs=False)

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves."""
        q = self.owner.whole(node)
        return q, q

    def affine(self, operation: Affine) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        return self.owner.scales.affine(operation, next(iter(self.owner.data.values())))

    def attention(self, operation: Attention) -> tuple[Any, Any, Any, Any, Any]:
        """Variances of keys, of values times outputs and of biases, and both's own tangents."""
        return self.owner.scales.attention(operation, next(iter(self.owner.data.values())))


@final
@dataclass(frozen=True)
class CrossPlace:
    """Where an operation maps the covariances of some inputs with others."""

    rows: Selves
    columns: Selves
    full: Full
    same: bool = False

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        return (
            spread(self.rows.variance(node), full, 0),
            spread(self.columns.variance(node), full, 1),
        )

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        one, two = self.rows.mean(node), self.columns.mean(node)
        if one is None or two is None:
            return None
        return spread(one, full, 0), spread(two, full, 1)

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves."""
        return self.rows.whole(node), self.columns.whole(node)

    def affine(self, operation: Affine) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        return self.rows.scales.affine(operation, next(iter(self.rows.data.values())))

    def attention(self, operation: Attention) -> tuple[Any, Any, Any, Any, Any]:
        """Variances of keys, of values times outputs and of biases, and both's own tangents."""
        return self.rows.scales.attention(operation, next(iter(self.rows.data.values())))


def cross(rows: Selves, columns: Selves) -> State:
    """Carry covariances between inputs through the network.

    Parameters
    ----------
    rows, columns : Selves
        Inputs (*lead, n, *event) and (*lead, m, *event) with as many leading axes.

    Returns
    -------
    tuple of Tensor of shape (*lead, n, m)
        S and T of the last operation; T is None where nothing is trained.
    """
    plan = rows.plan
    states: dict[int, State] = {}
    last_use = {n: i for i, op in enumerate(plan.operations) for n in op.inputs}
    for i, operation in enumerate(plan.operations):
        full = plan.cross[i]
        if full is None:
            continue
        if isinstance(operation, Input):
            states[i] = operation.covariance(rows.data[i], columns.data[i], full), None
            continue
        given = []
        for node, want in zip(operation.inputs, operation.wants(full), strict=True):
            have = plan.cross[node]
            assert have is not None
            s, t = states[node]
            given.append((restrict(s, have, want), None if t is None else restrict(t, have, want)))
        states[i] = operation.apply(given, CrossPlace(rows, columns, full))
        for node in operation.inputs:
            if last_use[node] == i:
                states.pop(node, None)
    return states[len(plan.operations) - 1]
