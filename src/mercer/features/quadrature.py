"""Quadrature features: plane waves at deterministic frequencies, chosen by their error."""

import math
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from .._core.checks import check_finite, check_int, check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.precision import full_precision
from ..kernels import Kernel
from .base import FeatureMap
from .blocks import can_block, map_blocks, write_waves
from .projection import on_cpu
from .quadrature_rules import Rule, grid_rule, grid_sizes, has_grid, sobol_rule
from .spectrum import Component, allot, spectral_components

_PROBES = 500  # differences at which rules are compared
_REACH = 3.0  # their length, in lengthscales, where there are no data


@final
class QuadratureFeatures(FeatureMap):
    r"""Deterministic Fourier features of a stationary kernel.

    .. math::

        k(x, y) \approx \sum_j w_j \cos \omega_j \cdot (x - y), \quad
        \phi(x) = [\sqrt{w_j} \cos \omega_j \cdot x, \ \sqrt{w_j} \sin \omega_j \cdot x]_j

    with frequencies and positive weights of a quadrature over the kernel's spectrum: grids of
    Gauss-Hermite nodes (for radial kernels other than the Gaussian one times nodes for its
    lengthscales), Fourier series for `Periodic`, each cut to its heaviest points; and Sobol
    points. For every part of the kernel the rule that is best at a few hundred differences
    between points is taken; `largest_error` is the error at those. In one dimension a Gaussian
    kernel is exact to rounding with some tens of features; beyond four or five dimensions
    nothing is better than the Sobol points, which need no grid.

    Parameters
    ----------
    kernel : Kernel
        A stationary kernel, or sums, products and multiples of such; the map keeps a frozen copy.
    in_features : int
        Length d of an input vector.
    num_features : int
        Largest number of features, two for each frequency; a rule that needs less has less.
    like : Tensor of shape (n, in_features), optional
        Points whose differences the rules are compared at; without them, differences of up to
        three lengthscales, or one period.
    rules : sequence of pairs of int, optional
        For each part of the kernel the number of radii and of nodes along a dimension, ``(0, 0)``
        for Sobol points: what a map says in its attribute of that name.
    device, dtype : optional
        Of the buffers.

    Attributes
    ----------
    rules : list of tuple of two ints
        The rules taken.
    largest_error : Tensor of shape ()
        Largest error at the differences that were looked at, a buffer.

    Raises
    ------
    TypeError
        If the kernel is none.
    ValueError
        If a part of the kernel is not stationary, num_features is below two for each part, or
        points do not fit.
    RuntimeError
        If a hyperparameter was left to the data and is not set.

    References
    ----------
    Dao, De Sa, Re, "Gaussian quadrature for kernel features", 2017, arXiv 1709.02605.

    Yang, Sindhwani, Avron, Mahoney, "Quasi-Monte Carlo feature maps for shift-invariant
    kernels", 2014, arXiv 1412.8293.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import QuadratureFeatures
    >>> from mercer.kernels import RBF
    >>> x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1)
    >>> phi = QuadratureFeatures(RBF(), 1, 50, dtype=torch.float64)
    >>> z = phi(x)
    >>> bool((z @ z.mT - phi.kernel(x)).abs().max() < 1e-12)
    True
    """

    amplitude: Tensor
    frequencies: Tensor
    largest_error: Tensor

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        like: Tensor | None = None,
        rules: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernel = self._approximate(kernel)
        self.in_features = check_int("in_features", in_features)
        components = spectral_components(kernel, in_features)
        if components is None:
            raise ValueError(f"kernel: expected a stationary one, in all its parts, got {kernel!r}")
        self._most = check_int("num_features", num_features)
        if self._most < 2 * len(components):
            raise ValueError(
                f"num_features: expected at least {2 * len(components)}, two for each part of the "
                f"kernel, got {num_features}"
            )
        probes = [_differences(c, in_features, like) for c in components]
        self._probes = probes[0] if like is not None else torch.cat(probes)
        if rules is None:
            shares = allot(components, self._most // 2)
            rules = [
                _best_rule(c, in_features, n, p)
                for c, n, p in zip(components, shares, probes, strict=True)
            ]
        self.rules = _read_rules(rules, components)
        self.num_features = 2 * len(self._rule()[0])
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        half = self.num_features // 2
        self.register_buffer("frequencies", torch.empty(half, in_features, **factory))
        self.register_buffer("amplitude", torch.empty(self.num_features, **factory))
        self.register_buffer("largest_error", torch.empty((), **factory))
        self.reset_parameters()

    @on_cpu
    def _rule(self) -> Rule:
        """Return the frequencies (n, d) and weights (n,) of all parts of the kernel."""
        components = spectral_components(self._approximated[0], self.in_features) or []
        shares = allot(components, self._most // 2)
        points, weights = [], []
        for c, n, (radii, nodes) in zip(components, shares, self.rules, strict=True):
            omega, w = _rule(c, self.in_features, n, radii, nodes)
            points.append(omega)
            weights.append(c.variance * w)
        return torch.cat(points), torch.cat(weights)

    @on_cpu
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Set the buffers anew; nothing is random."""
        if self.amplitude.is_meta:
            return
        omega, weights = self._rule()
        self.frequencies.copy_(omega)
        self.amplitude.copy_(weights.sqrt().repeat(2))
        truth = self._approximated[0](self._probes, torch.zeros_like(self._probes[:1]))[:, 0]
        found = torch.cos(self._probes @ omega.mT) @ weights
        self.largest_error.copy_((found - truth).abs().max())

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.amplitude, x)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        omega, amplitude = self.frequencies.to(full.dtype), self.amplitude.to(full.dtype)
        with full_precision(x):
            if x.ndim > 1 and can_block(x, self.num_features, *self.buffers()):

                def write(rows: Tensor, out: Tensor) -> None:
                    write_waves(rows @ omega.mT, amplitude, out)

                return map_blocks(full, self.num_features, x.dtype, write)
            phases = full @ omega.mT  # (..., n)
            waves = torch.cat([phases.cos(), phases.sin()], -1)  # (..., 2n)
            return (waves * amplitude).to(x.dtype)

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self._most,
            "rules": [list(rule) for rule in self.rules],
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        kernel = Kernel.build(config["kernel"])
        return cls(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the kernel, sizes and rules for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}, rules={self.rules}"
        )


def _read_rules(rules: Any, components: list[Component]) -> list[tuple[int, int]]:
    """Check the rules given, one for each part of the kernel."""
    wanted = f"rules: expected a pair of integers for each of {len(components)} parts"
    pairs = list(rules) if isinstance(rules, list | tuple) else []
    if len(pairs) != len(components) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(f"{wanted}, got {rules!r}")
    read = [tuple(check_int("rules", number, least=0) for number in pair) for pair in pairs]
    for (radii, nodes), component in zip(read, components, strict=True):
        if nodes and not (radii and has_grid(component)):
            raise ValueError(f"{wanted}, (0, 0) where there is no grid, got {rules!r}")
    return [(radii, nodes) for radii, nodes in read]


def _rule(component: Component, in_features: int, count: int, radii: int, nodes: int) -> Rule:
    if nodes:
        return grid_rule(component, in_features, count, radii, nodes)
    return sobol_rule(component, in_features, count)


@on_cpu
def _best_rule(
    component: Component, in_features: int, count: int, differences: Tensor
) -> tuple[int, int]:
    """Return the rule whose mean squared error at the differences is least."""
    sizes = [(0, 0), *grid_sizes(component, in_features, count)]
    if len(sizes) == 1:
        return sizes[0]
    zero = torch.zeros_like(differences[:1])
    truth = component.factors[0](differences, zero)[:, 0]  # a grid has one factor, scaled to one
    errors = []
    for radii, nodes in sizes:
        omega, weights = _rule(component, in_features, count, radii, nodes)
        found = torch.cos(differences @ omega.mT) @ weights
        errors.append(float((found - truth).square().mean()))
    return sizes[errors.index(min(errors))]


@on_cpu
def _differences(component: Component, in_features: int, like: Tensor | None) -> Tensor:
    """Return differences (p, d) between points, in float64 on the CPU."""
    if like is not None:
        check_last_dim("like", like, in_features)
        check_finite("like", like)
        rows = like.detach().reshape(-1, in_features).double().cpu()
        if len(rows) < 2:
            raise ValueError(f"like: expected two rows or more, got shape {tuple(like.shape)}")
        # Pairs at every distance in the order of the rows, which need not be shuffled.
        first = torch.linspace(0, len(rows) - 1, _PROBES, dtype=torch.float64).round().long()
        step = 1 + torch.arange(_PROBES) * 7919 % max(len(rows) - 1, 1)
        return rows[first] - rows[(first + step) % len(rows)]
    width = min(in_features + 1, SobolEngine.MAXDIM)
    points = SobolEngine(width).draw(_PROBES, dtype=torch.float64) + 0.5 / 512
    normals = torch.special.ndtri(points[:, 1:])
    if in_features >= width:  # further coordinates than there are Sobol numbers for
        normals = normals.repeat(1, -(-in_features // normals.shape[1]))[:, :in_features]
    directions = normals / normals.norm(dim=-1, keepdim=True)
    reach = torch.full((in_features,), math.inf, dtype=torch.float64)
    for factor in component.factors:
        size = getattr(factor, "period", None)
        size = getattr(factor, "lengthscale", None) if size is None else size / _REACH
        if size is not None:
            reach = torch.minimum(reach, _REACH * size.detach().double().cpu())
    return points[:, :1] * directions * reach.nan_to_num(posinf=_REACH)
