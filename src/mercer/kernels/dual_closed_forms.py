"""Duals of smooth activations in closed form, in the variables that do not cancel.

Differences such as (1 + 2 q11)(1 + 2 q22) - 4 q12^2 are written with D^2 = q11 q22 - q12^2, which
is computed in double precision and exactly zero on the diagonal. All of it is differentiated by
autograd: no formula here is singular.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._core.activation import Activation
from .activations import (
    ErfActivation,
    ExponentialActivation,
    GaborActivation,
    GaussianActivation,
    HermiteActivation,
    PolynomialActivation,
    PowerActivation,
    SineActivation,
)
from .dual_power import power_diagonal, power_dual, squared_gap

Pair = tuple[Tensor, Tensor]


def _polynomial(
    form: PolynomialActivation | HermiteActivation, q11: Tensor, q22: Tensor, q12: Tensor
) -> Pair:
    """Sum over l of g_l(q11) g_l(q22) q12^l, with polynomials g_l of the variance."""
    c = form.coefficients
    degree = len(c) - 1

    def g(level: int, q: Tensor) -> Tensor:
        # E[phi(sqrt(q) Z) h_l(Z)] / q^(l/2)
        value = torch.zeros_like(q)
        for i in reversed(range((degree - level) // 2 + 1)):
            j = 2 * i + level
            factor = math.factorial(j) / (2**i * math.factorial(i) * math.factorial(level) ** 0.5)
            value = value * q + c[j] * factor
        return value

    value, slope = torch.zeros_like(q12), torch.zeros_like(q12)
    for level in reversed(range(degree + 1)):
        term = g(level, q11) * g(level, q22)
        value = value * q12 + term
        if level:
            slope = slope * q12 + level * term
    return value, slope


def _erf(form: ErfActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    m2 = form.slope**2
    gap = squared_gap(q11, q22, q12).to(q12.dtype)
    # At least one but for rounding at huge variances.
    root = (1 + 2 * m2 * (q11 + q22) + (4 * m2 * m2) * gap).clamp(min=1).sqrt()
    a2 = form.scale**2
    value = (2 * a2 / math.pi) * torch.atan2(2 * m2 * q12, root) + form.offset**2
    return value, (4 * a2 * m2 / math.pi) / root


def _sine(form: SineActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    b2 = form.frequency**2
    # Half the variance of u - v and of u + v: differences of neighbours are exact.
    minus = torch.exp(-b2 / 2 * ((q11 - q12) + (q22 - q12)))
    plus = torch.exp(-b2 / 2 * ((q11 + q12) + (q22 + q12)))
    twist = math.cos(2 * form.phase)
    half = form.scale**2 / 2
    if abs(twist) < 1e-15:  # a phase of pi/4: the other wave is not there
        return half * minus, half * b2 * minus
    return half * (minus - twist * plus), half * b2 * (minus + twist * plus)


def _exponential(form: ExponentialActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    b2 = form.rate**2
    value = form.scale**2 * torch.exp(b2 / 2 * ((q11 + q12) + (q22 + q12)))
    return value, b2 * value


def _gaussian(form: GaussianActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    b, a2 = form.rate, form.scale**2
    gap = squared_gap(q11, q22, q12).to(q12.dtype)
    inverse = (1 + 2 * b * (q11 + q22) + 4 * b * b * gap).clamp(min=1).rsqrt()
    value = a2 * inverse
    return value, (4 * b * b) * q12 * value * inverse.square()


def _gabor(form: GaborActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    gap = squared_gap(q11, q22, q12).to(q12.dtype)
    total = q11 + q22
    d = 4 * gap
    m = 2 * total + d + 1
    # exp(-(total + d -+ 2 q12) / 2m) of the sheet; the exponents are never positive.
    near = torch.exp(-((q11 - q12) + (q22 - q12) + d) / (2 * m))
    far = torch.exp(-((q11 + q12) + (q22 + q12) + d) / (2 * m))
    value = far * torch.expm1(2 * q12 / m) / (2 * m.sqrt())  # the exponent is at most 1/2
    h = 1 + 2 * total + 8 * q12.square() + 4 * gap
    k = 4 * q12 * (d + 3 * total + 2)
    return value, (far * (h - k) + near * (h + k)) / (2 * m.pow(2.5))


def _gelu(form: nn.GELU, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    gap = squared_gap(q11, q22, q12).to(q12.dtype)
    spread = 1 + q11 + q22 + gap  # Delta^2 = (1 + q11)(1 + q22) - q12^2
    delta = spread.clamp(min=1).sqrt()
    product = (1 + q11) * (1 + q22)
    angle = torch.atan2(q12, delta)
    # (q12^2 + p^2 Delta^2) / (P Delta); p^2 Delta^2 is a product of what is there.
    ratio = (q12.square() + q11 * q22 * spread) / (product * delta)
    value = q12 / 4 + (ratio + q12 * angle) / (2 * math.pi)
    # 1/Delta^2 + (1 - p^2)/P + 1
    bend = 1 / spread + (2 + q11 + q22) / product
    return value, 0.25 + angle / (2 * math.pi) + bend * q12 / (2 * math.pi * delta)


_RULES: dict[type, Callable[..., Pair]] = {
    PowerActivation: power_dual,
    PolynomialActivation: _polynomial,
    HermiteActivation: _polynomial,
    ErfActivation: _erf,
    SineActivation: _sine,
    ExponentialActivation: _exponential,
    GaussianActivation: _gaussian,
    GaborActivation: _gabor,
    nn.GELU: _gelu,
}

_BY_NAME: dict[str, Any] = {
    "identity": PolynomialActivation((0.0, 1.0)),
    "square": PolynomialActivation((0.0, 0.0, 1.0)),
    "relu": PowerActivation(1),
    "leaky_relu": PowerActivation(1, negative=-0.01),
    "abs": PowerActivation(1, negative=1.0),
    "sign": PowerActivation(0, negative=-1.0),
    "step": PowerActivation(0),
    "erf": ErfActivation(),
    "gelu": nn.GELU(),
    "sin": SineActivation(),
    "cos": SineActivation(phase=math.pi / 2),
    "exp": ExponentialActivation(),
    "gaussian": GaussianActivation(0.5),
}


def closed_form(activation: Activation) -> Any | None:
    """Find the parametrised activation whose formula serves this one, if there is one."""
    function: Any = activation.function
    if activation.spec in _BY_NAME:
        return _BY_NAME[activation.spec]
    if type(function) is nn.ReLU:
        return PowerActivation(1)
    if type(function) is nn.LeakyReLU:
        return PowerActivation(1, negative=-function.negative_slope)
    if type(function) is nn.RReLU:  # its mean slope, as in evaluation
        return PowerActivation(1, negative=-(function.lower + function.upper) / 2)
    if type(function) is nn.GELU and function.approximate != "none":
        return None
    return function if type(function) in _RULES else None


def closed_dual(form: Any, q11: Tensor, q22: Tensor, q12: Tensor) -> Pair:
    """K and Kdot of an activation that `closed_form` found."""
    return _RULES[type(form)](form, q11, q22, q12)


def closed_diagonal(form: Any, q: Tensor) -> Pair:
    """K and Kdot of coinciding inputs."""
    if isinstance(form, PowerActivation):
        return power_diagonal(form, q)
    return closed_dual(form, q, q, q)  # D^2 is exactly zero there
