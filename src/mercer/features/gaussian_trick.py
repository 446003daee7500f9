r"""The Gaussian trick behind universal features: its random factors and their moments.

For :math:`g \sim N(0, I_d)`, damping :math:`M \ge 0`, :math:`p = 1 + 4M` and complex vectors
with the bilinear product,

.. math:: \Lambda_g(z) = p^{d/4} \exp(-M \|g\|^2 + \sqrt{p}\, g \cdot z - z \cdot z / 2), \quad
          E_g[\Lambda_g(u)\, \Lambda_g(v)] = e^{u \cdot v}.

With :math:`u = \sqrt{i\omega}\, \tau x`, :math:`v = \sqrt{i\omega}\, w / \tau` this factors
:math:`e^{i \omega w \cdot x}` into a side of the input and a side of the neuron. The moments of
the product :math:`Z = \Lambda_g(u) \Lambda_g(v)` depend on :math:`s = \tau x + w / \tau`:

.. math:: E|Z|^2 = \Big(\frac{p^2}{2p - 1}\Big)^{d/2} e^{\frac{p}{2p - 1} \omega \|s\|^2}, \quad
          E[Z^2] = \Big(\frac{p^2}{2p - 1}\Big)^{d/2}
          e^{i\omega (\frac{2p}{2p - 1} \|s\|^2 - \tau^2 \|x\|^2 - \|w\|^2 / \tau^2)}.

The factors are from Choromanski et al. (the Gaussian trick of SNNK); the moments follow by
completing squares and are checked by simulation in the tests.

References
----------
Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network Kernels, 2024,
arXiv 2310.13225.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_NODES = 256  # of the quadrature over a Gaussian spectrum
_LARGEST_LOG = 600.0  # exponents are cut here, well inside float64, so that nothing overflows


def best_damping(omega_squares: Tensor, in_features: int) -> Tensor:
    r"""Damping M that makes :math:`E|Z|^2` least, in closed form.

    Setting its derivative to zero gives :math:`2 d p^2 - (3d + S) p + d = 0` with
    :math:`S = \omega \|s\|^2`; the larger root is the minimum.

    Parameters
    ----------
    omega_squares : Tensor
        :math:`S = \omega \|\tau x + w / \tau\|^2`, not negative.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        M, of the same shape; zero where S is zero.

    Examples
    --------
    >>> import torch
    >>> best_damping(torch.tensor([0.0, 4.0]), 2)
    tensor([0.0000, 0.3202])
    """
    d = in_features
    half = 3 * d + omega_squares
    p = (half + (half.square() - 8 * d * d).sqrt()) / (4 * d)
    return (p - 1) / 4


def log_modulus_moment(damping: Tensor, omega_squares: Tensor | float, in_features: int) -> Tensor:
    r"""Logarithm of :math:`E|Z|^2`; with :math:`S = 0`, of the modulus of :math:`E[Z^2]`.

    Parameters
    ----------
    damping : Tensor
        M.
    omega_squares : Tensor or float
        :math:`S = \omega \|\tau x + w / \tau\|^2`.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        The logarithm, of the shape that the arguments broadcast to.

    Examples
    --------
    >>> import torch
    >>> log_modulus_moment(torch.tensor(0.0), torch.tensor(2.0), 8)
    tensor(2.)
    """
    q = 1 + 8 * damping  # 2p - 1
    # p^2 / (2p - 1) = 1 + (p - 1)^2 / (2p - 1), which keeps its digits for small damping.
    growth = in_features / 2 * torch.log1p((4 * damping).square() / q)
    return growth + (1 + 4 * damping) / q * omega_squares


def log_excess(damping: Tensor, omega_squares: Tensor, in_features: int) -> Tensor:
    r"""Logarithm of :math:`E|Z|^2 - 1`, the variance of Z, with its digits when it is small.

    Parameters
    ----------
    damping, omega_squares : Tensor
        M and S, as in `log_modulus_moment`.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        The logarithm, cut at 600.

    Examples
    --------
    >>> import torch
    >>> log_excess(torch.tensor(0.0), torch.tensor([1e-6, 5.0]), 8)
    tensor([-13.8155,   4.9932])
    """
    log_moment = log_modulus_moment(damping, omega_squares, in_features)
    log_moment = log_moment.clamp(max=_LARGEST_LOG)
    return log_moment + torch.log(-torch.expm1(-log_moment))


def wave_variance(
    omega: Tensor,
    damping: Tensor,
    input_square: Tensor,
    neuron_square: Tensor,
    product: Tensor,
    phase: Tensor,
    in_features: int,
) -> Tensor:
    r"""Variance of :math:`\mathrm{Re}(e^{i \theta} Z)`, one draw with amplitude one.

    .. math:: \tfrac12 \big( E|Z|^2 + \mathrm{Re}(e^{2i\theta} E[Z^2]) \big)
              - \cos^2(\theta + \omega\, w \cdot x)

    Parameters
    ----------
    omega, damping : Tensor
        Frequency and M.
    input_square, neuron_square, product : Tensor
        :math:`\tau^2 \|x\|^2`, :math:`\|w\|^2 / \tau^2` and :math:`w \cdot x`.
    phase : Tensor
        :math:`\theta`.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        The variance, of the shape that the arguments broadcast to, at most about e^600.

    Examples
    --------
    The product of an input and a neuron that are both zero is estimated without error:

    >>> import torch
    >>> zero = torch.tensor(0.0)
    >>> wave_variance(torch.tensor(1.0), zero, zero, zero, zero, zero, 8)
    tensor(0.)
    """
    square = input_square + neuron_square + 2 * product  # |s|^2
    log_moment = log_modulus_moment(damping, omega * square, in_features)
    growth = log_modulus_moment(damping, 0.0, in_features).clamp(max=_LARGEST_LOG)
    q = 1 + 8 * damping
    angle = omega * (2 * (1 + 4 * damping) / q * square - input_square - neuron_square)
    mean_angle = 2 * (phase + omega * product)
    # cos^2 is (1 + cos of the double angle) / 2: the ones cancel inside expm1.
    rest = torch.exp(growth) * torch.cos(2 * phase + angle) - torch.cos(mean_angle)
    variance = (torch.expm1(log_moment.clamp(max=_LARGEST_LOG)) + rest) / 2
    return variance.clamp(min=0)


def mean_variance(
    omega: Tensor,
    amplitude: Tensor,
    damping: Tensor,
    counts: Tensor,
    input_square: Tensor,
    neuron_square: Tensor,
    product: Tensor,
    bias: Tensor,
    in_features: int,
) -> Tensor:
    r"""Variance of one draw, averaged over draws with several frequencies and amplitudes.

    Parameters
    ----------
    omega, damping, counts : Tensor of shape (K,)
        Frequencies, M, and how many draws have them.
    amplitude : Tensor of shape (2, K)
        Real and imaginary part of the amplitudes.
    input_square, neuron_square, product : Tensor
        :math:`\tau^2 \|x\|^2`, :math:`\|w\|^2 / \tau^2` and :math:`w \cdot x`.
    bias : Tensor
        b.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        The mean variance, of the shape that the last arguments broadcast to.

    Examples
    --------
    >>> import torch
    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> mean_variance(one, torch.ones(2, 1), zero, one, one, one, zero, zero, 8)
    tensor([5.4798])
    """
    share = counts * amplitude.square().sum(0) / counts.sum()  # (K,)
    angle = torch.atan2(amplitude[1], amplitude[0])
    result = torch.zeros_like(product)
    for k in range(len(omega)):  # one at a time: the pairs may be many
        phase = angle[k] + omega[k] * bias
        variance = wave_variance(
            omega[k], damping[k], input_square, neuron_square, product, phase, in_features
        )
        result = result + share[k] * variance
    return result


def gaussian_variance(
    damping: Callable[[Tensor], Tensor],
    input_square: Tensor,
    neuron_square: Tensor,
    product: Tensor,
    bias: Tensor,
    in_features: int,
) -> Tensor:
    r"""Variance of one draw for :math:`e^{-z^2/2}`: its frequency is random too.

    The variance within a frequency (`wave_variance`) is averaged over the frequencies by
    quadrature; that of :math:`\cos \omega z` between them is :math:`(1 - e^{-z^2})^2 / 2`.

    Parameters
    ----------
    damping : callable
        From frequencies to the damping used for them.
    input_square, neuron_square, product : Tensor
        :math:`\tau^2 \|x\|^2`, :math:`\|w\|^2 / \tau^2` and :math:`w \cdot x`.
    bias : Tensor
        b; z is ``product + bias``.
    in_features : int
        Length d of the vectors.

    Returns
    -------
    Tensor
        The variance, of the shape that the arguments broadcast to.

    Examples
    --------
    >>> import torch
    >>> zero, far = torch.zeros(1), torch.full((1,), 9.0)
    >>> gaussian_variance(torch.zeros_like, zero, zero, zero, far, 8)  # cos(9 omega) only
    tensor([0.5000])
    """
    import numpy as np  # rooms import torch only

    result = (1 - torch.exp(-(product + bias).square())).square() / 2
    # The integrand peaks near the largest |s|^2, at most; beyond 40 the variance is hopeless.
    peak = (input_square + neuron_square + 2 * product).amax() if result.numel() else 0.0
    upper = 12 + min(float(peak), 40.0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    omega = torch.from_numpy((nodes + 1) * upper / 2).to(product)
    density = math.sqrt(2 / math.pi) * torch.exp(-omega.square() / 2)  # of |N(0, 1)|
    share = torch.from_numpy(weights * upper / 2).to(product) * density
    for w, m, s in zip(omega, damping(omega), share, strict=True):
        variance = wave_variance(w, m, input_square, neuron_square, product, w * bias, in_features)
        result = result + s * variance
    return result
