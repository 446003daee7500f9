"""Kernels from GPyTorch."""

import copy
import functools
import importlib
import operator
from typing import Any

from torch import Tensor

from .base import Kernel
from .composition import Scaled
from .constant import Constant
from .dot_product import Linear, Polynomial
from .gpytorch_export import bridge
from .hyperparameter import plain_value
from .matern import Matern
from .periodic import Periodic
from .rational_quadratic import RationalQuadratic
from .rbf import RBF


def from_gpytorch(kernel: Any) -> Kernel:
    r"""Make a kernel of Mercer that equals a kernel of GPyTorch.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        An RBF, Matern, RQ, periodic, linear, polynomial or constant kernel, a sum, product or
        multiple of such, or what `as_gpytorch` made; without batch shape and ``active_dims``.

    Returns
    -------
    Kernel
        The kernel, with the values that the hyperparameters have now. Constraints and priors are
        left behind.

    Raises
    ------
    ImportError
        If GPyTorch is not installed (``pip install mercer[peers]``).
    TypeError
        If it is no kernel of GPyTorch.
    ValueError
        If Mercer has no such kernel.

    Examples
    --------
    >>> import gpytorch  # doctest: +SKIP
    >>> from mercer.kernels import from_gpytorch
    >>> theirs = gpytorch.kernels.RBFKernel(ard_num_dims=2)  # doctest: +SKIP
    >>> from_gpytorch(theirs)  # doctest: +SKIP
    RBF(lengthscale=[0.693147, 0.693147])
    """
    kernels: Any = importlib.import_module("gpytorch.kernels")

    if not isinstance(kernel, kernels.Kernel):
        raise TypeError(f"kernel: expected a kernel of GPyTorch, got {type(kernel).__name__}")
    if isinstance(kernel, bridge()):
        return copy.deepcopy(kernel.kernel)
    for name in ("active_dims", "batch_shape"):
        value = getattr(kernel, name, None)
        if value is not None and len(value):
            raise ValueError(
                f"kernel: expected a kernel of whole vectors, got {type(kernel).__name__} with "
                f"{name} {tuple(value)}"
            )
    if isinstance(kernel, kernels.AdditiveKernel):
        return functools.reduce(operator.add, map(from_gpytorch, kernel.kernels))
    if isinstance(kernel, kernels.ProductKernel):
        return functools.reduce(operator.mul, map(from_gpytorch, kernel.kernels))
    if isinstance(kernel, kernels.ScaleKernel):
        return Scaled(from_gpytorch(kernel.base_kernel), _number(kernel.outputscale))
    if isinstance(kernel, kernels.ConstantKernel):
        return Constant(_number(kernel.constant))
    match type(kernel).__name__:
        case "RBFKernel":
            return RBF(_number(kernel.lengthscale))
        case "MaternKernel":
            return Matern(_number(kernel.lengthscale), nu=float(kernel.nu))
        case "RQKernel":
            return RationalQuadratic(_number(kernel.lengthscale), alpha=_number(kernel.alpha))
        case "PeriodicKernel":
            period = _number(kernel.period_length)
            return Periodic(_number(kernel.lengthscale.sqrt()), period=period)
        case "LinearKernel":
            return Linear(_number(kernel.variance**-0.5))
        case "PolynomialKernel":
            return Polynomial(int(kernel.power), offset=_number(kernel.offset))
    raise ValueError(f"kernel: Mercer has no {type(kernel).__name__} of GPyTorch's")


def _number(value: Tensor) -> Any:
    """Return one number as a float, several as a list."""
    flat = value.detach().reshape(-1)
    return plain_value(flat[0] if len(flat) == 1 else flat)
