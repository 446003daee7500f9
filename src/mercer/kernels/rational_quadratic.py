"""The rational quadratic kernel: Gaussian kernels of many lengthscales, mixed."""

from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from .gamma import inverse_gamma_cdf
from .hyperparameter import positive, register_positive
from .in_place import InPlace
from .stationary import Radial


def _tile(s: Tensor, spare: Tensor, alpha: Tensor) -> Tensor:
    """Evaluate the kernel in place."""
    return s.div_(2 * alpha).log1p_().mul_(-alpha).exp_()


@final
class RationalQuadratic(Radial):
    r"""The rational quadratic kernel, a mixture of Gaussian kernels over lengthscales.

    .. math:: k(x, y) = \left(1 + \frac{|x - y|^2}{2 \alpha \ell^2}\right)^{-\alpha}

    Parameters
    ----------
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`, in units of the inputs: one number, one a dimension (ARD), or the median
        distance of the data that `fit` is given.
    alpha : float, default 1.0
        :math:`\alpha`; large values approach the Gaussian kernel.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If a hyperparameter is not positive and finite.

    References
    ----------
    Rasmussen, Williams, "Gaussian processes for machine learning", 2006, section 4.2.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> RationalQuadratic(alpha=2.0).requires_grad_(False)(x)
    tensor([[1.0000, 0.2500],
            [0.2500, 1.0000]])
    """

    alpha = positive("alpha", "How evenly the lengthscales are mixed.")

    def __init__(
        self,
        lengthscale: Any = 1.0,
        *,
        alpha: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(lengthscale=lengthscale, alpha=alpha, device=device, dtype=dtype)
        self._register_lengthscale(lengthscale, device, dtype)
        register_positive(self, "alpha", alpha, device=device, dtype=dtype, scalar=True)

    def profile(self, s: Tensor) -> Tensor:
        """Evaluate the kernel at squared scaled distances."""
        alpha = self.alpha.to(s.dtype)
        return torch.exp(-alpha * torch.log1p(s / (2 * alpha)))

    def inplace(self) -> InPlace:
        """Return the kernel at squared scaled distances, for tiles."""
        return partial(_tile, alpha=self.alpha.detach())

    def num_uniforms(self, in_features: int) -> int:
        """Return 1, for the lengthscale of a frequency."""
        return 1

    def radii(self, uniforms: Tensor) -> Tensor:
        """Return the roots of Gamma draws: squared inverse lengthscales of the mixture."""
        alpha = float(self.alpha.detach())
        return (inverse_gamma_cdf(uniforms[:, 0], alpha) / alpha).sqrt()
