"""Phases of a kernel density estimate in many dimensions: average or nearest-neighbour lookup."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_finite, check_int, check_real, check_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOWEST, _HIGHEST = 1e-12, 1e9  # of t times the mean eigenvalue


@final
@dataclass(frozen=True, eq=False)
class KDEPhase:
    r"""What `kde_phase` found.

    Attributes
    ----------
    n : int
        Number of points.
    d : int
        Dimensions.
    bandwidth : float
        The bandwidth h that was asked about.
    alpha : float
        :math:`\log(n) / d`.
    t_c : float
        Inverse squared bandwidth at which the points that matter have become a few.
    h_glass : float
        Below this bandwidth a few nearest points carry everything.
    h_clt : float
        Above it the fluctuations over samples are normal; :math:`\sqrt 2` times ``h_glass``.
    h_opt : float
        The bandwidth of the least Kullback-Leibler divergence; always below ``h_glass``.
    stability_index : float
        :math:`t_c h^2`, the exponent of the tail of the terms that are summed.
    regime : {"clt", "stable", "condensed"}
        Where h lies: above ``h_clt``, between, or below ``h_glass``.
    relative_std : float
        Predicted standard deviation of the estimate over samples, relative to its mean, at a
        typical point; NaN below ``h_clt``, where it is infinite.
    eigenvalues : Tensor of shape (d,)
        Of the covariance of the data.
    """

    n: int
    d: int
    bandwidth: float
    alpha: float
    t_c: float
    h_glass: float
    h_clt: float
    h_opt: float
    stability_index: float
    regime: str
    relative_std: float
    eigenvalues: Tensor

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the divergence from the true law over the bandwidth, with its phases.

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
        low = min(self.h_opt, self.bandwidth) / 2
        high = max(self.h_clt, self.bandwidth) * 1.6
        h = torch.logspace(math.log10(low), math.log10(high), 200, dtype=torch.float64)
        edges = (low, self.h_glass, self.h_clt, high)
        names = ("a few nearest points", "no variance", "an average")
        shades = ("#0072B2", "#E69F00", "#009E73")
        for a, b, name, shade in zip(edges, edges[1:], names, shades, strict=False):
            ax.axvspan(a, b, color=shade, alpha=0.15, linewidth=0, label=name)
        ax.plot(h, self._divergence(h), color="#333333")
        ax.plot(
            self.h_opt,
            float(self._divergence(torch.tensor([self.h_opt]))),
            "o",
            color="#0072B2",
            label=f"best, h = {self.h_opt:.3g}",
        )
        ax.axvline(
            self.bandwidth,
            color="#D55E00",
            linestyle="--",
            label=f"asked, h = {self.bandwidth:.3g}",
        )
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.set_xlabel("bandwidth h")
        ax.set_ylabel("divergence per dimension (nats)")
        ax.set_title(f"Density from {self.n:,} points in {self.d} dimensions")
        ax.legend(frameon=False, fontsize="small")
        return ax

    def _divergence(self, h: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the estimate from a normal law, for each dimension."""
        s = self.eigenvalues
        entropy = float((2 * math.pi * math.e * s).log().mean()) / 2
        typical = _log_density(h.double(), s, self.alpha, self.t_c)
        return -entropy - typical


def kde_phase(n: int, spectrum: int | Tensor, bandwidth: float) -> KDEPhase:
    r"""Say whether a Gaussian density estimate is an average or a lookup of the nearest points.

    For n points of a normal law in d dimensions, with eigenvalues :math:`s_k` of its covariance
    and :math:`\alpha = \log(n) / d`, both large, the number of points that carry the estimate at
    :math:`h = t^{-1/2}` is :math:`e^{d S(t)}` with

    .. math:: S(t) = \alpha - \frac{1}{2d} \sum_k \left[ \log(1 + t s_k)
        - \frac{t s_k}{(1 + t s_k)^2} \right],

    which vanishes at :math:`t_c`: below :math:`h_G = t_c^{-1/2}` a few nearest points are all
    there is, below :math:`\sqrt 2 \, h_G` the estimate has no variance, and only above that its
    fluctuations are normal and small. The best bandwidth lies below :math:`h_G`,

    .. math:: h_{\mathrm{opt}}^2 = \frac{1}{d} \sum_k \left[ \frac{s_k}{1 + t_c s_k}
        + \frac{s_k}{(1 + t_c s_k)^2} \right],

    the squared distance of the nearest point divided by d. Finite dimensions move these numbers:
    by 10 to 20 % at d = 40.

    Parameters
    ----------
    n : int
        Number of points, at least 2.
    spectrum : int or Tensor of shape (d,)
        Eigenvalues of the covariance of the data; an integer is d, and means whitened data.
    bandwidth : float
        h.

    Returns
    -------
    KDEPhase
        Thresholds, regime and predicted fluctuations; it can be plotted.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If n is below 2, an eigenvalue or the bandwidth is not positive, or there are so many
        points for the dimensions that no threshold exists.

    References
    ----------
    Biroli, Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.

    Examples
    --------
    >>> from mercer.machines import kde_phase
    >>> found = kde_phase(3000, 20, bandwidth=0.7)
    >>> found.regime, round(found.h_glass, 3), round(found.h_opt, 3)
    ('condensed', 0.745, 0.696)
    """
    n = check_int("n", n, least=2)
    h = check_real("bandwidth", bandwidth, above=0.0)
    s = _spectrum(spectrum)
    d = len(s)
    alpha = math.log(n) / d
    t = _condensation(alpha, s)
    glass = t**-0.5
    index = t * h * h
    regime = "clt" if index > 2 else "stable" if index > 1 else "condensed"
    std = math.nan
    if regime == "clt":
        exponent = d * (float(annealed(2 / h**2, s)) - 2 * float(annealed(1 / h**2, s)))
        std = math.sqrt(math.expm1(exponent) / n) if exponent < 700 else math.inf
    return KDEPhase(
        n=n,
        d=d,
        bandwidth=h,
        alpha=alpha,
        t_c=t,
        h_glass=glass,
        h_clt=2**0.5 * glass,
        h_opt=math.sqrt(2 * _energy(t, s)),
        stability_index=index,
        regime=regime,
        relative_std=std,
        eigenvalues=s,
    )


