"""The scalable neural network kernel: a layer as a linear map of features of its input."""

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import Activation, resolve_activation
from .._core.checks import check_generator, check_int, check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.saving import Saveable
from ..features.base import FeatureMap
from .calibration import Calibration
from .dense_weight import dense_weight
from .layer_features import (
    check_sizes,
    draw_features,
    draw_weights,
    features_for,
    outside_domain,
    weights_for,
)


@final
class SNNK(Saveable):
    r"""A layer f(W x + b) in the form of a scalable neural network kernel.

    .. math:: y = W' \phi(x) + A x + b'

    Input and neurons meet in one product only: the features :math:`\phi` are fixed (buffers), and
    what trains is W' of shape (out_features, num_features), the affine part A, and b'. A linear
    layer that follows is absorbed exactly by `bundle`.

    ============== ==================== ============================================ =============
    features       phi(x)               initial W', A, b'                            good for
    ============== ==================== ============================================ =============
    ``universal``  `UniversalFeatures`  approximate f(w.x + b) of neurons drawn as   inputs of
                                        `torch.nn.Linear` draws them                 norm about 1
    ``arc_cosine`` `ArcCosineFeatures`  the arc-cosine kernel of such neurons; no    ReLU layers
                                        function of w.x: f is not used
    ``neuron``     `NeuronFeatures`     drawn as in a `torch.nn.Linear`              any input
    ============== ==================== ============================================ =============

    Parameters
    ----------
    in_features, out_features : int
        Lengths of an input and of an output vector.
    activation : str, Module or callable, default "gelu"
        The function f, elementwise.
    num_features : int
        Number m of features; even for ``"universal"``.
    features : {"universal", "arc_cosine", "neuron"} or FeatureMap, default "universal"
        The map, or which one to draw.
    projection : {"orthogonal", "gaussian", "hadamard", "sobol"}, default "orthogonal"
        How its directions are drawn; see `make_projection`. Not used with a given map.
    affine : bool, default True
        Whether there is a matrix A. It starts at the exact affine part of ``"universal"`` and at
        zero for the others; without it, the part of the activation that is linear is lost.
    bias : bool, default True
        Whether there is b'. Without it neurons have no bias either, and the constant part of
        the activation is lost.
    device, dtype : optional
        Of parameters and buffers.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws; None means torch's default generator.

    Attributes
    ----------
    weight : Parameter of shape (out_features, num_features)
        W'.
    affine_weight : Parameter of shape (out_features, in_features) or None
        A.
    bias : Parameter of shape (out_features,) or None
        b'.
    features : FeatureMap
        The map phi.

    Raises
    ------
    ValueError
        If a size is below one, a name is unknown, or a given map has other sizes.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network Kernels, 2024,
    arXiv 2310.13225.

    Examples
    --------
    >>> import torch
    >>> from mercer.nn import SNNK
    >>> layer = SNNK(16, 32, "relu", num_features=64, features="neuron", generator=0)
    >>> layer(torch.ones(5, 16)).shape
    torch.Size([5, 32])
    >>> layer.num_trainable, layer.num_stored
    (2592, 3680)
    """

    weight: nn.Parameter
    affine_weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "gelu",
        *,
        num_features: int,
        features: str | FeatureMap = "universal",
        projection: str = "orthogonal",
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: RandomSource | int | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int("in_features", in_features)
        self.out_features = check_int("out_features", out_features)
        self.num_features = check_int("num_features", num_features)
        self.activation = resolve_activation(activation)
        generator = check_generator(generator)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        if not isinstance(features, FeatureMap):
            features = draw_features(
                features,
                self.activation,
                in_features,
                num_features,
                norms=(1.0, 3**-0.5),  # the latter is what torch.nn.Linear gives its neurons
                bias=bool(bias),
                projection=projection,
                generator=generator,
                **factory,
            )
        self.features = check_sizes(features, in_features, num_features)
        self.weight = nn.Parameter(torch.empty(out_features, num_features, **factory))
        self.affine_weight = (
            nn.Parameter(torch.empty(out_features, in_features, **factory)) if affine else None
        )
        self.bias = nn.Parameter(torch.empty(out_features, **factory)) if bias else None
        self._reset_weights(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw features and weights; on the meta device nothing is drawn."""
        generator = check_generator(generator)
        self.features.reset_parameters(generator)
        self._reset_weights(generator)

    @torch.no_grad()
    def _reset_weights(self, generator: RandomSource | None) -> None:
        if not self.weight.is_meta:
            drawn = draw_weights(self.features, self.weight, self.bias is not None, generator)
            self._set(*drawn)

    @torch.no_grad()
    def _set(self, weight: Tensor, affine: Tensor | None, bias: Tensor | None) -> None:
        self.weight.copy_(weight)
        if self.affine_weight is not None and affine is not None:
            self.affine_weight.copy_(affine)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Module,
        activation: str | nn.Module | Callable[[Tensor], Tensor],
        num_features: int,
        calibrate: Tensor | Iterable[Tensor] | None = None,
        *,
        features: str | FeatureMap = "universal",
        projection: str = "orthogonal",
        ridge: float | str = "gcv",
        affine: bool = True,
        generator: RandomSource | int | None = None,
    ) -> Self:
        r"""Approximate ``activation(linear(x))``; the layer that is read stays as it is.

        Without calibration inputs W' is the neurons' side of the map, :math:`\psi(w_j, b_j)`, and
        A and b' hold the affine part of the activation. With them, W', A and b' solve the ridge
        regression of the layer's outputs on features and inputs, in closed form.

        Parameters
        ----------
        linear : Module
            A `torch.nn.Linear`, or a ``Conv1D`` of transformers.
        activation : str, Module or callable
            The function that follows it, elementwise.
        num_features : int
            Number m of features.
        calibrate : Tensor of shape (..., in_features) or iterable of such, optional
            Typical inputs. They are read more than once; an iterator is kept in memory for that.
        features : {"universal", "arc_cosine", "neuron"} or FeatureMap, default "universal"
            The map, or which one to draw; ``"neuron"`` needs ``calibrate``. Without calibration
            ``"arc_cosine"`` gives the arc-cosine kernel between inputs and neurons, which is
            another function than the layer.
        projection : str, default "orthogonal"
            How directions are drawn (see `make_projection`); or, for ``features="neuron"``,
            ``"leverage"``, ``"dpp"`` or ``"greedy"``: choose among the layer's own neurons (see
            `select_neurons`).
        ridge : "gcv" or float, default "gcv"
            The ridge, or generalised cross-validation to choose it.
        affine : bool, default True
            Whether to keep a matrix A beside W'.
        generator : torch.Generator, CounterGenerator, int or None, optional
            Source of the draws; None means torch's default generator.

        Returns
        -------
        SNNK
            With the dtype, the device and the mode of ``linear``.

        Raises
        ------
        TypeError
            If ``linear`` is no linear layer, or ``calibrate`` holds something else than tensors.
        ValueError
            If shapes do not fit, ``calibrate`` holds NaN or infinity or no row or is missing
            where it is needed, a name is unknown, ``num_features`` is below 1 or above the
            number of neurons to choose from.

        Warns
        -----
        UserWarning
            If calibration inputs lead to pre-activations outside the domain of a universal map.

        Examples
        --------
        >>> import torch
        >>> from mercer.nn import SNNK
        >>> _ = torch.manual_seed(0)
        >>> linear, x = torch.nn.Linear(8, 64), torch.randn(1000, 8)
        >>> layer = SNNK.from_linear(
        ...     linear, "gelu", 32, x, features="neuron", projection="leverage"
        ... )
        >>> y = torch.nn.functional.gelu(linear(x))
        >>> bool((layer(x) - y).square().mean() < 0.02 * y.var())
        True
        """
        weight, bias = dense_weight("linear", linear)
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        act = resolve_activation(activation)
        data = None if calibrate is None else Calibration(calibrate, weight.shape[1], weight)

        def target(x: Tensor) -> Tensor:
            return act(F.linear(x, weight, bias))  # (n, out)

        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            phi = features_for(
                weight, bias, act, num_features, data, target, features, projection, generator
            )
            layer = cls._around(phi, len(weight), act, weight, affine=affine, bias=True)
            layer._set(*weights_for(phi, data, target, weight, bias, affine, ridge))
            outside = "" if data is None else outside_domain(phi, data, weight, bias)
        if outside:
            warnings.warn(outside, stacklevel=2)
        return layer.train(linear.training)

    def bundle(self, linear: nn.Module) -> Self:
        r"""Absorb a linear layer that follows, exactly: one matrix instead of two.

        .. math:: W_2 (W' \phi(x) + A x + b') + b_2
                  = (W_2 W') \phi(x) + (W_2 A) x + (W_2 b' + b_2)

        Parameters
        ----------
        linear : Module
            A `torch.nn.Linear`, or a ``Conv1D`` of transformers, on this layer's outputs.

        Returns
        -------
        SNNK
            A new layer with a copy of the map; products are computed in float64.

        Raises
        ------
        TypeError
            If ``linear`` is no linear layer.
        ValueError
            If it does not take as many inputs as this layer has outputs.

        Examples
        --------
        >>> import torch
        >>> from mercer.nn import SNNK
        >>> layer, linear = SNNK(8, 64, num_features=16, generator=0), torch.nn.Linear(64, 3)
        >>> bundled, x = layer.bundle(linear), torch.ones(2, 8)
        >>> bundled.weight.shape
        torch.Size([3, 16])
        >>> torch.allclose(bundled(x), linear(layer(x)), atol=1e-5)
        True
        """
        weight, bias = dense_weight("linear", linear)
        if weight.shape[1] != self.out_features:
            raise ValueError(
                f"linear: expected weight of shape (out, {self.out_features}) after a layer of "
                f"weight {tuple(self.weight.shape)}, got {tuple(weight.shape)}"
            )
        left = weight.detach().to(self.weight.device, torch.float64)
        offset = None if bias is None else bias.detach().to(left)
        if self.bias is not None:
            offset = left @ self.bias.detach().double() + (0.0 if offset is None else offset)
        affine = self.affine_weight
        bundled = self._around(
            copy.deepcopy(self.features),
            len(left),
            self.activation,
            self.weight,
            affine=affine is not None,
            bias=offset is not None,
        )
        bundled._set(
            left @ self.weight.detach().double(),
            None if affine is None else left @ affine.detach().double(),
            offset,
        )
        return bundled.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to outputs of shape (..., out_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.weight, x)
        y = F.linear(self.features(x), self.weight, self.bias)  # (..., out)
        return y if self.affine_weight is None else y + F.linear(x, self.affine_weight)

    @property
    def num_trainable(self) -> int:
        """How many numbers train: entries of parameters that require a gradient."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def num_stored(self) -> int:
        """How many numbers are kept: entries of all parameters and buffers."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))

    @classmethod
    def _around(
        cls,
        features: FeatureMap,
        out_features: int,
        activation: Activation,
        like: Tensor,
        *,
        affine: bool,
        bias: bool,
    ) -> Self:
        """Make a layer on a given map with room for its numbers, and draw none."""
        layer = cls(
            features.in_features,
            out_features,
            activation,
            num_features=features.num_features,
            features=features,
            affine=affine,
            bias=bias,
            device="meta",  # where nothing is drawn
            dtype=like.dtype,
        )
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(torch.empty_like(parameter, device=like.device)))
        return layer

    def _config(self) -> dict[str, Any]:
        return {
            "out_features": self.out_features,
            "activation": self.activation.to_spec(),
            "features": self.features.to_config(),
            "affine": self.affine_weight is not None,
            "bias": self.bias is not None,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        return cls._around(
            FeatureMap.build(config["features"]),
            config["out_features"],
            resolve_activation(config["activation"]),
            torch.empty(0),
            affine=config["affine"],
            bias=config["bias"],
        )

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_features={self.num_features}, activation={self.activation!r}, "
            f"affine={self.affine_weight is not None}, bias={self.bias is not None}"
        )
