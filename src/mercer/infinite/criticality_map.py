"""The plane of initial variances, with order on one side of a line and chaos on the other."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_tensor
from .criticality import criticality
from .gaussian_moments import ActivationLike, GaussianMoments, gaussian_moments
from .susceptibility import check_residual

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = (-12, 4)  # of the variance
_NODES = 801
_LAYERS = 3000


@final
@dataclass(frozen=True, eq=False)
class CriticalityMap:
    """Susceptibilities over the plane of weight and bias deviations, made by `criticality_map`.

    Attributes
    ----------
    activation : str
        Its name.
    w_std : Tensor of shape (n,)
        Deviations of the weights, times the root of the width.
    b_std : Tensor of shape (m,)
        Deviations of the biases.
    variance : Tensor of shape (m, n)
        The fixed point of the variance; infinite where it passes 1e4.
    parallel, perpendicular : Tensor of shape (m, n)
        Susceptibilities there.
    edge : Tensor of shape (p, 2)
        Points (w_std, b_std) of the line on which gradients neither explode nor vanish and the
        variance settles; NaN parts its pieces.
    critical : tuple of float
        The point (w_std, b_std) of `criticality`; NaN where there is none.
    """

    activation: str
    w_std: Tensor
    b_std: Tensor
    variance: Tensor
    parallel: Tensor
    perpendicular: Tensor
    edge: Tensor
    critical: tuple[float, float]

    def plot(self, ax: "Axes | None" = None, *, what: str = "perpendicular") -> "Axes":
        """Draw a susceptibility over the plane, with the edge of chaos and the critical point.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        what : {"perpendicular", "parallel"}
            Which susceptibility.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        check_choice("what", what, ("perpendicular", "parallel"))
        ax = axes_or_new(ax, (5.6, 4.2))
        values = getattr(self, what)
        top = min(2.0, float(values[values.isfinite()].amax()))
        # As arrays: matplotlib copies its axes by a keyword that tensors do not know.
        axes, edge = (self.w_std.numpy(), self.b_std.numpy()), self.edge.T.numpy()
        image = ax.pcolormesh(
            *axes, values.numpy(), cmap="viridis", vmin=0, vmax=top, shading="nearest"
        )
        sign = {"perpendicular": "χ⊥", "parallel": "χ∥"}[what]
        label = f"{sign} at the fixed point of the variance"
        ax.get_figure(root=True).colorbar(  # pyright: ignore[reportOptionalMemberAccess]
            image, ax=ax, label=label, extend="max" if float(values.amax()) > top else "neither"
        )
        ax.plot(*edge, color="white", linewidth=3.4)
        ax.plot(*edge, color="#D55E00", linewidth=1.8, label="edge of chaos, χ⊥ = 1")
        if math.isfinite(self.critical[0]):
            ax.plot(
                *self.critical,
                "o",
                color="white",
                markeredgecolor="#D55E00",
                markeredgewidth=1.8,
                markersize=8,
                label="critical point, χ∥ = χ⊥ = 1",
                clip_on=False,
                zorder=5,
            )
        ax.set_xlim(float(self.w_std.min()), float(self.w_std.max()))
        ax.set_ylim(float(self.b_std.min()), float(self.b_std.max()))
        ax.set_xlabel("σ_w, deviation of the weights × √width")
        ax.set_ylabel("σ_b, deviation of the biases")
        ax.set_title(f"Order and chaos: {self.activation}")
        ax.legend(loc="upper left", framealpha=0.9)
        return ax


