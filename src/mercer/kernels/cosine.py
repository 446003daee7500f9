"""The cosine kernel, a plane wave."""

import math
from typing import Any, final

import torch
from torch import Tensor

from .distance import centred
from .hyperparameter import positive, register_positive
from .periodic import divide
from .stationary import Stationary


@final
class Cosine(Stationary):
    r"""The cosine kernel, a wave of one frequency.

    .. math:: k(x, y) = \cos\left(2 \pi \sum_k \frac{x_k - y_k}{p_k}\right)

    Of rank two; useful in products and sums. The cosine of the angle between two vectors, which
    scikit-learn calls ``"cosine"``, is `CosineSimilarity`.

    Parameters
    ----------
    period : float, sequence of floats or Tensor, default 1.0
        p, in units of the inputs: one number, or one a dimension.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the period is not positive, finite numbers.

    References
    ----------
    Wilson, Adams, "Gaussian process kernels for pattern discovery and extrapolation", 2013,
    arXiv 1302.4245 (a spectral mixture of one component without width).

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [0.5], [1.0]])
    >>> Cosine().requires_grad_(False)(x)[0]
    tensor([ 1., -1.,  1.])
    """

    period = positive("period", "Length of a wave, in units of the inputs.", scalar=False)

    def __init__(
        self,
        period: Any = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(period=period, device=device, dtype=dtype)
        register_positive(self, "period", period, device=device, dtype=dtype)

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = centred(x, y)
        a = divide(2 * math.pi * x, self.period, "period").sum(-1).unsqueeze(-1)  # (..., n, 1)
        b = divide(2 * math.pi * y, self.period, "period").sum(-1).unsqueeze(-2)  # (..., 1, m)
        return torch.cos(a - b)

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:-1])

    def num_uniforms(self, in_features: int) -> int:
        """Return 0: nothing is random."""
        return 0

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Return the one frequency, for each row of normals (m, d)."""
        return divide(2 * math.pi * torch.ones_like(normals), self.period, "period")
