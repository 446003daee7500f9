"""Duals of two-sided powers: steps, ReLU and its kin, in closed form with derivatives by hand.

With D^2 = q11 q22 - q12^2, theta = atan2(D, q12) and P = q11 q22, every moment of this family is

    K = [c D R(q12, P) + M(q12, P) (s pi - c theta)] / 2 pi,    s = a^2 + b^2,
    c = s - 2 a b (-1)^k,

with homogeneous polynomials M (the moment of x^k) and R. Automatic differentiation would divide
by D where the terms cancel; the derivatives here are written so that nothing does.
"""

import functools
import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .activations import PowerActivation

Coefficients = tuple[float, ...]


@functools.cache
def _exact_polynomials(order: int) -> tuple[list[Fraction], list[Fraction]]:
    """Coefficients in q of M and R at P = 1, by Price's theorem from the order below."""
    k = order
    m = [Fraction(0)] * (k + 1)
    for left in range(k % 2, k + 1, 2):  # left pairs join x and y; the others stay inside
        inside = math.prod(range(k - left - 1, 0, -2))  # (k - left - 1)!!
        m[left] = Fraction(math.comb(k, left) ** 2 * math.factorial(left) * inside**2)
    r = [Fraction(0)] * (k + 2)
    if k:
        below = _exact_polynomials(k - 1)[1] + [Fraction(0)] * 3
        # M - q R + (1 - q^2) (R' - k^2 R_below) = 0, the highest power first.
        for j in range(k, 0, -1):
            shifted = below[j - 2] if j >= 2 else 0
            r[j - 1] = (m[j] + (j + 1) * r[j + 1] - k**2 * (below[j] - shifted)) / j
    return m, r[:k] if k else []


def _named_polynomials(order: int) -> dict[str, Coefficients]:
    """M, R and what their derivatives with respect to P need, at P = 1."""
    m, r = _exact_polynomials(order)
    v = []  # (R - q M) / (1 - q^2), without remainder
    rest = [a - b for a, b in zip([*r, Fraction(0), Fraction(0)], [Fraction(0), *m], strict=True)]
    for j in range(len(rest) - 2):
        v.append(rest[j] + (v[j - 2] if j >= 2 else 0))
    by_p = [[c * Fraction(len(w) - 1 - i, 2) for i, c in enumerate(w)] for w in (m, r)]
    named = {"M": m, "R": r, "V": v, "M_P": by_p[0][: order - 1], "R_P": by_p[1][: order - 2]}
    return {name: tuple(float(c) for c in found) for name, found in named.items()}


# Made ahead: torch.compile traces through caches, and knows no fractions.
_TABLE = tuple(_named_polynomials(order) for order in range(9))


def _polynomials(order: int) -> dict[str, Coefficients]:
    return _TABLE[order] if order < len(_TABLE) else _named_polynomials(order)


def _evaluate(coefficients: Coefficients, q: Tensor, product: Tensor) -> Tensor | float:
    """Sum c_j q^j P^((d - j) / 2) over the powers of the parity of the degree d."""
    degree = len(coefficients) - 1
    if degree < 0:
        return 0.0
    odd = degree % 2
    value: Tensor | float = coefficients[degree]
    square = q.square() if degree > 1 else q
    power: Tensor | float = 1.0
    for j in range(degree - 2, odd - 1, -2):
        power = power * product
        value = value * square + coefficients[j] * power
    return value * q if odd else value


def wide_dtype(q: Tensor) -> torch.dtype:
    """Where differences of products of single-precision numbers are exact."""
    return q.dtype if q.device.type == "mps" else torch.float64


def squared_gap(q11: Tensor, q22: Tensor, q12: Tensor) -> Tensor:
    """``q11 q22 - q12^2`` in double precision, exactly zero where all three are equal."""
    wide = wide_dtype(q12)
    # No fused multiply-add: it would leave rounding where the two products are the same.
    return q11.to(wide) * q22.to(wide) - q12.to(wide).square()


def inverse_gap(q11: Tensor, q22: Tensor, q12: Tensor) -> Tensor:
    """``1 / D``, and zero where the inputs are collinear up to rounding."""
    product = q11.to(wide_dtype(q12)) * q22.to(wide_dtype(q12))
    squared = squared_gap(q11, q22, q12)
    apart = squared > 8 * torch.finfo(squared.dtype).eps * product
    return torch.where(apart, torch.where(apart, squared, 1.0).rsqrt(), 0.0).to(q12.dtype)


def gap_and_angle(q11: Tensor, q22: Tensor, q12: Tensor) -> tuple[Tensor, Tensor]:
    """D and theta; a zero input is at a right angle to all but another zero input."""
    squared = squared_gap(q11, q22, q12)
    positive = squared > 0
    # Twice where, so that second derivatives stay finite too.
    gap = torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0).to(q12.dtype)
    alone = (q11 == 0) != (q22 == 0)
    safe = torch.where((gap == 0) & (q12 == 0), 1.0, q12)
    return gap, torch.where(alone, math.pi / 2, torch.atan2(gap, safe))


