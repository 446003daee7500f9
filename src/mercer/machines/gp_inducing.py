"""Gaussian processes by inducing points: the variational bound, in blocks of rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.config import config, require_memory, resident_memory
from ..kernels import Kernel
from ..kernels.hyperparameter_gradient import diagonal_gradient, hyperparameter_gradient
from .gp_exact import by_blocks, prior_covariance
from .gp_method import GaussianMethod, Likelihood, Posterior
from .kernel_input import KernelInput

_JITTER = 1e-9  # of the mean diagonal of the landmarks' matrix
_BLOCK = 4096  # rows at a time


@final
@dataclass(frozen=True, eq=False)
class InducingPosterior(Posterior):
    r"""What is known of the values at the landmarks.

    Attributes
    ----------
    landmarks : Tensor of shape (m, d)
        The landmarks.
    factor : Tensor of shape (m, m)
        Cholesky factor L of their kernel matrix.
    inner : Tensor of shape (m, m)
        Cholesky factor of :math:`B = I + A A^T`, where :math:`A = L^{-1} K_{mn} / \sigma`.
    solved : Tensor of shape (m, q)
        :math:`B^{-1} A y / \sigma`.
    """

    landmarks: Tensor
    factor: Tensor
    inner: Tensor
    solved: Tensor

    def mean(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior mean (k, q) at new rows."""
        width = len(self.landmarks)
        return by_blocks(lambda block: self._half(inputs, block).mT @ self.solved, rows, width)

    def variance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior variance (k,) at new rows."""

        def left(block: Tensor) -> Tensor:
            half = self._half(inputs, block)
            seen = torch.linalg.solve_triangular(self.inner, half, upper=False)
            return inputs.diag(block) - half.square().sum(0) + seen.square().sum(0)

        return by_blocks(left, rows, len(self.landmarks)).clamp_min(0.0)

    def covariance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior covariance (k, k) between new rows."""
        half = self._half(inputs, rows)
        seen = torch.linalg.solve_triangular(self.inner, half, upper=False)
        return prior_covariance(inputs, rows) - half.mT @ half + seen.mT @ seen

    def _half(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """L^-1 k_m(rows), (m, k)."""
        cross = inputs.kernel(self.landmarks, inputs.prepare(rows))
        return torch.linalg.solve_triangular(self.factor, cross, upper=False)


@final
@dataclass(frozen=True, eq=False)
class InducingMethod(GaussianMethod):
    r"""The best posterior that knows the function at m landmarks only.

    .. math::

        F = \log N(y; 0, Q + \Sigma) - \tfrac12 \operatorname{tr}(\Sigma^{-1} (K - Q)), \quad
        Q = K_{nm} K_{mm}^{-1} K_{mn}

    a lower bound of the log marginal likelihood. Everything passes through
    :math:`A A^\top` and :math:`A y`, with :math:`A = L^{-1} K_{mn} \Sigma^{-1/2}`, which blocks
    of rows add up; the gradient goes through the same blocks a second time.

    Attributes
    ----------
    landmarks : Tensor of shape (m, d)
        The landmarks, float64.
    """

    landmarks: Tensor

    def likelihood(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor, *, gradient: bool
    ) -> Likelihood:
        """Evaluate the bound; see `GaussianMethod`."""
        weight, variance = _split(noise, targets)
        factor, gram = self._factor(kernel)
        moments = self._moments(kernel, points, targets, weight, factor)
        leaves = [t.requires_grad_(gradient) for t in (*moments, gram, variance)]
        with torch.set_grad_enabled(gradient):
            bound = _bound(leaves, factor, targets, weight)
        if not gradient:
            return Likelihood(float(bound), {}, 0.0)
        # By A A^T, A y, the sum of the diagonal, K_mm and the noise.
        by_square, by_mean, by_trace, by_gram, by_noise = torch.autograd.grad(bound, leaves)
        by_gram = (by_gram + by_gram.mT) / 2
        total = hyperparameter_gradient(kernel, self.landmarks, lambda r, c: by_gram[r, c].clone())
        parts = [diagonal_gradient(kernel, points, float(by_trace) * weight.square())]
        for rows, a in self._blocks(kernel, points, weight, factor):
            slope = (by_square + by_square.mT) @ a  # (m, b)
            slope.addmm_(by_mean, (weight[rows, None] * targets[rows]).mT)
            back = torch.linalg.solve_triangular(factor.mT, slope, upper=True) * weight[rows]
            parts.append(_cross_gradient(kernel, points[rows], self.landmarks, back))
        for part in parts:
            for name, g in part.items():
                total[name] += g
        return Likelihood(float(bound.detach()), total, float(by_noise))

    def posterior(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[InducingPosterior, Likelihood]:
        """Condition on the data; see `GaussianMethod`."""
        weight, variance = _split(noise, targets)
        factor, gram = self._factor(kernel)
        moments = self._moments(kernel, points, targets, weight, factor)
        bound = float(_bound([*moments, gram, variance], factor, targets, weight))
        inner = moments[0] / variance
        inner.diagonal().add_(1.0)
        lower = torch.linalg.cholesky(inner)
        solved = torch.cholesky_solve(moments[1] / variance, lower)
        return InducingPosterior(self.landmarks, factor, lower, solved), Likelihood(bound, {}, 0.0)

    def _factor(self, kernel: Kernel) -> tuple[Tensor, Tensor]:
        """Cholesky factor of K_mm with its jitter, and K_mm."""
        with torch.no_grad():
            gram = kernel(self.landmarks)
        return torch.linalg.cholesky(_jittered(gram)), gram

    def _blocks(
        self, kernel: Kernel, points: Tensor, weight: Tensor, factor: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield L^-1 K_mn W, (m, b), by blocks of rows."""
        m = len(self.landmarks)
        spare = max(config.memory_budget - resident_memory(), 0)
        step = max(64, min(_BLOCK, int(spare / 2 / (8 * 8 * m))))
        require_memory(8 * 6 * m * (m + step), f"{m} inducing points", "ask for fewer landmarks")
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            with torch.no_grad():
                cross = kernel(self.landmarks, points[rows])
                a = torch.linalg.solve_triangular(factor, cross, upper=False)
                yield rows, a * weight[rows]

    def _moments(
        self, kernel: Kernel, points: Tensor, targets: Tensor, weight: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return A A^T (m, m), A y (m, q), and the weighted trace of K, without the noise."""
        m = len(factor)
        square, mean = factor.new_zeros(m, m), factor.new_zeros(m, targets.shape[1])
        for rows, a in self._blocks(kernel, points, weight, factor):
            square.addmm_(a, a.mT)
            mean.addmm_(a, weight[rows, None] * targets[rows])
        with torch.no_grad():
            return square, mean, (weight.square() * kernel.diag(points)).sum()


def _split(noise: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Write the noise as a weight (n,) of each row and one variance that is differentiated."""
    if noise.ndim:
        return noise.rsqrt(), noise.new_ones(())
    return noise.new_ones(len(targets)), noise.clone()


def _jittered(gram: Tensor) -> Tensor:
    jitter = _JITTER * gram.diagonal().mean()
    return gram + jitter * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _bound(leaves: list[Tensor], factor: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the bound as a function of what blocks added up under a factor of K_mm."""
    square, mean, trace, gram, variance = leaves
    n, count = targets.shape
    # One in value; its derivative is that of L^-1, under which A would be another.
    turn = torch.linalg.solve_triangular(
        torch.linalg.cholesky(_jittered(gram)), factor, upper=False
    )
    square, mean = turn @ square @ turn.mT / variance, turn @ mean / variance
    eye = torch.eye(len(square), dtype=square.dtype, device=square.device)
    lower = torch.linalg.cholesky(eye + square)
    half = torch.linalg.solve_triangular(lower, mean, upper=False)  # (m, q)
    logs = 2.0 * lower.diagonal().log().sum() + n * variance.log() - 2.0 * weight.log().sum()
    quadratic = (weight[:, None] * targets).square().sum() / variance - half.square().sum()
    rest = trace / variance - square.diagonal().sum()
    return -0.5 * (count * (n * math.log(2 * math.pi) + logs + rest) + quadratic)


def _cross_gradient(
    kernel: Kernel, x: Tensor, landmarks: Tensor, slope: Tensor
) -> dict[str, Tensor]:
    """Differentiate by the kernel between rows x and landmarks, against a slope (m, b)."""
    return hyperparameter_gradient(kernel, x, lambda r, c: slope[c, r].mT.clone(), landmarks)
