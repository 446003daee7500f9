"""TensorSketch: random features of the polynomial kernel, whatever its degree."""

import math
from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.checks import check_generator, check_int, check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.precision import full_precision
from .._core.random import draw_integers, draw_signs, own_stream
from ..kernels import Kernel, Polynomial
from .base import FeatureMap
from .blocks import can_block, map_blocks
from .projection import on_cpu
from .spectrum import inverse_lengthscale, unscaled

_MANY = 25  # inputs beyond which fast transforms beat matrix products


@final
class PolynomialSketch(FeatureMap):
    r"""Random features of the polynomial kernel: a product of count sketches (TensorSketch).

    With :math:`\tilde x = (x / \ell, \sqrt c)`, random buckets :math:`h_i` of m, random signs
    :math:`s_i` and the discrete Fourier transform F of length m,

    .. math::

        \phi(x) = F^{-1} \prod_{i=1}^{p} F\, C_i \tilde x, \quad
        (C_i \tilde x)_b = \sum_{k : h_i(k) = b} s_i(k)\, \tilde x_k

    is a count sketch of all the products of p coordinates, so that
    :math:`E\, \phi(x) \cdot \phi(y) = (x \cdot y / \ell^2 + c)^p`. The variance is at most
    :math:`3^p |\tilde x|^{2p} |\tilde y|^{2p} / m`.

    Parameters
    ----------
    kernel : Kernel
        `Polynomial`, at most scaled; the map keeps a frozen copy.
    in_features : int
        Length d of an input vector.
    num_features : int
        Number m of features.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of buckets and signs, which is all that is random: there are no directions to
        make orthogonal. None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Raises
    ------
    TypeError
        If the kernel is none.
    ValueError
        If the kernel is not polynomial or a size is below one.
    RuntimeError
        If a hyperparameter was left to the data and is not set.

    See Also
    --------
    MonomialFeatures : the exact map, for few inputs and a low degree.

    Notes
    -----
    Difference from the paper: the features are left in the Fourier domain, as real and
    imaginary parts (dot products are the same), and for few inputs, or where something is
    differentiated or compiled, the transformed sketches are matrix products with the waves of
    the buckets: real arithmetic, in time O(p d m) instead of O(p (d + m log m)).

    References
    ----------
    Pham, Pagh, "Fast and scalable polynomial kernels via explicit feature maps", KDD 2013.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import PolynomialSketch
    >>> from mercer.kernels import Polynomial
    >>> x = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    >>> phi = PolynomialSketch(Polynomial(3), 3, 4000, generator=0, dtype=torch.float64)
    >>> z = phi(x)
    >>> bool((z @ z.mT - phi.kernel(x)).abs().max() < 3.0)  # of values up to 34
    True
    """

    buckets: Tensor
    signs: Tensor
    scale: Tensor
    weight: Tensor

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._multiple, kernel = unscaled(self._approximate(kernel))
        if not isinstance(kernel, Polynomial):
            raise ValueError(f"kernel: expected a Polynomial one, at most scaled, got {kernel!r}")
        self.in_features = check_int("in_features", in_features)
        self.num_features = check_int("num_features", num_features)
        self.degree = kernel.degree
        inverse = inverse_lengthscale(kernel, self.in_features)
        offset = kernel.offset.detach().double().sqrt().reshape(1)
        self._scale = torch.cat([inverse, offset]) if float(offset) else inverse  # (D,)
        size = len(self._scale)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        shape = (self.degree, size)
        self.register_buffer("buckets", torch.empty(shape, device=device, dtype=torch.int64))
        self.register_buffer("signs", torch.empty(shape, device=device, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(size, **factory))
        self.register_buffer("weight", torch.empty(self.num_features, **factory))
        self.reset_parameters(generator)

    @on_cpu
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw buckets and signs; on the meta device nothing is drawn."""
        if self.buckets.is_meta:
            return
        source = own_stream(check_generator(generator))
        m, shape = self.num_features, self.buckets.shape
        self.buckets.copy_(draw_integers(m, shape, source))
        self.signs.copy_(draw_signs(shape, source))
        self.scale.copy_(self._scale)
        # Parseval: frequencies f and m - f say the same, so that each but 0 and m / 2 counts twice.
        waves = m // 2 + 1
        twice = torch.full((waves,), math.sqrt(2 * self._multiple / m), dtype=torch.float64)
        twice[0] /= math.sqrt(2)
        if m % 2 == 0:
            twice[-1] /= math.sqrt(2)
        self.weight.copy_(torch.cat([twice, twice[1 : 1 + m - waves]]))

    def _waves(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part of the transformed sketches, each (p, D, m // 2 + 1)."""
        m = self.num_features
        frequency = torch.arange(m // 2 + 1, device=self.buckets.device)
        # Integers first: an angle of many turns would lose its digits.
        turns = self.buckets.unsqueeze(-1) * frequency % m
        angle = turns.to(torch.promote_types(dtype, torch.float32)) * (2 * math.pi / m)
        entries = self.signs.unsqueeze(-1).to(angle.dtype)
        return (entries * angle.cos()).to(dtype), (entries * angle.sin()).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.buckets, x)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        with full_precision(x):
            if x.ndim > 1 and can_block(x, self.num_features, *self.buffers()):
                # Sums into buckets have no fixed order on other devices.
                if x.device.type == "cpu" and len(self._scale) > _MANY:
                    write = self._transform
                else:
                    waves = self._waves(full.dtype)

                    def write(rows: Tensor, out: Tensor) -> None:
                        out.copy_(self._multiply(rows, *waves))

                return map_blocks(full, self.num_features, x.dtype, write)
            return self._multiply(full, *self._waves(full.dtype)).to(x.dtype)

    def _entries(self, x: Tensor) -> Tensor:
        """Scale inputs (..., d) and append the offset's entry, shape (..., D)."""
        scale = self.scale.to(x.dtype)
        if len(scale) > self.in_features:
            x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        return x * scale

    def _multiply(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Compute the features by products with the waves of the buckets."""
        x = self._entries(x)
        real, imaginary = x @ cosines[0], x @ sines[0]  # (..., m // 2 + 1)
        for i in range(1, self.degree):
            re, im = x @ cosines[i], x @ sines[i]
            real, imaginary = real * re - imaginary * im, real * im + imaginary * re
        # The imaginary parts at 0 and, for even m, at m / 2 are zero.
        rest = imaginary[..., 1 : 1 + self.num_features - real.shape[-1]]
        return torch.cat([real, rest], -1) * self.weight.to(x.dtype)  # (..., m)

    def _transform(self, rows: Tensor, out: Tensor) -> None:
        """Compute the same by fast transforms of the sketches, into out (n, m)."""
        x, m = self._entries(rows), self.num_features
        spectrum = x.new_ones(())
        for buckets, signs in zip(self.buckets, self.signs.to(x.dtype), strict=True):
            sketch = x.new_zeros(len(x), m).index_add_(1, buckets, x * signs)
            spectrum = spectrum * torch.fft.rfft(sketch)  # (n, m // 2 + 1)
        waves = m // 2 + 1
        out[:, :waves] = spectrum.real
        out[:, waves:] = -spectrum.imag[:, 1 : 1 + m - waves]
        out.mul_(self.weight.to(x.dtype))

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self.num_features,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        kernel = Kernel.build(config["kernel"])
        return cls(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the kernel and sizes for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}"
        )
