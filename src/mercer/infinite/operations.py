"""What a layer does to covariances: the rules of kernels of infinitely wide networks.

Every operation is a frozen record that maps the covariances S (of the channels: the NNGP
kernel) and T (of the tangents: the NTK) of its inputs to those of its output. A network is a
list of them. T is None where nothing before was trained.
"""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from .._core.activation import Activation
from ..kernels.activations import PolynomialActivation, PowerActivation
from ..kernels.dual import Dual, dual
from ..kernels.dual_closed_forms import closed_form
from ..kernels.dual_mesh import Profile, make_mesh
from .layout import Full, both_axes, restrict, second_axes, spread, take

State = tuple[Tensor, Tensor | None]
"""S and T, each of shape (*positions, *full positions, *pair)."""


class Place(Protocol):
    """What an operation may ask of the propagation that it is part of."""

    full: Full
    same: bool

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        ...

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        ...

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves, for rows and for columns."""
        ...

    def affine(self, operation: "Affine") -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        ...

    def attention(self, operation: "Attention") -> tuple[Any, Any, Any]:
        """Variances of the keys, of values times outputs, and of the biases."""
        ...


@dataclass(frozen=True)
class Operation(abc.ABC):
    """A rule with its place in the network.

    Attributes
    ----------
    inputs : tuple of int
        Numbers of the operations whose outputs it takes.
    positions : tuple of int
        Sizes of the position axes of its output.
    place : str
        Where it stands in the module, for messages.
    """

    inputs: tuple[int, ...]
    positions: tuple[int, ...]
    place: str

    @abc.abstractmethod
    def apply(self, states: Sequence[State], place: Place) -> State:
        """Map the covariances of the inputs to those of the output."""

    @abc.abstractmethod
    def wants(self, full: Full) -> tuple[Full, ...]:
        """Say which layouts of its inputs an output of that layout takes."""

    def wants_self(self) -> tuple[int, ...]:
        """Say of which inputs it takes the variances."""
        return ()

    @abc.abstractmethod
    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Map the means of the inputs' channels to those of the output; None is zero."""

    @property
    @abc.abstractmethod
    def cost(self) -> str:
        """Say what it takes an entry of the kernel matrix."""


def _each(state: State, function: Any) -> State:
    s, t = state
    return function(s), None if t is None else function(t)


def _pointwise_cost(positions: tuple[int, ...]) -> str:
    return "1 entry" if not positions else f"{math.prod(positions)} positions"


