"""Laplace's approximation of a Gaussian process with labels: its mode, evidence and gradient."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .._core.config import require_memory
from ..kernels import Kernel
from ..kernels.hyperparameter_gradient import hyperparameter_gradient
from .gp_exact import by_blocks
from .kernel_input import KernelInput

_TOLERANCE = 1e-10  # gain of a Newton step under which the mode is found
_STEP = 0.02  # of the sums that integrate the logistic function
_REACH = 8.5


@final
@dataclass(frozen=True, eq=False)
class LaplaceMode:
    r"""The mode of :math:`p(f \mid y)` for labels of two classes and the logistic likelihood.

    Attributes
    ----------
    slope : Tensor of shape (n,)
        :math:`g = \nabla \log p(y \mid f)`, which is :math:`K^{-1} f` at the mode.
    root : Tensor of shape (n,)
        The root of W, the curvature of the likelihood.
    factor : Tensor of shape (n, n)
        Cholesky factor of :math:`B = I + W^{1/2} K W^{1/2}`.
    latent : Tensor of shape (n,)
        f.
    value : float
        The approximate log marginal likelihood.
    iterations : int
        Newton steps.
    """

    slope: Tensor
    root: Tensor
    factor: Tensor
    latent: Tensor
    value: float
    iterations: int

    @classmethod
    def find(
        cls, kernel: Kernel, points: Tensor, labels: Tensor, most: int
    ) -> tuple["LaplaceMode", Tensor]:
        """Find the mode by Newton's method.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        points : Tensor of shape (n, *event)
            Training points, float64.
        labels : Tensor of shape (n,)
            0 or 1, float64.
        most : int
            Newton steps to take at most.

        Returns
        -------
        tuple of LaplaceMode and Tensor
            The mode, and the kernel matrix (n, n).
        """
        n = len(points)
        option = "fit to fewer rows, or use KernelLogisticRegression"
        require_memory(8 * 4 * n * n, f"factors of a kernel matrix {(n, n)}", option)
        with torch.no_grad():
            matrix = kernel(points)
            signs = 2 * labels - 1
            f, before, taken = torch.zeros_like(labels), -math.inf, 0
            while True:
                taken += 1
                p = torch.sigmoid(f)
                root = (p * (1 - p)).sqrt()
                system = root.unsqueeze(-1) * matrix * root
                system.diagonal().add_(1.0)
                factor, failed = torch.linalg.cholesky_ex(system)
                if int(failed):
                    raise ValueError(
                        "X: expected a positive semi-definite kernel matrix, got one of smallest "
                        f"eigenvalue {float(torch.linalg.eigvalsh(matrix)[0]):.3g}"
                    )
                b = root.square() * f + labels - p
                inner = torch.cholesky_solve((root * (matrix @ b)).unsqueeze(-1), factor)
                a = b - root * inner.squeeze(-1)
                f = matrix @ a
                half = factor.diagonal().log().sum()
                value = float(-0.5 * a @ f + logsigmoid(signs * f).sum() - half)
                if value - before < _TOLERANCE or taken == most:
                    break
                before = value
            slope = labels - torch.sigmoid(f)
        return cls(slope, root, factor, f, value, taken), matrix

    def gradient(self, kernel: Kernel, points: Tensor, matrix: Tensor) -> dict[str, Tensor]:
        """Differentiate the value by the parameters of the kernel.

        Everything is the contraction of its derivative with one symmetric matrix, which also
        holds how the mode moves.
        """
        p = torch.sigmoid(self.latent)
        third = p * (1 - p) * (1 - 2 * p)
        half = torch.linalg.solve_triangular(
            self.factor, self.root.unsqueeze(-1) * matrix, upper=False
        )  # (n, n)
        variance = matrix.diagonal() - half.square().sum(0)
        pull = -0.5 * variance * third
        diagonal = torch.diag(self.root)
        inverse = self.root.unsqueeze(-1) * torch.cholesky_solve(diagonal, self.factor)  # R
        moved = pull - inverse @ (matrix @ pull)
        a, g = self.slope, self.slope
        left = torch.stack([0.5 * a, 0.5 * moved, 0.5 * g], 1)
        right = torch.stack([a, g, moved], 1)

        def weights(rows: slice, columns: slice) -> Tensor:
            return (inverse[rows, columns] * -0.5).addmm_(left[rows], right[columns].mT)

        return hyperparameter_gradient(kernel, points, weights)

    def moments(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Mean and variance of f at new rows, (m, 2)."""

        def block(part: Tensor) -> Tensor:
            cross = inputs.cross(part).to_dense()  # (b, n)
            half = torch.linalg.solve_triangular(
                self.factor, (self.root * cross).mT, upper=False
            )  # (n, b)
            variance = inputs.diag(part) - half.square().sum(0)
            return torch.stack([cross @ self.slope, variance.clamp_min(0.0)], -1)

        return by_blocks(block, rows, len(self.factor))


def mean_sigmoid(mean: Tensor, variance: Tensor) -> Tensor:
    r"""Integrate the logistic function against Gaussians, by equally spaced sums.

    They converge geometrically for analytic functions: to ten digits up to a variance of 1000.
    """
    nodes = torch.arange(-_REACH, _REACH + _STEP / 2, _STEP, dtype=mean.dtype, device=mean.device)
    weights = torch.exp(-0.5 * nodes.square())
    weights = weights / weights.sum()
    values = torch.sigmoid(mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * nodes)
    return values @ weights
