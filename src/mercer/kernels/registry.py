"""Kernels by name: one place that resolves them."""

from collections.abc import Callable
from typing import Any

from .arc_cosine import ArcCosine
from .base import Kernel
from .constant import Constant, White
from .cosine_similarity import CosineSimilarity
from .dot_product import Exponential, Linear, Polynomial
from .laplacian import Laplacian
from .matern import Matern
from .periodic import Periodic
from .rational_quadratic import RationalQuadratic
from .rbf import RBF

KERNELS: dict[str, Callable[[], Kernel]] = {
    "arc_cosine": ArcCosine,
    "constant": Constant,
    "cosine": CosineSimilarity,
    "exponential": Exponential,
    "laplacian": lambda: Laplacian("median"),
    "linear": Linear,
    "matern": lambda: Matern("median"),
    "matern12": lambda: Matern("median", nu=0.5),
    "matern32": lambda: Matern("median", nu=1.5),
    "matern52": lambda: Matern("median", nu=2.5),
    "periodic": Periodic,
    "poly": lambda: Polynomial(lengthscale="median"),
    "polynomial": lambda: Polynomial(lengthscale="median"),
    "rational_quadratic": lambda: RationalQuadratic("median"),
    "rbf": lambda: RBF("median"),
    "white": White,
}


def resolve_kernel(kernel: Any) -> Kernel:
    """Find a kernel by name, or take the one given.

    A name means a kernel that fits data of any scale: where there is a lengthscale, it is the
    median distance of the data, which `Kernel.fit` sets. The names are scikit-learn's where it
    has the kernel (so ``"cosine"`` is the cosine of the angle).

    Parameters
    ----------
    kernel : str or Kernel
        A name such as ``"rbf"`` or ``"matern52"``, or a kernel.

    Returns
    -------
    Kernel
        A new kernel for a name; the same object for a kernel.

    Raises
    ------
    ValueError
        If there is no such name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> resolve_kernel("rbf")
    RBF(lengthscale='median')
    """
    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str):
        raise TypeError(
            f"kernel: expected a Kernel or one of {sorted(KERNELS)}, got {type(kernel).__name__}"
        )
    if kernel not in KERNELS:
        hint = "; pass Precomputed(matrix) itself" if kernel == "precomputed" else ""
        raise ValueError(f"kernel: expected one of {sorted(KERNELS)}, got {kernel!r}{hint}")
    return KERNELS[kernel]()
