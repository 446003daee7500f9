"""A feature map with the input itself beside it."""

from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.counter import RandomSource
from ..kernels import Linear
from .base import FeatureMap


@final
class WithInput(FeatureMap):
    r"""Keep the input beside the features, so that what is affine in it stays exact.

    .. math:: \phi'(x) = [\phi(x), x]

    The kernel is the sum of the map's kernel and of the linear one.

    Parameters
    ----------
    features : FeatureMap
        The map ``phi``.

    Raises
    ------
    TypeError
        If ``features`` is not a `FeatureMap`.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import NeuronFeatures, WithInput
    >>> phi = WithInput(NeuronFeatures.random(3, 5, "relu", generator=0))
    >>> phi.num_features
    8
    >>> phi(torch.tensor([1.0, 2.0, 3.0]))[-3:]
    tensor([1., 2., 3.])
    """

    def __init__(self, features: FeatureMap) -> None:
        super().__init__()
        if not isinstance(features, FeatureMap):
            raise TypeError(f"features: expected a FeatureMap, got {type(features).__name__}")
        self.features = features
        self.in_features = features.in_features
        self.num_features = features.num_features + features.in_features
        if features.kernel is not None:
            self._approximate(features.kernel + Linear())

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the map inside."""
        self.features.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        z = self.features(x)  # (..., m)
        return torch.cat([z, x.to(z.dtype)], dim=-1)  # (..., m + d)

    def _config(self) -> dict[str, Any]:
        return {"features": self.features.to_config()}

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        features = FeatureMap.build(config["features"])
        return cls(features)

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return f"in_features={self.in_features}, num_features={self.num_features}"
