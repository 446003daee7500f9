"""Criticality: the initial variances for which depth neither destroys nor amplifies signals."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from ..kernels.dual import dual
from .fluctuation import local_rate, rate_at
from .gaussian_moments import ActivationLike, gaussian_moments
from .root import root
from .susceptibility import check_residual, of_moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROUNDING = 1e-9
_LARGEST = 1e3  # variance up to which a half-stable point is looked for


@final
@dataclass(frozen=True)
class Criticality:
    r"""Critical initial variances of an activation, made by `criticality`.

    Attributes
    ----------
    activation : str
        Its name.
    residual : float
        Factor of the skip connection.
    kind : {"scale-invariant", "zero", "half-stable", "none"}
        The class: every variance is a fixed point (ReLU); the variance falls to zero as a power
        of the depth (tanh); one positive variance is approached from one side only (GELU); no
        choice makes both susceptibilities one (sigmoid).
    w_std, b_std : float
        Standard deviations of weights (times the root of the width) and biases; NaN for "none".
    variance : float
        The critical fixed point of the variance: NaN for "scale-invariant" and "none".
    perpendicular_power : float
        The p of :math:`\chi_\perp \approx 1 - p / l` at layer l: zero but for the class "zero".
    fluctuation_rate : float
        The :math:`\nu` of `finite_width_report`: the relative variance of the squared length
        grows by this, divided by the width, with each layer; with a skip connection and for the
        class "zero", far from the first layer.
    reason : str
        Why there is no critical point, for "none".
    """

    activation: str
    residual: float
    kind: str
    w_std: float
    b_std: float
    variance: float
    perpendicular_power: float = 0.0
    fluctuation_rate: float = math.nan
    reason: str = ""
    _function: ActivationLike = field(default="identity", repr=False, compare=False)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw both susceptibilities over the variance, at the critical weights.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.

        Raises
        ------
        ValueError
            If the activation has no critical point.
        """
        if self.kind == "none":
            raise ValueError(f"activation: {self.activation} has no critical point; {self.reason}")
        ax = axes_or_new(ax)
        middle = self.variance if self.variance > 0 else 1.0
        k = middle * torch.logspace(-2, 2, 161, dtype=torch.float64)
        found = of_moments(gaussian_moments(self._function, k), self.w_std**2, self.residual)
        ax.axhline(1.0, color="0.6", linewidth=1)
        ax.plot(k, found.parallel, color="#0072B2", label="χ∥, norm of one input")
        ax.plot(k, found.perpendicular, "--", color="#D55E00", label="χ⊥, gap of two inputs")
        if self.variance > 0:
            ax.plot(self.variance, 1.0, "o", color="#009E73", label="critical point")
        ax.set_xscale("log")
        ax.set_xlabel("variance K before the activation")
        ax.set_ylabel("susceptibility")
        ax.set_title(f"{self.activation}: σ_w = {self.w_std:.4g}, σ_b = {self.b_std:.4g}")
        ax.legend()
        return ax


def criticality(activation: ActivationLike, residual: float = 0.0) -> Criticality:
    r"""Find the critical initialisation of an activation.

    Layers :math:`z' = b + W f(z) + \gamma z` with :math:`E[b^2] = \sigma_b^2` and
    :math:`E[W^2] = \sigma_w^2 / n` are critical where one variance K of z is a fixed point and
    both `susceptibilities` are one there: then neither the norm of an input, nor the distance of
    two, nor gradients grow or vanish exponentially with depth,

    .. math::
        K = \sigma_b^2 + \sigma_w^2 E[f^2] + \gamma^2 K, \qquad
        \chi_\parallel(K) = \chi_\perp(K) = 1 .

    Since both are one only where :math:`dE[f^2]/dK = E[f'^2]`, this is the root of a function of
    K alone; a skip connection leaves it where it is, and multiplies both variances by
    :math:`1 - \gamma^2`.

    Parameters
    ----------
    activation : str, Module or callable
        The activation f: a name, a module of ``torch.nn`` or an elementwise function.
    residual : float, default 0.0
        The factor :math:`\gamma` of a skip connection, in [0, 1).

    Returns
    -------
    Criticality
        Its class, ``w_std`` and ``b_std`` (as `NTK` and `critical_init_` take them), the fixed
        point and what follows for deep networks.

    Raises
    ------
    TypeError, ValueError
        If the activation is unknown, grows too fast for its means to exist, or ``residual`` is
        not as described.

    References
    ----------
    Roberts, Yaida, Hanin: The Principles of Deep Learning Theory, 2022, arXiv 2106.10165,
    chapter 5.

    Examples
    --------
    >>> from mercer.infinite import criticality
    >>> found = criticality("gelu")
    >>> found.kind, round(found.w_std**2, 8), round(found.b_std**2, 8), round(found.variance, 8)
    ('half-stable', 1.98305826, 0.17292239, 3.56155281)
    >>> found = criticality("tanh")
    >>> found.kind, found.w_std, found.b_std, round(found.perpendicular_power, 6)
    ('zero', 1.0, 0.0, 1.0)
    """
    gamma = check_residual(residual)
    rest = 1 - gamma * gamma
    name = repr(dual(activation).activation)
    slopes = _homogeneous(activation)
    if slopes is not None:
        square = (slopes[0] ** 2 + slopes[1] ** 2) / 2
        if square == 0:
            return _none(activation, name, gamma, "it is zero everywhere")
        rate = local_rate(*slopes, gamma)
        w_std = math.sqrt(rest / square)
        return Criticality(
            name, gamma, "scale-invariant", w_std, 0.0, math.nan, 0.0, rate, "", activation
        )
    near = _near_zero(activation)
    if near is not None:
        slopes, power = near
        w_std = math.sqrt(rest / ((slopes[0] ** 2 + slopes[1] ** 2) / 2))
        # What a layer adds is divided by three, because the variance itself falls as 1/l.
        rate = local_rate(*slopes, gamma) / 3
        return Criticality(name, gamma, "zero", w_std, 0.0, 0.0, power, rate, "", activation)
    return _half_stable(activation, name, gamma)