@final
@dataclass(frozen=True)
class Input(Operation):
    """The data: covariances are mean products of channels.

    Attributes
    ----------
    steps : tuple
        What is done to the data first; see `prepare`.
    channel : int
        Which of their axes is the channel's, counted without the batch.
    channels : int
        Its size.
    """

    steps: tuple[tuple[Any, ...], ...]
    channel: int
    channels: int

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Not used: the propagation calls `covariance` with the data."""
        raise NotImplementedError

    def arrange(self, x: Tensor) -> Tensor:
        """Bring data (*lead, n, *event) to shape (*positions, *lead, n, channels)."""
        from .prepare import prepare

        k = len(self.positions) + 1
        x = prepare(x, self.steps)
        x = x.movedim(x.ndim - k + self.channel, -1)
        lead = x.ndim - k
        return x.permute(*range(lead, lead + k - 1), *range(lead), x.ndim - 1)

    def covariance(self, a: Tensor, b: Tensor, full: Full) -> Tensor:
        """Multiply arranged data of rows and of columns."""
        k, batch = len(full), a.ndim - 2 - len(full)
        diagonal = [i for i in range(k) if not full[i]]
        both = [i for i in range(k) if full[i]]
        lead = range(k, k + batch)
        # (*diagonal, *lead, *full, rows, channels): full positions are rows of one product.
        a, b = (t.permute(*diagonal, *lead, *both, -2, -1) for t in (a, b))
        sizes_a, sizes_b = (t.shape[len(diagonal) + batch : -1] for t in (a, b))
        fa, fb = (t.flatten(len(diagonal) + batch, -2) for t in (a, b))
        found = fa @ fb.mT
        found = found.unflatten(-1, sizes_b).unflatten(len(diagonal) + batch, sizes_a)
        d, f = len(diagonal), len(both)
        # Now (*diagonal, *lead, *full, n, *full, m); first copies in order, second ones, pair.
        start = d + batch
        place = {axis: i for i, axis in enumerate(diagonal)}
        place |= {axis: start + i for i, axis in enumerate(both)}
        order = [place[i] for i in range(k)]
        order += [start + f + 1 + i for i in range(f)]
        order += [*range(d, d + batch), start + f, start + f + 1 + f]
        return found.permute(order) / self.channels

    def variance(self, a: Tensor, full: Full) -> Tensor:
        """Multiply arranged data of each input with itself, (*positions, *full, *lead, n)."""
        if not any(full):
            return a.square().sum(-1) / self.channels
        one = a.unsqueeze(-2)  # a batch of one row and one column for each input
        return self.covariance(one, one, full)[..., 0, 0]

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take nothing."""
        return ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Not used: the propagation takes the mean of the data."""
        raise NotImplementedError

    @property
    def cost(self) -> str:
        """One product of matrices."""
        return f"{_pointwise_cost(self.positions)} x {self.channels} channels"


@final
@dataclass(frozen=True)
class Affine(Operation):
    r"""Random weights between channels: :math:`S' = \sigma_w^2 S + \sigma_b^2`.

    The tangents gain what its own weights and biases add: :math:`T' = \sigma_w^2 T + S'` in the
    NTK parametrization, :math:`T' = \sigma_w^2 T + n S + 1` in the standard one.

    Attributes
    ----------
    layer : int
        Its number among the layers with weights.
    fan_in : int
        Weights a channel of the output has: input channels times kernel positions.
    bias : bool
        Whether it has biases.
    trains_weight, trains_bias : bool
        Whether they are trained.
    torch_weight, torch_bias : float
        Variances at PyTorch's default initialisation; the weights' times fan_in.
    """

    layer: int
    fan_in: int
    bias: bool
    trains_weight: bool
    trains_bias: bool
    torch_weight: float
    torch_bias: float

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Scale, and add what the layer's own parameters contribute."""
        ((s, t),) = states
        w2, b2, own = place.affine(self)
        new = w2 * s
        tangent = None if t is None else w2 * t
        if self.trains_weight:
            added = own * s
            tangent = added if tangent is None else tangent + added
        if self.bias:
            new = new + b2
            if self.trains_bias:
                one = torch.ones_like(s) * (b2 if own is w2 else 1.0)
                tangent = one if tangent is None else tangent + one
        return new, tangent

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Weights have mean zero."""
        return None

    @property
    def cost(self) -> str:
        """A multiplication and an addition."""
        return _pointwise_cost(self.positions)


@final
@dataclass(frozen=True)
class Slope:
    r"""The function :math:`\psi(z) = z \phi'(z)`, which a trained gain makes of an activation.

    Attributes
    ----------
    function : callable
        The activation.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        """Differentiate by autograd, once more where that is wanted."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().clone().requires_grad_()
            value = self.function(leaf * 1)
            found = None
            if value.requires_grad:
                (found,) = torch.autograd.grad(
                    value.sum(), leaf, create_graph=z.requires_grad, allow_unused=True
                )
            return torch.zeros_like(z) if found is None else z * found


@final
@dataclass(frozen=True)
class Pointwise(Operation):
    r"""An activation: its dual.

    A trained gain g of a normalisation that comes before, with only linear steps between, has the
    tangent z itself, which depends on the slope that the activation has at z: it adds
    :math:`E[\psi(u) \psi(v)]` with :math:`\psi(z) = z \phi'(z)`, not :math:`\dot K S`.

    Attributes
    ----------
    activation : Activation
        The function.
    gains : tuple of tuple of int
        For each trained gain before it, the position axes along which it has factors of its own.
    """

    activation: Activation
    gains: tuple[tuple[int, ...], ...] = ()

    @property
    def dual(self) -> Dual:
        """The dual of the activation."""
        return dual(self.activation)

    @property
    def gain(self) -> Dual:
        """The dual of what a trained gain makes of it."""
        form = closed_form(self.activation)
        made: Any = Slope(self.activation.function)
        if isinstance(form, PowerActivation):
            k = form.order
            made = PolynomialActivation((0.0,))
            if k:
                made = PowerActivation(k, k * form.positive, k * form.negative)
        elif isinstance(form, PolynomialActivation):
            made = PolynomialActivation(tuple(k * c for k, c in enumerate(form.coefficients)))
        return dual(Activation(None, made))

    @property
    def slope(self) -> Dual | None:
        """The dual of its derivative, where it jumps: autograd sees the pieces alone."""
        form = closed_form(self.activation)
        if isinstance(form, PowerActivation):
            jumps = form.order == 0 and form.positive != form.negative
            return dual(PolynomialActivation((0.0,))) if jumps else None
        if form is not None:
            return None
        profile = Profile(self.activation.function)
        return dual(profile.slope) if make_mesh(profile, 16.0).jumps else None

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Apply the dual."""
        ((s, t),) = states
        on_line = place.same and not any(place.full)
        q11, q22 = (s, s) if on_line else place.variances(self.inputs[0], place.full)

        def pair(rule: Dual) -> tuple[Tensor, Tensor]:
            return rule.diagonal(s) if on_line else rule(q11, q22, s)

        value, slope = pair(self.dual)
        if t is None:
            return value, None
        pieces = self.slope
        slope = slope if pieces is None else pair(pieces)[0]
        # What gains have added to T before is S, at their own positions.
        for axes in self.gains:
            t = t - same_positions(s, place.full, axes)
        t = slope * t
        if self.gains:
            gain = pair(self.gain)[0]
            for axes in self.gains:
                t = t + same_positions(gain, place.full, axes)
        return value, t

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its input."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the function of a normal variable."""
        from .gaussian_mean import gaussian_mean

        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        return gaussian_mean(self.activation, q)

    @property
    def cost(self) -> str:
        """The dual of its function."""
        return f"{_pointwise_cost(self.positions)}, {self.dual.method}"


