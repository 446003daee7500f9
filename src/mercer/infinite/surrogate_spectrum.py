"""Eigenvalues of a kernel matrix that is not symmetric: whether training with it converges."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class SurrogateSpectrum:
    r"""Eigenvalues of a surrogate-gradient kernel matrix, made by `SurrogateNTK.spectrum`.

    The flow :math:`\dot f = -\eta I (f - y) / n` converges if and only if they all have positive
    real part; those that are not real make it turn on its way.

    Attributes
    ----------
    eigenvalues : Tensor of shape (n,)
        Complex, the largest real part first.
    least_real_part : float
        The smallest real part.
    rounding : float
        What counts as zero: n eps times the largest modulus.
    """

    eigenvalues: Tensor
    least_real_part: float
    rounding: float

    @classmethod
    def of(cls, matrix: Tensor) -> "SurrogateSpectrum":
        """Compute it from a matrix (n, n) in float64."""
        values = torch.linalg.eigvals(matrix)
        values = values[values.real.argsort(descending=True)]
        rounding = len(matrix) * torch.finfo(torch.float64).eps * float(values.abs().max())
        return cls(values, float(values.real[-1]), rounding)

    @property
    def converges(self) -> bool:
        """Whether the flow converges: all real parts are positive, beyond rounding."""
        return self.least_real_part > self.rounding

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the eigenvalues in the complex plane.

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
        values = self.eigenvalues.cpu()
        good = values.real > self.rounding
        for mask, color, marker, label in (
            (good, "#0072B2", "o", "decays"),
            (~good, "#D55E00", "x", "does not decay"),
        ):
            if bool(mask.any()):
                part = values[mask]
                ax.plot(part.real, part.imag, marker, color=color, label=label)
        ax.axvline(0.0, color="0.5", linewidth=1)
        ax.set_xlabel("real part")
        ax.set_ylabel("imaginary part")
        verdict = "converges" if self.converges else "does not converge"
        ax.set_title(f"Eigenvalues of the surrogate-gradient kernel: training {verdict}")
        ax.legend()
        return ax
