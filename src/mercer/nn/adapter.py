"""A residual adapter whose inside is a scalable neural network kernel."""

from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import check_generator, check_int, check_last_dim, check_real
from .._core.counter import RandomSource
from .._core.saving import Saveable
from ..features.base import FeatureMap
from .layer_features import check_sizes, draw_features
from .snnk import SNNK


@final
class SNNKAdapter(Saveable):
    r"""A residual branch with few trained numbers, the identity until it is trained.

    .. math:: y = x + B(N(x)), \qquad B = U \circ \mathrm{SNNK} \;\text{ or }\; g \odot
              \mathrm{SNNK}, \qquad \mathrm{SNNK}(x) = W' \phi(x) + b'

    It takes the place of down-projection, activation and up-projection of a bottleneck adapter:
    the features :math:`\phi` are drawn once and stay frozen, N is a layer norm without trained
    numbers. What trains depends on how the branch B ends:

    =================== ================================= =====================================
    up, bottleneck      branch                            trained numbers, width d, m features
    =================== ================================= =====================================
    ``True``, None      :math:`U W'` as one matrix, plus  d m + d
                        b; zero at the start
    ``True``, r         :math:`U (W' \phi) + b`, where U  r m + d r + d
                        and b are zero at the start
    ``False``, None     :math:`g \odot (W' \phi + b')`,   d m + 2 d
                        the gate g zero at the start
    =================== ================================= =====================================

    Parameters
    ----------
    width : int
        Length d of the vectors that the adapter changes.
    num_features : int
        Number m of features; even for ``"universal"``.
    activation : str, Module or callable, default "gelu"
        The function f, elementwise; ``"arc_cosine"`` does not use it.
    up : bool, default True
        Whether an up-projection ends the branch; otherwise a learned gate does.
    bottleneck : int, optional
        Rank r of what is learned: outputs of the SNNK, before the up-projection.
    features : {"neuron", "universal", "arc_cosine"} or FeatureMap, default "neuron"
        The frozen map, or which one to draw; see `SNNK`.
    projection : str, default "orthogonal"
        How its directions are drawn; see `make_projection`. Not used with a given map.
    norm_before : bool, default True
        Whether inputs are normalised first, so that the features see the same scale in every
        network.
    norm_after : bool, default False
        Whether a layer norm with trained numbers follows the residual sum; the adapter is then
        the identity up to normalisation.
    bias : bool, default True
        Whether the branch has a trained constant b; the neurons of drawn features always do.
    scale : float, optional
        Factor on what the features see. None takes :math:`d^{-1/2}` for ``"universal"`` after
        ``norm_before``, as these are for inputs of norm about one, and 1 otherwise.
    device, dtype : optional
        Of parameters and buffers.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws; None means torch's default generator.

    Attributes
    ----------
    in_features, out_features : int
        Both are the width.
    snnk : SNNK
        The features and the matrix W'.
    up : Linear or None
        U, where there is a bottleneck; without one it is part of W'.
    gate : Parameter of shape (width,) or None
        g, with ``up=False``.
    norm_after : LayerNorm or None
        What follows the sum.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a size is below one, a name is unknown, a given map has other sizes, ``num_features``
        is odd for ``"universal"``, or there is a bottleneck without an up-projection.

    See Also
    --------
    mercer.convert.adapt : puts adapters into a trained model and freezes the rest.

    Notes
    -----
    Differences from the papers: (1) where no bottleneck asks for it, U and W' are one matrix;
    (2) inputs are normalised, because features of any kind are drawn for one scale.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network Kernels, 2024,
    arXiv 2310.13225.

    Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan, Gelly:
    Parameter-Efficient Transfer Learning for NLP, 2019, arXiv 1902.00751.

    Examples
    --------
    >>> import torch
    >>> from mercer.nn import SNNKAdapter
    >>> adapter, x = SNNKAdapter(384, 16, generator=0), torch.randn(5, 384)
    >>> torch.equal(adapter(x), x)
    True
    >>> adapter.num_trainable, SNNKAdapter(384, 64, bottleneck=4, generator=0).num_trainable
    (6528, 2176)
    """

    gate: nn.Parameter | None

    def __init__(
        self,
        width: int,
        num_features: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "gelu",
        *,
        up: bool = True,
        bottleneck: int | None = None,
        features: str | FeatureMap = "neuron",
        projection: str = "orthogonal",
        norm_before: bool = True,
        norm_after: bool = False,
        bias: bool = True,
        scale: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: RandomSource | int | None = None,
    ) -> None:
        super().__init__()
        self.width = self.in_features = self.out_features = check_int("width", width)
        self.num_features = check_int("num_features", num_features)
        self.bottleneck = None if bottleneck is None else check_int("bottleneck", bottleneck)
        if bottleneck is not None and not up:
            raise ValueError(
                f"bottleneck: without an up-projection the SNNK has {width} outputs, "
                f"got bottleneck={bottleneck} with up=False"
            )
        self.activation = resolve_activation(activation)
        generator = check_generator(generator)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        if scale is None:
            # A normalised input has norm sqrt(d).
            usual = features == "universal" if isinstance(features, str) else False
            self.scale = width**-0.5 if usual and norm_before else 1.0
        else:
            self.scale = check_real("scale", scale, above=0)
        if not isinstance(features, FeatureMap):
            features = draw_features(
                features,
                self.activation,
                width,
                num_features,
                norms=(1.0, 3**-0.5),
                bias=True,
                projection=projection,
                generator=generator,
                **factory,
            )
        self.snnk = SNNK(
            width,
            width if bottleneck is None else bottleneck,
            self.activation,
            num_features=num_features,
            features=check_sizes(features, width, num_features),
            affine=False,
            bias=bias and bottleneck is None,
            generator=generator,
            **factory,
        )
        # On the meta device nothing is drawn: the draws of nn.Linear would be torch's own.
        self.up = None
        if bottleneck is not None:
            empty = nn.Linear(bottleneck, width, bias=bool(bias), device="meta", dtype=dtype)
            self.up = empty.to_empty(device=self.snnk.weight.device)
        self.gate = None if up else nn.Parameter(torch.empty(width, **factory))
        self.norm_before = bool(norm_before)
        self.norm_after = nn.LayerNorm(width, **factory) if norm_after else None
        self._start_at_identity()

    @torch.no_grad()
    def _start_at_identity(self) -> None:
        """Zero what ends the branch; the features and what comes before it are as drawn."""
        if self.gate is not None:
            self.gate.zero_()
            return
        last = self.snnk if self.up is None else self.up
        last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw features and weights: the identity again; on the meta device nothing is drawn."""
        self.snnk.reset_parameters(generator)
        if self.norm_after is not None:
            self.norm_after.reset_parameters()
        self._start_at_identity()

    def branch(self, x: Tensor) -> Tensor:
        """Compute what the adapter adds to its input, before a norm that follows the sum.

        Parameters
        ----------
        x : Tensor of shape (..., width)
            Inputs.

        Returns
        -------
        Tensor of shape (..., width)
            The branch's outputs, in the dtype of the inputs.
        """
        check_last_dim("x", x, self.width)
        z = F.layer_norm(x, (self.width,)) if self.norm_before else x
        z = self.snnk(z if self.scale == 1.0 else z * self.scale)  # (..., bottleneck or width)
        if self.up is not None:
            z = self.up(z)  # (..., width)
        if self.gate is not None:
            z = self.gate * z
        return z.to(x.dtype)  # autocast must not change what is added to the residual stream

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., width) to outputs of the same shape."""
        y = x + self.branch(x)
        return y if self.norm_after is None else self.norm_after(y)

    @property
    def num_trainable(self) -> int:
        """How many numbers train: entries of parameters that require a gradient."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def num_stored(self) -> int:
        """How many numbers are kept: entries of all parameters and buffers."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))

    def _config(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "bottleneck": self.bottleneck,
            "activation": self.activation.to_spec(),
            "features": self.snnk.features.to_config(),
            "scale": self.scale,
            "up": self.gate is None,
            "bias": (self.snnk if self.up is None else self.up).bias is not None,
            "norm_before": self.norm_before,
            "norm_after": self.norm_after is not None,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        features = FeatureMap.build(config["features"])
        options = {**config, "num_features": features.num_features, "features": features}
        # On the meta device nothing is drawn; the numbers come from the state dict.
        return cls(**options, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return (
            f"in_features={self.width}, out_features={self.width}, "
            f"num_features={self.num_features}, up={self.gate is None}, "
            f"bottleneck={self.bottleneck}, norm_before={self.norm_before}, scale={self.scale:g}"
        )
