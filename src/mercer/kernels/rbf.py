"""The Gaussian kernel, also called radial basis function or squared exponential."""

from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from .in_place import InPlace
from .stationary import Radial


def gaussian(s: Tensor, spare: Tensor) -> Tensor:
    """Evaluate exp(-s / 2) in place."""
    return s.mul_(-0.5).exp_()


@final
class RBF(Radial):
    r"""The Gaussian kernel (radial basis function, squared exponential).

    .. math:: k(x, y) = \exp\left(-\frac{|x - y|^2}{2 \ell^2}\right)

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

    References
    ----------
    Rasmussen, Williams, "Gaussian processes for machine learning", 2006, section 4.2.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> RBF(lengthscale=2.0)(x)
    tensor([[1.0000, 0.6065],
            [0.6065, 1.0000]], grad_fn=<...>)
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

    def profile(self, s: Tensor) -> Tensor:
        """Evaluate exp(-s / 2)."""
        return torch.exp(-s / 2)

    def inplace(self) -> InPlace:
        """Return exp(-s / 2), for tiles."""
        return partial(gaussian)

    def num_uniforms(self, in_features: int) -> int:
        """Return 0: normal numbers suffice."""
        return 0

    def radii(self, uniforms: Tensor) -> Tensor:
        """Return ones: the frequencies of a Gaussian kernel are normal."""
        return uniforms.new_ones(uniforms.shape[0])
