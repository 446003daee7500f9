"""Gaussian processes by products with the kernel matrix: conjugate gradients and random probes."""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ..kernels import Kernel
from ..kernels.hyperparameter_gradient import hyperparameter_gradient
from ..linalg import (
    LowRankPreconditioner,
    conjugate_gradient,
    pivoted_cholesky,
    stochastic_logdet,
)
from .gp_exact import by_blocks, prior_covariance
from .gp_method import GaussianMethod, Likelihood, Posterior
from .kernel_input import KernelInput

_RANK = 256  # of the preconditioner
_STEPS = 40  # of Lanczos
_TOLERANCE = 1e-7
_MOST_STEPS = 2000
_COLUMNS = 512  # new rows that are solved for together


@final
@dataclass(frozen=True, eq=False)
class IterativePosterior(Posterior):
    """The targets under the inverse, and what solves for more.

    Attributes
    ----------
    solved : Tensor of shape (n, q)
        :math:`C^{-1} y`.
    low_rank : Tensor of shape (n, k)
        L of the preconditioner.
    ridge : float
        Its ridge.
    noise : float
        The variance of the noise.
    """

    solved: Tensor
    low_rank: Tensor
    ridge: float
    noise: float

    def mean(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior mean (m, q) at new rows."""
        return torch.as_tensor(inputs.cross(rows) @ self.solved)

    def variance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior variance (m,) at new rows: a system for each."""

        def left(block: Tensor) -> Tensor:
            cross, solved = self._solve(inputs, block)
            return inputs.diag(block) - (cross * solved).sum(0)

        found = [by_blocks(left, part, 8 * len(self.solved)) for part in rows.split(_COLUMNS)]
        return torch.cat(found).clamp_min(0.0)

    def covariance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior covariance (m, m) between new rows."""
        cross, solved = self._solve(inputs, rows)
        known = cross.mT @ solved
        return prior_covariance(inputs, rows) - (known + known.mT) / 2

    def _solve(self, inputs: KernelInput, rows: Tensor) -> tuple[Tensor, Tensor]:
        cross = inputs.cross(rows).to_dense().mT.contiguous()  # (n, m)
        preconditioner = LowRankPreconditioner(self.low_rank, ridge=self.ridge)
        system = _System(inputs.kernel, inputs.points, self.noise, preconditioner)
        return cross, system.solve(cross)


@final
@dataclass(frozen=True, eq=False)
class _System:
    """C = K + noise, with a preconditioner."""

    kernel: Kernel
    points: Tensor
    noise: float
    preconditioner: LowRankPreconditioner

    def times(self, columns: Tensor) -> Tensor:
        return self.kernel.gram(self.points) @ columns + self.noise * columns

    def solve(self, columns: Tensor) -> Tensor:
        found = conjugate_gradient(
            self.times,
            columns,
            preconditioner=self.preconditioner,
            tolerance=_TOLERANCE,
            max_iterations=_MOST_STEPS,
        )
        if not found.converged:
            warnings.warn(
                f"conjugate gradients ended after {found.iterations} steps with a relative "
                f"residual of {float(found.residual.max()):.2g}: a larger noise would help",
                ConvergenceWarning,
                stacklevel=2,
            )
        return found.solution


@final
@dataclass(frozen=True, eq=False)
class IterativeMethod(GaussianMethod):
    r"""Estimate the likelihood and its gradient from products with the kernel matrix.

    .. math::

        \log |C| = \log |P| + \operatorname{tr} \log P^{-1/2} C P^{-1/2}, \qquad
        \operatorname{tr}(C^{-1} \partial C) = E\, (C^{-1} z)^\top \partial C\, (P^{-1} z),
        \quad z \sim N(0, P)

    with P from a pivoted Cholesky factorisation of few columns. The same random numbers serve
    all hyperparameters, so that the estimate is a smooth function of them.

    Attributes
    ----------
    num_probes : int
        How many z.
    seed : int
        Where they come from.
    """

    num_probes: int
    seed: int
    # Value and gradient are estimated apart, and agree to about this.
    tolerance: ClassVar[float] = 1e-5

    def likelihood(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor, *, gradient: bool
    ) -> Likelihood:
        """Estimate the log marginal likelihood; see `GaussianMethod`."""
        system, low_rank = self._system(kernel, points, noise)
        n, count = targets.shape
        columns, half = targets, targets[:, :0]
        if gradient:
            source = torch.Generator().manual_seed(self.seed)
            normals = torch.randn(n, self.num_probes, generator=source, dtype=torch.float64)
            half = system.preconditioner.inverse_root(normals.to(points))  # P^-1 z, (n, s)
            z = low_rank @ (low_rank.mT @ half) + system.preconditioner.ridge * half
            columns = torch.cat([targets, z], 1)
        solved = system.solve(columns)
        a, u = solved[:, :count], solved[:, count:]  # (n, q), (n, s)
        value = self._value(system, targets, a)
        if not gradient:
            return Likelihood(value, {}, 0.0)
        # W = a a^T - q C^-1, where C^-1 = P^-1 + E (u - half) half^T, symmetrised: only what the
        # preconditioner misses is left to the probes.
        share = -0.5 * count / self.num_probes
        basis, ridge = system.preconditioner.basis, system.preconditioner.ridge
        eigenvalues = system.preconditioner.eigenvalues
        known = basis * (eigenvalues / (eigenvalues + ridge)).sqrt()
        left = torch.cat([a, share * (u - half), share * half, count / ridge * known], 1)
        right = torch.cat([a, half, u - half, known], 1)

        def weights(rows: slice, columns: slice) -> Tensor:
            tile = left[rows] @ right[columns].mT
            if rows == columns:
                tile.diagonal().sub_(count / ridge)
            return tile

        found = hyperparameter_gradient(kernel, points, weights)
        by_noise = 0.5 * (float((left * right).sum()) - n * count / ridge)
        return Likelihood(value, {name: g / 2 for name, g in found.items()}, by_noise)

    def posterior(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[IterativePosterior, Likelihood]:
        """Condition on the data; see `GaussianMethod`."""
        system, low_rank = self._system(kernel, points, noise)
        solved = system.solve(targets)
        found = IterativePosterior(solved, low_rank, system.preconditioner.ridge, system.noise)
        return found, Likelihood(self._value(system, targets, solved), {}, 0.0)

    def _value(self, system: _System, targets: Tensor, solved: Tensor) -> float:
        n, count = targets.shape
        logdet = stochastic_logdet(
            system.times,
            n,
            preconditioner=system.preconditioner,
            num_probes=self.num_probes,
            steps=min(_STEPS, n),
            generator=self.seed,
            device=targets.device,
        ).value
        constant = logdet + n * math.log(2 * math.pi)
        return -0.5 * (float((targets * solved).sum()) + count * constant)

    def _system(self, kernel: Kernel, points: Tensor, noise: Tensor) -> tuple[_System, Tensor]:
        """Return the system with its preconditioner, and the low-rank part of that."""
        with torch.no_grad():
            first = points[:1]
            # What a point has with itself alone, such as a White part of the kernel.
            alone = max(float(kernel.diag(first) - kernel(first, first.clone())), 0.0)
            low_rank = pivoted_cholesky(
                lambda index: kernel(points, points[index]),
                (kernel.diag(points) - alone).clamp_min(0.0),
                rank=min(_RANK, len(points)),
            ).factor
        ridge = float(noise) + alone
        preconditioner = LowRankPreconditioner(low_rank, ridge=ridge)
        return _System(kernel, points, float(noise), preconditioner), low_rank
