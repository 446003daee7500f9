"""Power laws of a kernel's spectrum and of a target on it, and what they say of learning."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_finite, check_int, check_tensor
from .learning_curve_risk import KernelRisk

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS, _LEAST_BINS, _STEPS = 24, 4, 100


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fit ``values[i - 1] = scale * i^(-exponent)`` over a range of indices that start at 1.

    Attributes
    ----------
    exponent : float
        How fast the values fall.
    error : float
        Its standard error, from the scatter of the bins about the line.
    scale : float
        The value of the line at index 1.
    first, last : int
        The range that was used, both ends included.
    values : Tensor of shape (n,)
        What was fitted.
    """

    exponent: float
    error: float
    scale: float
    first: int
    last: int
    values: Tensor

    def plot(self, ax: "Axes | None" = None, label: str = "values") -> "Axes":
        """Draw the values and the line over its range.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        label : str, default "values"
            What the values are.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        shown = self.values > 0
        index = torch.arange(1, len(self.values) + 1)
        (dots,) = ax.loglog(index[shown], self.values[shown], ".", ms=2, alpha=0.5, label=label)
        ends = torch.tensor([self.first, self.last], dtype=torch.float64)
        said = f"exponent {self.exponent:.2f} ± {self.error:.2f}"
        line = self.scale * ends**-self.exponent
        ax.loglog(ends, line, color=dots.get_color(), lw=2, label=said)
        ax.set_xlabel("index")
        ax.set_ylabel("value")
        ax.set_title("Power law")
        ax.legend(frameon=False)
        return ax


@dataclass(frozen=True, eq=False)
class PowerLaws:
    r"""The power laws :math:`\lambda_i \sim i^{-a}` and :math:`v_i^2 \sim i^{-b}` of a task.

    Attributes
    ----------
    spectrum : PowerLaw
        Of the eigenvalues, exponent a.
    target : PowerLaw
        Of the target's power on each eigenfunction, exponent b.
    """

    spectrum: PowerLaw
    target: PowerLaw

    @property
    def learning_rate(self) -> float:
        """Exponent at which the error falls with samples, without noise: min(b - 1, 2 a)."""
        return min(self.target.exponent - 1, 2 * self.spectrum.exponent)

    @property
    def optimal_fitting_ratio(self) -> float:
        """Train over test risk at the best ridge, many samples, no noise.

        The square of max(0, (a - b) / (b (a - 1))): zero, so that interpolating is best, where
        b >= a.
        """
        a, b = self.spectrum.exponent, self.target.exponent
        if not (a > 1 and b > 1):
            return math.nan
        return max(0.0, (a - b) / (b * (a - 1))) ** 2

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw both with their lines.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = self.target.plot(self.spectrum.plot(ax, "eigenvalues"), "power of the target")
        ax.set_title("Power laws of a task")
        return ax


def fit_power_law(values: Tensor, *, first: int = 10, last: int | None = None) -> PowerLaw:
    """Fit a power of the index to a falling sequence.

    The values are averaged in bins of equal width in the logarithm of the index, and the law is
    fitted to the means with equal relative weights: single values scatter, and those of a spectrum
    are not independent.

    Parameters
    ----------
    values : Tensor of shape (n,)
        Not negative, and positive on average in every bin; the first has index 1.
    first : int, default 10
        First index used: the head rarely follows the law.
    last : int, optional
        Last index used; an eighth of the values by default, beyond which the eigenvalues of a Gram
        matrix and the target on them are biased.

    Returns
    -------
    PowerLaw
        Exponent, its standard error, and the range.

    Raises
    ------
    TypeError
        If values are not a floating-point tensor.
    ValueError
        If the range holds fewer than four bins, or a bin holds no positive value.

    Examples
    --------
    >>> import torch
    >>> i = torch.arange(1, 2001, dtype=torch.float64)
    >>> found = fit_power_law(3 * i**-1.5)
    >>> round(found.exponent, 3), found.first, found.last
    (1.5, 10, 250)
    """
    check_tensor("values", values, ndim=1)
    check_finite("values", values)
    n = len(values)
    first = check_int("first", first)
    last = max(n // 8, min(first + 15, n)) if last is None else check_int("last", last)
    if last > n:
        raise ValueError(f"last: expected at most the {n} values, got {last}")
    numbers = values.detach().double()
    edges = torch.logspace(math.log10(first), math.log10(last + 1), _BINS + 1, dtype=torch.float64)
    cuts = edges.round().long().unique() if first <= last else torch.zeros(1)
    if len(cuts) - 1 < _LEAST_BINS:
        raise ValueError(f"first, last: expected a longer range, got {first} to {last} of {n}")
    means = torch.stack([numbers[a - 1 : b - 1].mean() for a, b in pairwise(cuts.tolist())])
    if float(numbers[first - 1 : last].min()) < 0 or float(means.min()) <= 0:
        raise ValueError(f"values: expected positive numbers from index {first} to {last}")
    exponent, offset, error = _fit(cuts, means)
    return PowerLaw(exponent, error, math.exp(offset), first, last, numbers)


def _fit(cuts: Tensor, means: Tensor) -> tuple[float, float, float]:
    """Solve sum_b (mean_b / model_b - 1) d log(model_b) = 0; return exponent, offset, error.

    The equation holds on average whatever the values' scatter about the law; a line through
    logarithms would be drawn down by it. The error is the sandwich of the bins' own residuals.
    """
    bins = [torch.arange(a, b, dtype=torch.float64) for a, b in pairwise(cuts.tolist())]
    middle = torch.stack([index.log().mean() for index in bins])
    line = torch.stack([torch.ones_like(middle), -middle], 1)  # (bins, 2)
    law = torch.linalg.lstsq(line, means.log()[:, None]).solution[:, 0]  # offset, exponent
    for _ in range(_STEPS):
        z, left = _residuals(bins, means, law)
        step = torch.linalg.lstsq(z, left[:, None]).solution[:, 0].clamp(-0.5, 0.5)
        law = law + step
        if float(step.abs().max()) < 1e-12:
            break
    z, left = _residuals(bins, means, law)
    inverse = torch.linalg.inv(z.mT @ z)
    lever = ((z @ inverse) * z).sum(1)  # a bin that draws the line to itself has small residuals
    scaled = z * (left / (1 - lever))[:, None]
    error = float((inverse @ (scaled.mT @ scaled) @ inverse)[1, 1].sqrt())
    return float(law[1]), float(law[0]), error


def _residuals(bins: list[Tensor], means: Tensor, law: Tensor) -> tuple[Tensor, Tensor]:
    """Return d log(model) / d law, (bins, 2), and mean / model - 1, (bins,)."""
    powers = [index ** -law[1] for index in bins]
    model = law[0].exp() * torch.stack([power.mean() for power in powers])
    slope = [-(p * i.log()).sum() / p.sum() for p, i in zip(powers, bins, strict=True)]
    return torch.stack([torch.ones_like(model), torch.stack(slope)], 1), means / model - 1


def fit_power_laws(risk: KernelRisk, *, first: int = 10, last: int | None = None) -> PowerLaws:
    r"""Fit the exponents of a kernel's spectrum and of a target on its eigenfunctions.

    They decide how fast the error of ridge regression falls with samples, and whether a perfect fit
    of the training data is best.

    Parameters
    ----------
    risk : KernelRisk
        What holds spectrum and target.
    first, last : int, optional
        Range of indices, see `fit_power_law`.

    Returns
    -------
    PowerLaws
        Both fits.

    Raises
    ------
    TypeError
        If the first argument is not a `KernelRisk`.
    ValueError
        If the range is too short.

    References
    ----------
    Simon, Karkada, Ghosh, Belkin, "More is better in modern machine learning", ICLR 2024,
    arXiv 2311.14646.

    Examples
    --------
    >>> import torch
    >>> i = torch.arange(1, 2001, dtype=torch.float64)
    >>> laws = fit_power_laws(KernelRisk.from_spectrum(i**-2, i**-0.75))
    >>> round(laws.target.exponent, 3), round(laws.optimal_fitting_ratio, 3)
    (1.5, 0.111)
    """
    if not isinstance(risk, KernelRisk):
        raise TypeError(f"risk: expected a KernelRisk, got {type(risk).__name__}")
    spectrum = fit_power_law(risk.eigenvalues, first=first, last=last)
    return PowerLaws(spectrum, fit_power_law(risk.power, first=first, last=last))