@final
@dataclass(frozen=True)
class Sum(Operation):
    """A sum of independent signals with factors, and a constant.

    Attributes
    ----------
    factors : tuple of float
        One for each input.
    shift : float
        The constant.
    """

    factors: tuple[float, ...]
    shift: float = 0.0

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Add covariances; means bring products of different terms."""
        total: Tensor | None = None
        tangent: Tensor | None = None
        for factor, (s, t) in zip(self.factors, states, strict=True):
            total = factor**2 * s if total is None else total + factor**2 * s
            if t is not None:
                tangent = factor**2 * t if tangent is None else tangent + factor**2 * t
        assert total is not None
        if self.shift or len(self.inputs) > 1:
            rows: Any = self.shift
            columns: Any = self.shift
            for node, factor in zip(self.inputs, self.factors, strict=True):
                means = place.means(node, place.full)
                if means is None:
                    continue
                one, two = factor * means[0], factor * means[1]
                if not isinstance(rows, float) or rows:
                    total = total + rows * two + one * columns
                rows, columns = rows + one, columns + two
            total = total + self.shift**2
        return total, tangent

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,) * len(self.inputs)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its first input, for their shape, where there is a constant."""
        return self.inputs[:1] if self.shift else ()

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Add the means."""
        total: Any = self.shift
        for factor, mean in zip(self.factors, means, strict=True):
            if mean is not None:
                total = total + factor * mean
        if isinstance(total, Tensor) or not total:
            return total if isinstance(total, Tensor) else None
        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        return torch.full_like(q, total)

    @property
    def cost(self) -> str:
        """Additions."""
        return _pointwise_cost(self.positions)


@final
@dataclass(frozen=True)
class Product(Operation):
    """A product of two independent signals, channel by channel."""

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Multiply covariances; tangents by the product rule."""
        (s1, t1), (s2, t2) = states
        parts = [t * s for t, s in ((t1, s2), (t2, s1)) if t is not None]
        return s1 * s2, (parts[0] if len(parts) == 1 else parts[0] + parts[1]) if parts else None

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full, full)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Multiply the means."""
        one, two = means
        return None if one is None or two is None else one * two

    @property
    def cost(self) -> str:
        """Multiplications."""
        return _pointwise_cost(self.positions)


@final
@dataclass(frozen=True)
class Concatenate(Operation):
    """Channels beside channels: means weighted by widths.

    Attributes
    ----------
    widths : tuple of int
        Channels of each input.
    """

    widths: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Take the weighted mean."""
        shares = [w / sum(self.widths) for w in self.widths]
        s = sum(share * s for share, (s, _) in zip(shares, states, strict=True))
        known = [(share, t) for share, (_, t) in zip(shares, states, strict=True) if t is not None]
        t = sum(share * t for share, t in known) if known else None
        return s, t  # pyright: ignore[reportReturnType]

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,) * len(self.inputs)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the weighted mean."""
        shares = [w / sum(self.widths) for w in self.widths]
        parts = [s * m for s, m in zip(shares, means, strict=True) if m is not None]
        return sum(parts[1:], parts[0]) if parts else None

    @property
    def cost(self) -> str:
        """Additions."""
        return _pointwise_cost(self.positions)


@final
@dataclass(frozen=True)
class Window(Operation):
    """The mean over a window that moves in both inputs alike: what a convolution does.

    Attributes
    ----------
    size, stride, dilation : tuple of int
        One for each position axis.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Add shifted copies, axis by axis."""
        return _each(states[0], lambda q: self._mean(q, place.full))

    def _mean(self, q: Tensor, full: Full) -> Tensor:
        for axis, out in enumerate(self.positions):
            size, stride, dilation = self.size[axis], self.stride[axis], self.dilation[axis]
            axes = both_axes(axis, full)
            if size == 1 and stride == 1:
                continue
            stop = stride * (out - 1) + 1
            parts = (
                take(q, axes, slice(j * dilation, j * dilation + stop, stride)) for j in range(size)
            )
            q = sum(parts, next(parts))
        return q / math.prod(self.size)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the means; its channels are all positions of the window."""
        (mean,) = means
        return None if mean is None else self._mean(mean, (False,) * len(self.positions))

    @property
    def cost(self) -> str:
        """Additions for each axis of the window."""
        return f"{_pointwise_cost(self.positions)} x {sum(self.size)}"


