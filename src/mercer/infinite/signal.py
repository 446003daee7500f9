"""What flows through a module while it is read: a tensor whose axes have roles."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from .._core.activation import Activation
from .expression import Expression, is_number
from .operations import (
    Affine,
    Attention,
    Concatenate,
    Dropout,
    Flatten,
    Input,
    Mix,
    Normalize,
    Operation,
    Permute,
    Pointwise,
    Product,
    Reshape,
    Select,
    Sum,
    Unshared,
    Window,
)

BATCH, CHANNEL = "batch", "channel"


class NoRuleError(NotImplementedError):
    """Raised where a module does what has no kernel at infinite width, or none that is known."""


@final
class Tape:
    """The operations that have been read so far.

    Attributes
    ----------
    operations : list of Operation
        In the order in which they are computed.
    layers : list of str
        Names of the layers with weights.
    place : str
        Where in the module the reader is.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.layers: list[str] = []
        self.place = ""
        self.used: set[str] = set()
        self.costs: dict[str, list[int]] = {}

    def add(self, operation: Operation) -> int:
        """Append an operation, and return its number."""
        self.operations.append(operation)
        self.costs.setdefault(self.place, []).append(len(self.operations) - 1)
        return len(self.operations) - 1

    def layer(self, name: str) -> int:
        """Count a layer with weights; each may be used once."""
        if name in self.layers:
            raise NoRuleError(
                f"{name}: a layer that is used more than once has no rule, as its uses share "
                "random weights; use mercer.infinite.monte_carlo"
            )
        self.layers.append(name)
        return len(self.layers) - 1

    def refuse(self, why: str) -> "NoRuleError":
        """Make the error that says where the module does what has no rule."""
        return NoRuleError(f"{self.place or 'the module'}: {why}")


Source = tuple[int, int, int]
"""A layer's number, and the range of its channels in 1/2520 of its width."""


