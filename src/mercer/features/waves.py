"""The waves that stand for an activation: fixed, drawn, or fitted frequencies."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.activation import Activation, resolve_activation
from .._core.counter import RandomSource
from .._core.random import draw_normal, own_stream
from .fourier_extension import FourierExtension, fit_fourier_extension
from .gaussian_trick import best_damping, log_excess

# Activations that are sums of waves on the whole line: two with Dirac spectra, one Gaussian.
EXACT = ("sin", "cos", "gaussian")


@dataclass(frozen=True)
class Waves:
    r"""An affine part and n waves, one for each complex feature.

    .. math:: f(z) \approx \mathrm{slope}\, z + \mathrm{intercept}
              + \frac{1}{n} \mathrm{Re} \sum_j a_j e^{i \omega_j z}

    Attributes
    ----------
    omega : Tensor of shape (n,)
        Frequencies, float64, equal ones side by side.
    amplitude : Tensor of shape (2, n)
        Real and imaginary part of a, float64.
    slope, intercept : float
        The affine part.
    largest_error : float
        Largest distance from f on the domain; 0 for the exact ones.
    """

    omega: Tensor
    amplitude: Tensor
    slope: float = 0.0
    intercept: float = 0.0
    largest_error: float = 0.0


def fixed_waves(
    activation: Activation,
    domain: float,
    num_draws: int,
    pair_square: float,
    in_features: int,
) -> Waves:
    r"""Choose the waves of any activation that is not ``"gaussian"``; nothing is drawn.

    Parameters
    ----------
    activation : Activation
        The function f.
    domain : float
        The expansion holds on [-domain, domain].
    num_draws : int
        Number n of complex features.
    pair_square : float
        Expected :math:`\|\tau x + w / \tau\|^2`, from which follows what a frequency costs.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Waves
        One frequency for ``sin`` and ``cos``, otherwise those of `fit_fourier_extension`.
    """
    one = torch.ones(num_draws, dtype=torch.float64, device="cpu")
    if activation.spec == "cos":  # Re e^{iz}
        return Waves(one, torch.stack((one, torch.zeros_like(one))))
    if activation.spec == "sin":  # Re(-i e^{iz})
        return Waves(one, torch.stack((torch.zeros_like(one), -one)))
    if activation.spec is None:
        fit = _extension(activation, domain, num_draws, pair_square, in_features)
    else:
        fit = _named_extension(activation.spec, domain, num_draws, pair_square, in_features)
    # c cos + s sin = Re((c - i s) e^{i omega z}), shared by the draws of that frequency.
    cosine, sine = (fit.coefficients * (num_draws / fit.counts).unsqueeze(-1)).unbind(-1)
    omega, real, imaginary = (
        values.repeat_interleave(fit.counts) for values in (fit.frequencies, cosine, -sine)
    )
    amplitude = torch.stack((real, imaginary))
    return Waves(omega, amplitude, fit.slope, fit.intercept, fit.error)


def _extension(
    activation: Activation, domain: float, num_draws: int, pair_square: float, in_features: int
) -> FourierExtension:
    def cost(omega: Tensor) -> Tensor:
        squares = omega * pair_square
        return log_excess(best_damping(squares, in_features), squares, in_features)

    return fit_fourier_extension(activation.function, domain, num_draws, cost)


# The layers of a network ask for the same expansion again and again.
@functools.lru_cache(maxsize=128)
def _named_extension(spec: str, *arguments: Any) -> FourierExtension:
    return _extension(resolve_activation(spec), *arguments)


def gaussian_waves(num_draws: int, generator: RandomSource | None) -> Waves:
    r"""Draw waves for :math:`e^{-z^2/2} = E \cos(\omega z)`, :math:`\omega \sim N(0, 1)`.

    Parameters
    ----------
    num_draws : int
        Number n of complex features.
    generator : torch.Generator, CounterGenerator or None
        Source of the frequencies; None means torch's default generator.

    Returns
    -------
    Waves
        Independent frequencies; positive ones are enough, as the cosine is even.
    """
    source = own_stream(generator)
    omega = draw_normal((num_draws,), source).abs()
    return Waves(omega, torch.stack((torch.ones_like(omega), torch.zeros_like(omega))))


def distinct(omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the different frequencies.

    Parameters
    ----------
    omega : Tensor of shape (n,)
        Frequencies, with repetitions.

    Returns
    -------
    tuple of Tensor of shape (K,)
        The frequencies, ascending; where each stands first; how often it stands there.
    """
    found, inverse, counts = omega.unique(return_inverse=True, return_counts=True)
    index = torch.arange(len(omega), device=omega.device)
    first = torch.full_like(counts, len(omega)).scatter_reduce(0, inverse, index, "amin")
    return found, first, counts
