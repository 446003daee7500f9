"""Deep kernels of many pairs of inputs, by interpolating one function of one number."""

import math

import torch
from torch import Tensor

from .deep_limit import DeepLimit

_ENDS = (-37.0, 37.0)  # of log tan(angle / 2); beyond them points agree to rounding
_MOST = 200_001


class WeightTable:
    """`DeepLimit.log_weight`, or `log_kernel` of a depth, interpolated; for the kind "singular".

    What is interpolated is the weight over the power of the distance that it is close to, in
    w = log tan(angle / 2): this neither grows nor falls by much from one node to the next.
    """

    def __init__(self, limit: DeepLimit, depth: int | None) -> None:
        self.odd = limit._dual.odd
        power = limit.exponent if math.isfinite(limit.exponent) else 0.0
        step = min(0.02, 0.1 / max(power, 1.0))
        count = min(2 * math.ceil(_ENDS[1] / step) + 1, _MOST)
        w = torch.linspace(*_ENDS, count, dtype=torch.float64)
        self.step = float(w[1] - w[0])
        self.power = power
        gap = 2 * torch.sigmoid(2 * w)  # 1 - cos(angle)
        sign, log = limit.log_weight(gap) if depth is None else limit.log_kernel(gap, depth)
        log = log + self._shift(w)
        self.sign, self.log = sign, log

    def _shift(self, w: Tensor) -> Tensor:
        """Log of the distance to the power, also from the opposite point for odd functions."""
        # sin(angle) = 1 / cosh(w), sin(angle / 2)^2 = sigmoid(2 w)
        if self.odd:
            return -self.power * (w.abs() + torch.log1p(torch.exp(-2 * w.abs())))
        return self.power * torch.nn.functional.logsigmoid(2 * w) / 2

    def __call__(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return sign and log of the weight of gaps of any shape; infinite at gap zero."""
        w = ((gap / (2 - gap).clamp(min=1e-300)).log() / 2).clamp(*_ENDS)
        at = (w - _ENDS[0]) / self.step
        i = at.floor().clamp(1, len(self.log) - 3).long()
        t = at - i
        # Lagrange's polynomials of four neighbours
        shares = (
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        )
        signs = [self.sign[i + j] for j in (-1, 0, 1, 2)]
        logs = [self.log[i + j] for j in (-1, 0, 1, 2)]
        # Logarithms, but where the weight passes through zero.
        log = torch.stack([s * x for s, x in zip(shares, logs, strict=True)]).sum(0)
        top = torch.stack(logs).amax(0)
        terms = zip(shares, signs, logs, strict=True)
        plain = torch.stack([s * sign * (x - top).exp() for s, sign, x in terms]).sum(0)
        alike = torch.stack(signs).sum(0).abs() == 4
        alike &= top - torch.stack(logs).amin(0) < 0.5
        log = torch.where(alike, log, plain.abs().log() + top)
        return torch.where(alike, signs[1], plain.sign()), log - self._shift(w)