@final
@dataclass(frozen=True)
class Select(Operation):
    """Positions picked, repeated or left out along one axis; -1 stands for zeros (padding).

    Attributes
    ----------
    axis : int
        The position axis.
    index : tuple of int
        Which positions.
    drop : bool
        Whether the axis, of one position, is dropped.
    """

    axis: int
    index: tuple[int, ...]
    drop: bool = False

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Pick from both inputs alike."""
        (full,) = self.wants(place.full)
        return _each(states[0], lambda q: self._pick(q, full))

    def _pick(self, q: Tensor, full: Full) -> Tensor:
        axes = both_axes(self.axis, full)
        for axis in axes:
            q = pick(q, axis, self.index)
        for axis in reversed(axes) if self.drop else ():
            q = q.squeeze(axis)
        return q

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout; a dropped axis as a diagonal one."""
        return ((*full[: self.axis], False, *full[self.axis :]) if self.drop else full,)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Pick the means."""
        (mean,) = means
        k = len(self.positions) + self.drop
        return None if mean is None else self._pick(mean, (False,) * k)

    @property
    def cost(self) -> str:
        """A copy."""
        return _pointwise_cost(self.positions)


def pick(q: Tensor, axis: int, index: tuple[int, ...]) -> Tensor:
    """Pick positions along an axis, zeros for -1."""
    low = next((i for i, v in enumerate(index) if v >= 0), len(index))
    high = next((i for i, v in enumerate(reversed(index)) if v >= 0), 0)
    inner = index[low : len(index) - high]
    if inner != tuple(range(q.shape[axis])):
        kept = [max(v, 0) for v in inner]
        q = q.index_select(axis, torch.tensor(kept, device=q.device, dtype=torch.long))
        if min(inner, default=0) < 0:
            keep = torch.tensor([v >= 0 for v in inner], device=q.device)
            q = q * keep.to(q.dtype).reshape(-1, *[1] * (q.ndim - axis - 1))
    if low or high:
        q = torch.nn.functional.pad(q, [0, 0] * (q.ndim - axis - 1) + [low, high])
    return q


@final
@dataclass(frozen=True)
class Mix(Operation):
    """Positions of one axis mixed by a matrix, in each input on its own: pooling.

    Attributes
    ----------
    axis : int
        The position axis.
    matrix : tuple of tuple of float
        Rows for the positions of the output, columns for those of the input.
    drop : bool
        Whether the axis, of one position, is dropped.
    """

    axis: int
    matrix: tuple[tuple[float, ...], ...]
    drop: bool = False

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Multiply both axes by the matrix."""
        (full,) = self.wants(place.full)
        kept = (
            (*place.full[: self.axis], False, *place.full[self.axis :]) if self.drop else place.full
        )
        return _each(states[0], lambda q: self._mix(q, full, kept))

    def _mix(self, q: Tensor, full: Full, kept: Full) -> Tensor:
        for axis in both_axes(self.axis, full):
            q = mix(q, axis, self.matrix)
        q = restrict(q, full, kept)
        return q.squeeze(self.axis) if self.drop else q

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions along the axis."""
        rest = full[self.axis :] if self.drop else full[self.axis + 1 :]
        return ((*full[: self.axis], True, *rest),)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Mix the means."""
        (mean,) = means
        if mean is None:
            return None
        mean = mix(mean, self.axis, self.matrix)
        return mean.squeeze(self.axis) if self.drop else mean

    @property
    def cost(self) -> str:
        """All pairs of positions along the axis."""
        return f"{len(self.matrix[0])}^2 pairs of positions along axis {self.axis}"


