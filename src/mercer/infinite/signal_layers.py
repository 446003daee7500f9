"""What layers do to a signal."""

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from .._core.activation import Activation
from .operations import Affine, Attention, Dropout, Normalize, Pointwise, Sum, Unshared, Window
from .signal_axes import SignalAxes
from .signal_base import with_size


class SignalLayers(SignalAxes, abc.ABC):
    """The layers of a `Signal`.

    Abstract.
    """

    def activated(self, activation: Activation) -> Self:
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

    def scaled(self, factor: float) -> Self:
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
        alike: bool = True,
    ) -> Self:
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
        alike : bool, default True
            Whether all channels of the output have the same covariances.

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
            gaussian=wide and alike,
            alike=alike,
            centred=True,
            sources=frozenset({(layer, 0, 2520)}),
            gains=(),
            shape=with_size(found.shape, found.axis(axis), channels),
        )
        return after if shared else after._emit(Unshared)

    def windowed(self, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Self:
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
            alike=False,
        )

    def normalized(
        self,
        axes: Sequence[int],
        *,
        centre: bool,
        eps: float,
        trains_weight: bool = False,
        trains_bias: bool = False,
        own_positions: bool = False,
    ) -> Self:
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

    def dropped(self, rate: float) -> Self:
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

    def attended(
        self,
        softmax: bool,
        bias: bool,
        *,
        width: int,
        trains_value: bool = True,
        trains_out: bool = True,
        trains_bias: bool = True,
    ) -> Self:
        """Mix positions by their own covariances, as `SelfAttention` does.

        Parameters
        ----------
        softmax : bool
            Whether the covariances go through a softmax.
        bias : bool
            Whether the output has biases.
        width : int
            Channels of the values.
        trains_value, trains_out, trains_bias : bool, default True
            Whether these parameters are trained.

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
            found.channels,
            width,
            trains_value,
            trains_out,
            trains_bias,
            gaussian=True,
            alike=True,
            centred=True,
            sources=frozenset((i, 0, 2520) for i in layers),
            gains=(),
        )