def _none(activation: ActivationLike, name: str, gamma: float, reason: str) -> Criticality:
    nan = math.nan
    return Criticality(name, gamma, "none", nan, nan, nan, 0.0, nan, reason, activation)


def _values(activation: ActivationLike, z: Tensor) -> Tensor:
    return dual(activation)._sides[0].profile(z)


def _homogeneous(activation: ActivationLike) -> tuple[float, float] | None:
    """Return the slopes on the two sides of zero of a function that is linear on each."""
    z = torch.logspace(-6, 6, 97, dtype=torch.float64)
    ratios = torch.stack([_values(activation, z) / z, -_values(activation, -z) / z])  # (2, 97)
    first = ratios[:, :1]
    if float(_values(activation, z[:1] * 0).abs()) > 0:
        return None
    if bool(((ratios - first).abs() <= 1e-12 * first.abs().amax().clamp(min=1e-300)).all()):
        return float(ratios[0, 48]), float(ratios[1, 48])
    return None


def _near_zero(activation: ActivationLike) -> tuple[tuple[float, float], float] | None:
    """Return slopes beside zero and the power of chi, if a vanishing variance is stable."""
    at_zero = float(_values(activation, torch.zeros(1, dtype=torch.float64)))
    slopes = (
        dual(activation)._sides[0].profile.slope(torch.tensor([1e-60, -1e-60], dtype=torch.float64))
    )
    up, down = slopes.tolist()
    square = (up**2 + down**2) / 2
    if abs(at_zero) > 1e-14 or not 0 < square < math.inf:
        return None
    k = torch.logspace(-6, 2, 33, dtype=torch.float64)
    m = gaussian_moments(activation, k, strict=False)
    lost = 1 - m.second / (square * k)  # of the variance, in one layer
    seen = (lost.abs() > _ROUNDING).nonzero()
    # Never for what is linear over all these variances but is not homogeneous.
    if len(seen) == 0 or float(lost[seen[0, 0]]) < 0 or bool(m.slope.isinf().any()):
        return None
    if float(lost[k <= 1.1e-3].abs().amax()) < _ROUNDING:
        return (up, down), 0.0  # linear near zero: the variance falls slower than any power
    # (1 - chi_perp) / (K d/dK of what is lost) at K -> 0, a series in the root of K.
    x = 0.06 * torch.tensor([1.0, 0.8, 0.65, 0.5, 0.4, 0.3], dtype=torch.float64)
    m = gaussian_moments(activation, x.square())
    t = (square - m.slope) / (m.second / m.variance - m.growth)
    for step in range(1, len(x)):  # Neville's scheme
        t = (x[step:] * t[:-1] - x[:-step] * t[1:]) / (x[step:] - x[:-step])
    return (up, down), float(t)


def _half_stable(activation: ActivationLike, name: str, gamma: float) -> Criticality:
    """Find the variance where both susceptibilities agree, and the variances that go with it."""

    def gap(log_k: float) -> float:
        m = gaussian_moments(activation, math.exp(log_k))
        return float((m.growth - m.slope) / m.slope)

    k = torch.logspace(-4, math.log10(_LARGEST), 85, dtype=torch.float64)
    m = gaussian_moments(activation, k, strict=False)
    apart = (m.growth - m.slope) / m.slope
    if not bool(apart.isfinite().any()):
        reason = "gradients through a jump, or of a function that grows so fast, have no variance"
        return _none(activation, name, gamma, reason)
    crossings = (apart[:-1] * apart[1:] < 0) & (apart[:-1].abs().maximum(apart[1:].abs()) > 1e-8)
    reason = "its two susceptibilities differ at every variance"
    for i in crossings.nonzero().flatten().tolist():
        log_k = root(gap, math.log(k[i]), math.log(k[i + 1]))
        at = gaussian_moments(activation, math.exp(log_k))
        weight = (1 - gamma**2) / float(at.slope)
        bias = (1 - gamma**2) * float(at.variance) - weight * float(at.second)
        if bias >= 0:
            rate = float(rate_at(at, weight, gamma))
            deviations = math.sqrt(weight), math.sqrt(bias)
            k_star = float(at.variance)
            return Criticality(
                name, gamma, "half-stable", *deviations, k_star, 0.0, rate, "", activation
            )
        reason = (
            f"where its susceptibilities agree, at variance {float(at.variance):.3g}, biases "
            "would need a negative variance"
        )
    return _none(activation, name, gamma, reason)
