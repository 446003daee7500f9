"""What flows through a module while it is read: a tensor whose axes have roles."""

from dataclasses import replace
from typing import Self, final

from .expression import Expression
from .operations import Concatenate, Input, Sum
from .signal_arithmetic import SignalArithmetic
from .tape import BATCH, CHANNEL, DATA


@final
class Signal(SignalArithmetic):
    """A tensor of a network, by the covariances of its channels.

    A rule (see `mercer.infinite.rule`) takes signals and returns one. The tensor's axes are
    numbered as in the module's forward; positions are the axes that are neither the batch nor
    the channels.

    Attributes
    ----------
    tape : Tape
        What has been read.
    roles : tuple
        For each axis of the tensor: ``"batch"``, ``"channel"`` or the number of a position axis;
        None for axes of data that no layer has taken yet.
    shape : tuple of int
        The tensor's shape.
    node : int
        The operation that makes it; -1 for data.
    gaussian : bool
        Whether its channels are independent normal variables of mean zero, as an activation's
        input must be.
    centred : bool
        Whether the means of its channels are zero.
    sources : frozenset
        The layers whose weights it is linear in, to know what is independent.
    steps : tuple
        For data: what was done to them.
    expression : Expression or None
        An elementwise function of `node`'s output that has not been read as an operation yet.
    parts : tuple of Signal
        For a concatenation: what lies beside each other along the channels.
    gains : tuple of tuple of int, or None
        Trained gains since the last layer, each with the position axes along which it has factors
        of its own; None where what they add can no longer be told.
    alike : bool
        Whether its channels are as good as each other, so that any half of them has the same
        covariances; not so of data, and of what lies beside each other.
    step : int
        The reader's step at which its expression was made.
    """

    def with_channels(self, axis: int) -> Self:
        """Settle, and check that the channels are the axis given.

        Parameters
        ----------
        axis : int
            The axis of the tensor that a layer takes for channels.

        Returns
        -------
        Signal
            A signal of random channels, or of data with that axis as channels.

        Raises
        ------
        NoRuleError
            If its channels lie along another axis.
        """
        axis = self.axis(axis)
        if self.is_data:
            if (self, axis) not in self.tape.known:
                self.tape.known[self, axis] = self._arranged(axis)
            return self.tape.known[self, axis]
        found = self.settled()
        if found.roles[axis] != CHANNEL:
            where = found.roles.index(CHANNEL) if CHANNEL in found.roles else None
            raise self.tape.refuse(
                f"takes axis {axis} of a tensor {self.shape_text} for channels, which lie along "
                f"axis {where}; mixing positions by random weights has no rule"
            )
        return found

    def _arranged(self, axis: int) -> Self:
        """Take an axis of the data for channels."""
        if axis == 0:
            raise self.tape.refuse("takes the batch axis for channels")
        positions = iter(range(self.ndim))
        roles = [CHANNEL if i == axis else next(positions) for i in range(1, self.ndim)]
        made = replace(self, roles=(BATCH, *roles), steps=(), sources=frozenset({DATA}))
        node = self.tape.add(
            Input((), made.positions, self.tape.place, self.steps, axis - 1, self.shape[axis])
        )
        return replace(made, node=node)

    def settled(self) -> Self:
        """Return the signal as the output of an operation."""
        if self.is_data:
            raise self.tape.refuse("data whose channels no layer has told yet have no covariances")
        if self.expression is None and not self.parts:
            return self
        if self not in self.tape.known:
            with self.tape.back_at(self.step):
                self.tape.known[self] = self._settle()
        return self.tape.known[self]

    def _settle(self) -> Self:
        """Make the operations that a pending function or concatenation stands for."""
        if self.parts:
            parts = [p.settled() for p in self.parts]
            node = self.tape.add(
                Concatenate(
                    tuple(p.node for p in parts),
                    self.positions,
                    self.tape.place,
                    tuple(p.channels for p in parts),
                )
            )
            return replace(
                self,
                node=node,
                parts=(),
                gaussian=False,
                alike=False,
                centred=all(p.centred for p in parts),
                sources=frozenset().union(*(p.sources for p in parts)),
            )
        assert self.expression is not None
        base = replace(self, expression=None)
        number = self.expression.linear()
        if number is not None:
            return base if number == 1 else base.scaled(number)
        factor, shift, core = self.expression.outer()
        if core.function is None:
            return base._emit(
                Sum, (factor,), shift, gaussian=False, centred=base.centred and not shift
            )
        inner = [a for a in core.arguments if isinstance(a, Expression)]
        scale = inner[0].linear() if len(inner) == 1 == len(core.arguments) else None
        if scale and scale != 1.0:
            base = base.scaled(scale)
            core = replace(core, arguments=(Expression(),))
        found = base.activated(core.activation())
        if factor != 1 or shift:
            found = found._emit(
                Sum, (factor,), shift, gaussian=False, centred=found.centred and not shift
            )
        return found
