"""An ensemble in training, in the coordinates of the kernel's eigenvectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .spectral_filter import Spectrum
from .training_rule import TrainingRule


class Points(NamedTuple):
    """Points at which the ensemble is asked, in terms of the eigenvectors."""

    cross: Tensor  # T_xX V, (m, n)
    prior: Tensor  # V^T S_Xx, (n, m)


@dataclass(frozen=True, eq=False)
class Eigenmodes:
    """The state that determines an ensemble at all times, and functions of it.

    Times are tensors (T,) in float64 here, and results have T as their first axis.
    """

    rule: TrainingRule
    spectrum: Spectrum
    targets: Tensor  # V^T y, (n, outputs)
    covariance: Tensor  # V^T S V, (n, n)
    ridge: float
    noise: float

    def damped(self) -> Tensor:
        """Return the eigenvalues with the ridge, (n,)."""
        return self.spectrum.eigenvalues + self.ridge

    def gain(self, times: Tensor) -> Tensor:
        """Return the weight of the targets along each eigenvector, (T, n)."""
        gain = self.rule.gain(self.damped(), times.to(self.targets.device))
        return self.spectrum.tame(gain, self.ridge)

    def left(self, times: Tensor) -> Tensor:
        """Return the share of the targets that is not fitted yet, 1 - lambda gain: (T, n)."""
        damped = self.damped()
        rest = self.rule.residual(damped, times.to(damped.device))
        share = self.ridge / damped if self.ridge else torch.zeros_like(damped)
        return share + (1 - share) * rest  # no difference of nearly equal numbers

    def outputs(self, times: Tensor, targets: Tensor, at: Points | None) -> Tensor:
        """Return what training towards rotated targets (n, outputs) adds, (T, m, outputs)."""
        if at is None:
            return self.spectrum.vectors @ ((1 - self.left(times)).unsqueeze(-1) * targets)
        return at.cross @ (self.gain(times).unsqueeze(-1) * targets)

    def training_covariance(self, times: Tensor) -> Tensor:
        """Return the covariance at the training points, (T, n, n)."""
        left = self.left(times)  # (T, n)
        inner = left.unsqueeze(-1) * self.covariance * left.unsqueeze(-2)
        inner.diagonal(dim1=-2, dim2=-1).add_(self.noise * (1 - left).square())
        return self.spectrum.vectors @ inner @ self.spectrum.vectors.mT

    def test_covariance(self, times: Tensor, at: Points, before: Tensor) -> Tensor:
        """Return the covariance at points, (T, m, m), from that before training, (m, m)."""
        noisy = self._noisy()
        found = []
        for gain in self.gain(times).unbind():
            weights = at.cross * gain  # (m, n)
            mixed = weights @ at.prior  # (m, m)
            found.append(before + weights @ noisy @ weights.mT - mixed - mixed.mT)
        return torch.stack(found)

    def _noisy(self) -> Tensor:
        """Return the covariance of what is fitted: initial outputs and the targets' noise."""
        noisy = self.covariance.clone()  # (n, n)
        noisy.diagonal().add_(self.noise)
        return noisy

    def training_error(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error of the mean and the variance, averaged over the points: (T,) each."""
        left = self.left(times)  # (T, n)
        fit = left.square() @ self.targets.square().mean(-1)
        spread = left.square() @ self.covariance.diagonal()
        spread = spread + self.noise * (1 - left).square().sum(-1)
        return fit / len(self.targets), spread / len(self.targets)

    def test_error(
        self, at: Points, targets: Tensor, before: Tensor
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Make the same for points with targets (m, outputs), whose variances were (m,)."""
        # The sum of variances over points is a quadratic function of the gains.
        square = (at.cross.mT @ at.cross) * self._noisy()  # (n, n)
        mixed = (at.prior * at.cross.mT).sum(-1)  # (n,)

        def error(times: Tensor) -> tuple[Tensor, Tensor]:
            gap = self.outputs(times, self.targets, at) - targets  # (T, m, outputs)
            gain = self.gain(times)  # (T, n)
            spread = before.sum() + ((gain @ square) * gain).sum(-1) - 2 * gain @ mixed
            return gap.square().mean((-2, -1)), spread.clamp(min=0) / len(targets)

        return error