def _family(
    form: PowerActivation, q11: Tensor, q22: Tensor, q12: Tensor, orders: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
    """Moments of the derivatives of the given orders (the power itself is k), with D, A, P."""
    a, b, k = form.negative, form.positive, form.order
    s = a * a + b * b
    c = s - 2 * a * b * (-1) ** k
    product = q11 * q22
    if c == 0:  # a monomial: no angle
        gap, rest = torch.zeros_like(q12), torch.full_like(q12, s / 2)
    else:
        gap, angle = gap_and_angle(q11, q22, q12)
        rest = (s * math.pi - c * angle) / (2 * math.pi)
        gap = gap * (c / (2 * math.pi))
    values = []
    for order in orders:
        factor = float(math.perm(k, k - order) ** 2)
        found = _polynomials(order)
        value = rest if order == 0 else rest * _evaluate(found["M"], q12, product)
        if order and c:
            value = value + gap * _evaluate(found["R"], q12, product)
        values.append(value if factor == 1 else factor * value)
    return tuple(values), gap, rest, product


def power_pair(
    form: PowerActivation, q11: Tensor, q22: Tensor, q12: Tensor
) -> tuple[Tensor, Tensor]:
    """K and its derivative with respect to q12, without derivatives by hand (the naive twin)."""
    k = form.order
    if k:
        (value, slope), *_ = _family(form, q11, q22, q12, (k, k - 1))
        return value, slope
    ((value,), *_) = _family(form, q11, q22, q12, (0,))
    jump = (form.positive - form.negative) ** 2 / (2 * math.pi)
    if jump == 0:
        return value, torch.zeros_like(value)
    inverse = inverse_gap(q11, q22, q12)
    return value, torch.where(inverse == 0, math.inf, jump * inverse)


def _slopes(
    form: PowerActivation, q11: Tensor, q22: Tensor, q12: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Differentiate K and Kdot by q11, q22 and q12; zero where that is infinite."""
    k = form.order
    jump = (form.positive - (-1) ** k * form.negative) ** 2 / (2 * math.pi)
    inverse = inverse_gap(q11, q22, q12)
    per = [torch.where(q > 0, torch.where(q > 0, q, 1.0).reciprocal(), 0.0) for q in (q11, q22)]

    def by_variance(order: int) -> list[Tensor]:
        """Differentiate the moment of the given order by q11 and q22."""
        if order == 0:
            return [-jump / 2 * q12 * p * inverse for p in per]
        _, gap, rest, product = _family(form, q11, q22, q12, ())
        found = _polynomials(order)
        m_p = rest * _evaluate(found["M_P"], q12, product)
        r_p = gap * _evaluate(found["R_P"], q12, product)
        v = gap * _evaluate(found["V"], q12, product) / 2
        factor = float(math.perm(k, k - order) ** 2)
        return [factor * (q * (m_p + r_p) + v * p) for q, p in ((q22, per[0]), (q11, per[1]))]

    if k == 0:
        value, cube = [*by_variance(0), jump * inverse], jump * inverse.pow(3)
        return tuple(value), (-cube * q22 / 2, -cube * q11 / 2, cube * q12)
    (first,), *_ = _family(form, q11, q22, q12, (k - 1,))
    if k == 1:
        second = jump * inverse
    else:
        (second,), *_ = _family(form, q11, q22, q12, (k - 2,))
    return (*by_variance(k), first), (*by_variance(k - 1), second)  # pyright: ignore[reportReturnType]


def _forward(form: PowerActivation, q11: Tensor, q22: Tensor, q12: Tensor) -> Any:
    return power_pair(form, q11, q22, q12)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.form = inputs[0]
    ctx.save_for_backward(*inputs[1:])
    ctx.save_for_forward(*inputs[1:])


def _backward(ctx: Any, *grads: Any) -> Any:
    slopes = _slopes(ctx.form, *ctx.saved_tensors)
    return None, *(grads[0] * a + grads[1] * b for a, b in zip(*slopes, strict=True))


class _Compiled(torch.autograd.Function):
    """`power_pair` with the derivatives of `_slopes`; torch.compile takes no jvp or vmap."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)


class _Power(torch.autograd.Function):
    """`power_pair` with the derivatives of `_slopes`."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        slopes = _slopes(ctx.form, *ctx.saved_tensors)
        return tuple(
            sum(s * t for s, t in zip(one, tangents, strict=True) if t is not None)
            for one in slopes
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, form: PowerActivation, *qs: Tensor) -> Any:
        # Elementwise in tensors of one shape: the new axis goes in front of all.
        moved = [
            q.expand(info.batch_size, *q.shape) if dim is None else q.movedim(dim, 0)
            for q, dim in zip(qs, in_dims[1:], strict=True)
        ]
        return _Power.apply(form, *moved), (0, 0)


def power_dual(
    form: PowerActivation, q11: Tensor, q22: Tensor, q12: Tensor
) -> tuple[Tensor, Tensor]:
    """K and Kdot of a two-sided power, with finite derivatives everywhere."""
    rule = _Compiled if torch.compiler.is_compiling() else _Power
    return rule.apply(form, *torch.broadcast_tensors(q11, q22, q12))  # pyright: ignore


def power_diagonal(form: PowerActivation, q: Tensor) -> tuple[Tensor, Tensor]:
    """K and Kdot of coinciding inputs: moments of one normal variable."""
    k = form.order
    half = (form.negative**2 + form.positive**2) / 2
    value = half * math.prod(range(2 * k - 1, 0, -2)) * q**k
    if k:
        return value, half * k**2 * math.prod(range(2 * k - 3, 0, -2)) * q ** (k - 1)
    # The derivative of a jump, squared, has no finite mean.
    slope = 0.0 if form.positive == form.negative else math.inf
    return value, torch.full_like(q, slope)
