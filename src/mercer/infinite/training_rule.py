r"""How far training has come in each eigenmode: gradient flow, gradient descent, heavy ball.

Every rule here is linear in the outputs, so that after time t a mode of eigenvalue mu has a share
r(mu, t) of its residual left, and the weight of its target in the prediction is
(1 - r(mu, t)) / mu. The two are computed without differences of nearly equal numbers, with
their limits at mu = 0.
"""

import abc
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

_SMALL = 1e-4  # an exponent under which expm1 is needed


class TrainingRule(abc.ABC):
    """A rule of training by its action on one eigenmode. Abstract."""

    unit: str
    """What times count."""

    @abc.abstractmethod
    def residual(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return what is left of the residual, (T, n) for eigenvalues (n,) and times (T,)."""

    @abc.abstractmethod
    def gain(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return (1 - residual) / mu, (T, n); at mu = 0 the limit, or 0 at time infinity."""

    @abc.abstractmethod
    def decay_times(self, mu: Tensor) -> Tensor:
        """Return the time (n,) in which the residual falls by a factor e; infinite at 0."""

    @abc.abstractmethod
    def largest_rate(self, largest: float) -> float:
        """Return the learning rate at the edge of stability for the largest eigenvalue."""


@final
@dataclass(frozen=True)
class Flow(TrainingRule):
    """Gradient flow: r = exp(-rate mu t)."""

    learning_rate: float
    normalisation: float
    unit = "time"

    def _exponent(self, mu: Tensor, times: Tensor) -> Tensor:
        speed = self.learning_rate / self.normalisation * mu  # (n,)
        exponent = times.unsqueeze(-1) * speed  # (T, n)
        return torch.where(speed > 0, exponent, 0.0)  # infinite times nothing is nothing

    def residual(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return exp(-rate mu t)."""
        return torch.exp(-self._exponent(mu, times))  # (T, n)

    def gain(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return (1 - exp(-rate mu t)) / mu, by expm1."""
        positive = mu > 0
        grown = -torch.expm1(-self._exponent(mu, times))  # (T, n)
        limit = (times * (self.learning_rate / self.normalisation)).unsqueeze(-1)  # (T, 1)
        limit = torch.where(limit.isinf(), 0.0, limit)
        return torch.where(positive, grown / torch.where(positive, mu, 1.0), limit)

    def decay_times(self, mu: Tensor) -> Tensor:
        """Return 1 / (rate mu)."""
        return self.normalisation / (self.learning_rate * mu)  # (n,)

    def largest_rate(self, largest: float) -> float:
        """Return infinity."""
        return math.inf


@final
@dataclass(frozen=True)
class Descent(TrainingRule):
    """Gradient descent with heavy-ball momentum: a recursion of two terms in each mode.

    With s = rate mu, r_{k+1} = (1 + beta - s) r_k - beta r_{k-1}, r_0 = 1, r_1 = 1 - s, which is
    torch.optim.SGD (no dampening, no Nesterov).
    """

    learning_rate: float
    normalisation: float
    momentum: float
    unit = "steps"

    def _steps(self, mu: Tensor) -> Tensor:
        return self.learning_rate / self.normalisation * mu  # (n,)

    def _check_stable(self, s: Tensor, times: Tensor) -> None:
        most = 2 * (1 + self.momentum)
        if bool(times.isinf().any()) and float(s.max()) >= most:
            raise ValueError(
                f"learning_rate: {self.learning_rate:g} is past the edge of stability "
                f"{self.learning_rate * most / float(s.max()):g}: training has no end; "
                "ask for a finite number of steps or lower it"
            )

    def residual(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return the residual after whole numbers of steps."""
        s = self._steps(mu)
        self._check_stable(s, times)
        rows = []
        for time in times.tolist():
            if math.isinf(time):
                rows.append(torch.where(s > 0, 0.0, 1.0))
            elif self.momentum == 0:
                rows.append((1 - s) ** int(time))
            else:
                rows.append(self._state(s, int(time))[0])
        return torch.stack(rows)  # (T, n)

    def gain(self, mu: Tensor, times: Tensor) -> Tensor:
        """Return the sum of a geometric series, or of its two-term sibling."""
        s = self._steps(mu)
        self._check_stable(s, times)
        rows = []
        for time in times.tolist():
            if math.isinf(time):
                rows.append(torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0))
            elif self.momentum == 0:
                rows.append(_geometric_sum(s, int(time)))
            else:
                rows.append(self._state(s, int(time))[1])
        return torch.stack(rows) * (self.learning_rate / self.normalisation)  # (T, n)

    def _state(self, s: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Residual and sum (1 - r) / s after a number of steps, by squaring the recursion.

        The state (r_k, r_{k-1}, q_k, q_{k-1}, 1) with q = (1 - r) / s obeys
        q_{k+1} = (1 + beta - s) q_k - beta q_{k-1} + 1, which needs no division by s.
        """
        b = self.momentum
        step = s.new_zeros(len(s), 5, 5)
        for i in (0, 2):
            step[:, i, i] = 1 + b - s
            step[:, i, i + 1] = -b
            step[:, i + 1, i] = 1.0
        step[:, 2, 4] = step[:, 4, 4] = 1.0
        # With no step before the first, r_{-1} = r_0: the ball starts at rest.
        start = s.new_tensor([1.0, 1.0, 0.0, 0.0, 1.0])
        state = torch.linalg.matrix_power(step, steps) @ start  # (n, 5)
        return state[:, 0], state[:, 2]

    def decay_times(self, mu: Tensor) -> Tensor:
        """Return the time of the slower root of the recursion."""
        s, b = self._steps(mu), self.momentum
        # Roots of z^2 - (1 + b - s) z + b. For the larger z, 1 - z = s / (1 - the smaller one),
        # which is exact where s is tiny.
        half = (1 + b - s) / 2
        inside = half.square() - b
        root = inside.clamp(min=0).sqrt()
        near = torch.log1p(-(s / (1 - (half - root))).clamp(max=1))
        log = torch.where(half > 0, near, (root - half).clamp(min=0).log())
        log = torch.where(inside < 0, 0.5 * math.log(b) if b else -math.inf, log)
        return torch.where(log < 0, -1 / log, torch.inf)  # (n,)

    def largest_rate(self, largest: float) -> float:
        """Return twice (1 + momentum) over the largest eigenvalue, times M."""
        return 2 * (1 + self.momentum) * self.normalisation / largest


def _geometric_sum(s: Tensor, steps: int) -> Tensor:
    """Compute (1 - (1 - s)^k) / s, k at s = 0."""
    small = s.abs() < _SMALL
    safe = torch.where(s == 0, 1.0, s)
    near = -torch.expm1(steps * torch.log1p(-torch.where(small, s, 0.0))) / safe
    far = (1 - (1 - s) ** steps) / safe
    return torch.where(s == 0, float(steps), torch.where(small, near, far))
