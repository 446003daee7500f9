"""Activations with parameters whose dual is known in closed form: small frozen callables."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_int, check_real
from .overridable import overridable


@dataclass(frozen=True)
class PowerActivation:
    r"""A power on each side of zero.

    .. math:: \phi(x) = b\,\max(x, 0)^k + a\,\max(-x, 0)^k

    Order 1 with ``positive=1`` is ReLU, with ``negative=-0.1`` besides leaky ReLU, with
    ``negative=1`` the absolute value; order 0 is the step, or with ``negative=-1`` the sign
    (with the value 0 at zero, as in `torch.sign`).

    Parameters
    ----------
    order : int
        The exponent k, at least 0.
    negative : float, default 0.0
        The factor a of the negative side.
    positive : float, default 1.0
        The factor b of the positive side.

    Raises
    ------
    TypeError, ValueError
        If the order is no integer, negative or above 64, or a factor is not finite.

    References
    ----------
    Cho, Saul: Kernel Methods for Deep Learning, 2009.

    Examples
    --------
    >>> import torch
    >>> PowerActivation(2)(torch.tensor([-1.0, 3.0]))
    tensor([0., 9.])
    """

    order: int
    negative: float = 0.0
    positive: float = 1.0

    def __post_init__(self) -> None:
        if check_int("order", self.order, least=0) > 64:
            raise ValueError(f"order: expected at most 64, got {self.order}")
        check_real("negative", self.negative)
        check_real("positive", self.positive)

    __name__ = "PowerActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        if self.order == 0:
            one = torch.ones_like(z)
            side = torch.where(z > 0, self.positive * one, self.negative * one)
            return torch.where(z == 0, 0.0 * one, side)
        up = self.positive * z.clamp(min=0).pow(self.order)
        return up + self.negative * (-z).clamp(min=0).pow(self.order) if self.negative else up


@dataclass(frozen=True)
class PolynomialActivation:
    r"""A polynomial.

    .. math:: \phi(x) = \sum_j c_j x^j

    Parameters
    ----------
    coefficients : tuple of float
        The coefficients, the constant first.

    Raises
    ------
    TypeError, ValueError
        If there is none, or one is not a finite number.

    Examples
    --------
    >>> import torch
    >>> PolynomialActivation((0.5, -1.0, 0.25))(torch.tensor([2.0]))
    tensor([-0.5000])
    """

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.coefficients:
            raise ValueError("coefficients: expected at least one number, got none")
        numbers = tuple(check_real("coefficients", c) for c in self.coefficients)
        object.__setattr__(self, "coefficients", numbers)

    __name__ = "PolynomialActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        value = torch.full_like(z, self.coefficients[-1])
        for c in reversed(self.coefficients[:-1]):
            value = value * z + c
        return value


@dataclass(frozen=True)
class HermiteActivation:
    r"""A Hermite polynomial, normalised to unit second moment under the standard normal.

    .. math:: \phi(x) = h_k(x) = \mathrm{He}_k(x) / \sqrt{k!}, \qquad
        E[h_k(u) h_l(v)] = \delta_{kl}\,\rho^k \quad \text{at unit variances}

    Parameters
    ----------
    degree : int
        The degree k, at least 0.

    Raises
    ------
    TypeError, ValueError
        If the degree is no integer, negative or above 64.

    Examples
    --------
    >>> import torch
    >>> HermiteActivation(2)(torch.tensor([1.0, 3.0]))
    tensor([0.0000, 5.6569])
    """

    degree: int

    def __post_init__(self) -> None:
        if check_int("degree", self.degree, least=0) > 64:
            raise ValueError(f"degree: expected at most 64, got {self.degree}")

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Coefficients of the powers, the constant first."""
        k = self.degree
        scale = math.sqrt(math.factorial(k))
        powers = [0.0] * (k + 1)
        for i in range(k // 2 + 1):
            count = math.factorial(k) // (math.factorial(i) * math.factorial(k - 2 * i) * 2**i)
            powers[k - 2 * i] = (-1) ** i * count / scale
        return tuple(powers)

    __name__ = "HermiteActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        before, value = torch.zeros_like(z), torch.ones_like(z)
        for n in range(self.degree):
            before, value = value, (z * value - math.sqrt(n) * before) / math.sqrt(n + 1)
        return value


@dataclass(frozen=True)
class ErfActivation:
    r"""A scaled and shifted error function.

    .. math:: \phi(x) = a\,\mathrm{erf}(m x) + c

    Parameters
    ----------
    slope : float, default 1.0
        The inner factor m; large ones come near the sign.
    scale : float, default 1.0
        The factor a.
    offset : float, default 0.0
        The constant c. ``ErfActivation(1 / 2.4020563531719796, 0.5, 0.5)`` is close to the
        logistic sigmoid.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    Examples
    --------
    >>> import torch
    >>> ErfActivation(2.0)(torch.tensor([0.0, 0.5]))
    tensor([0.0000, 0.8427])
    """

    slope: float = 1.0
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name in ("slope", "scale", "offset"):
            check_real(name, getattr(self, name))

    __name__ = "ErfActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        return self.scale * torch.erf(self.slope * z) + self.offset


@dataclass(frozen=True)
class SineActivation:
    r"""A sine wave.

    .. math:: \phi(x) = a \sin(b x + c)

    ``SineActivation(math.sqrt(2 * gamma), scale=math.sqrt(2), phase=math.pi / 4)`` has the
    Gaussian kernel ``exp(-gamma (q11 + q22 - 2 q12))`` as its dual.

    Parameters
    ----------
    frequency : float, default 1.0
        The inner factor b.
    scale : float, default 1.0
        The factor a.
    phase : float, default 0.0
        The shift c; ``math.pi / 2`` makes a cosine.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    Examples
    --------
    >>> import math, torch
    >>> SineActivation(phase=math.pi / 2)(torch.tensor([0.0, math.pi]))
    tensor([ 1., -1.])
    """

    frequency: float = 1.0
    scale: float = 1.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("frequency", "scale", "phase"):
            check_real(name, getattr(self, name))

    __name__ = "SineActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        return self.scale * torch.sin(self.frequency * z + self.phase)


@dataclass(frozen=True)
class ExponentialActivation:
    r"""An exponential.

    .. math:: \phi(x) = a\,e^{b x}

    Parameters
    ----------
    rate : float, default 1.0
        The inner factor b.
    scale : float, default 1.0
        The factor a.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    Examples
    --------
    >>> import torch
    >>> ExponentialActivation(2.0)(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 7.3891])
    """

    rate: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rate", "scale"):
            check_real(name, getattr(self, name))

    __name__ = "ExponentialActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        return self.scale * torch.exp(self.rate * z)


@dataclass(frozen=True)
class GaussianActivation:
    r"""A Gaussian bump.

    .. math:: \phi(x) = a\,e^{-b x^2}

    Parameters
    ----------
    rate : float, default 1.0
        The factor b > 0 in the exponent; the activation named ``"gaussian"`` has one half.
    scale : float, default 1.0
        The factor a.

    Raises
    ------
    TypeError, ValueError
        If the rate is not positive, or a parameter is not a finite number.

    Examples
    --------
    >>> import torch
    >>> GaussianActivation()(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.3679])
    """

    rate: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_real("rate", self.rate, above=0.0)
        check_real("scale", self.scale)

    __name__ = "GaussianActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        return self.scale * torch.exp(-self.rate * z.square())


@dataclass(frozen=True)
class GaborActivation:
    r"""A sine under a Gaussian bump.

    .. math:: \phi(x) = e^{-x^2} \sin x

    Examples
    --------
    >>> import torch
    >>> GaborActivation()(torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.3096])
    """

    __name__ = "GaborActivation"  # what tracers call it

    @overridable
    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to every entry."""
        return torch.exp(-z.square()) * torch.sin(z)
