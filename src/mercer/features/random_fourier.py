"""Random Fourier features: plane waves whose frequencies follow a kernel's spectrum."""

import math
from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.checks import (
    check_choice,
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
)
from .._core.counter import RandomSource
from .._core.precision import full_precision
from .._core.random import own_stream
from ..kernels import Kernel, Radial
from .base import FeatureMap
from .blocks import can_block, map_blocks, write_waves
from .draws import (
    PROJECTION_KINDS,
    STRUCTURED_KINDS,
    check_sobol_size,
    draw_normals_and_uniforms,
    draw_uniforms,
    make_projection,
)
from .projection import on_cpu
from .spectrum import allot, inverse_lengthscale, spectral_components, unscaled


@final
class RandomFourier(FeatureMap):
    r"""Random Fourier features of a stationary kernel.

    .. math::

        \phi(x) = \sqrt{k(0) / n} \, [\cos \omega_j \cdot x, \ \sin \omega_j \cdot x]_{j \le n},
        \quad n = \text{num\_features} / 2

    with frequencies from the kernel's spectral distribution, so that
    :math:`E\, \phi(x) \cdot \phi(y) = k(x, y)` for every draw but ``"hadamard"``, whose bias falls
    with d (0.01 of the Gaussian kernel at d = 4, not measurable from d = 16 on).

    For every stationary kernel, and for sums, products and multiples of them and of `Constant`:
    a sum shares the frequencies between its parts by variance, with one for a part that has a
    single frequency; a product adds them.

    Parameters
    ----------
    kernel : Kernel
        The kernel k; the map keeps a frozen copy.
    in_features : int
        Length d of an input vector.
    num_features : int
        Number of features, even: each frequency takes a cosine and a sine.
    draw : {"orthogonal", "gaussian", "sobol", "hadamard", "fastfood"}, default "orthogonal"
        How the frequencies are drawn; see `make_projection` and the notes. The last two
        never store a matrix, and are for one `Radial` kernel, at most scaled: the frequencies
        of others are not a linear function of the rows that these products make.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Raises
    ------
    TypeError
        If the kernel is none.
    ValueError
        If a part of the kernel is not stationary, num_features is odd or below two for each
        part, or the draw is unknown or cannot be had for this kernel.
    RuntimeError
        If a hyperparameter was left to the data and is not set.

    Notes
    -----
    Root-mean-square errors for the Gaussian kernel at a distance of one lengthscale, where it is
    0.61, with `QuadratureFeatures` beside them (``benchmarks/feature_draws.py``, which has more):

    === ==== ======== ========== ====== ======== ======== ==========
    d   m    gaussian orthogonal sobol  hadamard fastfood quadrature
    === ==== ======== ========== ====== ======== ======== ==========
    1   64   0.081    0.083      0.014  0.083    0.082    6e-17
    2   512  0.027    0.021      0.0018 0.031    0.029    1e-16
    4   512  0.028    0.019      0.0038 0.018    0.031    0.0036
    16  64   0.079    0.030      0.073  0.031    0.10     0.067
    16  512  0.028    0.011      0.011  0.011    0.036    0.012
    64  512  0.028    0.0086     0.018  0.0087   0.039    0.018
    === ==== ======== ========== ====== ======== ======== ==========

    So ``"sobol"`` is for up to about a dozen dimensions and many features (m of 32 d and more),
    ``"orthogonal"`` for all else, ``"hadamard"`` instead where d is in the hundreds.

    Inputs and frequencies are multiplied in at least single precision. Large inputs cost
    digits, :math:`\epsilon |\omega \cdot x|`: centre the data first.

    References
    ----------
    Rahimi, Recht, "Random features for large-scale kernel machines", NeurIPS 2007.

    Yu, Suresh, Choromanski, Holtmann-Rice, Kumar, "Orthogonal random features", 2016,
    arXiv 1610.09072.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import RandomFourier
    >>> from mercer.kernels import RBF
    >>> x = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    >>> phi = RandomFourier(RBF(2.0), 3, 4000, generator=0, dtype=torch.float64)
    >>> z = phi(x)
    >>> bool((z @ z.mT - phi.kernel(x)).abs().max() < 0.05)
    True
    """

    amplitude: Tensor
    frequencies: Tensor
    inverse_lengthscale: Tensor
    radii: Tensor

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        draw: str = "orthogonal",
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernel = self._approximate(kernel)
        self.in_features = check_int("in_features", in_features)
        self.num_features = check_int("num_features", num_features)
        self.draw = check_choice("draw", draw, PROJECTION_KINDS)
        components = spectral_components(kernel, in_features)
        if components is None:
            raise ValueError(f"kernel: expected a stationary one, in all its parts, got {kernel!r}")
        if self.num_features % 2 or self.num_features < 2 * len(components):
            raise ValueError(
                f"num_features: expected an even number >= {2 * len(components)}, because each "
                "frequency takes two features and each part of the kernel a frequency, "
                f"got {num_features}"
            )
        half = self.num_features // 2
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.projection = None
        if self.draw in STRUCTURED_KINDS:
            radial = unscaled(kernel)[1]
            if not isinstance(radial, Radial):
                raise ValueError(
                    f"draw: {draw!r} is for a Radial kernel, at most scaled, got {kernel!r}; take "
                    "'orthogonal', 'gaussian' or 'sobol'"
                )
            self.projection = make_projection(draw, half, in_features, generator=0, **factory)
            shapes = {"radii": half, "inverse_lengthscale": in_features}
        else:
            for c in components:
                size = in_features * len(c.factors) + c.num_uniforms(in_features)
                check_sobol_size("in_features", self.draw, size)
            shapes = {"frequencies": (half, in_features)}
        for name, shape in {**shapes, "amplitude": self.num_features}.items():
            self.register_buffer(name, torch.empty(shape, **factory))
        self.reset_parameters(generator)

    @on_cpu
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the frequencies; on the meta device nothing is drawn."""
        if self.amplitude.is_meta:
            return
        source = own_stream(check_generator(generator))
        half = self.num_features // 2
        components = spectral_components(self._approximated[0], self.in_features) or []
        shares = allot(components, half)
        amplitudes = [
            torch.full((n,), math.sqrt(c.variance / n), dtype=torch.float64)
            for c, n in zip(components, shares, strict=True)
        ]
        self.amplitude.copy_(torch.cat(amplitudes).repeat(2))
        if self.projection is not None:
            radial = unscaled(self._approximated[0])[1]  # a scale of zero has no component
            assert isinstance(radial, Radial)
            self.projection.reset_parameters(source)
            uniforms = draw_uniforms(half, radial.num_uniforms(self.in_features), source)
            self.radii.copy_(radial.radii(uniforms) * self.projection.draw_lengths(source))
            self.inverse_lengthscale.copy_(inverse_lengthscale(radial, self.in_features))
            return
        rows = []
        for c, n in zip(components, shares, strict=True):
            normals, uniforms = draw_normals_and_uniforms(
                self.draw,
                n,
                self.in_features,
                len(c.factors),
                c.num_uniforms(self.in_features),
                source,
            )
            rows.append(
                c.frequencies(normals, uniforms)
                if c.factors
                else torch.zeros(n, self.in_features, dtype=torch.float64)
            )
        self.frequencies.copy_(torch.cat(rows))

    def _phases(self, x: Tensor) -> Tensor:
        """Multiply inputs (..., d) with the frequencies, shape (..., n)."""
        if self.projection is None:
            return x @ self.frequencies.to(x.dtype).mT
        return self.projection(x * self.inverse_lengthscale.to(x.dtype)) * self.radii.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.amplitude, x)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        amplitude = self.amplitude.to(full.dtype)
        with full_precision(x):
            if x.ndim > 1 and can_block(x, self.num_features, *self.buffers()):

                def write(rows: Tensor, out: Tensor) -> None:
                    write_waves(self._phases(rows), amplitude, out)

                return map_blocks(full, self.num_features, x.dtype, write)
            phases = self._phases(full)  # (..., n)
            waves = torch.cat([phases.cos(), phases.sin()], -1)  # (..., 2n)
            return (waves * amplitude).to(x.dtype)

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self.num_features,
            "draw": self.draw,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        kernel = Kernel.build(config["kernel"])
        return cls(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the kernel, sizes and options for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}, draw={self.draw!r}"
        )
