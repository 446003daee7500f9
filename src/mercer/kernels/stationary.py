"""Kernels of the difference x - y, and among them those of its length alone."""

import abc
import math
from typing import Any

import torch
from torch import Tensor

from .base import Kernel
from .distance import squared_distance
from .hyperparameter import positive, register_positive
from .in_place import InPlace
from .median import median_distance


class Stationary(Kernel, abc.ABC):
    r"""A kernel of the difference, :math:`k(x, y) = f(x - y)`.

    Abstract. By Bochner's theorem :math:`f / f(0)` is the characteristic function of a
    distribution of frequencies, which `frequencies` draws from.
    """

    @abc.abstractmethod
    def num_uniforms(self, in_features: int) -> int:
        """Return how many uniform numbers `frequencies` needs beside one normal vector."""

    @abc.abstractmethod
    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        r"""Turn standard normal and uniform numbers into frequencies.

        With :math:`\omega` a row of the result,
        :math:`E \cos(\omega \cdot (x - y)) = k(x, y) / k(x, x)`.

        Parameters
        ----------
        normals : Tensor of shape (m, d)
            Independent standard normal numbers.
        uniforms : Tensor of shape (m, num_uniforms(d))
            Independent uniform numbers in (0, 1).

        Returns
        -------
        Tensor of shape (m, d)
            Angular frequencies.
        """


def _read_state(kernel: Any, incompatible: Any) -> None:
    """See whether a state that was loaded has the lengthscale that the kernel waits for."""
    raw = kernel.raw_lengthscale
    kernel._waits_for_data = raw.is_meta or bool(raw.isnan().any())


class Scales(abc.ABC):
    """What kernels with a lengthscale share: one number, one a dimension, or the median."""

    lengthscale: Any = positive(
        "lengthscale",
        "Distance, in units of the inputs, over which the kernel changes.",
        scalar=False,
    )
    raw_lengthscale: torch.nn.Parameter
    _median: bool
    _waits_for_data: bool

    @abc.abstractmethod
    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances (n, m) that the lengthscale is compared with."""

    def _set_from(self, x: Tensor) -> None:
        if self._median:
            self.lengthscale = median_distance(x, self._distance)
            self._waits_for_data = False

    def _register_lengthscale(
        self, lengthscale: Any, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        self._median = isinstance(lengthscale, str)
        if self._median and lengthscale != "median":
            raise ValueError(
                f"lengthscale: expected a number, a vector or 'median', got {lengthscale!r}"
            )
        self._waits_for_data = self._median
        value = 1.0 if self._median else lengthscale
        register_positive(self, "lengthscale", value, device=device, dtype=dtype)  # type: ignore[arg-type]
        if self._median:  # not a number until there are data, or a state that has one
            self.raw_lengthscale.data.fill_(math.nan)
            self.register_load_state_dict_post_hook(_read_state)  # type: ignore[attr-defined]

    def _scale(self, x: Tensor) -> Tensor:
        """Divide rows (..., n, d) by the lengthscale."""
        scale = self.lengthscale
        if scale.ndim and x.shape[-1] != len(scale):
            raise ValueError(
                f"x: expected shape (..., {len(scale)}) beside a lengthscale of {len(scale)} "
                f"entries, got {tuple(x.shape)}"
            )
        return x / scale.to(x.dtype)


class Radial(Stationary, Scales, abc.ABC):
    r"""A stationary kernel of the scaled distance, :math:`k(x, y) = f(|(x - y) / \ell|^2)`.

    Abstract. It is a mixture of Gaussian kernels, :math:`f(s) = E \exp(-\rho^2 s / 2)`, and
    `radii` draws the :math:`\rho`.
    """

    @abc.abstractmethod
    def profile(self, s: Tensor) -> Tensor:
        """Evaluate f, elementwise, at squared scaled distances."""

    @abc.abstractmethod
    def inplace(self) -> InPlace:
        """Return f with its hyperparameters, for tiles: see `InPlace`."""

    @abc.abstractmethod
    def radii(self, uniforms: Tensor) -> Tensor:
        """Turn uniform numbers (m, u) into the factors rho (m,) of normal frequencies."""

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.profile(squared_distance(self._scale(x), self._scale(y)))

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Scale normal rows (m, d) to frequencies; see `Stationary.frequencies`."""
        return self._scale(normals) * self.radii(uniforms).to(normals).unsqueeze(-1)

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:-1])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        return squared_distance(x, y).sqrt()
