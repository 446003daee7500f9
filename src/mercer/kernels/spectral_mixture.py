"""The spectral mixture kernel: any stationary kernel, by Gaussians over its frequencies."""

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from .distance import centred, squared_distance
from .hyperparameter import positive, register_positive
from .stationary import Stationary


@final
class SpectralMixture(Stationary):
    r"""The spectral mixture kernel, whose distribution of frequencies is a Gaussian mixture.

    .. math::

        k(x, y) = \sum_q w_q \cos(2 \pi \mu_q \cdot (x - y))
        \exp\left(-2 \pi^2 \sum_k \sigma_{qk}^2 (x_k - y_k)^2\right)

    Parameters
    ----------
    weights : sequence of floats or Tensor of shape (q,)
        w, the variance of each component.
    means : sequence or Tensor of shape (q, d)
        :math:`\mu`, mean frequencies in cycles per unit of the inputs.
    scales : sequence or Tensor of shape (q, d)
        :math:`\sigma`, their standard deviations.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, weights or scales are not positive, or a number is not finite.

    Notes
    -----
    In several dimensions some libraries take a product of cosines over the dimensions, which
    mixes the signs of the frequencies; here the mixture is the Gaussian one itself.

    References
    ----------
    Wilson, Adams, "Gaussian process kernels for pattern discovery and extrapolation", 2013,
    arXiv 1302.4245.

    Examples
    --------
    >>> import torch
    >>> k = SpectralMixture([1.0, 0.5], means=[[0.0], [1.0]], scales=[[0.1], [0.1]])
    >>> k.requires_grad_(False)(torch.tensor([[0.0], [0.5]]))
    tensor([[1.5000, 0.4759],
            [0.4759, 1.5000]])
    """

    weights = positive("weights", "Variance of each component.", scalar=False)
    means: nn.Parameter

    def __init__(
        self,
        weights: Any,
        means: Any,
        scales: Any,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(weights=weights, means=means, scales=scales, device=device, dtype=dtype)
        register_positive(self, "weights", weights, device=device, dtype=dtype)
        count = self.weights.numel()
        read = {}
        for name, value in (("means", means), ("scales", scales)):
            try:
                at = value.device if isinstance(value, Tensor) else "cpu"
                tensor = torch.as_tensor(value, dtype=torch.float64, device=at).detach()
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(f"{name}: expected numbers of shape (q, d), got {error}") from None
            if tensor.ndim != 2 or len(tensor) != count:
                raise ValueError(
                    f"{name}: expected shape ({count}, d) beside as many "
                    f"weights, got {tuple(tensor.shape)}"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name}: expected finite numbers, got {tensor.tolist()}")
            read[name] = tensor
        if read["means"].shape != read["scales"].shape:
            raise ValueError(
                f"scales: expected shape {tuple(read['means'].shape)} like means, "
                f"got {tuple(read['scales'].shape)}"
            )
        if not bool((read["scales"] > 0).all()):
            raise ValueError(f"scales: expected numbers > 0, got {read['scales'].tolist()}")
        where: dict[str, Any] = {
            "device": device or torch.get_default_device(),
            "dtype": dtype or torch.float64,
        }
        self.means = nn.Parameter(read["means"].clone().to(**where))
        self.raw_scales = nn.Parameter(read["scales"].log().to(**where))

    @property
    def scales(self) -> Tensor:
        """Standard deviations of the frequencies, shape (q, d)."""
        return self.raw_scales.exp()

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        self._check_width(x)
        x, y = centred(x, y)
        weights, means, scales = (v.to(x.dtype) for v in (self.weights, self.means, self.scales))
        total = x.new_zeros(())
        for w, mean, scale in zip(weights, means, scales, strict=True):
            phase = (x @ mean).unsqueeze(-1) - (y @ mean).unsqueeze(-2)  # (..., n, m)
            s = squared_distance(x * scale, y * scale)  # (..., n, m)
            wave = torch.cos(2 * math.pi * phase)
            total = total + w * wave * torch.exp(-2 * math.pi**2 * s)
        return total

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.weights.sum().to(x.dtype).expand(x.shape[:-1])

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.means.shape[-1]:
            raise ValueError(
                f"x: expected shape (..., {self.means.shape[-1]}) beside means "
                f"{tuple(self.means.shape)}, got {tuple(x.shape)}"
            )

    def num_uniforms(self, in_features: int) -> int:
        """Return 1, which chooses the component."""
        return 1

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Choose a component for each row of normals (m, d), then scale and shift it."""
        self._check_width(normals)
        weights = self.weights.detach()
        below = weights.cumsum(0) / weights.sum()
        which = torch.searchsorted(below.to(uniforms), uniforms[:, 0].contiguous())
        which = which.clamp_max(len(weights) - 1)  # (m,)
        means, scales = self.means.to(normals), self.scales.to(normals)
        return 2 * math.pi * (means[which] + scales[which] * normals)