def kde_log_density_prediction(n: int, spectrum: int | Tensor, bandwidth: float | Tensor) -> Tensor:
    r"""Predict the logarithm of a Gaussian density estimate at a typical point of a normal law.

    .. math:: \log \hat\rho_h(x) \approx -\frac d2 \log(2 \pi h^2) + d
        \begin{cases} \varphi(1 / h^2) & h \ge h_G \\ -\alpha - e_* / h^2 & h < h_G \end{cases}

    with :math:`\varphi(t) = -\frac{1}{2d} \sum_k [\log(1 + t s_k) + t s_k / (1 + t s_k)]` and
    :math:`2 e_* = h_{\mathrm{opt}}^2` of `kde_phase`; continuous at :math:`h_G`.

    Parameters
    ----------
    n : int
        Number of points, at least 2.
    spectrum : int or Tensor of shape (d,)
        Eigenvalues of the covariance of the data; an integer is d, and means whitened data.
    bandwidth : float or Tensor
        h, of any shape.

    Returns
    -------
    Tensor of the bandwidth's shape
        Log-densities, float64; divide by d to compare dimensions.

    Raises
    ------
    TypeError, ValueError
        As `kde_phase`.

    References
    ----------
    Biroli, Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.

    Examples
    --------
    >>> from mercer.machines import kde_log_density_prediction
    >>> kde_log_density_prediction(50_000, 30, 1.5)
    tensor(-49.8634, dtype=torch.float64)
    """
    n = check_int("n", n, least=2)
    s = _spectrum(spectrum)
    if isinstance(bandwidth, Tensor):
        check_finite("bandwidth", check_tensor("bandwidth", bandwidth))
        h = bandwidth.detach().double().to(s.device)
        if bool((h <= 0).any()):
            raise ValueError(f"bandwidth: expected numbers > 0, got {float(h.min()):.3g}")
    else:
        h = s.new_tensor(check_real("bandwidth", bandwidth, above=0.0))
    alpha = math.log(n) / len(s)
    return len(s) * _log_density(h, s, alpha, _condensation(alpha, s))


def annealed(t: float | Tensor, eigenvalues: Tensor) -> Tensor:
    """Exponent of the mean of exp(-t |x - y|^2 / 2) at a typical x, for each dimension."""
    u = torch.as_tensor(t, dtype=torch.float64).unsqueeze(-1) * eigenvalues
    return -(torch.log1p(u) + u / (1 + u)).mean(-1) / 2


def entropy(t: float | Tensor, eigenvalues: Tensor, alpha: float) -> Tensor:
    """Logarithm of the number of points that matter, S(t), for each dimension."""
    u = torch.as_tensor(t, dtype=torch.float64).unsqueeze(-1) * eigenvalues
    return alpha - (torch.log1p(u) - u / (1 + u).square()).mean(-1) / 2


def _spectrum(spectrum: int | Tensor) -> Tensor:
    if isinstance(spectrum, Tensor):
        s = check_tensor("spectrum", spectrum, ndim=1).detach().double()
        check_finite("spectrum", s)
        if len(s) == 0 or bool((s <= 0).any()):
            raise ValueError(
                "spectrum: expected at least one eigenvalue, all > 0 (drop constant directions), "
                f"got {int((s <= 0).sum())} of {len(s)} at or below zero"
            )
        return s
    return torch.ones(check_int("spectrum", spectrum), dtype=torch.float64)


def _condensation(alpha: float, s: Tensor) -> float:
    """Find t_c, where the entropy vanishes, by bisection of its logarithm."""
    mean = float(s.mean())
    low, high = math.log(_LOWEST / mean), math.log(_HIGHEST / mean)
    if float(entropy(math.exp(low), s, alpha)) < 0 or float(entropy(math.exp(high), s, alpha)) > 0:
        raise ValueError(
            f"n: log(n) / d = {alpha:.3g} gives no threshold; these numbers are for many "
            "dimensions, where it is of order one"
        )
    for _ in range(200):
        middle = (low + high) / 2
        if float(entropy(math.exp(middle), s, alpha)) > 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _energy(t: float, s: Tensor) -> float:
    """Half of the nearest squared distance for each dimension, minus the slope of `annealed`."""
    v = 1 / (1 + t * s)
    return float((s * v + s * v * v).mean()) / 2


def _log_density(h: Tensor, s: Tensor, alpha: float, t_c: float) -> Tensor:
    """Typical log-density for each dimension."""
    square = h.square()
    warm = annealed(1 / square, s)
    cold = -alpha - _energy(t_c, s) / square
    return torch.where(square * t_c >= 1, warm, cold) - (2 * math.pi * square).log() / 2
