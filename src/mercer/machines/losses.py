"""Convex losses of predictions, with the derivatives that Newton's method needs."""

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


class Loss(abc.ABC):
    """A weighted sum of convex losses of rows, l(f_i) with f of shape (n, q).

    Abstract. All tensors are float64; `state` holds what `multiply` and `diagonal` need of f.
    """

    @abc.abstractmethod
    def value(self, f: Tensor) -> float:
        """Sum the losses of predictions f (n, q)."""

    @abc.abstractmethod
    def gradient(self, f: Tensor) -> Tensor:
        """Differentiate by f, (n, q)."""

    @abc.abstractmethod
    def steepest(self) -> float:
        """Sum the largest second derivatives of rows; zero where they never vanish."""

    @abc.abstractmethod
    def state(self, f: Tensor) -> Tensor:
        """Return what the second derivative at f is made of, (n, q)."""

    @abc.abstractmethod
    def multiply(self, state: Tensor, v: Tensor) -> Tensor:
        """Multiply v (n, q) by the second derivative; rows without state can be left out."""

    @abc.abstractmethod
    def diagonal(self, state: Tensor) -> Tensor:
        """Return its diagonal, (n, q)."""


@final
@dataclass(frozen=True, eq=False)
class LogisticLoss(Loss):
    """The log loss of two classes, q = 1: signs (n, 1) are -1 and 1, weights (n, 1)."""

    signs: Tensor
    weights: Tensor

    def value(self, f: Tensor) -> float:
        """Sum the losses."""
        return float((self.weights * softplus(-self.signs * f)).sum())

    def gradient(self, f: Tensor) -> Tensor:
        """Differentiate by f."""
        return -self.weights * self.signs * torch.sigmoid(-self.signs * f)

    def steepest(self) -> float:
        """Return zero."""
        return 0.0

    def state(self, f: Tensor) -> Tensor:
        """Return w p (1 - p), which does not lose digits on either side."""
        return self.weights * (logsigmoid(f) + logsigmoid(-f)).exp()

    def multiply(self, state: Tensor, v: Tensor) -> Tensor:
        """Multiply by the second derivative."""
        return state * v

    def diagonal(self, state: Tensor) -> Tensor:
        """Return the second derivative."""
        return state


@final
@dataclass(frozen=True, eq=False)
class MultinomialLoss(Loss):
    """The log loss of q classes: onehot (n, q), weights (n, 1)."""

    onehot: Tensor
    weights: Tensor

    def value(self, f: Tensor) -> float:
        """Sum the losses."""
        own = (self.onehot * f).sum(-1, keepdim=True)
        return float((self.weights * (f.logsumexp(-1, keepdim=True) - own)).sum())

    def gradient(self, f: Tensor) -> Tensor:
        """Differentiate by f."""
        return self.weights * (f.softmax(-1) - self.onehot)

    def steepest(self) -> float:
        """Return zero."""
        return 0.0

    def state(self, f: Tensor) -> Tensor:
        """Return the probabilities."""
        return f.softmax(-1)

    def multiply(self, state: Tensor, v: Tensor) -> Tensor:
        """Multiply each row by w (diag(p) - p p^T)."""
        pv = state * v
        return self.weights * (pv - state * pv.sum(-1, keepdim=True))

    def diagonal(self, state: Tensor) -> Tensor:
        """Return w p (1 - p)."""
        return self.weights * state * (1 - state)


@final
@dataclass(frozen=True, eq=False)
class SmoothHinge(Loss):
    """The hinge max(0, level - sign f), quadratic over a width where it bends.

    It is (level - sign f)^2 / (2 width) up to the width, from there on the straight line; a
    smaller width is closer to the hinge, which is width / 2 above it at most.
    """

    signs: Tensor  # (n, 1)
    weights: Tensor  # (n, 1)
    width: float
    level: float = 1.0

    def value(self, f: Tensor) -> float:
        """Sum the losses."""
        gap = (self.level - self.signs * f).clamp_min(0)
        bent = gap.clamp_max(self.width)
        return float((self.weights * (bent * (gap - bent / 2))).sum() / self.width)

    def gradient(self, f: Tensor) -> Tensor:
        """Differentiate by f."""
        gap = (self.level - self.signs * f).clamp(0, self.width)
        return -self.weights * self.signs * gap / self.width

    def steepest(self) -> float:
        """Sum the largest second derivatives."""
        return float(self.weights.sum()) / self.width

    def state(self, f: Tensor) -> Tensor:
        """Return the second derivative."""
        gap = self.level - self.signs * f
        return self.weights * ((gap > 0) & (gap <= self.width)) / self.width

    def multiply(self, state: Tensor, v: Tensor) -> Tensor:
        """Multiply by the second derivative."""
        return state * v

    def diagonal(self, state: Tensor) -> Tensor:
        """Return the second derivative."""
        return state


@final
@dataclass(frozen=True, eq=False)
class SmoothInsensitive(Loss):
    """The loss max(0, |y - f| - epsilon), quadratic over a width where it bends."""

    targets: Tensor  # (n, 1)
    weights: Tensor  # (n, 1)
    epsilon: float
    width: float

    def value(self, f: Tensor) -> float:
        """Sum the losses."""
        gap = ((f - self.targets).abs() - self.epsilon).clamp_min(0)
        bent = gap.clamp_max(self.width)
        return float((self.weights * (bent * (gap - bent / 2))).sum() / self.width)

    def gradient(self, f: Tensor) -> Tensor:
        """Differentiate by f."""
        off = f - self.targets
        gap = (off.abs() - self.epsilon).clamp(0, self.width)
        return self.weights * off.sign() * gap / self.width

    def steepest(self) -> float:
        """Sum the largest second derivatives."""
        return float(self.weights.sum()) / self.width

    def state(self, f: Tensor) -> Tensor:
        """Return the second derivative."""
        gap = (f - self.targets).abs() - self.epsilon
        return self.weights * ((gap > 0) & (gap <= self.width)) / self.width

    def multiply(self, state: Tensor, v: Tensor) -> Tensor:
        """Multiply by the second derivative."""
        return state * v

    def diagonal(self, state: Tensor) -> Tensor:
        """Return the second derivative."""
        return state
