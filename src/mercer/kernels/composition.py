"""Kernels made of kernels: sums, products, multiples."""

from typing import Any, final

import torch
from torch import Tensor

from .base import Kernel
from .hyperparameter import positive, register_positive


def _check_parts(left: Any, right: Any) -> int:
    """Return the number of event axes of two kernels that go together."""
    for name, part in (("left", left), ("right", right)):
        if not isinstance(part, Kernel):
            raise TypeError(f"{name}: expected a Kernel, got {type(part).__name__}")
    if left.event_ndim != right.event_ndim:
        raise ValueError(
            f"right: expected a kernel of points with {left.event_ndim} axes like {left!r}, "
            f"got {right.event_ndim} with {right!r}"
        )
    return left.event_ndim


@final
class Sum(Kernel):
    r"""The sum of two kernels, written ``left + right``.

    .. math:: k(x, y) = k_1(x, y) + k_2(x, y)

    Parameters
    ----------
    left, right : Kernel
        The parts.

    Raises
    ------
    TypeError, ValueError
        If a part is not a kernel, or their points have different numbers of axes.

    Examples
    --------
    >>> from mercer.kernels import RBF
    >>> RBF(2.0) + 0.1
    Sum(RBF(lengthscale=2.0), Constant(value=0.1))
    """

    def __init__(self, left: Kernel, right: Kernel) -> None:
        super().__init__(left=left, right=right)
        self.event_ndim = _check_parts(left, right)
        self.left = left
        self.right = right

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left._evaluate(x, y) + self.right._evaluate(x, y)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.left._diagonal(x) + self.right._diagonal(x)


@final
class Product(Kernel):
    r"""The product of two kernels, written ``left * right``.

    .. math:: k(x, y) = k_1(x, y) \, k_2(x, y)

    Parameters
    ----------
    left, right : Kernel
        The parts.

    Raises
    ------
    TypeError, ValueError
        If a part is not a kernel, or their points have different numbers of axes.

    Examples
    --------
    >>> from mercer.kernels import RBF, Periodic
    >>> RBF(10.0) * Periodic(period=7.0)
    Product(RBF(lengthscale=10.0), Periodic(period=7.0))
    """

    def __init__(self, left: Kernel, right: Kernel) -> None:
        super().__init__(left=left, right=right)
        self.event_ndim = _check_parts(left, right)
        self.left = left
        self.right = right

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left._evaluate(x, y) * self.right._evaluate(x, y)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.left._diagonal(x) * self.right._diagonal(x)


@final
class Scaled(Kernel):
    r"""A multiple of a kernel, written ``scale * kernel``.

    .. math:: k(x, y) = a \, k_1(x, y)

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    scale : float, default 1.0
        a, at least 0: the variance that the kernel is multiplied by.
    device, dtype : optional
        Of the hyperparameter; float64 by default, whatever the inputs.

    Raises
    ------
    TypeError, ValueError
        If the kernel is none, or the scale is not a finite number of at least 0.

    Examples
    --------
    >>> from mercer.kernels import RBF
    >>> k = 2.0 * RBF()
    >>> k, k.scale.item()
    (Scaled(RBF(), scale=2.0), 2.0)
    """

    scale = positive("scale", "What the kernel is multiplied by.", least=0.0)

    def __init__(
        self,
        kernel: Kernel,
        scale: Any = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(kernel=kernel, scale=scale, device=device, dtype=dtype)
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
        self.event_ndim = kernel.event_ndim
        self.kernel = kernel
        register_positive(self, "scale", scale, least=0.0, scalar=True, device=device, dtype=dtype)

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale.to(x.dtype) * self.kernel._evaluate(x, y)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.scale.to(x.dtype) * self.kernel._diagonal(x)
