"""Kernels that do not look at the points: a constant, and independent noise."""

from typing import Any, final

import torch
from torch import Tensor

from .._core.checks import check_int
from .base import Kernel
from .hyperparameter import positive, register_positive


def _matrix_shape(x: Tensor, y: Tensor, event_ndim: int) -> tuple[int, ...]:
    """Return (..., n, m) for points (..., n, *event) and (..., m, *event)."""
    a, b = x.shape[: x.ndim - event_ndim], y.shape[: y.ndim - event_ndim]
    return (*torch.broadcast_shapes(a[:-1], b[:-1]), a[-1], b[-1])


@final
class Constant(Kernel):
    r"""The constant kernel, the same for every pair; it stands for an unknown mean.

    .. math:: k(x, y) = c

    Parameters
    ----------
    value : float, default 1.0
        c, at least 0: the variance of the mean.
    event_ndim : int, default 1
        How many trailing axes make a point: 1 for vectors, 3 for images.
    device, dtype : optional
        Of the hyperparameter; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the value is not a finite number of at least 0.

    Examples
    --------
    >>> import torch
    >>> Constant(2.0).requires_grad_(False)(torch.zeros(2, 3))
    tensor([[2., 2.],
            [2., 2.]])
    """

    value = positive("value", "The kernel's value.", least=0.0)

    def __init__(
        self,
        value: Any = 1.0,
        *,
        event_ndim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(value=value, event_ndim=event_ndim, device=device, dtype=dtype)
        self.event_ndim = check_int("event_ndim", event_ndim, least=0)
        register_positive(self, "value", value, least=0.0, scalar=True, device=device, dtype=dtype)

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.value.to(x.dtype).expand(_matrix_shape(x, y, self.event_ndim))

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.value.to(x.dtype).expand(x.shape[: x.ndim - self.event_ndim])


@final
class White(Kernel):
    r"""Independent noise: every row has its own, whatever its point.

    .. math:: k(x_i, x_j) = \sigma^2 \, 1[i = j]

    Two rows with equal points are still two rows. Between different sets of points,
    ``k(x, y)``, it is zero, as in scikit-learn; ``k(x)`` and ``k(x, x)`` have the diagonal.

    Parameters
    ----------
    noise : float, default 1.0
        :math:`\sigma^2`, at least 0: the variance of the noise.
    event_ndim : int, default 1
        How many trailing axes make a point: 1 for vectors, 3 for images.
    device, dtype : optional
        Of the hyperparameter; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the noise is not a finite number of at least 0.

    Examples
    --------
    >>> import torch
    >>> White(0.5).requires_grad_(False)(torch.zeros(2, 3))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """

    noise = positive("noise", "Variance of the noise.", least=0.0)

    def __init__(
        self,
        noise: Any = 1.0,
        *,
        event_ndim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(noise=noise, event_ndim=event_ndim, device=device, dtype=dtype)
        self.event_ndim = check_int("event_ndim", event_ndim, least=0)
        register_positive(self, "noise", noise, least=0.0, scalar=True, device=device, dtype=dtype)

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(_matrix_shape(x, y, self.event_ndim))

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.noise.to(x.dtype).expand(x.shape[: x.ndim - self.event_ndim])
