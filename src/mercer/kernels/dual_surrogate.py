"""Kdot of an activation with a surrogate of its derivative: E[phi'(u) chi(v)].

u belongs to the row and takes the true derivative, v to the column and takes the surrogate, so
that the result is not symmetric. A jump of phi makes its derivative a delta, under which the mean
is that of chi given u at the jump.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .activations import ErfActivation, PowerActivation
from .dual_mesh import Profile, edges_of
from .dual_power import squared_gap
from .dual_variance import variance_mean
from .surrogate import surrogate_derivative


def _inverse_root(squared: Tensor) -> Tensor:
    """``x^(-1/2)``: infinite at zero, with a gradient of zero there."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).rsqrt(), math.inf)


def closed_slope(form: Any, surrogate: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Find the rule for a pair of an activation and a surrogate, where there is one."""
    if isinstance(form, PowerActivation) and form.order == 0:
        height = form.positive - form.negative
        if surrogate in ("identity", "straight_through"):
            return _Erfs(height / 2, 0.0, None)
        if surrogate == "erf":
            return _Erfs(height / 2, 0.0, 0.5)
        return _Jump(height, surrogate)
    if isinstance(form, ErfActivation) and form.slope:
        # a erf(m x), with a negative m as a negative a
        height, own = math.copysign(form.scale, form.scale * form.slope), 0.5 / form.slope**2
        if surrogate in ("identity", "straight_through"):
            return _Erfs(height, own, None)
        if surrogate == "erf":
            return _Erfs(height, own, 0.5)
    return None


class _Erfs:
    """Error functions of two slopes; the sign is the infinitely steep one."""

    def __init__(self, height: float, own: float, other: float | None) -> None:
        self.height, self.own, self.other = height, own, other  # own = 1 / 2 m^2

    def __call__(self, q11: Tensor, q22: Tensor, q12: Tensor) -> Tensor:
        if self.other is None:  # depends on the row only
            return self.height * math.sqrt(2 / math.pi) * _inverse_root(q11 + self.own) + 0 * q12
        gap = squared_gap(q11, q22, q12).to(q12.dtype)
        # (q11 + 1/2m1^2)(q22 + 1/2m2^2) - q12^2
        squared = gap + self.other * q11 + self.own * q22 + self.own * self.other
        return self.height * (2 / math.pi) * _inverse_root(squared)


class _Jump:
    """A jump at zero with any surrogate: one integral over v given u = 0."""

    def __init__(self, height: float, surrogate: str | Callable[[Tensor], Tensor]) -> None:
        self.height, self.surrogate = height, surrogate

    def __call__(self, q11: Tensor, q22: Tensor, q12: Tensor) -> Tensor:
        profile = Profile(surrogate_derivative(self.surrogate))
        gap = squared_gap(q11, q22, q12).clamp(min=0)
        variance = (gap / torch.where(q11 > 0, q11, 1.0)).to(q12.dtype)
        mean = variance_mean(profile, partial(edges_of, (profile,)), variance)
        return self.height / math.sqrt(2 * math.pi) * _inverse_root(q11) * mean
