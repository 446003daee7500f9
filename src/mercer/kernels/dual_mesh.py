"""Panels of the real line on which a function is a polynomial to rounding, and its kinks."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NODES = 24
_TOLERANCE = 1e-13
_MOST_PANELS = 16384


@functools.cache
def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], float64, from the Jacobi matrix and one Newton step."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k * k - 1).sqrt()
    x = torch.linalg.eigvalsh(torch.diag(off, 1) + torch.diag(off, -1))
    for _ in range(2):
        values = legendre(x, count + 1)
        slope = count * (x * values[count] - values[count - 1]) / (x * x - 1)
        x = x - values[count] / slope
    values = legendre(x, count + 1)
    slope = count * (x * values[count] - values[count - 1]) / (x * x - 1)
    return x, 2 / ((1 - x * x) * slope * slope)


def legendre(x: Tensor, count: int) -> Tensor:
    """Evaluate the first Legendre polynomials, shape (count, len(x))."""
    values = [torch.ones_like(x), x]
    for n in range(1, count - 1):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[:count])


def panel_nodes(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre panels between sorted edges.

    Edges of shape (..., e) make nodes of shape (..., (e - 1) * NODES).
    """
    x, w = (t.to(edges.device) for t in gauss_legendre(NODES))
    middle = (edges[..., 1:] + edges[..., :-1]).unsqueeze(-1) / 2
    half = (edges[..., 1:] - edges[..., :-1]).unsqueeze(-1) / 2
    return (middle + half * x).flatten(-2), (half * w).flatten(-2)


@dataclass(frozen=True)
class Profile:
    """A function of one number in double precision, and its derivative."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the function, without a graph."""
        with torch.no_grad():
            return self.function(x.clone())  # a clone, because it may work in place

    def slope(self, x: Tensor) -> Tensor:
        """Evaluate the derivative that was given, or the one of autograd."""
        if self.derivative is not None:
            with torch.no_grad():
                return self.derivative(x.clone())
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            value = self.function(leaf * 1)
            if not value.requires_grad:  # constant pieces only
                return torch.zeros_like(x)
            (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        return torch.zeros_like(x) if found is None else found.detach()


@dataclass(frozen=True)
class Mesh:
    """Edges of panels up to a reach, the kinks among them, and jumps of the function."""

    edges: tuple[float, ...]
    kinks: tuple[float, ...]
    jumps: tuple[tuple[float, float], ...]


class _Scale:
    """The largest value of a function up to a distance from zero, by octaves."""

    def __init__(self, function: Callable[[Tensor], Tensor], reach: float) -> None:
        self.function = function
        octaves = max(round(math.log2(reach)), 1)
        grid = torch.linspace(0.5, 1, 400, dtype=torch.float64)
        tops = 2.0 ** torch.arange(1, octaves + 1, dtype=torch.float64)
        x = (tops.unsqueeze(-1) * grid).flatten()
        near = torch.linspace(0, 1, 401, dtype=torch.float64)[1:]
        values = function(torch.cat([x, -x, near, -near])).abs()
        if not bool(torch.isfinite(values).all()):
            raise ValueError("activation: NaN or infinity where the dual needs its values")
        outer, inner = values[: 2 * len(x)], values[2 * len(x) :].amax()
        octave = outer.reshape(2, octaves, -1).amax((0, 2))
        self.by_octave = octave.clamp(min=float(inner)).cummax(0).values

    def __call__(self, distance: Tensor) -> Tensor:
        octave = distance.clamp(min=2.0).log2().ceil().long() - 1
        return self.by_octave[octave.clamp(max=len(self.by_octave) - 1)]


@functools.cache
def _analysis() -> Tensor:
    """From values on a panel to its last four Legendre coefficients, (NODES, 4)."""
    x, w = gauss_legendre(NODES)
    return (legendre(x, NODES)[-4:] * w * (NODES - 0.5)).T.contiguous()


def _unresolved(scales: list[_Scale], panels: Tensor) -> Tensor:
    """Which panels (p, 2) need more than polynomials of degree NODES - 5."""
    nodes = panel_nodes(panels)[0]  # (p, NODES)
    bad = torch.zeros(len(panels), dtype=torch.bool)
    far = panels.abs().amax(-1)
    for scale in scales:
        # Compared with the largest value not farther out: rounding there is of that size.
        last = (scale.function(nodes) @ _analysis()).abs().amax(-1)
        bad |= ~(last <= _TOLERANCE * scale(far))
    return bad


def _split(scales: list[_Scale], edges: list[float]) -> tuple[list[float], list[float]]:
    """Halve panels until they are resolved; what never is holds a kink."""
    starts = torch.tensor(edges, dtype=torch.float64)
    panels = torch.stack([starts[:-1], starts[1:]], -1)
    kept, kinks = list(edges), []
    while len(panels):
        panels = panels[_unresolved(scales, panels)]
        middle = panels.mean(-1)
        tiny = (panels[:, 1] - panels[:, 0]) <= 1e-15 * middle.abs().clamp(min=1.0)
        kinks += middle[tiny].tolist()
        panels, middle = panels[~tiny], middle[~tiny]
        kept += middle.tolist()
        if len(kept) > _MOST_PANELS:
            raise ValueError(
                f"activation: not resolved by {_MOST_PANELS} panels up to {max(edges):g}; "
                "it oscillates or has too many kinks for these variances"
            )
        panels = torch.cat(
            [torch.stack([panels[:, 0], middle], -1), torch.stack([middle, panels[:, 1]], -1)]
        )
    return sorted(set(kept)), sorted(kinks)


@functools.lru_cache(maxsize=256)
def make_mesh(profile: Profile, reach: float) -> Mesh:
    """Divide [-reach, reach], a power of two, for a function and its derivative."""
    scales = [_Scale(profile, reach), _Scale(profile.slope, reach)]
    powers = [2.0**k for k in range(1, round(math.log2(reach)) + 1)]
    start = [-p for p in reversed(powers)] + [0.0] + powers
    _, found = _split(scales, start)
    kinks: list[float] = []
    for kink in found:
        near = round(kink, 12)
        kink = near if abs(kink - near) < 4e-15 * max(1.0, abs(kink)) else kink
        if not kinks or kink - kinks[-1] > 1e-12 * max(1.0, abs(kink)):
            kinks.append(kink)
    edges, _ = _split(scales, sorted({*start, *kinks}))
    # A kink on an edge was never seen: look at a small panel around each edge.
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    width = 1e-2 * inner.abs().clamp(min=1.0)
    around = torch.stack([inner - width, inner + width], -1)
    kinks = sorted({*kinks, *inner[_unresolved(scales, around)].tolist()})
    jumps = []
    for kink in kinks:
        step = 1e-9 * max(1.0, abs(kink))
        low, high = profile(torch.tensor([kink - step, kink + step], dtype=torch.float64)).tolist()
        if abs(high - low) > 1e-6 * max(abs(low), abs(high)) and abs(high - low) > 1e-7:
            jumps.append((kink, high - low))
    return Mesh(tuple(edges), tuple(kinks), tuple(jumps))


def edges_of(profiles: tuple[Profile, ...], reach: float) -> tuple[float, ...]:
    """Edges of panels on which all of the functions, and so their products, are smooth."""
    return tuple(sorted({edge for one in profiles for edge in make_mesh(one, reach).edges}))