@final
@dataclass(frozen=True)
class Signal:
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
    """

    tape: Tape
    roles: tuple[Any, ...]
    shape: tuple[int, ...]
    node: int = -1
    gaussian: bool = False
    centred: bool = False
    sources: frozenset[Source] = frozenset()
    steps: tuple[tuple[Any, ...], ...] = ()
    expression: Expression | None = None
    parts: "tuple[Signal, ...]" = ()
    gains: tuple[tuple[int, ...], ...] | None = ()

    # -- what it is ------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_data(self) -> bool:
        """Whether no random weights came before."""
        return self.node < 0 and not self.parts

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the position axes, in the order of the covariances."""
        found = {r: n for r, n in zip(self.roles, self.shape, strict=True) if isinstance(r, int)}
        return tuple(found[i] for i in range(len(found)))

    @property
    def channels(self) -> int:
        """Width."""
        return self.shape[self.roles.index(CHANNEL)] if CHANNEL in self.roles else 1

    def axis(self, axis: int) -> int:
        """Return an axis counted from the front."""
        if not -self.ndim <= axis < self.ndim:
            raise self.tape.refuse(f"axis {axis} of a tensor with {self.ndim} axes")
        return axis % self.ndim

    # -- settling: from something pending to an operation ----------------------------------------

    def _emit(self, operation: type[Operation], *arguments: Any, **changes: Any) -> "Signal":
        """Append an operation on this signal."""
        positions = changes.pop("positions", None)
        after = replace(self, **changes)
        positions = after.positions if positions is None else positions
        node = self.tape.add(operation((self.node,), positions, self.tape.place, *arguments))
        return replace(after, node=node)

    def with_channels(self, axis: int) -> "Signal":
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
            roles: list[Any] = [BATCH]
            count = 0
            for i in range(1, self.ndim):
                roles.append(CHANNEL if i == axis else count)
                count += i != axis
            if axis == 0:
                raise self.tape.refuse("takes the batch axis for channels")
            made = replace(self, roles=tuple(roles), steps=())
            node = self.tape.add(
                Input((), made.positions, self.tape.place, self.steps, axis - 1, self.shape[axis])
            )
            return replace(made, node=node)
        found = self.settled()
        if found.roles[axis] != CHANNEL:
            where = found.roles.index(CHANNEL) if CHANNEL in found.roles else None
            raise self.tape.refuse(
                f"takes axis {axis} of a tensor {self.shape_text} for channels, which lie along "
                f"axis {where}; mixing positions by random weights has no rule"
            )
        return found

    @property
    def shape_text(self) -> str:
        """The shape with n for the batch."""
        return f"({', '.join(['n', *map(str, self.shape[1:])])})"

    def settled(self) -> "Signal":
        """Return the signal as the output of an operation."""
        if self.is_data:
            raise self.tape.refuse("data whose channels no layer has told yet have no covariances")
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
                centred=all(p.centred for p in parts),
                sources=frozenset().union(*(p.sources for p in parts)),
            )
        if self.expression is None:
            return self
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
        if scale not in (None, 0.0, 1.0):
            assert scale is not None
            base = base.scaled(scale)
            core = replace(core, arguments=(Expression(),))
        found = base.activated(core.activation())
        if factor != 1 or shift:
            found = found._emit(
                Sum, (factor,), shift, gaussian=False, centred=found.centred and not shift
            )
        return found

    # -- what layers do --------------------------------------------------------------------------

    def activated(self, activation: Activation) -> "Signal":
        """Apply an activation.

        Parameters
        ----------
        activation : Activation
            The function; see `mercer.kernels.dual`.

        Returns
        -------
        Signal
            The output.

        Raises
        ------
        NoRuleError
            If the input is not normal, as after another activation or a product.
        """
        if self.parts:
            return replace(self, parts=tuple(p.activated(activation) for p in self.parts))
        found = self.settled()
        if not found.gaussian:
            raise self.tape.refuse(
                f"{activation!r} of what is not normal; an activation needs a layer with random "
                "weights between it and other activations, products, pooled activations or data"
            )
        if found.gains is None:
            raise self.tape.refuse(
                f"{activation!r} of a sum or of positions mixed after a normalisation whose gain "
                "is trained; freeze the gain, or put a layer with weights between"
            )
        return found._emit(
            Pointwise, activation, found.gains, gaussian=False, centred=False, gains=()
        )

    def scaled(self, factor: float) -> "Signal":
        """Multiply by a number.

        Parameters
        ----------
        factor : float
            The number.

        Returns
        -------
        Signal
            The product.
        """
        return self.settled()._emit(Sum, (float(factor),), 0.0)

    def affine(
        self,
        channels: int,
        *,
        axis: int = -1,
        fan_in: int | None = None,
        bias: bool = True,
        trains_weight: bool = True,
        trains_bias: bool = True,
        torch_weight: float = 1 / 3,
        torch_bias: float | None = None,
        name: str | None = None,
        shared: bool = True,
        wide: bool = True,
    ) -> "Signal":
        """Mix channels by random weights.

        Parameters
        ----------
        channels : int
            Width of the output.
        axis : int, default -1
            Where the channels lie.
        fan_in : int, optional
            Weights that an output has; by default the input's channels.
        bias : bool, default True
            Whether there are biases.
        trains_weight, trains_bias : bool, default True
            Whether they are trained.
        torch_weight : float, default 1/3
            Variance of the weights at PyTorch's default initialisation, times fan_in.
        torch_bias : float, optional
            Variance of the biases there; by default a third of the inverse fan_in.
        name : str, optional
            The layer's name; by default where the module has it.
        shared : bool, default True
            Whether all positions have the same weights.
        wide : bool, default True
            Whether each output sums over many inputs, so that it is normal.

        Returns
        -------
        Signal
            The output, normal.
        """
        found = self.with_channels(axis)
        fan_in = found.channels if fan_in is None else fan_in
        layer = self.tape.layer(self.tape.place if name is None else name)
        after = found._emit(
            Affine,
            layer,
            fan_in,
            bias,
            trains_weight,
            trains_bias,
            torch_weight,
            1 / (3 * fan_in) if torch_bias is None else torch_bias,
            gaussian=wide,
            centred=True,
            sources=frozenset({(layer, 0, 2520)}),
            gains=(),
            shape=_with(found.shape, found.axis(axis), channels),
        )
        return after if shared else after._emit(Unshared)

    def windowed(
        self, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> "Signal":
        """Gather windows of positions: a convolution without its weights.

        Parameters
        ----------
        size, stride, dilation : sequence of int
            One for each position axis.

        Returns
        -------
        Signal
            With as many channels as before, which stand for those of all positions of a window.
        """
        found = self.settled()
        out = tuple(
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(found.positions, size, stride, dilation, strict=True)
        )
        if min(out, default=1) < 1:
            raise self.tape.refuse(
                f"a window of {tuple(size)} does not fit {found.positions} positions"
            )
        return found._emit(
            Window,
            tuple(size),
            tuple(stride),
            tuple(dilation),
            shape=found._positions_changed(out),
            gaussian=False,
        )

    def picked(self, axis: int, index: Sequence[int], *, drop: bool = False) -> "Signal":
        """Pick positions along an axis of the tensor; -1 is zeros, as of padding.

        Parameters
        ----------
        axis : int
            An axis of positions.
        index : sequence of int
            Which positions.
        drop : bool, default False
            Whether the axis, of one position, is dropped.

        Returns
        -------
        Signal
            The output.
        """
        return self._along(axis, Select, tuple(index), len(index), drop)

    def mixed(
        self, axis: int, matrix: Sequence[Sequence[float]], *, drop: bool = False
    ) -> "Signal":
        """Mix positions along an axis of the tensor by fixed weights, as pooling does.

        Parameters
        ----------
        axis : int
            An axis of positions.
        matrix : sequence of sequences of float
            A row for each position of the output.
        drop : bool, default False
            Whether the axis, of one position, is dropped.

        Returns
        -------
        Signal
            The output.
        """
        return self._along(axis, Mix, tuple(map(tuple, matrix)), len(matrix), drop)

    def _along(self, axis: int, kind: Any, argument: Any, size: int, drop: bool) -> "Signal":
        axis = self.axis(axis)
        shape = _with(self.shape, axis, size)
        if axis == 0:
            raise self.tape.refuse("changes the batch axis")
        if self.is_data:
            name = "pick" if kind is Select else "mix"
            steps = (*self.steps, (name, axis - 1, argument, self.ndim - 1))
            after = replace(self, shape=shape, steps=steps)
            return after.reshaped((*shape[:axis], *shape[axis + 1 :])) if drop else after
        found = self.settled()
        role = found.roles[axis]
        if not isinstance(role, int):
            raise self.tape.refuse(
                f"picks or averages along axis {axis}, the {role} axis; "
                "a channel of a wide network is as good as another"
            )
        changes: dict[str, Any] = {"shape": shape, "gains": found._shared_gains}
        if drop:
            changes |= {
                "shape": (*shape[:axis], *shape[axis + 1 :]),
                "roles": tuple(
                    r - 1 if isinstance(r, int) and r > role else r
                    for i, r in enumerate(found.roles)
                    if i != axis
                ),
            }
        return found._emit(kind, role, argument, drop, **changes)

    def normalized(
        self,
        axes: Sequence[int],
        *,
        centre: bool,
        eps: float,
        trains_weight: bool = False,
        trains_bias: bool = False,
        own_positions: bool = False,
    ) -> "Signal":
        """Normalise over the channels, and over some axes of positions.

        Parameters
        ----------
        axes : sequence of int
            Axes of the tensor besides the channels'.
        centre : bool
            Whether the mean is taken away.
        eps : float
            What is added to the variance.
        trains_weight, trains_bias : bool, default False
            Whether there are trained factors and offsets.
        own_positions : bool, default False
            Whether each position has its own.

        Returns
        -------
        Signal
            The output.
        """
        found = self.settled()
        roles = sorted(found.roles[self.axis(a)] for a in axes)
        gains = found.gains
        if trains_weight and gains is not None:
            gains = (*gains, tuple(roles) if own_positions else ())
        return found._emit(
            Normalize,
            tuple(roles),
            centre and not found.centred,
            float(eps),
            trains_weight,
            trains_bias,
            own_positions,
            centred=found.centred or (centre and not axes),
            gains=gains,
        )

    def dropped(self, rate: float) -> "Signal":
        """Drop channels at random, as in training.

        Parameters
        ----------
        rate : float
            Share of channels dropped.

        Returns
        -------
        Signal
            The output, which is not normal.
        """
        return self.settled()._emit(Dropout, float(rate), gaussian=False)

    def attended(self, softmax: bool, bias: bool) -> "Signal":
        """Mix positions by their own covariances, as `SelfAttention` does.

        Parameters
        ----------
        softmax : bool
            Whether the covariances go through a softmax.
        bias : bool
            Whether the output has biases.

        Returns
        -------
        Signal
            The output, normal.
        """
        found = self.with_channels(-1)
        place = self.tape.place
        layers = [self.tape.layer(f"{place}.{name}") for name in ("key", "value", "out")]
        return found._emit(
            Attention,
            tuple(layers),
            softmax,
            bias,
            gaussian=True,
            centred=True,
            sources=frozenset((i, 0, 2520) for i in layers),
            gains=(),
        )

    @property
    def _shared_gains(self) -> tuple[tuple[int, ...], ...] | None:
        """The gains after positions have changed: those of all positions alike stay."""
        return None if self.gains is None or any(self.gains) else self.gains

    # -- arithmetic ------------------------------------------------------------------------------

    def applied(self, name: Any, *arguments: Any, **options: Any) -> "Signal":
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
        if self.parts and all(a is self for a in arguments if isinstance(a, Signal)):
            parts = tuple(
                p.applied(name, *(p if isinstance(a, Signal) else a for a in arguments), **options)
                for p in self.parts
            )
            return replace(self, parts=parts)
        one = self.settled() if self.parts else self
        trees = [(a.expression or Expression()) if isinstance(a, Signal) else a for a in arguments]
        made = Expression(name, tuple(trees), tuple(sorted(options.items())))
        if one.is_data:
            step = Expression(
                name,
                tuple(Expression() if isinstance(a, Signal) else a for a in arguments),
                made.options,
            )
            return replace(one, steps=(*one.steps, ("apply", step)))
        if not one.gaussian and one.expression is None and made.linear() is None:
            factor, _, core = made.outer()
            if core.function is not None:
                raise self.tape.refuse(
                    f"{made} of what is not normal; an activation needs a layer with random "
                    "weights between it and other activations, products, pooled activations or data"
                )
        return replace(one, expression=made)

    def same_base(self, other: "Signal") -> bool:
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

    def __add__(self, other: Any) -> "Signal":
        return self._combine(other, 1.0, "add")

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Signal":
        return self._combine(other, -1.0, "sub")

    def __rsub__(self, other: Any) -> "Signal":
        return self.applied("neg", self) + other

    def __neg__(self) -> "Signal":
        return self.applied("neg", self)

    def _combine(self, other: Any, sign: float, name: str) -> "Signal":
        if is_number(other):
            return self.applied(name, self, other) if other else self
        if not isinstance(other, Signal):
            raise self.tape.refuse(f"adds a {type(other).__name__}, which has no covariances")
        if self.same_base(other):
            return self.applied(name, self, other)
        one, two = _matched(self, other)
        if one.node == two.node:  # the same, though not normal
            return one._emit(Sum, (1 + sign,), 0.0)
        one._independent(two, "adds")
        node = self.tape.add(
            Sum((one.node, two.node), one.positions, self.tape.place, (1.0, sign), 0.0)
        )
        return replace(
            one,
            node=node,
            gaussian=one.gaussian and two.gaussian,
            centred=one.centred and two.centred,
            sources=one.sources | two.sources,
            gains=None if one.gains != () or two.gains != () else (),
        )

    def __mul__(self, other: Any) -> "Signal":
        if is_number(other):
            return self.applied("mul", self, other)
        if not isinstance(other, Signal):
            raise self.tape.refuse(
                f"multiplies by a {type(other).__name__}, which has no covariances"
            )
        if self.same_base(other):
            return self.applied("mul", self, other)
        one, two = _matched(self, other)
        one._independent(two, "multiplies")
        node = self.tape.add(Product((one.node, two.node), one.positions, self.tape.place))
        return replace(
            one,
            node=node,
            gaussian=False,
            centred=one.centred or two.centred,
            sources=one.sources | two.sources,
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Signal":
        if is_number(other):
            return self.applied("div", self, other)
        if isinstance(other, Signal) and self.same_base(other):
            return self.applied("div", self, other)
        raise self.tape.refuse("divides by what has no rule")

    def __rtruediv__(self, other: Any) -> "Signal":
        return self.applied("div", other, self)

    def _independent(self, other: "Signal", verb: str) -> None:
        for layer, low, high in self.sources:
            for other_layer, other_low, other_high in other.sources:
                if layer == other_layer and low < other_high and other_low < high:
                    raise self.tape.refuse(
                        f"{verb} signals that share the random weights of "
                        f"{self.tape.layers[layer]!r}: a residual branch must end in a layer "
                        "with weights of its own"
                    )

    # -- axes ------------------------------------------------------------------------------------

    def permuted(self, order: Sequence[int]) -> "Signal":
        """Put the tensor's axes in another order.

        Parameters
        ----------
        order : sequence of int
            As of `torch.permute`.

        Returns
        -------
        Signal
            The output.
        """
        order = tuple(self.axis(a) for a in order)
        if sorted(order) != list(range(self.ndim)):
            raise self.tape.refuse(f"permutes {self.ndim} axes by {order}")
        if order[0] != 0:
            raise self.tape.refuse("moves the batch axis, which must stay the first")
        shape = tuple(self.shape[i] for i in order)
        roles = tuple(self.roles[i] for i in order)
        if self.is_data:
            step = ("permute", tuple(i - 1 for i in order[1:]))
            return replace(self, shape=shape, roles=roles, steps=(*self.steps, step))
        if self.parts:
            return replace(
                self, shape=shape, roles=roles, parts=tuple(p.permuted(order) for p in self.parts)
            )
        # The covariances keep their order: only the tensor's axes have moved.
        return replace(self, shape=shape, roles=roles)

    def reshaped(self, shape: Sequence[int]) -> "Signal":
        """Merge or split axes, as `torch.reshape` does.

        Parameters
        ----------
        shape : sequence of int
            The new shape, with the batch in front; one entry may be -1.

        Returns
        -------
        Signal
            The output: positions that become part of the channels are flattened.
        """
        shape = list(shape)
        if -1 in shape:
            rest = math.prod(n for n in shape if n != -1)
            shape[shape.index(-1)] = math.prod(self.shape) // max(rest, 1)
        if math.prod(shape) != math.prod(self.shape) or shape[0] != self.shape[0]:
            raise self.tape.refuse(
                f"reshapes {self.shape_text} to {tuple(shape)}; the batch must stay the first axis"
            )
        if tuple(shape) == self.shape:
            return self
        if self.is_data:
            step = ("reshape", self.shape[1:], tuple(shape[1:]))
            roles = (BATCH, *[None] * (len(shape) - 1))
            return replace(self, shape=tuple(shape), roles=roles, steps=(*self.steps, step))
        return self.settled()._regrouped(tuple(shape))

    def _regrouped(self, shape: tuple[int, ...]) -> "Signal":
        runs = _runs(self.shape, shape)
        # First bring the covariances' axes into the tensor's order.
        order = tuple(r for r in self.roles if isinstance(r, int))
        found = self
        if order != tuple(range(len(order))):
            rank = {role: i for i, role in enumerate(order)}
            roles = tuple(rank[r] if isinstance(r, int) else r for r in self.roles)
            found = replace(self, roles=roles, gains=self._shared_gains)
            positions = tuple(self.positions[i] for i in order)
            found = found._emit(Permute, order, positions=positions)
        roles, flat, groups, after = [], [], [], []
        start = 0
        for old, new in runs:
            inside = found.roles[old.start : old.stop]
            sizes = [n for n in shape[new.start : new.stop]]
            kept = [r for r in inside if isinstance(r, int)]
            if BATCH in inside:
                if len([n for n in sizes if n != 1]) > 1 or kept or CHANNEL in inside:
                    raise self.tape.refuse(
                        f"reshapes {self.shape_text} to {shape}: the batch must keep its axis"
                    )
                roles += [BATCH, *range(start, start + len(sizes) - 1)]
                groups += [(0, len(sizes) - 1)] if len(sizes) > 1 else []
                after += sizes[1:]
                start += len(sizes) - 1
            elif CHANNEL in inside:
                full = [i for i, n in enumerate(sizes) if n != 1]
                if len(full) > 1:
                    raise self.tape.refuse(
                        f"reshapes {self.shape_text} to {shape}: splits the channels"
                    )
                place = full[0] if full else 0
                flat += kept
                groups += [(len(kept), 0)] if False else []
                for i, n in enumerate(sizes):
                    if i == place:
                        roles.append(CHANNEL)
                    else:
                        roles.append(start)
                        start += 1
                        after.append(n)
                        groups.append((0, 1))
            else:
                groups.append((len(kept), len(sizes)))
                roles += range(start, start + len(sizes))
                start += len(sizes)
                after += sizes
        if flat:
            left = [r for r in range(len(found.positions)) if r not in flat]
            rank = {r: i for i, r in enumerate(left)}
            positions = tuple(found.positions[r] for r in left)
            # Roles of the tensor between both steps do not matter, but for the positions.
            found = replace(found, roles=tuple(rank.get(r, r) for r in found.roles))
            found = found._emit(Flatten, tuple(flat), positions=positions, gaussian=False)
            before = positions
        else:
            before = found.positions
        if any(old != 1 or new != 1 for old, new in groups):
            node = self.tape.add(
                Reshape((found.node,), tuple(after), self.tape.place, tuple(groups), before)
            )
            found = replace(found, node=node, gains=found._shared_gains)
        return replace(found, roles=tuple(roles), shape=shape)

    def joined(self, others: "Sequence[Signal]", axis: int) -> "Signal":
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
        every: list[Signal] = []
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
            shape=_with(first.shape, axis, channels),
            parts=tuple(every),
        )

    def split(self, sizes: Sequence[int], axis: int) -> "tuple[Signal, ...]":
        """Split the channels, or positions along an axis.

        Parameters
        ----------
        sizes : sequence of int
            Sizes of the parts.
        axis : int
            The axis of the tensor.

        Returns
        -------
        tuple of Signal
            The parts; those of a normal signal's channels are independent.
        """
        axis = self.axis(axis)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        if self.is_data or self.settled().roles[axis] != CHANNEL:
            return tuple(
                self.picked(axis, range(a, a + n)) for a, n in zip(starts, sizes, strict=True)
            )
        found = self.settled()
        if not found.gaussian or self.parts:
            raise self.tape.refuse("splits channels that are not those of one normal signal")
        parts = []
        for a, n in zip(starts, sizes, strict=True):
            width = sum(sizes)
            sources = frozenset(
                (i, low + (high - low) * a // width, low + (high - low) * (a + n) // width)
                for i, low, high in found.sources
            )
            parts.append(replace(found, shape=_with(found.shape, axis, n), sources=sources))
        # Same covariances, other channels: an operation of its own tells them apart.
        return tuple(p._emit(Sum, (1.0,), 0.0) for p in parts)

    def widened(self, axis: int, channels: int) -> "Signal":
        """Count channels anew, as where windows became channels.

        Parameters
        ----------
        axis : int
            The axis of the channels.
        channels : int
            Their number.

        Returns
        -------
        Signal
            The same signal.
        """
        return replace(self, shape=_with(self.shape, self.axis(axis), channels))

    def without_channels(self, gone: set[int]) -> "Signal":
        """Drop axes of one, the channels' among them.

        Parameters
        ----------
        gone : set of int
            Which axes.

        Returns
        -------
        Signal
            The output of the network.
        """
        kept = [i for i in range(self.ndim) if i not in gone]
        inner = [a for a in gone if self.roles[a] != CHANNEL]
        found = self
        for axis in sorted(inner, reverse=True):
            found = found.picked(axis, [0], drop=True)
        return replace(
            found,
            roles=tuple(self.roles[i] for i in kept),
            shape=tuple(self.shape[i] for i in kept),
        )

    def _positions_changed(self, sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            sizes[r] if isinstance(r, int) else n
            for r, n in zip(self.roles, self.shape, strict=True)
        )


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _matched(one: Signal, two: Signal, settle: bool = True) -> tuple[Signal, Signal]:
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


def _runs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[range, range]]:
    """Cut two shapes of as many numbers into the shortest runs of the same product."""
    found = []
    i = j = 0
    while i < len(before) or j < len(after):
        a, b = i, j
        p = q = 1
        if i < len(before):
            p, i = before[i], i + 1
        if j < len(after):
            q, j = after[j], j + 1
        while p != q:
            if p < q:
                p, i = p * before[i], i + 1
            else:
                q, j = q * after[j], j + 1
        # Ones that stand alone at the end belong to the last run.
        while j < len(after) and after[j] == 1 and (i >= len(before) or before[i] != 1):
            j += 1
        while i < len(before) and before[i] == 1 and (j >= len(after) or after[j] != 1):
            i += 1
        found.append((range(a, i), range(b, j)))
    return found


Rule = Callable[..., Any]
