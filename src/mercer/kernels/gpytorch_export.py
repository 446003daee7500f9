"""Kernels for GPyTorch: its own where it has the same, and a bridge for all others."""

import copy
import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from .base import Kernel
from .composition import Product, Scaled, Sum
from .constant import Constant, White
from .dot_product import Linear, Polynomial
from .matern import Matern
from .periodic import Periodic
from .rational_quadratic import RationalQuadratic
from .rbf import RBF


def as_gpytorch(kernel: Kernel, *, native: bool = True) -> Any:
    r"""Make a kernel of GPyTorch that equals a kernel of Mercer.

    Stationary, dot-product and constant kernels that GPyTorch has too become its own, sums,
    products and multiples become `AdditiveKernel`, `ProductKernel` and `ScaleKernel`; anything
    else, such as the kernel of a wide network, is carried by a GPyTorch kernel that evaluates a
    copy of it. In all of them hyperparameters can be trained.

    Parameters
    ----------
    kernel : Kernel
        The kernel, of vectors; it is not changed. What it leaves to the data must be set.
    native : bool, default True
        Whether to use GPyTorch's own kernels where there are such; False carries the kernel as it
        is, with its parameters in logarithms.

    Returns
    -------
    gpytorch.kernels.Kernel
        The kernel, in the dtype of the hyperparameters (float64 by default).

    Raises
    ------
    ImportError
        If GPyTorch is not installed (``pip install mercer[peers]``).
    TypeError
        If it is no kernel.
    ValueError
        If it is not of vectors, or has independent noise, which in GPyTorch belongs to the
        likelihood.

    References
    ----------
    Gardner, Pleiss, Bindel, Weinberger, Wilson, "GPyTorch: Blackbox matrix-matrix Gaussian
    process inference with GPU acceleration", NeurIPS 2018, arXiv 1809.11165.

    Examples
    --------
    >>> from mercer.kernels import Matern, as_gpytorch, from_gpytorch
    >>> theirs = as_gpytorch(2.0 * Matern(0.5, nu=2.5))  # doctest: +SKIP
    >>> type(theirs).__name__, theirs.base_kernel.lengthscale.item()  # doctest: +SKIP
    ('ScaleKernel', 0.5)
    >>> from_gpytorch(theirs)  # doctest: +SKIP
    Scaled(Matern(lengthscale=0.5, nu=2.5), scale=2.0)
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
    if kernel.event_ndim != 1:
        raise ValueError(
            f"kernel: expected a kernel of vectors, got {kernel!r} of points with "
            f"{kernel.event_ndim} axes"
        )
    if any(isinstance(part, White) for part in kernel.modules()):
        raise ValueError(
            f"kernel: independent noise belongs to gpytorch.likelihoods.GaussianLikelihood, got "
            f"{kernel!r}"
        )
    kernel._check_set()
    found = _native(kernel) if native else None
    return bridge()(copy.deepcopy(kernel)) if found is None else found


@functools.cache
def bridge() -> Any:
    """Make the class of GPyTorch kernels that carry a kernel of Mercer, once."""
    parent: Any = importlib.import_module("gpytorch.kernels").Kernel

    class MercerKernel(parent):
        """A GPyTorch kernel that evaluates a kernel of Mercer."""

        has_lengthscale = False

        def __init__(self, kernel: Kernel) -> None:
            super().__init__()
            self.kernel = kernel

        def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
            """Evaluate between rows (..., n, d) and (..., m, d)."""
            if params.get("last_dim_is_batch"):
                raise ValueError("last_dim_is_batch: a kernel of Mercer takes whole vectors")
            same = x1.shape == x2.shape and torch.equal(x1, x2)
            if not diag:
                return self.kernel(x1, None if same else x2)
            if same:
                return self.kernel.diag(x1)
            return self.kernel(x1.unsqueeze(-2), x2.unsqueeze(-2)).squeeze(-1).squeeze(-1)

    return MercerKernel


def _native(kernel: Kernel) -> Any:
    """Return GPyTorch's own kernel, or None where it has none."""
    kernels: Any = importlib.import_module("gpytorch.kernels")

    if isinstance(kernel, Sum | Product):
        parts = [as_gpytorch(part) for part in (kernel.left, kernel.right)]
        joined = kernels.AdditiveKernel if isinstance(kernel, Sum) else kernels.ProductKernel
        return joined(*parts)
    if isinstance(kernel, Scaled) and bool(kernel.scale > 0):
        found = kernels.ScaleKernel(as_gpytorch(kernel.kernel)).to(kernel.raw_scale.dtype)
        found.outputscale = kernel.scale.detach()
        return found
    if isinstance(kernel, Constant) and bool(kernel.value > 0):
        found = kernels.ConstantKernel().to(kernel.raw_value.dtype)
        found.constant = kernel.value.detach()
        return found
    match kernel:
        case RBF():
            return _with_lengthscale(kernel, kernels.RBFKernel)
        case Matern():
            return _with_lengthscale(kernel, functools.partial(kernels.MaternKernel, nu=kernel.nu))
        case RationalQuadratic():
            found = _with_lengthscale(kernel, kernels.RQKernel)
            found.alpha = kernel.alpha.detach()
            return found
        case Periodic() if kernel.lengthscale.numel() == kernel.period.numel():
            # Theirs is what ours squares.
            found = _with_lengthscale(kernel, kernels.PeriodicKernel, power=2)
            found.period_length = kernel.period.detach()
            return found
        case Linear():
            scale = kernel.lengthscale.detach()
            found = kernels.LinearKernel(ard_num_dims=len(scale) if scale.ndim else None)
            found = found.to(scale.dtype)
            found.variance = scale**-2
            return found
        case Polynomial() if kernel.lengthscale.ndim == 0 and bool(kernel.offset > 0):
            square = kernel.lengthscale.detach() ** 2
            inner = kernels.PolynomialKernel(kernel.degree).to(square.dtype)
            inner.offset = kernel.offset.detach() * square
            found = kernels.ScaleKernel(inner).to(square.dtype)
            found.outputscale = square**-kernel.degree
            return found
    return None


def _with_lengthscale(kernel: Any, make: Any, power: int = 1) -> Any:
    scale = kernel.lengthscale.detach() ** power
    found = (make(ard_num_dims=len(scale)) if scale.ndim else make()).to(scale.dtype)
    found.lengthscale = scale
    return found
