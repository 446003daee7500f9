"""Gaussian processes by a factorisation of the whole kernel matrix: likelihood and posterior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.config import config, require_memory, resident_memory
from ..kernels import Kernel
from ..kernels.hyperparameter_gradient import hyperparameter_gradient
from ..linalg.solve_psd import factorise
from .gp_method import GaussianMethod, Likelihood, Posterior
from .kernel_input import KernelInput

_BLOCK = 2048  # new rows at a time
_SMALL = 1024  # rows under which torch's inverse takes no longer
OPTION = "use method='inducing' or 'iterative', which never build it"


@final
@dataclass(frozen=True, eq=False)
class ExactFactor(Posterior):
    r"""The factor of :math:`C = K + \Sigma`, and what targets become under it.

    Attributes
    ----------
    factor : Tensor of shape (n, n)
        The lower Cholesky factor of C.
    solved : Tensor of shape (n, q)
        :math:`C^{-1} y`.
    quadratic : Tensor of shape (q,)
        :math:`y^\top C^{-1} y`.
    log_determinant : float
        That of C.
    jitter : float
        What had to be added to the diagonal; 0 for nothing.
    """

    factor: Tensor
    solved: Tensor
    quadratic: Tensor
    log_determinant: float
    jitter: float

    @classmethod
    def fit(
        cls, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor, option: str = OPTION
    ) -> "ExactFactor":
        """Build and factorise the matrix.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        points : Tensor of shape (n, *event)
            Training points, float64.
        targets : Tensor of shape (n, q)
            Their targets.
        noise : Tensor of shape () or (n,)
            Variance of the noise, added to the diagonal.
        option : str
            What a ``MemoryError`` recommends.

        Returns
        -------
        ExactFactor
            The factor.
        """
        n = len(points)
        require_memory(8 * 3 * n * n, f"the factorisation of a kernel matrix {(n, n)}", option)
        with torch.no_grad():
            system = kernel(points)
            system.diagonal().add_(noise)
            scale = float(system.diagonal().mean())
            factor, jitter = factorise(system, scale, torch.finfo(system.dtype).eps)
            half = torch.linalg.solve_triangular(factor, targets, upper=False)  # (n, q)
            solved = torch.linalg.solve_triangular(factor.mT, half, upper=True)
            log_determinant = 2.0 * float(factor.diagonal().log().sum())
        return cls(factor, solved, half.square().sum(0), log_determinant, jitter)

    @property
    def log_density(self) -> float:
        """Logarithm of the Gaussian density of the targets, summed over their columns."""
        n, count = self.solved.shape
        constant = self.log_determinant + n * math.log(2 * math.pi)
        return -0.5 * (float(self.quadratic.sum()) + count * constant)

    def gradient(
        self, kernel: Kernel, points: Tensor, share: float
    ) -> tuple[dict[str, Tensor], Tensor]:
        r"""Contract the derivatives of C with :math:`W = s\,a a^\top - q\,C^{-1}`, halved.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        points : Tensor of shape (n, *event)
            Training points.
        share : float
            s, 1 for a Gaussian process.

        Returns
        -------
        tuple of dict and Tensor
            :math:`\frac12 \langle W, \partial K \rangle` for each parameter of the kernel, and
            half of the diagonal of W, (n,), which is the derivative by the noise of each row.
            The factor is used up where memory can be saved so.
        """
        count = self.solved.shape[1]
        inverse = inverse_from_factor(self.factor)  # (n, n), on and above the diagonal
        a, scaled = self.solved, share * self.solved

        def weights(rows: slice, columns: slice) -> Tensor:
            tile = inverse[rows, columns] * -count
            if rows == columns:
                tile = tile.triu() + tile.triu(1).mT
            return tile.addmm_(a[rows], scaled[columns].mT)

        found = hyperparameter_gradient(kernel, points, weights)
        diagonal = (a * scaled).sum(1) - count * inverse.diagonal()
        return {name: g / 2 for name, g in found.items()}, diagonal / 2

    def mean(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior mean (m, q) at new rows."""
        return torch.as_tensor(inputs.cross(rows) @ self.solved)

    def variance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior variance (m,) at new rows."""

        def left(block: Tensor) -> Tensor:
            return inputs.diag(block) - self._whiten(inputs, block).square().sum(0)

        return by_blocks(left, rows, len(self.factor)).clamp_min(0.0)

    def covariance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior covariance (m, m) between new rows."""
        half = self._whiten(inputs, rows)  # (n, m)
        return prior_covariance(inputs, rows) - half.mT @ half

    def _whiten(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        cross = inputs.cross(rows).to_dense()  # (m, n)
        return torch.linalg.solve_triangular(self.factor, cross.mT, upper=False)


@final
@dataclass(frozen=True, eq=False)
class ExactMethod(GaussianMethod):
    """Factorise the whole matrix, for each evaluation."""

    def likelihood(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor, *, gradient: bool
    ) -> Likelihood:
        """Evaluate the log marginal likelihood; see `GaussianMethod`."""
        found = ExactFactor.fit(kernel, points, targets, noise)
        value = found.log_density
        if not gradient:
            return Likelihood(value, {}, 0.0)
        by_kernel, by_noise = found.gradient(kernel, points, 1.0)
        return Likelihood(value, by_kernel, float(by_noise.sum()))

    def posterior(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[ExactFactor, Likelihood]:
        """Condition on the data; see `GaussianMethod`."""
        found = ExactFactor.fit(kernel, points, targets, noise)
        return found, Likelihood(found.log_density, {}, 0.0)


def inverse_from_factor(factor: Tensor) -> Tensor:
    """Invert L L^T; only entries on and above the diagonal are right, and L may be overwritten."""
    if factor.device.type != "cpu" or len(factor) < _SMALL:
        return torch.cholesky_inverse(factor)
    from scipy.linalg import lapack

    # A third of the work of solving for the identity, in place and without a copy where the
    # factor lies column by column, as LAPACK made it.
    inverse, info = lapack.dpotri(  # pyright: ignore[reportAttributeAccessIssue]
        factor.numpy(), lower=1, overwrite_c=1
    )
    assert info == 0  # a factor has no zero on its diagonal
    return torch.from_numpy(inverse).mT


def prior_covariance(inputs: KernelInput, rows: Tensor) -> Tensor:
    """Covariance (m, m) of new rows before any data."""
    if inputs.precomputed:
        return torch.diag(inputs.diag(rows))  # which says what a matrix cannot tell
    return inputs.kernel(inputs.prepare(rows))


def by_blocks(evaluate: Callable[[Tensor], Tensor], rows: Tensor, width: int) -> Tensor:
    """Evaluate something of new rows (m, d) by blocks that hold a few rows of ``width`` numbers."""
    spare = max(config.memory_budget - resident_memory(), 0)
    step = max(1, min(_BLOCK, int(spare / 4 / (8 * 3 * max(width, 1)))))
    return torch.cat([evaluate(block) for block in rows.split(step)])
