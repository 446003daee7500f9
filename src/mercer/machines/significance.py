"""What a test of samples by kernels found."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_real

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, eq=False)
class SampleTest:
    """A test by kernels, made by `mmd_test` and `hsic_test`.

    Attributes
    ----------
    name : str
        The statistic's name.
    statistic : float
        Its value for the samples as they are.
    p_value : float
        The share of values at least as large under the hypothesis; small speaks against it.
    method : {"permutation", "gamma"}
        Where the distribution under the hypothesis comes from.
    null : Tensor of shape (permutations,)
        Statistics of permuted samples; empty for ``"gamma"``.
    mean, std : float
        Of the statistic under the hypothesis: exact over all permutations for ``"gamma"``, and
        of ``null`` otherwise.
    """

    name: str
    statistic: float
    p_value: float
    method: str
    null: Tensor
    mean: float
    std: float

    def plot(self, ax: "Axes | None" = None, *, level: float = 0.05) -> "Axes":
        """Draw the distribution under the hypothesis, its critical value and the statistic.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        level : float, default 0.05
            The share of the distribution beyond the critical value.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        level = check_real("level", level, above=0.0, most=1.0)
        ax = axes_or_new(ax)
        line, accent = "#0072B2", "#D55E00"
        if len(self.null):
            values = self.null.cpu()
            # As an array: matplotlib's histograms do not know tensors.
            bins = max(10, min(40, len(values) // 15))
            ax.hist(values.numpy(), bins=bins, density=True, color=line, alpha=0.55, label="null")
            rank = min(len(values), math.ceil((1 - level) * (len(values) + 1)))
            critical = float(values.sort().values[rank - 1])
        else:
            shape, scale = _gamma_of(self.mean, self.std)
            top = max(self.mean + 6 * self.std, 1.1 * self.statistic)
            x = torch.linspace(0, top, 1001, dtype=torch.float64)[1:]
            log = (shape - 1) * (x / scale).log() - x / scale - math.lgamma(shape)
            label = "null, gamma of the exact mean and variance"
            ax.plot(x.numpy(), (log.exp() / scale).numpy(), color=line, label=label)
            below = torch.special.gammainc(torch.full_like(x, shape), x / scale) < 1 - level
            critical = float(x[min(int(below.sum()), len(x) - 1)])
        ax.axvline(critical, color=line, linestyle="--", label=f"critical value, level {level:g}")
        label = f"statistic, p = {self.p_value:.3g}"
        ax.axvline(self.statistic, color=accent, linewidth=2, label=label)
        ax.set_xlabel(self.name)
        ax.set_ylabel("density")
        ax.legend()
        return ax


def permutation_test(name: str, observed: Tensor, null: Tensor, *, scale: float) -> SampleTest:
    """Rank a statistic among those of permutations, itself counted as one of them.

    Parameters
    ----------
    name : str
        The statistic's name.
    observed : Tensor of shape ()
        The statistic.
    null : Tensor of shape (permutations,)
        Those of permutations.
    scale : float
        Size of the terms that the statistic sums: differences of rounding count as ties, which
        speak for the hypothesis.

    Returns
    -------
    SampleTest
        The test.
    """
    ties = 1e-12 * abs(scale)
    above = int((null >= observed - ties).sum())
    spread = float(null.std()) if len(null) > 1 else 0.0
    return SampleTest(
        name=name,
        statistic=float(observed),
        p_value=(1 + above) / (1 + len(null)),
        method="permutation",
        null=null,
        mean=float(null.mean()),
        std=spread,
    )


def gamma_test(name: str, observed: float, mean: float, variance: float) -> SampleTest:
    """Compare a statistic with the gamma distribution of given mean and variance."""
    p_value = 1.0
    if mean > 0 and variance > 0:
        shape, scale = _gamma_of(mean, math.sqrt(variance))
        tail = torch.tensor([shape, max(observed, 0.0) / scale], dtype=torch.float64)
        p_value = float(torch.special.gammaincc(tail[0], tail[1]))
    return SampleTest(
        name=name,
        statistic=observed,
        p_value=p_value,
        method="gamma",
        null=torch.empty(0, dtype=torch.float64),
        mean=mean,
        std=math.sqrt(max(variance, 0.0)),
    )


def _gamma_of(mean: float, std: float) -> tuple[float, float]:
    """Return shape and scale of a gamma distribution."""
    tiny = 1e-300
    return mean**2 / max(std**2, tiny), std**2 / max(mean, tiny)
