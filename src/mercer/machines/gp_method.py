"""What the ways to compute with a Gaussian process have in common: a likelihood, a posterior."""

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..kernels import Kernel
from .kernel_input import KernelInput


class Posterior(abc.ABC):
    """A Gaussian process that has seen data; targets are its, with mean zero before them.

    Abstract.
    """

    @abc.abstractmethod
    def mean(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior mean (m, q) at new rows (m, d)."""

    @abc.abstractmethod
    def variance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior variance (m,) at new rows, without the noise."""

    @abc.abstractmethod
    def covariance(self, inputs: KernelInput, rows: Tensor) -> Tensor:
        """Posterior covariance (m, m) between new rows, without the noise."""


class GaussianMethod(abc.ABC):
    """A way to compute with a Gaussian process.

    Abstract.
    """

    tolerance: ClassVar[float] = 2.2e-9
    """Relative gain of the likelihood under which a search ends."""

    @abc.abstractmethod
    def likelihood(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor, *, gradient: bool
    ) -> "Likelihood":
        """Evaluate the log marginal likelihood, or what stands for it, summed over targets.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        points : Tensor of shape (n, *event)
            Training points, float64.
        targets : Tensor of shape (n, q)
            Their targets.
        noise : Tensor of shape () or (n,)
            Variance of the noise.
        gradient : bool
            Whether to differentiate.

        Returns
        -------
        Likelihood
            The value, and its derivatives.
        """

    @abc.abstractmethod
    def posterior(
        self, kernel: Kernel, points: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Posterior, "Likelihood"]:
        """Condition on the data; return the posterior and the likelihood without gradient."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A log marginal likelihood with its derivatives.

    Attributes
    ----------
    value : float
        The logarithm.
    kernel_gradient : dict of str to Tensor
        Derivatives by the parameters of the kernel, by name; empty if not asked for.
    noise_gradient : float
        Derivative by a variance that is added to the noise of all rows.
    """

    value: float
    kernel_gradient: dict[str, Tensor]
    noise_gradient: float
