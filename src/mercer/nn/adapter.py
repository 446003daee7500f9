"""A residual adapter whose inside is a scalable neural network kernel."""

from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from .._core.checks import check_int
from .._core.counter import RandomSource
from .._core.saving import Saveable
from ..features.base import FeatureMap
from .branch import SNNKBranch


@final
class SNNKAdapter(SNNKBranch, Saveable):
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
        super().__init__(
            check_int("width", width),
            width,
            num_features,
            activation,
            up=up,
            bottleneck=bottleneck,
            features=features,
            projection=projection,
            norm_before=norm_before,
            bias=bias,
            scale=scale,
            device=device,
            dtype=dtype,
            generator=generator,
        )
        self.width = width
        self.norm_after = nn.LayerNorm(width, device=device, dtype=dtype) if norm_after else None

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw features and weights: the identity again; on the meta device nothing is drawn."""
        self._reset_branch(generator)
        if self.norm_after is not None:
            self.norm_after.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., width) to outputs of the same shape."""
        y = x + self.branch(x)
        return y if self.norm_after is None else self.norm_after(y)

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
