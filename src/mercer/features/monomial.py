"""Monomials: the exact features of the linear, the polynomial and the constant kernel."""

import math
from itertools import combinations_with_replacement
from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.checks import check_int, check_last_dim, check_materialized
from .._core.config import require_memory
from .._core.counter import RandomSource
from ..kernels import Constant, Kernel, Linear, Polynomial
from .base import FeatureMap
from .projection import on_cpu
from .spectrum import inverse_lengthscale, unscaled


@final
class MonomialFeatures(FeatureMap):
    r"""All monomials of the inputs up to a degree: exact features of the polynomial kernel.

    .. math::

        \phi(x)_\alpha = \sqrt{\binom{p}{\alpha}} \, c^{(p - |\alpha|) / 2}
        \prod_k (x_k / \ell_k)^{\alpha_k}, \quad |\alpha| \le p

    with :math:`\phi(x) \cdot \phi(y) = (x \cdot y / \ell^2 + c)^p` for every x and y. There are
    :math:`\binom{d + p}{p}` of them (:math:`\binom{d + p - 1}{p}` where c = 0). For the linear
    kernel these are the scaled inputs, for the constant kernel one constant.

    Parameters
    ----------
    kernel : Kernel
        `Linear`, `Polynomial` or `Constant`, at most scaled; the map keeps a frozen copy.
    in_features : int
        Length d of an input vector.
    device, dtype : optional
        Of the buffers.

    Raises
    ------
    TypeError
        If the kernel is none.
    ValueError
        If the kernel is another, or in_features is below one.
    MemoryError
        If there are too many monomials for the memory budget.
    RuntimeError
        If a hyperparameter was left to the data and is not set.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import MonomialFeatures
    >>> from mercer.kernels import Polynomial
    >>> phi = MonomialFeatures(Polynomial(2), 2)
    >>> phi(torch.tensor([3.0, 5.0]))  # 1, and with weights x, y, x^2, x y, y^2
    tensor([ 1.0000,  4.2426,  7.0711,  9.0000, 21.2132, 25.0000])
    """

    scale: Tensor
    factors: Tensor
    weight: Tensor

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._multiple, kernel = unscaled(self._approximate(kernel))
        count = num_monomials(kernel, check_int("in_features", in_features))
        if count is None:
            raise ValueError(
                "kernel: expected a Linear, Polynomial or Constant one, at most scaled, "
                f"got {kernel!r}"
            )
        self.in_features, self.num_features = int(in_features), count
        if isinstance(kernel, Constant):
            self.degree, self._offset = 0, 1.0
            self._multiple *= float(kernel.value.detach())
            self._scale = torch.ones(in_features, dtype=torch.float64, device="cpu")
        else:
            assert isinstance(kernel, Linear | Polynomial)
            polynomial = isinstance(kernel, Polynomial)
            self.degree = kernel.degree if polynomial else 1
            self._offset = float(kernel.offset.detach()) if polynomial else 0.0
            self._scale = inverse_lengthscale(kernel, self.in_features)
        require_memory(
            100.0 * count * max(self.degree, 1),
            f"the list of {count} monomials",
            "take PolynomialSketch",
        )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # Entry d stands for the factor 1, which the offset weighs.
        shape = (count, self.degree)
        self.register_buffer("factors", torch.empty(shape, device=device, dtype=torch.int64))
        self.register_buffer("scale", torch.empty(in_features, **factory))
        self.register_buffer("weight", torch.empty(count, **factory))
        self.reset_parameters()

    @on_cpu
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Set the buffers anew; nothing is random."""
        if self.weight.is_meta:
            return
        entries = range(self.in_features + bool(self._offset))
        d, p = self.in_features, self.degree
        chosen, weights = [], []
        for factors in combinations_with_replacement(entries, p):
            chosen.append(factors)
            ones = factors.count(d)
            repeats = math.prod(math.factorial(factors.count(k)) for k in set(factors))
            weights.append(math.factorial(p) / repeats * self._offset**ones)
        # The constant first, then the linear terms, and so on.
        order = sorted(range(len(chosen)), key=lambda i: (-chosen[i].count(d), chosen[i]))
        factors = torch.tensor([chosen[i] for i in order], dtype=torch.int64)
        weight = torch.tensor([weights[i] for i in order], dtype=torch.float64)
        self.factors.copy_(factors.reshape(self.factors.shape))
        self.weight.copy_((weight * self._multiple).sqrt())
        self.scale.copy_(self._scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.weight, x)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        full = full * self.scale.to(full.dtype)
        if self._offset:
            full = torch.cat([full, torch.ones_like(full[..., :1])], -1)
        product = self.weight.to(full.dtype).expand(*x.shape[:-1], -1)  # (..., m)
        for i in range(self.degree):
            product = product * full[..., self.factors[:, i]]
        return product.to(x.dtype, copy=not self.degree)

    def _config(self) -> dict[str, Any]:
        return {"kernel": self._approximated[0].to_config(), "in_features": self.in_features}

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        kernel = Kernel.build(config["kernel"])
        return cls(kernel, config["in_features"])

    def extra_repr(self) -> str:
        """Describe the kernel and sizes for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}"
        )


def num_monomials(kernel: Kernel, in_features: int) -> int | None:
    """Return how many features are exact for a kernel, or None where `MonomialFeatures` has none.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    in_features : int
        Length of an input vector.

    Returns
    -------
    int or None
        The number of monomials.
    """
    kernel = unscaled(kernel)[1]
    if isinstance(kernel, Constant):
        return 1
    if isinstance(kernel, Linear):
        return in_features
    if isinstance(kernel, Polynomial):
        entries = in_features + bool(float(kernel.offset.detach()))
        return math.comb(entries + kernel.degree - 1, kernel.degree)
    return None
