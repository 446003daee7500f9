"""Universal random features: an activation of w.x + b as a product of two maps."""

import math
from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import (
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
    check_real,
)
from .._core.counter import RandomSource
from .._core.precision import full_precision
from .base import TwoSidedFeatureMap
from .draws import make_projection
from .gaussian_trick import best_damping, gaussian_variance, mean_variance
from .waves import EXACT, distinct, fixed_waves, gaussian_waves


@final
class UniversalFeatures(TwoSidedFeatureMap):
    r"""Features of any activation: f(w.x + b) as an affine part plus a product of two maps.

    .. math:: f(w \cdot x + b) \approx \mathrm{slope}\,(w \cdot x + b) + \mathrm{intercept}
              + \phi(x) \cdot \psi(w, b)

    f is written as an affine part, which is exact and kept apart, and a sum of waves
    :math:`\mathrm{Re}\, a_k e^{i \omega_k z}`; the Gaussian trick (`gaussian_trick`) then takes
    each wave apart into a random factor of x and one of (w, b). With :math:`c_j = \sqrt{i
    \omega_j}`, damping :math:`M_j` and balance :math:`\tau`, feature j is the pair of real and
    imaginary part of

    .. math:: n^{-1/2} \Lambda_{g_j}(c_j \tau x), \qquad
              n^{1/2} A_j e^{i \omega_j b} \Lambda_{g_j}(c_j w / \tau), \qquad g_j \sim N(0, I_d),

    on the two sides, for n = num_features / 2 complex features. ``sin`` and ``cos`` are one wave
    each and ``"gaussian"``, :math:`e^{-z^2/2}`, has Gaussian frequencies, drawn with the
    features: for these three the estimate is unbiased. Every other activation is expanded on
    :math:`|z| \le` domain, with frequencies and a fixed share of the features for each that
    make truncation and variance together least (`fit_fourier_extension`); the estimate is
    unbiased about that expansion, `expand`.

    The variance grows like :math:`\exp(\omega \|\tau x + w / \tau\|^2)`: the map is for inputs and
    neurons of norms around one. `variance` predicts it, `norms` tells the map what to expect.

    Parameters
    ----------
    activation : str, Module or callable
        Elementwise function f: a name, a module of ``torch.nn`` or any callable.
    in_features : int
        Length d of an input vector.
    num_features : int
        Number of real features, even: each complex one takes two.
    bias : bool, default True
        Whether neurons may have a bias.
    domain : float, default 6.0
        The expansion holds for pre-activations in [-domain, domain]; beyond, it goes its own
        ways (see `fraction_outside`).
    draw : {"orthogonal", "gaussian", "sobol", "hadamard", "fastfood"}, default "orthogonal"
        How the directions g are drawn; see `make_projection`.
    norms : tuple of two floats, default (1.0, 1.0)
        Typical norm of an input and of a neuron's weight, from which follow balance, damping,
        cut-off and shares.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Attributes
    ----------
    slope, intercept : Tensor of shape ()
        The affine part, buffers.

    Raises
    ------
    ValueError
        If the activation is unknown, not elementwise or not finite on the domain, num_features
        is odd, the draw is unknown, or a number is not positive.

    Notes
    -----
    Differences from the paper: (1) frequencies have fixed shares of the features and are not
    drawn (but for ``"gaussian"``); (2) each has its damping, in closed form; (3) sides are
    balanced by :math:`\tau^2 = \|w\| / \|x\|`; (4) real arithmetic; (5) magnitudes are cut near
    the square root of the dtype's largest number, so that products stay finite.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network Kernels, 2024,
    arXiv 2310.13225.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import UniversalFeatures
    >>> phi = UniversalFeatures("gelu", 8, 4096, norms=(0.5, 0.5), generator=0)
    >>> x, weight = torch.full((3, 8), 0.15), torch.full((2, 8), 0.1)
    >>> bias = torch.tensor([-1.0, 2.0])
    >>> estimate = phi.estimate(x, weight, bias)
    >>> exact = torch.nn.functional.gelu(x @ weight.mT + bias)
    >>> bool((estimate - exact).abs().max() < 0.05)
    True
    """

    omega: Tensor
    damping: Tensor
    offset: Tensor
    amplitude: Tensor  # row 0 is the real, row 1 the imaginary part of n A_j
    lengths: Tensor | None  # only structured rows have fixed ones; the others would store ones
    slope: Tensor
    intercept: Tensor
    largest_error: Tensor

    def __init__(
        self,
        activation: str | nn.Module | Callable[[Tensor], Tensor],
        in_features: int,
        num_features: int,
        *,
        bias: bool = True,
        domain: float = 6.0,
        draw: str = "orthogonal",
        norms: tuple[float, float] = (1.0, 1.0),
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.activation = resolve_activation(activation)
        self.in_features = check_int("in_features", in_features)
        self.num_features = check_int("num_features", num_features)
        if self.num_features % 2:
            raise ValueError(
                "num_features: expected an even number, because a complex feature takes two real "
                f"ones, got {num_features}"
            )
        self.bias = bool(bias)
        self.domain = check_real("domain", domain, above=0)
        if not (isinstance(norms, tuple | list) and len(norms) == 2):
            raise ValueError(f"norms: expected two numbers, of input and neuron, got {norms!r}")
        self.norms = tuple(check_real("norms", norm, above=0) for norm in norms)
        self.balance = math.sqrt(self.norms[1] / self.norms[0])
        # |tau x + w / tau|^2 where input and neuron are orthogonal
        self._pair = 2 * self.norms[0] * self.norms[1]
        self.draw = draw
        generator = check_generator(generator)
        half = self.num_features // 2
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.projection = make_projection(
            draw, half, self.in_features, generator=generator, **factory
        )
        shapes = {"omega": half, "damping": half, "offset": half, "amplitude": (2, half)}
        for name, shape in {**shapes, "slope": (), "intercept": (), "largest_error": ()}.items():
            self.register_buffer(name, torch.empty(shape, **factory))
        lengths = torch.empty(half, **factory) if draw == "hadamard" else None
        self.register_buffer("lengths", lengths)
        self._reset_features(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""
        generator = check_generator(generator)
        self.projection.reset_parameters(generator)
        self._reset_features(generator)

    @torch.no_grad()
    def _reset_features(self, generator: RandomSource | None) -> None:
        """Set every buffer of length n from the directions and the waves."""
        if self.omega.is_meta:
            return
        half = self.num_features // 2
        if self.activation.spec == "gaussian":
            waves = gaussian_waves(half, generator)
        else:
            pair = (self._pair, self.in_features)
            waves = fixed_waves(self.activation, self.domain, half, *pair)
        # Each buffer follows from the others as they are stored, rounded to their dtype.
        self.omega.copy_(waves.omega)
        self.damping.copy_(self._damping(self.omega.double()))
        self.amplitude.copy_(waves.amplitude)
        squares = self.projection.squared_lengths()
        if self.lengths is not None:
            self.lengths.copy_(self.projection.draw_lengths(generator))
            squares = squares * self.lengths.double().square()
        damping = self.damping.double()
        self.offset.copy_(self.in_features / 4 * torch.log1p(4 * damping) - damping * squares)
        for name in ("slope", "intercept", "largest_error"):
            getattr(self, name).fill_(getattr(waves, name))

    def _damping(self, omega: Tensor) -> Tensor:
        return best_damping(omega * self._pair, self.in_features)

    def _side(self, x: Tensor, scale: float, out: torch.dtype) -> tuple[Tensor, Tensor]:
        """Compute magnitude and phase of n^(-1/2) Lambda(c scale x), each of shape (..., n)."""
        omega, damping = self.omega.to(x.dtype), self.damping.to(x.dtype)
        rate = scale * torch.sqrt((1 + 4 * damping) * omega / 2)  # (n,)
        if self.lengths is not None:
            rate = rate * self.lengths.to(x.dtype)
        # c = (1 + i) sqrt(omega / 2): the real and the imaginary part of c g.x are the same.
        with full_precision(x):
            t = rate * self.projection(x)  # (..., n)
        square = (scale * x).square().sum(-1, keepdim=True)  # (..., 1)
        # Either side stays below the root of what the products of both may add up to.
        total = self.amplitude.to(x.dtype).norm(dim=0).mean().clamp(min=1)
        largest = (math.log(torch.finfo(out).max / 2) - total.log()) / 2 - 1
        magnitude = torch.exp(torch.minimum(self.offset.to(x.dtype) + t, largest))
        return magnitude * (self.num_features // 2) ** -0.5, t - omega / 2 * square

    def _full_input(self, x: Tensor) -> Tensor:
        """Check inputs and return them in at least single precision."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.omega, x)
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _full_neurons(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check neurons and return weight and bias in at least single precision."""
        self._check_neurons(weight, bias)
        check_materialized(type(self).__name__, self.omega, weight)
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias.to(weight.dtype)

    def _features(self, x: Tensor, out: torch.dtype) -> Tensor:
        magnitude, phase = self._side(x, self.balance, out)
        return torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=-1)  # (..., 2n)

    def _dual(self, weight: Tensor, bias: Tensor, out: torch.dtype) -> Tensor:
        magnitude, phase = self._side(weight, 1 / self.balance, out)
        phase = phase + self.omega.to(bias.dtype) * bias.unsqueeze(-1)  # (out, n)
        real, imaginary = self.amplitude.to(weight.dtype)
        cos, sin = magnitude * phase.cos(), magnitude * phase.sin()
        # Re(phi psi) = Re phi Re psi - Im phi Im psi: the second half takes the minus.
        return torch.cat((real * cos - imaginary * sin, -real * sin - imaginary * cos), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        return self._features(self._full_input(x), x.dtype).to(x.dtype)

    def dual(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map neurons to their side of the product.

        Parameters
        ----------
        weight : Tensor of shape (out, in_features)
            One neuron a row.
        bias : Tensor of shape (out,), optional
            Their biases; None means zeros.

        Returns
        -------
        Tensor of shape (out, num_features)
            ``phi(x) @ phi.dual(weight, bias).mT`` estimates the waves, without the affine part.

        Raises
        ------
        ValueError
            If the shapes do not fit, or a bias comes to a map with ``bias=False``.
        """
        return self._dual(*self._full_neurons(weight, bias), weight.dtype).to(weight.dtype)

    def estimate(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Estimate the whole layer f(x weight^T + bias): feature product plus affine part.

        Parameters
        ----------
        x : Tensor of shape (..., in_features)
            Inputs.
        weight, bias : Tensor
            Neurons, as for `dual`.

        Returns
        -------
        Tensor of shape (..., out)
            The estimate, unbiased about `expand` of the pre-activations.
        """
        full, (w, b) = self._full_input(x), self._full_neurons(weight, bias)
        with full_precision(x):
            waves = self._features(full, x.dtype) @ self._dual(w, b, x.dtype).mT.to(full.dtype)
            affine = self.slope * F.linear(full, w.to(full.dtype), b.to(full.dtype))
        return (affine + self.intercept + waves).to(x.dtype)  # (..., out)

    def expand(self, z: Tensor) -> Tensor:
        """Evaluate what the estimate is unbiased about: the truncated expansion of f.

        For ``sin``, ``cos`` and ``"gaussian"`` that is f itself.

        Parameters
        ----------
        z : Tensor of shape (...)
            Pre-activations; the expansion holds for those in [-domain, domain].

        Returns
        -------
        Tensor of shape (...)
            The mean of the estimate.
        """
        if self.activation.spec == "gaussian":
            return self.activation(z)
        full = z.to(torch.promote_types(z.dtype, torch.float32))
        result = self.slope * full + self.intercept
        for omega, (cosine, sine) in zip(self.frequencies, self.coefficients, strict=True):
            angle = omega.to(full.dtype) * full
            result = result + cosine * angle.cos() + sine * angle.sin()
        return result.to(z.dtype)

    def variance(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        r"""Predict the variance of `estimate` about `expand`, exactly for draw ``"gaussian"``.

        The closed form of `wave_variance` is added up over the features; for the activation
        ``"gaussian"`` it is integrated over the random frequencies. Orthogonal and quasi-random
        draws are not independent, and their variance is another, as a rule a smaller one.

        Parameters
        ----------
        x, weight, bias : Tensor
            Inputs and neurons, as for `estimate`.

        Returns
        -------
        Tensor of shape (..., out)
            The variance, computed in float64.
        """
        full, (w, b) = self._full_input(x).double(), self._full_neurons(weight, bias)
        w, b = w.double(), b.double()
        with full_precision(x):
            product = F.linear(full, w)  # (..., out)
        input_square = (self.balance * full).square().sum(-1, keepdim=True)  # (..., 1)
        neuron_square = (w / self.balance).square().sum(-1)  # (out,)
        pairs = (input_square, neuron_square, product, b, self.in_features)
        if self.activation.spec == "gaussian":
            result = gaussian_variance(self._damping, *pairs)
        else:
            omega, first, counts = distinct(self.omega.double())
            amplitude, damping = self.amplitude.double()[:, first], self.damping.double()[first]
            result = mean_variance(omega, amplitude, damping, counts, *pairs)
        return (result / (self.num_features // 2)).to(x.dtype)

    def fraction_outside(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> float:
        """Compute which fraction of the pre-activations leaves the expansion's domain.

        Parameters
        ----------
        x, weight, bias : Tensor
            Inputs and neurons, as for `estimate`.

        Returns
        -------
        float
            Between 0 and 1; always 0 for ``sin``, ``cos`` and ``"gaussian"``, which hold
            everywhere.
        """
        full, (w, b) = self._full_input(x), self._full_neurons(weight, bias)
        with full_precision(x):
            z = F.linear(full, w.to(full.dtype), b.to(full.dtype))  # (..., out)
        inside = self.activation.spec in EXACT or not z.numel()
        return 0.0 if inside else float((z.abs() > self.domain).double().mean())

    @property
    def expansion_error(self) -> float:
        """Largest distance between f and `expand` on [-domain, domain]."""
        return float(self.largest_error)

    @property
    def frequencies(self) -> Tensor:
        """Frequencies of the waves, ascending, shape (K,)."""
        return distinct(self.omega)[0]

    @property
    def coefficients(self) -> Tensor:
        """Coefficients of the cosine and the sine of each frequency, shape (K, 2)."""
        _, first, counts = distinct(self.omega)
        real, imaginary = self.amplitude[:, first] * counts / (self.num_features // 2)
        return torch.stack((real, -imaginary), dim=-1)

    def _config(self) -> dict[str, Any]:
        return {
            "activation": self.activation.to_spec(),
            "in_features": self.in_features,
            "num_features": self.num_features,
            "bias": self.bias,
            "domain": self.domain,
            "draw": self.draw,
            "norms": list(self.norms),
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        return cls(**config, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Return activation, sizes and options for ``repr``."""
        sizes = f"in_features={self.in_features}, num_features={self.num_features}"
        norms = f"norms=({self.norms[0]:g}, {self.norms[1]:g})"
        return f"{self.activation!r}, {sizes}, bias={self.bias}, domain={self.domain:g}, {norms}"
