"""The density of a large matrix's eigenvalues, by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_int, check_real
from .._core.counter import RandomSource
from .lanczos import Operator
from .stochastic_lanczos import StochasticEstimate, quadratures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, eq=False)
class SpectralDensity:
    r"""The eigenvalues of a large matrix as a density, made by `spectral_density`.

    Attributes
    ----------
    grid : Tensor of shape (num_points,)
        Eigenvalues, float64; evenly spaced, or their logarithms where ``log`` is true.
    density : Tensor of shape (num_points,)
        Share of eigenvalues per unit, or per decade (factor of ten) where ``log`` is true.
    standard_error : Tensor of shape (num_points,)
        Of the density, from the spread of the probes.
    nodes, weights : Tensor of shape (num_probes, steps)
        The quadrature of each probe; the weights of a probe add up to 1.
    size : int
        n.
    log : bool
        Whether eigenvalues are spread out by their logarithms.
    """

    grid: Tensor
    density: Tensor
    standard_error: Tensor
    nodes: Tensor
    weights: Tensor
    size: int
    log: bool

    def count(self, low: float, high: float) -> StochasticEstimate:
        """Estimate how many eigenvalues lie in the interval [low, high].

        Parameters
        ----------
        low, high : float
            The interval; either may be infinite.

        Returns
        -------
        StochasticEstimate
            The number, between 0 and n. Its standard error knows of the probes' spread only:
            what lies within a few Ritz values of the borders may fall on either side.
        """
        inside = (self.nodes >= low) & (self.nodes <= high)  # (s, m)
        return StochasticEstimate.of(self.size * (self.weights * inside).sum(-1))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the density with a band of two standard errors.

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
        spread = 2 * self.standard_error
        low, high = (self.density - spread).clamp_min(0.0), self.density + spread
        ax.fill_between(self.grid, low, high, color="#0072B2", alpha=0.25, lw=0)
        ax.plot(self.grid, self.density, color="#0072B2", label="stochastic Lanczos")
        if self.log:
            ax.set_xscale("log")
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("share of eigenvalues" + (" per decade" if self.log else " per unit"))
        ax.set_title("Spectral density")
        return ax


@torch.no_grad()
def spectral_density(
    matvec: Operator,
    size: int,
    *,
    num_probes: int = 16,
    steps: int = 60,
    num_points: int = 400,
    width: float | None = None,
    log: bool = False,
    probes: str = "rademacher",
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> SpectralDensity:
    r"""Estimate the density of the eigenvalues of a symmetric matrix.

    .. math::
        \phi(t) = \frac{1}{n} \sum_{i=1}^n g_\sigma(t - \lambda_i)
            \approx \frac{1}{s} \sum_{l=1}^s \sum_k w_{lk} \, g_\sigma(t - \theta_{lk})

    with a Gaussian of width :math:`\sigma` in place of each eigenvalue. Ends of the spectrum and
    eigenvalues that stand apart are resolved first; within a bulk the Ritz values are wider
    apart than the eigenvalues, and a narrow width would show them one by one.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, s) to A times them.
    size : int
        n.
    num_probes : int, default 16
        How many random vectors.
    steps : int, default 60
        Products for each; where n is smaller, that.
    num_points : int, default 400
        Points of the grid, which covers all Ritz values and three widths more.
    width : float, optional
        :math:`\sigma`; by default 1/30 of the range of the Ritz values, or 0.15 decades.
    log : bool, default False
        Whether to take the density of the decadic logarithms, as suits the spectrum of a kernel
        matrix. Ritz values at the rounding of the largest, or below zero, count as that.
    probes : {"rademacher", "gaussian"}
        Distribution of the random vectors.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the probes come from; None is torch's default generator.
    device : torch.device or str, optional
        Of the vectors that ``matvec`` is given.
    dtype : torch.dtype, default float64
        Of these vectors.

    Returns
    -------
    SpectralDensity
        The density with its standard error, and the quadratures it comes from.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is out of range, or all eigenvalues are the same and no
        width is given.

    References
    ----------
    Lin, Saad, Yang, "Approximating spectral densities of large matrices", SIAM Review 58 (2016),
    arXiv 1308.5467.

    Ghorbani, Krishnan, Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019, arXiv 1901.10159.

    Examples
    --------
    >>> import torch
    >>> a = torch.diag(torch.cat([torch.linspace(0, 1, 90), torch.full((10,), 4.0)]).double())
    >>> found = spectral_density(lambda v: a @ v, 100, generator=0)
    >>> round(torch.trapezoid(found.density, found.grid).item(), 2)
    1.0
    >>> round(found.count(3, 5).value, 6)
    10.0
    """
    count = check_int("num_points", num_points, least=2)
    n = check_int("size", size)
    if width is not None:
        width = check_real("width", width, above=0.0)
    steps = min(check_int("steps", steps), n)
    found = list(quadratures(matvec, n, num_probes, steps, probes, generator, device, dtype))
    nodes = torch.cat([part[0] for part in found])  # (s, m)
    weights = torch.cat([part[1] for part in found]) / n
    weights = weights / weights.sum(-1, keepdim=True)
    places = nodes
    if log:
        largest = float(nodes.max())
        if largest <= 0:
            raise ValueError(f"log: expected a positive eigenvalue, got at most {largest:.3g}")
        places = nodes.clamp_min(n * torch.finfo(dtype).eps * largest).log10()
    low, high = float(places.min()), float(places.max())
    if width is None:
        width = 0.15 if log else (high - low) / 30
        if width == 0.0:
            raise ValueError(f"width: expected one, as all Ritz values are {low:.6g}, got None")
    grid = torch.linspace(
        low - 3 * width, high + 3 * width, count, dtype=torch.float64, device=nodes.device
    )
    each = []
    for node, weight in zip(places, weights, strict=True):  # (m,)
        gaps = (grid.unsqueeze(-1) - node) / width  # (p, m)
        each.append(torch.exp(-gaps.square() / 2) @ weight / (width * math.sqrt(2 * math.pi)))
    curves = torch.stack(each)  # (s, p)
    s = len(curves)
    error = curves.std(0) / s**0.5 if s > 1 else torch.full_like(grid, math.nan)
    return SpectralDensity(
        grid=10**grid if log else grid,
        density=curves.mean(0),
        standard_error=error,
        nodes=nodes,
        weights=weights,
        size=n,
        log=log,
    )
