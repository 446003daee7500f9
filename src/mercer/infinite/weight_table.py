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
        signs, logs = sign.unfold(0, 4, 1), log.unfold(0, 4, 1)  # (count - 3, 4)
        # Where four neighbours are alike; elsewhere the weight passes through zero.
        self.smooth = (signs.sum(-1).abs() == 4) & (logs.amax(-1) - logs.amin(-1) < 0.5)

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
        sign_at, log_at, smooth = (t.to(gap.device) for t in (self.sign, self.log, self.smooth))
        i = at.floor().clamp(1, len(log_at) - 3).long()
        shares = _lagrange(at - i)
        # Logarithms, as far as they are smooth.
        log, sign = torch.zeros_like(at), sign_at[i]
        for j, share in zip((-1, 0, 1, 2), shares, strict=True):
            log.addcmul_(share, log_at[i + j])
        rough = ~smooth[i - 1]
        if bool(rough.any()):
            near, some = i[rough], [share[rough] for share in shares]
            logs = torch.stack([log_at[near + j] for j in (-1, 0, 1, 2)])  # (4, k)
            signs = torch.stack([sign_at[near + j] for j in (-1, 0, 1, 2)])
            top = logs.amax(0)
            plain = (torch.stack(some) * signs * (logs - top).exp()).sum(0)
            log[rough], sign[rough] = plain.abs().log() + top, plain.sign()
        return sign, log - self._shift(w)


def _lagrange(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Polynomials of the nodes -1, 0, 1, 2."""
    left, right = t * (t - 1), (t + 1) * (t - 2)
    return -left * (t - 2) / 6, right * (t - 1) / 2, -right * t / 2, left * (t + 1) / 6
