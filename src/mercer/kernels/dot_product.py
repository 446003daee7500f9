"""Kernels of the dot product x . y: linear, polynomial, exponential."""

import abc
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from .._core.checks import check_int
from .base import Kernel
from .distance import squared_distance
from .hyperparameter import positive, register_positive
from .in_place import InPlace
from .stationary import Scales


def _same(q: Tensor, spare: Tensor) -> Tensor:
    return q


def _power(q: Tensor, spare: Tensor, offset: Tensor, degree: int) -> Tensor:
    return q.add_(offset).pow_(degree)


def _exponential(q: Tensor, spare: Tensor) -> Tensor:
    return q.exp_()


class DotProduct(Kernel, Scales, abc.ABC):
    r"""A kernel of the scaled dot product, :math:`k(x, y) = f(x \cdot y / \ell^2)`.

    Abstract.
    """

    @abc.abstractmethod
    def profile(self, q: Tensor) -> Tensor:
        """Evaluate f, elementwise, at scaled dot products."""

    @abc.abstractmethod
    def inplace(self) -> InPlace:
        """Return f with its hyperparameters, for tiles: see `InPlace`."""

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.profile(self._scale(x) @ self._scale(y).mT)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.profile(self._scale(x).square().sum(-1))

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        return squared_distance(x, y).sqrt()


@final
class Linear(DotProduct):
    r"""The linear kernel, the dot product itself.

    .. math:: k(x, y) = \frac{x \cdot y}{\ell^2}

    Parameters
    ----------
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`, in units of the inputs: one number, one a dimension (ARD), or the median
        distance of the data that `fit` is given.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the lengthscale is not positive, finite numbers.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    >>> Linear().requires_grad_(False)(x)
    tensor([[5., 6.],
            [6., 9.]])
    """

    def __init__(
        self,
        lengthscale: Any = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(lengthscale=lengthscale, device=device, dtype=dtype)
        self._register_lengthscale(lengthscale, device, dtype)

    def profile(self, q: Tensor) -> Tensor:
        """Return the dot products."""
        return q

    def inplace(self) -> InPlace:
        """Return the function that changes nothing."""
        return partial(_same)


@final
class Polynomial(DotProduct):
    r"""The polynomial kernel.

    .. math:: k(x, y) = \left(\frac{x \cdot y}{\ell^2} + c\right)^p

    Parameters
    ----------
    degree : int, default 3
        p, at least 1.
    offset : float, default 1.0
        c, at least 0; with 0 only monomials of the full degree are left.
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`, in units of the inputs: one number, one a dimension (ARD), or the median
        distance of the data that `fit` is given. scikit-learn's gamma is :math:`\ell^{-2}`.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the degree is not an integer of at least 1, or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> Polynomial(degree=2).requires_grad_(False)(x)
    tensor([[ 4.,  9.],
            [ 9., 25.]])
    """

    offset = positive("offset", "What is added to the dot product.", least=0.0)

    def __init__(
        self,
        degree: int = 3,
        *,
        offset: float = 1.0,
        lengthscale: Any = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            degree=degree, offset=offset, lengthscale=lengthscale, device=device, dtype=dtype
        )
        self.degree = check_int("degree", degree)
        self._register_lengthscale(lengthscale, device, dtype)
        register_positive(
            self, "offset", offset, least=0.0, scalar=True, device=device, dtype=dtype
        )

    def profile(self, q: Tensor) -> Tensor:
        """Evaluate (q + c)^p."""
        return (q + self.offset.to(q.dtype)) ** self.degree

    def inplace(self) -> InPlace:
        """Return (q + c)^p, for tiles."""
        return partial(_power, offset=self.offset.detach(), degree=self.degree)


@final
class Exponential(DotProduct):
    r"""The exponential kernel, which softmax attention normalises.

    .. math:: k(x, y) = \exp\left(\frac{x \cdot y}{\ell^2}\right)

    Parameters
    ----------
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`: one number, one a dimension (ARD), or the median distance of the data that
        `fit` is given. Attention with d-dimensional heads has :math:`\ell = d^{1/4}`.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the lengthscale is not positive, finite numbers.

    References
    ----------
    Choromanski et al., "Rethinking attention with Performers", 2020, arXiv 2009.14794.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> Exponential().requires_grad_(False)(x)
    tensor([[1.0000, 1.0000],
            [1.0000, 2.7183]])
    """

    def __init__(
        self,
        lengthscale: Any = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(lengthscale=lengthscale, device=device, dtype=dtype)
        self._register_lengthscale(lengthscale, device, dtype)

    def profile(self, q: Tensor) -> Tensor:
        """Evaluate exp(q)."""
        return q.exp()

    def inplace(self) -> InPlace:
        """Return exp(q), for tiles."""
        return partial(_exponential)
