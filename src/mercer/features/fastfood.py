"""Fastfood: random Fourier features by Hadamard transforms instead of a matrix."""

from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.counter import RandomSource
from ..kernels import Kernel
from .base import FeatureMap
from .random_fourier import RandomFourier


@final
class Fastfood(FeatureMap):
    r"""Random Fourier features of a radial kernel in O(m log d) time and O(m) memory.

    `RandomFourier` with the directions of `FastfoodProjection`:

    .. math::

        \phi(x) = \sqrt{k(0) / n} \, [\cos \rho_j v_j \cdot x / \ell, \
        \sin \rho_j v_j \cdot x / \ell]_{j \le n}, \quad
        V = D^{-1/2} \, S H G \Pi H B

    Unbiased, with up to 1.4 times the error of independent directions.
    ``RandomFourier(..., draw="hadamard")`` takes the same time and has a smaller error, because
    its directions are orthogonal, but a small bias.

    Parameters
    ----------
    kernel : Kernel
        A `Radial` kernel (Gaussian, Matern, rational quadratic), at most scaled; the map keeps
        a frozen copy.
    in_features : int
        Length d of an input vector.
    num_features : int
        Number of features, even.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `RandomFourier` does.

    References
    ----------
    Le, Sarlos, Smola, "Fastfood: approximating kernel expansions in loglinear time", ICML 2013,
    arXiv 1408.3060.

    Examples
    --------
    >>> from mercer.features import Fastfood
    >>> from mercer.kernels import RBF
    >>> phi = Fastfood(RBF(), 1000, 4096, generator=0)
    >>> sum(b.numel() for b in phi.buffers())  # a matrix would have 2 million numbers
    15336
    """

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernel = self._approximate(kernel)
        self.waves = RandomFourier(
            kernel,
            in_features,
            num_features,
            draw="fastfood",
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.in_features = self.waves.in_features
        self.num_features = self.waves.num_features

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""
        self.waves.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        return self.waves(x)

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self.num_features,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        kernel = Kernel.build(config["kernel"])
        return cls(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the kernel and sizes for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}"
        )
