"""Dual activations iterated to any depth, without overflow, underflow or loss near the diagonal."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.dual import Dual, dual
from .gaussian_moments import ActivationLike, gaussian_moments, hermite_coefficients

_NEAR = 1e-10  # gap from one below which the dual is a line
_SMALL = 1e-6  # correlation below which it is one through zero
_ZERO = 1e-16  # squared Hermite coefficient that counts as none
_MOST = 200_000  # iterations
_TERMS = 65

Signed = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class NormalisedDual:
    """A dual activation g on [-1, 1] with g(1) = 1, by its Taylor coefficients at zero.

    Attributes
    ----------
    name : str
        Of the activation.
    function : callable
        From correlations to correlations, both of any shape, float64.
    coefficients : Tensor of shape (48,)
        Squared Hermite coefficients of the activation, which sum to one: those of the powers.
    slope : float
        g'(1); infinite where the activation jumps.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    coefficients: Tensor
    slope: float

    @property
    def kind(self) -> str:
        """What the deep limit does: "majority", "nearest" or "singular"."""
        if float(self.coefficients[0]) > _ZERO:
            return "majority"
        return "nearest" if float(self.coefficients[1]) <= _ZERO else "singular"

    @property
    def odd(self) -> bool:
        """Whether g is odd, as is an activation with odd coefficients alone."""
        return float(self.coefficients[::2].sum()) <= _ZERO

    def step(self, z: Tensor) -> Tensor:
        """Apply it, clipped to correlations."""
        return torch.where(z == 1, 1.0, self.function(z).clamp(-1, 1))


@dataclass(frozen=True, eq=False)
class _Exact:
    """A dual over its value at one."""

    dual: Dual
    top: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        one = torch.ones((), dtype=torch.float64)
        return self.dual(one, one, z)[0] / self.top


@dataclass(frozen=True, eq=False)
class _Interpolated:
    """A dual by Chebyshev coefficients of (1 - g) / (1 - z) over the angle."""

    coefficients: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        x = torch.acos(z.clamp(-1, 1)) * (2 / math.pi) - 1
        after, here = torch.zeros_like(x), torch.zeros_like(x)
        for c in self.coefficients[1:].flip(0):  # Clenshaw's scheme
            after, here = here, (2 * x * here).sub_(after).add_(c)
        return 1 - (1 - z) * (x * here - after + self.coefficients[0])


def normalised_dual(activation: ActivationLike) -> NormalisedDual:
    """Make the dual of an activation at unit variances, scaled to one at one."""
    found = dual(activation)
    name = repr(found.activation)
    m = gaussian_moments(activation, 1.0)
    if float(m.second) == 0:
        raise ValueError(f"activation: {name} is zero everywhere")
    squares = hermite_coefficients(activation, 48).square() / m.second
    slope = float(m.slope / m.second)
    function = _Exact(found, found.diagonal(torch.ones((), dtype=torch.float64))[0])
    if found.method != "closed form" and math.isfinite(slope):
        return NormalisedDual(name, _interpolated(function, slope), squares, slope)
    return NormalisedDual(name, function, squares, slope)


def _interpolated(function: Callable[[Tensor], Tensor], slope: float) -> _Interpolated:
    """Interpolate in the angle, in which the duals of kinked activations are smooth too.

    By how much the gap from one grows, so that small gaps keep their digits.
    """
    n = _TERMS - 1
    j = torch.arange(_TERMS, dtype=torch.float64)
    angle = math.pi / 2 * (1 + torch.cos(math.pi * j / n))
    gap = 2 * torch.sin(angle / 2).square()
    safe = torch.where(gap > 0, gap, 1.0)
    values = torch.where(gap > 0, (1 - function(1 - gap)) / safe, slope)
    weights = torch.ones_like(j)
    weights[0] = weights[-1] = 0.5
    c = torch.cos(math.pi / n * j.unsqueeze(-1) * j) @ (weights * values) * 2 / n
    c[0], c[-1] = c[0] / 2, c[-1] / 2
    return _Interpolated(c[: int((c.abs() > 1e-14).nonzero().amax()) + 1])


def deep_kernel(g: NormalisedDual, gap: Tensor, layers: int | None) -> Signed:
    r"""Iterate g on :math:`z = 1 - \text{gap}`, and return sign and log of the absolute value.

    Without a number of layers the result is that of Koenigs' function
    :math:`\lim g^L(z) / A^L`, which exists for the kind "singular".

    Near one, z is followed by its gap, which grows by B = g'(1) with each layer; near zero by its
    logarithm. Between the two there are few layers, whatever the depth.
    """
    t = gap.double().clamp(0, 2)
    sign = torch.ones_like(t)
    if g.odd:
        sign = torch.where(t > 1, -1.0, 1.0).to(t)
        t = torch.minimum(t, 2 - t)  # g(-z) = -g(z): far from one is near minus one
    most = _MOST if layers is None else layers
    used = torch.zeros_like(t)
    if 1 < g.slope < math.inf:
        needed = ((_NEAR / t).log() / math.log(g.slope)).ceil().clamp(0, most)
        used = torch.where(t > 0, needed, float(most))
        t = torch.where(t > 0, (t.log() + used * math.log(g.slope)).exp(), 0.0)
    k = 1 - t
    a = float(g.coefficients[1])
    bend = float(g.coefficients[2]) / (a - a * a) if 0 < a < 1 else 0.0
    small = _SMALL / max(1.0, bend)
    same = k == 1
    if layers is not None:  # a gap that few layers leave below rounding
        same = t == 0
    for _ in range(most):
        active = (used < most) & (k.abs() > small) & ~same
        if g.kind == "majority":
            active = (used < most) & ~same
        if not bool(active.any()):
            break
        after = g.step(k[active])
        if g.kind == "majority" and bool((after - k[active]).abs().amax() < 1e-16):
            break
        k[active] = after
        used = used + active
    rest = torch.where(same, 0.0, most - used)
    sign = torch.where(k < 0, -sign, sign)
    if g.kind == "majority":
        return sign, k.abs().log()
    if g.kind == "nearest":
        return _powers(g, sign, k, rest)
    log = (k * (1 + bend * k)).abs().log()
    if layers is None:
        return sign, torch.where(same, math.inf, log - used * math.log(a))
    far = torch.where(rest > 0, log + rest * math.log(a), k.abs().log())
    return sign, far


def _powers(g: NormalisedDual, sign: Tensor, k: Tensor, rest: Tensor) -> Signed:
    """Go on with the lowest power alone: log|k| of the rest of the layers in one formula."""
    p = int((g.coefficients > _ZERO).nonzero()[0])
    c = float(g.coefficients[p])
    log, power = k.abs().log(), float(p) ** rest.clamp(max=900 / math.log2(p))
    log = torch.where(rest > 0, power * log + (power - 1) / (p - 1) * math.log(c), log)
    return torch.where(rest > 0, sign.abs(), sign) if p % 2 == 0 else sign, log