def mix(q: Tensor, axis: int, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Multiply an axis by a matrix."""
    if len(matrix) == 1 and len(set(matrix[0])) == 1:
        return q.sum(axis, keepdim=True) * matrix[0][0]
    m = torch.tensor(matrix, dtype=q.dtype, device=q.device)
    return torch.tensordot(m, q, dims=([1], [axis])).movedim(0, axis)


@final
@dataclass(frozen=True)
class Flatten(Operation):
    """Position axes that become part of the channels: the mean over the same positions.

    Attributes
    ----------
    axes : tuple of int
        Which position axes.
    """

    axes: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Take the mean over the axes."""
        return _each(states[0], lambda q: q.mean(self.axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same positions of both inputs along the axes."""
        found = list(full)
        for axis in self.axes:  # in increasing order
            found.insert(axis, False)
        return (tuple(found),)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the means."""
        (mean,) = means
        return None if mean is None else mean.mean(self.axes)

    @property
    def cost(self) -> str:
        """Additions."""
        return "the same positions only"


@final
@dataclass(frozen=True)
class Permute(Operation):
    """Position axes in another order.

    Attributes
    ----------
    order : tuple of int
        Which axis of the input each axis of the output is.
    """

    order: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Permute the axes of both inputs."""
        (full,) = self.wants(place.full)
        seconds = second_axes(full)
        first = list(self.order)
        second = [seconds[a] for a in self.order if full[a]]
        return _each(
            states[0],
            lambda q: q.permute(*first, *second, *range(len(first) + len(second), q.ndim)),
        )

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the layout in the other order."""
        found = [False] * len(full)
        for new, old in enumerate(self.order):
            found[old] = full[new]
        return (tuple(found),)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Permute the means."""
        (mean,) = means
        k = len(self.order)
        return None if mean is None else mean.permute(*self.order, *range(k, mean.ndim))

    @property
    def cost(self) -> str:
        """Nothing."""
        return "nothing"


@final
@dataclass(frozen=True)
class Reshape(Operation):
    """Position axes merged or split, in row-major order.

    Attributes
    ----------
    groups : tuple of (int, int)
        Runs of axes that belong together: how many of the input, how many of the output.
    before : tuple of int
        Sizes of the input's position axes.
    """

    groups: tuple[tuple[int, int], ...]
    before: tuple[int, ...]

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Reshape both inputs' axes, and keep the same positions where only they are wanted."""
        (full,) = self.wants(place.full)
        made: list[bool] = []
        start = 0
        for old, new in self.groups:
            made += [any(full[start : start + old])] * new
            start += old
        sizes = [*self.positions, *(n for n, f in zip(self.positions, made, strict=True) if f)]
        count = len(self.before) + sum(full)

        def reshape(q: Tensor) -> Tensor:
            return restrict(q.reshape(*sizes, *q.shape[count:]), tuple(made), place.full)

        return _each(states[0], reshape)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions in a run where one of its axes is full."""
        found: list[bool] = []
        start = 0
        for old, new in self.groups:
            found += [any(full[start : start + new])] * old
            start += new
        return (tuple(found),)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Reshape the means."""
        (mean,) = means
        return (
            None if mean is None else mean.reshape(*self.positions, *mean.shape[len(self.before) :])
        )

    @property
    def cost(self) -> str:
        """Nothing."""
        return "nothing"


@final
@dataclass(frozen=True)
class Normalize(Operation):
    r"""Normalisation over channels, and perhaps positions: :math:`S' = S / (\sigma \sigma')`.

    Attributes
    ----------
    axes : tuple of int
        Position axes over which it normalises besides the channels.
    centre : bool
        Whether the mean is taken away first.
    eps : float
        What is added to the variance.
    trains_weight, trains_bias : bool
        Whether it has a factor and an offset that are trained.
    own_positions : bool
        Whether each position along `axes` has a factor and an offset of its own.
    """

    axes: tuple[int, ...]
    centre: bool
    eps: float
    trains_weight: bool
    trains_bias: bool
    own_positions: bool

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Divide, and add what its own parameters contribute."""
        ((s, t),) = states
        full = place.full
        (node,) = self.inputs
        found = place.means(node, full) if self.centre else None
        means = (None, None) if found is None else found
        scales = []
        for side, (q, mean) in enumerate(zip(place.variances(node, full), means, strict=True)):
            # Each side's positions lie along its own axes.
            axes = [second_axes(full)[a] if side else a for a in self.axes]
            if axes:
                q = q.mean(axes, keepdim=True)
                mean = None if mean is None else mean.mean(axes, keepdim=True)
            scales.append((q if mean is None else q - mean.square()).add(self.eps).rsqrt())
        one, two = means
        if one is not None and two is not None:
            if self.axes:  # the mean over positions too
                first, second = list(self.axes), [second_axes(full)[a] for a in self.axes]
                mu, nu = one.mean(first, keepdim=True), two.mean(second, keepdim=True)
                s = s - mu * two - one * nu + mu * nu
            else:
                s = s - one * two
        s = s * scales[0] * scales[1]
        t = None if t is None else t * scales[0] * scales[1]
        for trained, added in ((self.trains_weight, s), (self.trains_bias, torch.ones_like(s))):
            if trained:
                if self.own_positions:
                    added = self._same_positions(added, full)
                t = added if t is None else t + added
        return s, t

    def _same_positions(self, q: Tensor, full: Full) -> Tensor:
        return same_positions(q, full, self.axes)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its input."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Means are gone where they are taken away at each position."""
        (mean,) = means
        if mean is None or (self.centre and not self.axes):
            return None
        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        if not self.axes:
            return mean * (q + self.eps).rsqrt()
        over = list(self.axes)
        middle = mean.mean(over, keepdim=True)
        scale = q.mean(over, keepdim=True)
        if not self.centre:
            return mean * (scale + self.eps).rsqrt()
        return (mean - middle) * (scale - middle.square() + self.eps).rsqrt()

    @property
    def cost(self) -> str:
        """A multiplication."""
        return _pointwise_cost(self.positions)


def same_positions(q: Tensor, full: Full, axes: Sequence[int]) -> Tensor:
    """Set covariances between different positions along some axes to zero."""
    for axis in axes:
        if full[axis]:
            second = second_axes(full)[axis]
            eye = torch.eye(q.shape[axis], dtype=q.dtype, device=q.device)
            shape = [1] * q.ndim
            shape[axis] = shape[second] = q.shape[axis]
            q = q * eye.reshape(shape)
    return q


@final
@dataclass(frozen=True)
class Unshared(Operation):
    """Weights of its own for each position: covariances between different positions vanish."""

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Keep the same positions."""
        axes = range(len(self.positions))
        return _each(states[0], lambda q: same_positions(q, place.full, axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same positions of both inputs only."""
        return (full,)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Keep the means."""
        return means[0]

    @property
    def cost(self) -> str:
        """The same positions only."""
        return "the same positions only"


@final
@dataclass(frozen=True)
class Dropout(Operation):
    """Channels dropped at random, in training: only an input's own variances grow.

    Attributes
    ----------
    rate : float
        Share of channels dropped.
    """

    rate: float

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Divide variances by the share that is kept."""
        if not place.same:
            return states[0]
        axes = range(len(self.positions))
        more = self.rate / (1 - self.rate)
        return _each(states[0], lambda q: q + more * same_positions(q, place.full, axes))

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Keep the means."""
        return means[0]

    @property
    def cost(self) -> str:
        """Nothing."""
        return "nothing"


@final
@dataclass(frozen=True)
class Attention(Operation):
    r"""Self-attention with tied queries and keys, scores divided by the key's width.

    The weights of positions :math:`G = \zeta(\sigma_k^2 S_{xx})` become deterministic, so that
    :math:`S' = \sigma_{ov}^2 G_x S G_{x'}^T + \sigma_b^2`.

    Attributes
    ----------
    layers : tuple of int
        Numbers of the layers of keys, values and outputs.
    softmax : bool
        Whether scores go through a softmax; else they are the weights.
    bias : bool
        Whether the output has biases.
    """

    layers: tuple[int, int, int]
    softmax: bool
    bias: bool

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Mix positions of each input by its own weights."""
        ((s, t),) = states
        (node,) = self.inputs
        k2, ov2, b2 = place.attention(self)
        p = len(self.positions)
        count = math.prod(self.positions)
        (full,) = self.wants(place.full)
        weights = []
        for own in place.selves(node):  # (*positions, *positions, ..., n)
            scores = k2 * own.reshape(count, count, *own.shape[2 * p :])
            weights.append(scores.softmax(1) if self.softmax else scores)
        left, right = weights  # (p, p, ..., n), (p, p, ..., m)

        def mixed(q: Tensor) -> Tensor:
            q = q.reshape(count, count, *q.shape[2 * p :])
            if place.same:
                q = torch.einsum("ab...,bc...->ac...", left, q)
                q = torch.einsum("ac...,dc...->ad...", q, right)
            else:
                q = torch.einsum("ab...,bc...->ac...", left.unsqueeze(-1), q)
                q = torch.einsum("ac...,dc...->ad...", q, right.unsqueeze(-2))
            return ov2 * q.reshape(*self.positions * 2, *q.shape[2:])

        new = mixed(s)
        bias = b2 if self.bias else 0.0
        tangent = 2 * new + bias if t is None else mixed(t) + 2 * new + bias
        new = new + bias
        return restrict(new, full, place.full), restrict(tangent, full, place.full)

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take all pairs of positions."""
        return ((True,) * len(full),)

    def wants_self(self) -> tuple[int, ...]:
        """Take the covariances of its input's positions."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Weights have mean zero."""
        return None

    @property
    def cost(self) -> str:
        """Two products of matrices of positions."""
        return f"2 x {math.prod(self.positions)}^3"
