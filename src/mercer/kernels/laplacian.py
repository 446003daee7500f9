"""The Laplacian kernel: exponential in the sum of absolute differences."""

import math
from typing import Any, final

import torch
from torch import Tensor

from .distance import absolute_distance
from .stationary import Scales, Stationary


def laplacian_tile(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Write the kernel between scaled rows (n, d) and columns (d, m) to a tile."""
    if torch.compiler.is_compiling():
        return out.copy_(torch.exp(-(x.unsqueeze(-1) - y).abs().sum(1)))  # one loop, no cube
    return torch.neg(torch.cdist(x, y.mT, p=1.0), out=out).exp_()


@final
class Laplacian(Stationary, Scales):
    r"""The Laplacian kernel, exponential in the sum of absolute differences.

    .. math:: k(x, y) = \exp\left(-\sum_k \frac{|x_k - y_k|}{\ell_k}\right)

    A product over the dimensions; the exponential of the Euclidean distance is
    ``Matern(nu=0.5)``. Where coordinates coincide it has kinks, at which the gradient is taken
    as zero.

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
    Rahimi, Recht, "Random features for large-scale kernel machines", NeurIPS 2007.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> Laplacian(lengthscale=2.0).requires_grad_(False)(x)
    tensor([[1.0000, 0.3679],
            [0.3679, 1.0000]])
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

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-absolute_distance(self._scale(x), self._scale(y)))

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:-1])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, p=1.0)

    def num_uniforms(self, in_features: int) -> int:
        """Return 0: normal numbers suffice."""
        return 0

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Turn normal numbers (m, d) into Cauchy ones by their quantiles."""
        # tan(pi (Phi(g) - 1/2)), from the nearer tail so that large |g| keep their digits.
        tail = torch.special.ndtr(-normals.abs())
        cauchy = torch.sign(normals) / torch.tan(math.pi * tail.clamp_min(1e-300))
        return self._scale(cauchy)