def criticality_map(
    activation: ActivationLike,
    w_std: Tensor | None = None,
    b_std: Tensor | None = None,
    residual: float = 0.0,
    *,
    variance: float = 1.0,
) -> CriticalityMap:
    r"""Map the susceptibilities of an activation over the plane of initial deviations.

    At each point the variance is taken through the layers until it settles; the susceptibilities
    are those there. Left of the edge of chaos close inputs become equal and gradients vanish, right
    of it close inputs part and gradients explode. Where the variance has two stable fixed points
    (GELU, for small biases) it depends on its start which is reached: the map jumps there, and
    has no edge.

    Parameters
    ----------
    activation : str, Module or callable
        The activation f.
    w_std, b_std : Tensor of shape (n,) and (m,), optional
        The axes of the plane; by default 81 points, from half to twice the smallest weights at
        the edge of chaos, and from 0 to 1.
    residual : float, default 0.0
        The factor :math:`\gamma` of a skip connection, in [0, 1).
    variance : float, default 1.0
        The variance in the first layer.

    Returns
    -------
    CriticalityMap
        The map, with `CriticalityMap.plot`. Means are interpolated between 801 variances from
        1e-12 to 1e4, with an error of about 1e-8.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the activation grows so fast that its means do not
        exist.

    References
    ----------
    Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli: Exponential expressivity in deep neural
    networks through transient chaos, 2016, arXiv 1606.05340.

    Examples
    --------
    >>> import torch
    >>> from mercer.infinite import criticality_map
    >>> found = criticality_map("tanh", torch.tensor([1.0, 2.0]), torch.tensor([0.3]))
    >>> found.perpendicular.round(decimals=3)
    tensor([[0.7000, 1.3270]], dtype=torch.float64)
    """
    gamma = check_residual(residual)
    found = criticality(activation, gamma)
    b = torch.linspace(0, 1, 81, dtype=torch.float64) if b_std is None else _axis("b_std", b_std)
    low, high = (d * math.log(10) for d in _DECADES)
    log_k = torch.linspace(low, high, _NODES, dtype=torch.float64)
    m = gaussian_moments(activation, log_k.exp(), strict=False)
    if not bool(m.slope[log_k < math.log(100)].isfinite().all()):
        raise ValueError(
            f"activation: gradients of {found.activation} have no variance; it jumps or grows "
            "too fast"
        )
    upright = found.w_std if found.kind == "scale-invariant" else None
    edge = _edge(m, upright, gamma, b)
    if w_std is None:
        seen = edge[edge[:, 0].isfinite() & (edge[:, 1] <= b.max()), 0]
        middle = float(seen.min()) if len(seen) else 2.0
        w = torch.linspace(middle / 2, 2 * middle, 81, dtype=torch.float64)
    else:
        w = _axis("w_std", w_std)
    k = torch.full((len(b), len(w)), variance, dtype=torch.float64)
    weight, bias = w.square(), b.square().unsqueeze(-1)
    lowest, highest = log_k[0].exp(), log_k[-1].exp()
    for _ in range(_LAYERS):
        after = bias + weight * _second(m, log_k, k) + gamma**2 * k
        after = after.nan_to_num(torch.inf).clamp(lowest, highest)
        moved = (after / k - 1).abs().amax()
        k = after
        if float(moved) < 1e-12:
            break
    growth, slope = (_cubic(t, log_k, k) for t in (m.growth, m.slope))
    return CriticalityMap(
        activation=found.activation,
        w_std=w,
        b_std=b,
        variance=torch.where(k >= highest, torch.inf, torch.where(k <= lowest, 0.0, k)),
        parallel=gamma**2 + weight * growth,
        perpendicular=gamma**2 + weight * slope,
        edge=edge,
        critical=(found.w_std, found.b_std),
    )


def _axis(name: str, value: Tensor) -> Tensor:
    check_tensor(name, value, ndim=1)
    axis = value.detach().double().cpu()
    if len(axis) == 0 or not bool((axis.isfinite() & (axis >= 0)).all()):
        raise ValueError(f"{name}: expected numbers >= 0, at least one of them")
    return axis


def _place(log_k: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Find the interval of each variance, and how far into it it lies."""
    step = log_k[1] - log_k[0]
    at = (k.log() - log_k[0]) / step
    i = at.floor().clamp(0, len(log_k) - 2).long()
    return i, at - i


def _second(m: GaussianMoments, log_k: Tensor, k: Tensor) -> Tensor:
    """Interpolate E[f^2] by cubics with the slopes that are known."""
    i, t = _place(log_k, k)
    h = log_k[1] - log_k[0]
    slopes = h * m.growth * m.variance  # by log K
    a, b, da, db = m.second[i], m.second[i + 1], slopes[i], slopes[i + 1]
    rest = 1 - t
    return rest.square() * ((1 + 2 * t) * a + t * da) + t.square() * (
        (1 + 2 * rest) * b - rest * db
    )


def _cubic(values: Tensor, log_k: Tensor, k: Tensor) -> Tensor:
    """Interpolate by cubics through four neighbours."""
    i, t = _place(log_k, k)
    i = i.clamp(1, len(log_k) - 3)
    t = _place(log_k, k)[0] + t - i
    before, here, after, beyond = (values[i + j] for j in (-1, 0, 1, 2))
    return (
        -t * (t - 1) * (t - 2) / 6 * before
        + (t + 1) * (t - 1) * (t - 2) / 2 * here
        - (t + 1) * t * (t - 2) / 2 * after
        + (t + 1) * t * (t - 1) / 6 * beyond
    )


def _edge(m: GaussianMoments, upright: float | None, gamma: float, b: Tensor) -> Tensor:
    """Follow the line of chi_perp = 1 over the variance, where the variance settles."""
    if upright is not None:
        ends = torch.stack([b.min(), b.max()])
        return torch.stack([torch.full_like(ends, upright), ends], -1)
    rest = 1 - gamma * gamma
    w2, b2 = rest / m.slope, rest * (m.variance - m.second / m.slope)
    here = (b2 >= -1e-12) & (m.growth <= m.slope * (1 + 1e-9)) & w2.isfinite()
    line = torch.stack([w2.sqrt(), b2.clamp(min=0).sqrt()], -1)
    return torch.where(here.unsqueeze(-1), line, torch.nan)
