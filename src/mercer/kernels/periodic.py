"""The periodic kernel: a Gaussian kernel on the circle of each dimension."""

import math
from typing import Any, final

import torch
from torch import Tensor

from .distance import centred, squared_distance
from .hyperparameter import positive, register_positive
from .stationary import Scales, Stationary


@final
class Periodic(Stationary, Scales):
    r"""The periodic kernel, a Gaussian kernel on a circle for each dimension.

    .. math:: k(x, y) = \exp\left(-\sum_k \frac{2 \sin^2(\pi (x_k - y_k) / p_k)}{\ell_k^2}\right)

    Parameters
    ----------
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`, without unit: one number, one a dimension (ARD), or the median chord of
        the data that `fit` is given.
    period : float, sequence of floats or Tensor, default 1.0
        p, in units of the inputs: one number, or one a dimension.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If a hyperparameter is not positive, finite numbers.

    References
    ----------
    MacKay, "Introduction to Gaussian processes", 1998, equation 47.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [0.5], [3.0]])
    >>> Periodic().requires_grad_(False)(x)[0]
    tensor([1.0000, 0.1353, 1.0000])
    """

    period = positive(
        "period", "Distance after which the kernel repeats, in units of inputs.", scalar=False
    )

    def __init__(
        self,
        lengthscale: Any = 1.0,
        *,
        period: Any = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(lengthscale=lengthscale, period=period, device=device, dtype=dtype)
        self._register_lengthscale(lengthscale, device, dtype)
        register_positive(self, "period", period, device=device, dtype=dtype)

    def _circles(self, x: Tensor) -> Tensor:
        """Put rows (..., n, d) on circles (..., n, 2 d) whose chords are the scaled distances."""
        angle = divide(2 * math.pi * x, self.period, "period")
        return torch.cat([self._scale(angle.cos()), self._scale(angle.sin())], -1)

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = centred(x, y)
        return torch.exp(-squared_distance(self._circles(x), self._circles(y)) / 2)

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:-1])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        # Chords of circles of radius one, in the units of the lengthscale.
        x, y = (divide(2 * math.pi * z, self.period, "period") for z in centred(x, y))
        x, y = (torch.cat([z.cos(), z.sin()], -1) for z in (x, y))
        return squared_distance(x, y).sqrt()

    def num_uniforms(self, in_features: int) -> int:
        """Return 0: normal numbers suffice."""
        return 0

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Turn normal numbers (m, d) into multiples of the fundamental frequency."""
        from scipy.special import ive

        in_features = normals.shape[-1]
        scales = self.lengthscale.detach().double().cpu().expand(in_features)
        columns = []
        for k in range(in_features):
            z = float(scales[k]) ** -2
            order = torch.arange(-_most_orders(z), _most_orders(z) + 1)
            # The Fourier coefficients of exp(-(1 - cos) / l^2), a Skellam distribution.
            below = torch.as_tensor(ive(order.abs().numpy(), z)).cumsum(0)
            position = torch.special.ndtr(normals[:, k].detach().double().cpu())
            index = torch.searchsorted(below, position * below[-1]).clamp_max(len(order) - 1)
            columns.append(order[index].to(normals))
        return divide(2 * math.pi * torch.stack(columns, -1), self.period, "period")


def _most_orders(z: float) -> int:
    """Return an order beyond which Fourier coefficients are below rounding."""
    return int(20 + 10 * math.sqrt(z) + 2 * z ** (1 / 3))


def divide(x: Tensor, by: Tensor, name: str) -> Tensor:
    """Divide rows (..., n, d) by a hyperparameter of one number or d."""
    if by.ndim and x.shape[-1] != len(by):
        raise ValueError(
            f"x: expected shape (..., {len(by)}) beside a {name} of {len(by)} entries, "
            f"got {tuple(x.shape)}"
        )
    return x / by.to(x.dtype)
