"""Sums, products, elementwise functions and concatenations of signals."""

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from .expression import Expression, is_number
from .operations import Permute, Product, Sum
from .signal_base import SignalBase, with_size
from .signal_layers import SignalLayers
from .tape import CHANNEL

_S = TypeVar("_S", bound="SignalArithmetic")


class SignalArithmetic(SignalLayers, abc.ABC):
    """The arithmetic of a `Signal`.

    Abstract.
    """

    def applied(self, name: Any, *arguments: Any, **options: Any) -> Self:
        """Apply an elementwise function, with this signal for each `Signal` among the arguments.

        Parameters
        ----------
        name : str or callable
            The function.
        *arguments : object
            Its arguments: signals that are functions of the same one, and numbers.
        **options : object
            Its options.

        Returns
        -------
        Signal
            The output, not read as an operation yet.
        """
        if self.parts and all(a is self for a in arguments if isinstance(a, SignalBase)):
            parts = tuple(
                p.applied(
                    name, *(p if isinstance(a, SignalBase) else a for a in arguments), **options
                )
                for p in self.parts
            )
            return replace(self, parts=parts)
        one = self.settled() if self.parts else self
        trees = [
            (a.expression or Expression()) if isinstance(a, SignalBase) else a for a in arguments
        ]
        made = Expression(name, tuple(trees), tuple(sorted(options.items())))
        if one.is_data:
            step = Expression(
                name,
                tuple(Expression() if isinstance(a, SignalBase) else a for a in arguments),
                made.options,
            )
            return replace(one, steps=(*one.steps, ("apply", step)))
        if not one.gaussian and one.expression is None and made.linear() is None:
            core = made.outer()[2]
            if core.function is not None:
                raise self.tape.refuse(
                    f"{made} of what is not normal; an activation needs a layer with random "
                    "weights between it and other activations, products, pooled activations or data"
                )
        return replace(one, expression=made, step=self.tape.step)

    def same_base(self, other: Any) -> bool:
        """Whether both are elementwise functions of one normal signal."""
        if self.is_data and other.is_data:
            return self.steps == other.steps and self.roles == other.roles
        if self.parts:
            return self is other and all(p.gaussian for p in self.parts)
        return (
            not self.parts
            and not other.parts
            and self.node == other.node
            and self.roles == other.roles
            and self.gaussian
        )

    def __add__(self, other: Any) -> Self:
        return self._combine(other, 1.0, "add")

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        return self._combine(other, -1.0, "sub")

    def __rsub__(self, other: Any) -> Self:
        return self.applied("neg", self) + other

    def __neg__(self) -> Self:
        return self.applied("neg", self)

    def _combine(self, other: Any, sign: float, name: str) -> Self:
        if is_number(other):
            return self.applied(name, self, other) if other else self
        if not isinstance(other, SignalBase):
            raise self.tape.refuse(f"adds a {type(other).__name__}, which has no covariances")
        if self.same_base(other):
            return self.applied(name, self, other)
        if self._beside(other):
            pairs = zip(self.parts, other.parts, strict=True)
            return replace(self, parts=tuple(p._combine(q, sign, name) for p, q in pairs))
        one, two = _matched(self, other)
        if one.node == two.node:  # the same, though not normal
            return one._emit(Sum, (1 + sign,), 0.0)
        terms, known = one._terms(), self.tape.even
        for node, factor in two._terms().items():
            if node not in terms:
                for before in one._terms():
                    one._independent(before, node, "adds")
                    if not known[before] and not known[node]:
                        raise self.tape.refuse(
                            "adds signals whose channels have means of their own (data, or signals "
                            "beside each other), which are not known channel by channel"
                        )
            terms[node] = terms.get(node, 0.0) + sign * factor
        node = self.tape.add(
            Sum(tuple(terms), one.positions, self.tape.place, tuple(terms.values()), 0.0)
        )
        return replace(
            one,
            node=node,
            gaussian=one.gaussian and two.gaussian,
            centred=one.centred and two.centred,
            alike=one.alike and two.alike,
            sources=one.sources | two.sources,
            gains=None if one.gains != () or two.gains != () else (),
        )

    def _beside(self, other: Any) -> bool:
        """Whether both are signals beside each other, of the same widths."""
        widths = [[p.channels for p in s.parts] for s in (self, other)]
        return bool(self.parts) and widths[0] == widths[1] and self.roles == other.roles

    def _terms(self) -> dict[int, float]:
        """Return the operations that it is a sum of, with their factors."""
        operation = self.tape.operations[self.node]
        known = self.tape.sources
        known.setdefault(self.node, self.sources)
        self.tape.even.setdefault(self.node, self.alike or self.centred)
        if not isinstance(operation, Sum) or operation.shift or operation.factors == (1.0,):
            return {self.node: 1.0}
        if len(operation.inputs) == 1:
            known.setdefault(operation.inputs[0], self.sources)
            self.tape.even.setdefault(operation.inputs[0], self.alike or self.centred)
        elif any(n not in self.tape.even for n in operation.inputs):
            return {self.node: 1.0}
        return dict(zip(operation.inputs, operation.factors, strict=True))

    def __mul__(self, other: Any) -> Self:
        if is_number(other):
            return self.applied("mul", self, other)
        if not isinstance(other, SignalBase):
            raise self.tape.refuse(
                f"multiplies by a {type(other).__name__}, which has no covariances"
            )
        if self.same_base(other):
            return self.applied("mul", self, other)
        if self._beside(other):
            pairs = zip(self.parts, other.parts, strict=True)
            return replace(self, parts=tuple(p * q for p, q in pairs))
        one, two = _matched(self, other)
        if not (one.alike or two.alike):
            raise self.tape.refuse(
                "multiplies signals whose channels differ (data, or signals beside each other), "
                "which are not known channel by channel"
            )
        self.tape.sources.update({one.node: one.sources, two.node: two.sources})
        one._independent(one.node, two.node, "multiplies")
        node = self.tape.add(Product((one.node, two.node), one.positions, self.tape.place))
        return replace(
            one,
            node=node,
            gaussian=False,
            centred=one.centred or two.centred,
            alike=one.alike and two.alike,
            sources=one.sources | two.sources,
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Self:
        if is_number(other):
            return self.applied("div", self, other)
        if isinstance(other, SignalBase) and self.same_base(other):
            return self.applied("div", self, other)
        raise self.tape.refuse("divides by what has no rule")

    def __rtruediv__(self, other: Any) -> Self:
        return self.applied("div", other, self)

    def _independent(self, one: int, two: int, verb: str) -> None:
        """Refuse two operations that are made of the same weights."""
        for layer, low, high in self.tape.sources[one]:
            for other, other_low, other_high in self.tape.sources[two]:
                if layer == other and low < other_high and other_low < high:
                    what = "the data" if layer < 0 else "the random weights of "
                    what += repr(self.tape.layers[layer]) if layer >= 0 else ""
                    raise self.tape.refuse(
                        f"{verb} signals that share {what}: a residual branch must end in a layer "
                        "with weights of its own"
                    )

    def joined(self, others: Sequence[Self], axis: int) -> Self:
        """Concatenate along the channels.

        Parameters
        ----------
        others : sequence of Signal
            What follows.
        axis : int
            The axis of the channels.

        Returns
        -------
        Signal
            All beside each other.
        """
        axis = self.axis(axis)
        every: list[Self] = []
        for signal in (self, *others):
            signal = signal.with_channels(axis) if signal.is_data else signal
            if signal.roles[axis] != CHANNEL:
                raise self.tape.refuse(
                    "concatenates along positions, which has no rule; along channels it has"
                )
            every += signal.parts or (signal,)
        first = every[0]
        every = [first, *(_matched(first, s, settle=False)[1] for s in every[1:])]
        channels = sum(s.channels for s in every)
        return replace(
            first,
            node=-1,
            expression=None,
            gaussian=False,
            alike=False,
            shape=with_size(first.shape, axis, channels),
            parts=tuple(every),
            step=self.tape.step,
        )


def _matched(one: _S, two: Any, settle: bool = True) -> tuple[_S, _S]:
    """Settle two signals and bring their positions into the same order."""
    if one.is_data or two.is_data:
        if one.is_data and two.is_data:
            raise one.tape.refuse("combines two different tensors made of the data")
        known = (two if one.is_data else one).settled()
        axis = known.roles.index(CHANNEL)
        one, two = (s.with_channels(axis) if s.is_data else s for s in (one, two))
    if settle:
        one, two = one.settled(), two.settled()
    if one.ndim != two.ndim or any(
        a != b for a, b, r in zip(one.shape, two.shape, one.roles, strict=True) if r != CHANNEL
    ):
        raise one.tape.refuse(f"combines tensors {one.shape_text} and {two.shape_text}")
    kinds = [[r if isinstance(r, str) else "position" for r in s.roles] for s in (one, two)]
    if kinds[0] != kinds[1] or (settle and one.channels != two.channels):
        raise one.tape.refuse(
            f"combines tensors {one.shape_text} and {two.shape_text} whose channels lie apart"
        )
    if one.roles != two.roles:
        two = two.settled()
        theirs = dict(zip(one.roles, two.roles, strict=True))
        order = tuple(theirs[i] for i in range(len(one.positions)))
        positions = tuple(two.positions[i] for i in order)
        two = replace(two, roles=one.roles, gains=two._shared_gains)._emit(
            Permute, order, positions=positions
        )
    return one, two
