"""Where to look at a function for its best fit: the Christoffel density of a space of features."""

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .dpp import project

Features = Callable[[Tensor], Tensor]
Sampler = Callable[[int, RandomSource | None], Tensor]

_LARGEST_BATCH = 8192  # proposals at once
_MOST_PROPOSALS = 10**7  # for one point
_SPARE = 1.1  # by how much a bound that was found too low is raised above what exceeded it


@final
class ChristoffelDensity:
    r"""The density by which a function is best looked at to fit it in a space of features.

    .. math::
        d\nu = \frac{K_m(x, x)}{m} \, d\mu, \qquad K_m(x, x) = \|\varphi(x)\|^2, \qquad
        w(x) = \frac{m}{K_m(x, x)}

    with features :math:`\varphi = T^\top \psi` that are orthonormal under the measure
    :math:`\mu`, made from the m features :math:`\psi` that are given. Each point drawn counts
    with its weight w, so that the moments of a weighted sample are the identity on average.

    The measure is that of the nodes: data, a fine grid, or the nodes of a quadrature rule. Points
    are drawn among them; or, with a sampler of the measure, anywhere, by rejection, and the nodes
    serve to make the features orthonormal only.

    Parameters
    ----------
    features : callable
        Maps points (b, ...) to features (b, m), linearly independent on the nodes.
    nodes : Tensor of shape (n, ...)
        Points that represent the measure, at least m.
    measure : Tensor of shape (n,), optional
        Their masses, at least 0; scaled to sum to one. Equal by default.
    sampler : callable, optional
        ``sampler(count, generator)`` draws ``count`` points (count, ...) of the measure.
    bound : float, optional
        A bound of :math:`K_m(x, x)` over all points, for rejection. By default the largest at the
        nodes and at all points proposed so far: if a proposal exceeds it, the points drawn
        meanwhile are drawn again, so that the law is exact but for what was never proposed.

    Attributes
    ----------
    num_features : int
        m.
    nodes, measure : Tensor
        As above, the masses scaled.
    transform : Tensor of shape (m, m)
        T: coefficients c of the orthonormal features are T c of those given.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, a mass is negative, or the features are
        linearly dependent; the text tells their numerical rank.
    MemoryError
        If the features of the nodes do not fit the memory budget.

    References
    ----------
    Cohen, Migliorati, "Optimal weighted least-squares methods", SMAI Journal of Computational
    Mathematics 3 (2017), arXiv 1608.00512.

    Nouy, Michel, "Weighted least-squares approximation with determinantal point processes and
    generalized volume sampling", 2023, arXiv 2312.14057.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(-1, 1, 1001).double()
    >>> powers = lambda x: torch.stack([x**k for k in range(4)], 1)
    >>> density = ChristoffelDensity(powers, x)
    >>> density.leverage(torch.tensor([-1.0, 0.0, 1.0]).double()).numpy().round(1)
    array([15.9,  2.3, 15.9])
    >>> density.weights(x[:1])
    tensor([0.2519], dtype=torch.float64)
    """

    def __init__(
        self,
        features: Features,
        nodes: Tensor,
        measure: Tensor | None = None,
        *,
        sampler: Sampler | None = None,
        bound: float | None = None,
    ) -> None:
        for name, value in (("features", features), ("sampler", sampler or features)):
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {type(value).__name__}")
        check_finite("nodes", check_tensor("nodes", nodes))
        if nodes.ndim == 0 or len(nodes) == 0:
            raise ValueError(f"nodes: expected shape (n, ...), got {tuple(nodes.shape)}")
        self.features, self.sampler = features, sampler
        self.nodes, self.measure = nodes.detach(), _read_measure(measure, nodes)
        raw = self._ask(self.nodes)  # (n, m)
        n, self.num_features = raw.shape
        require_memory(
            8 * 4 * raw.numel(), f"features of shape {(n, raw.shape[1])}", "thin the nodes"
        )
        self._rows, self.transform = _orthonormal(raw, self.measure)
        self._given = None if bound is None else check_real("bound", bound, above=0.0)
        largest = float(self.leverage(self.nodes).max())
        self._bound = largest if self._given is None else self._given

    def __repr__(self) -> str:
        where = f"{len(self.nodes)} nodes" if self.sampler is None else "a sampler"
        return f"ChristoffelDensity(num_features={self.num_features}, on {where})"

    @torch.no_grad()
    def basis(self, x: Tensor) -> Tensor:
        """Return the orthonormal features (b, m) of points (b, ...), float64."""
        return self._ask(x) @ self.transform

    @torch.no_grad()
    def leverage(self, x: Tensor) -> Tensor:
        """Return K_m(x, x) of points (b, ...): how much each could matter, m on average."""
        return self.basis(x).square().sum(1)

    @torch.no_grad()
    def weights(self, x: Tensor) -> Tensor:
        """Return m / K_m(x, x) of points (b, ...); infinite where all features are zero."""
        return self.num_features / self.leverage(x)

    # -- draws: (points, their place among the nodes or None, orthonormal features) ----------------

    def draw_independent(
        self, size: int, source: RandomSource | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw points (size, ...) one by one, independently."""
        if self.sampler is not None:
            points, basis = self._reject(size, source)
            return points, None, basis
        return self._at(_draw_by_mass(self._rows.square().sum(1), size, source))

    def draw_measure(
        self, size: int, source: RandomSource | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw points (size, ...) of the measure itself."""
        if self.sampler is not None:
            points = self._propose(size, source)
            return points, None, self.basis(points)
        return self._at(_draw_by_mass(self.measure, size, source))

    def draw_projection(self, source: RandomSource | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw m points that repel, by the projection DPP of K_m."""
        if self.sampler is None:
            return self._at(project(self._rows, source))
        m = self.num_features
        span = self.transform.new_zeros(m, m)  # orthonormal, one row a step
        points, found = [], []
        waiting = self.nodes[:0]
        basis, uniform, at = self.transform[:0], self.transform[:0, 0], 0
        for step in range(m):
            while True:
                rest = basis[at:]  # (b, m)
                left = 1 - (rest @ span[:step].mT).square().sum(1) / rest.square().sum(1)
                taken = (uniform[at:] < left).nonzero()
                if len(taken):
                    at += int(taken[0])
                    break
                # About m / (m - step) proposals for a point.
                count = math.ceil(m * (1 + math.log(m)) / (1 + step)) + 4
                waiting, basis = self._reject(count, source)
                uniform, at = draw_uniform((count,), source).to(basis.device), 0
            direction = basis[at]
            points.append(waiting[at])
            found.append(direction)
            for _ in range(2):  # once is not orthogonal to rounding, twice is
                direction = direction - span[:step].mT @ (span[:step] @ direction)
            span[step] = direction / direction.norm()
            at += 1
        return torch.stack(points), None, torch.stack(found)

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._rows[index] / self.measure[index].sqrt().unsqueeze(1)
        return self.nodes[index.to(self.nodes.device)], index, rows

    def _reject(self, size: int, source: RandomSource | None) -> tuple[Tensor, Tensor]:
        """Draw points of the density independently, from proposals of the measure."""
        assert self.sampler is not None
        points, found, count, proposals = [], [], 0, 0
        while count < size:
            rate = self.num_features / self._bound
            batch = min(_LARGEST_BATCH, math.ceil(1.2 * (size - count) / rate) + 8)
            x = self._propose(batch, source)
            basis = self.basis(x)
            mass = basis.square().sum(1)
            if float(mass.max()) > self._bound * (1 + 1e-9):
                if self._given is not None:
                    raise ValueError(
                        f"bound: expected one of K_m(x, x), got {self._given:.6g} and a point with "
                        f"{float(mass.max()):.6g}"
                    )
                self._bound = _SPARE * float(mass.max())
                points, found, count = [], [], 0
                continue
            taken = draw_uniform((batch,), source).to(mass.device) * self._bound < mass
            points.append(x[taken])
            found.append(basis[taken])
            count += len(found[-1])
            proposals += batch
            if proposals > _MOST_PROPOSALS * size:
                raise ValueError(
                    f"sampler: expected points where the features are not zero; {proposals} of its "
                    f"points gave {count} of {size}"
                )
        return torch.cat(points)[:size], torch.cat(found)[:size]

    def _propose(self, count: int, source: RandomSource | None) -> Tensor:
        """Draw points (count, ...) with the sampler."""
        assert self.sampler is not None
        x = check_tensor("sampler", self.sampler(count, source)).detach()
        if x.shape != (count, *self.nodes.shape[1:]):
            raise ValueError(
                f"sampler: expected shape {(count, *self.nodes.shape[1:])} for a count of "
                f"{count}, got {tuple(x.shape)}"
            )
        return x.to(self.nodes)

    def _ask(self, x: Tensor) -> Tensor:
        found = check_tensor("features", self.features(x)).detach()
        if found.ndim != 2 or len(found) != len(x) or found.shape[1] == 0:
            raise ValueError(
                f"features: expected shape ({len(x)}, m) for points {tuple(x.shape)}, "
                f"got {tuple(found.shape)}"
            )
        known = getattr(self, "num_features", found.shape[1])
        check_int("features.shape[1]", found.shape[1])
        if found.shape[1] != known:
            raise ValueError(
                f"features: expected {known} of them, as at the nodes, got {tuple(found.shape)}"
            )
        check_finite("features", found)
        return found.double()


def _draw_by_mass(mass: Tensor, size: int, source: RandomSource | None) -> Tensor:
    """Draw indices (size,) with probability proportional to masses."""
    ends = mass.cumsum(0)
    uniform = draw_uniform((size,), source, ends.device).to(ends.device)
    return torch.searchsorted(ends, uniform * ends[-1], right=True).clamp_max(len(ends) - 1)


def _read_measure(measure: Tensor | None, nodes: Tensor) -> Tensor:
    """Return masses (n,) that sum to one."""
    if measure is None:
        return torch.full((len(nodes),), 1 / len(nodes), dtype=torch.float64, device=nodes.device)
    check_finite("measure", check_tensor("measure", measure, ndim=1))
    if len(measure) != len(nodes) or bool((measure < 0).any()) or not float(measure.sum()) > 0:
        raise ValueError(
            f"measure: expected {len(nodes)} masses >= 0, not all zero, got shape "
            f"{tuple(measure.shape)} from {float(measure.min()) if len(measure) else 0.0:.3g}"
        )
    mass = measure.detach().to(nodes.device).double()
    return mass / mass.sum()


def _orthonormal(raw: Tensor, measure: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows sqrt(mu) phi (n, m), and T (m, m) with phi = psi T."""
    n, m = raw.shape
    root = measure.sqrt().unsqueeze(1)  # (n, 1)
    scaled = root * raw
    norms = scaled.norm(dim=0)  # (m,)
    rank = 0
    if bool((norms > 0).all()) and n >= m:
        first = torch.linalg.qr(scaled / norms)
        singular = torch.linalg.svdvals(first.R)
        rank = int((singular > 16 * m * torch.finfo(raw.dtype).eps * singular[0]).sum())
    else:
        rank = int(torch.linalg.matrix_rank(scaled))
    if rank < m or n < m:
        raise ValueError(
            f"features: expected {m} that are linearly independent on the nodes, got numerical "
            f"rank {rank} on {int((measure > 0).sum())} nodes of positive mass"
        )
    # Twice: features that nearly depend on each other leave the first result inexact.
    eye = torch.eye(m).to(raw)
    inverse = torch.linalg.solve_triangular(first.R, eye, upper=True) / norms.unsqueeze(1)
    second = torch.linalg.qr(scaled @ inverse)
    inverse = inverse @ torch.linalg.solve_triangular(second.R, eye, upper=True)
    return second.Q, inverse
