"""The Marchenko-Pastur law: eigenvalues of the covariance of as many numbers as measurements."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_real, check_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NODES = 4000


@final
@dataclass(frozen=True)
class MarchenkoPastur:
    r"""The density of the eigenvalues of :math:`X X^\top`, large and of independent numbers.

    X has N rows (parameters) and P columns (samples), entries of variance 1/N, and
    :math:`\alpha = P/N`. Then

    .. math::
        \rho(\lambda) = \frac{\sqrt{(\lambda_+ - \lambda)(\lambda - \lambda_-)}}{2 \pi \lambda}
        \quad \text{on} \quad [\lambda_-, \lambda_+], \qquad
        \lambda_\pm = (\sqrt\alpha \pm 1)^2,

    and a mass of :math:`1 - \alpha` at zero where :math:`\alpha < 1`.

    Parameters
    ----------
    ratio : float
        :math:`\alpha`, samples per parameter; many texts use its inverse.

    Attributes
    ----------
    ratio : float
        The same.

    Raises
    ------
    TypeError
        If the ratio is not a number.
    ValueError
        If it is not above zero.

    References
    ----------
    Marchenko, Pastur, "Distribution of eigenvalues for some sets of random matrices", 1967.

    Examples
    --------
    >>> law = MarchenkoPastur(0.25)
    >>> law.support, law.zero_mass
    ((0.25, 2.25), 0.75)
    >>> round(law.expect(lambda eigenvalue: eigenvalue).item(), 12)
    0.25
    """

    ratio: float

    def __post_init__(self) -> None:
        check_real("ratio", self.ratio, above=0.0)

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the continuous part."""
        root = math.sqrt(self.ratio)
        return (root - 1) ** 2, (root + 1) ** 2

    @property
    def zero_mass(self) -> float:
        """Share of the eigenvalues that are zero: directions in which no sample points."""
        return max(0.0, 1.0 - self.ratio)

    def pdf(self, eigenvalues: Tensor) -> Tensor:
        """Density of the continuous part.

        Parameters
        ----------
        eigenvalues : Tensor of shape (...)
            Where to evaluate it.

        Returns
        -------
        Tensor of shape (...)
            The density, zero outside the support.
        """
        check_tensor("eigenvalues", eigenvalues)
        low, high = self.support
        inside = (eigenvalues > low) & (eigenvalues < high)
        at = torch.where(inside, eigenvalues, (low + high) / 2)
        return torch.where(inside, ((high - at) * (at - low)).sqrt() / (2 * math.pi * at), 0.0)

    def nodes(self, count: int = _NODES) -> tuple[Tensor, Tensor]:
        r"""Nodes and weights that integrate against the continuous part.

        With :math:`\lambda = 1 + \alpha + 2 \sqrt\alpha \cos\theta` the root at the ends cancels,
        and the singularity at zero for a ratio of one; midpoints in the angle then converge faster
        than any power wherever the integrand is smooth.

        Parameters
        ----------
        count : int, default 4000
            Number of nodes.

        Returns
        -------
        tuple of Tensor of shape (count,)
            Eigenvalues and weights, float64; the weights sum to 1 or to the ratio, if less.
        """
        half = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / (2 * count))
        root = math.sqrt(self.ratio)
        # (root - 1)^2 + 4 root cos^2(theta / 2) keeps small eigenvalues to the last digit.
        eigenvalues = (root - 1) ** 2 + 4 * root * half.cos().square()  # (count,)
        sine = 4 * root * half.sin() * half.cos()  # 2 root sin(theta)
        return eigenvalues, sine.square() / (2 * eigenvalues * count)

    def expect(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of a function of the eigenvalues, those at zero included.

        Parameters
        ----------
        function : callable
            From eigenvalues (m,) to values (..., m).

        Returns
        -------
        Tensor of shape (...)
            The mean, float64.
        """
        eigenvalues, weights = self.nodes()
        mean = function(eigenvalues) @ weights
        if self.zero_mass:
            mean = mean + self.zero_mass * function(torch.zeros(1, dtype=torch.float64))[..., 0]
        return mean

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the density, and say what mass lies at zero.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        eigenvalues, _ = self.nodes(400)
        label = f"{self.ratio:g} samples per parameter"
        (line,) = ax.plot(eigenvalues, self.pdf(eigenvalues), label=label)
        if self.zero_mass:
            said = f"mass {self.zero_mass:g} at zero"
            ax.plot([0], [0], "o", color=line.get_color(), label=said, clip_on=False)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("density")
        ax.set_title("Marchenko-Pastur law")
        ax.legend(frameon=False)
        return ax
