"""Quadrature over a kernel's spectrum: frequencies and weights that nothing random enters."""

import math

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ..kernels import RBF, Laplacian, Periodic, Radial, Stationary
from .draws import check_sobol_size
from .spectrum import Component

Rule = tuple[Tensor, Tensor]
"""Frequencies (n, d) and their weights (n,), which add up to one."""

_MOST_POINTS = 2**16  # of a grid, before the light ones are dropped
_MOST_NODES = 128  # of a Gauss-Hermite rule; their weights underflow soon after
_RADII = (4, 8, 16, 32)


def has_grid(component: Component) -> bool:
    """Whether there is a grid rule for a component: one radial or periodic kernel."""
    return len(component.factors) == 1 and isinstance(component.factors[0], Radial | Periodic)


def grid_sizes(component: Component, in_features: int, count: int) -> list[tuple[int, int]]:
    """Return the grids worth trying for at most ``count`` frequencies: radii, nodes a dimension.

    A grid of more points than that is cut to its heaviest ones: they fill a ball, and a larger
    grid reaches further out in frequency and distance at the price of what was cut off.
    """
    if not has_grid(component):
        return []
    single = not isinstance(component.factors[0], Radial) or isinstance(component.factors[0], RBF)
    found = []
    for radii in (1,) if single else _RADII:
        full = (2 * count / radii) ** (1 / in_features)  # nodes of a grid that fits
        for stretch in (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5):
            nodes = min(int(full * stretch + 1e-9), _MOST_NODES)
            fits = nodes >= 2 and radii * nodes**in_features <= 2 * _MOST_POINTS
            if fits and (radii, nodes) not in found:
                found.append((radii, nodes))
    return found


def grid_rule(component: Component, in_features: int, count: int, radii: int, nodes: int) -> Rule:
    """Make a grid rule: a product over dimensions, times one over radii.

    Of every pair of opposite frequencies one is kept, with the weight of both, and of all those
    at most the ``count`` heaviest.
    """
    factor = component.factors[0]
    line, shares = _line(factor, in_features, nodes)  # (d, q) each
    index = torch.cartesian_prod(*[torch.arange(nodes)] * in_features).reshape(-1, in_features)
    # The middle of the grid is its centre: the first half is the mirror image of the second.
    index = index[len(index) // 2 :]
    dims = torch.arange(in_features)
    points, weights = line[dims, index], shares[dims, index].prod(-1)  # (n, d), (n,)
    weights[0 if nodes % 2 == 0 else 1 :] *= 2  # all but the centre
    if isinstance(factor, Radial):
        radius, share = _radii(factor, radii)
        points = factor._scale((radius.view(-1, 1, 1) * points).flatten(0, 1))
        weights = torch.outer(share, weights).flatten()
    keep = torch.argsort(weights, descending=True, stable=True)[:count]
    return points[keep], weights[keep] / weights[keep].sum()


def _line(factor: Stationary, in_features: int, nodes: int) -> Rule:
    """Return nodes and weights along every dimension, each (d, q), symmetric about zero."""
    if isinstance(factor, Periodic):
        from scipy.special import ive  # heavy, and only needed here

        order = torch.arange(nodes, dtype=torch.float64) - (nodes - 1) / 2
        if nodes % 2 == 0:  # no symmetric set of so many integers: the outermost has no weight
            order = torch.arange(nodes, dtype=torch.float64) - nodes / 2 + 0.5
            order = order.sign() * (order.abs() - 0.5)
        scales = factor.lengthscale.double().expand(in_features)
        weights = torch.stack(
            [torch.as_tensor(ive(order.abs().numpy(), float(s) ** -2)) for s in scales]
        )
        if nodes % 2 == 0:  # zero stands there twice
            weights[:, nodes // 2 - 1 : nodes // 2 + 1] /= 2
        period = factor.period.double().expand(in_features)
        return 2 * math.pi * order / period.unsqueeze(-1), weights
    import numpy as np  # rooms import torch only

    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    line, weight = torch.from_numpy(x), torch.from_numpy(w / w.sum())
    return line.expand(in_features, -1), weight.expand(in_features, -1)


def _radii(factor: Radial, count: int) -> tuple[Tensor, Tensor]:
    """Return radii and weights of a Gauss-Legendre rule over their quantiles."""
    if count == 1:
        one = torch.ones(1, dtype=torch.float64)
        return one, one
    import numpy as np  # rooms import torch only

    nodes, weights = np.polynomial.legendre.leggauss(count)
    uniforms = torch.from_numpy((nodes + 1) / 2).unsqueeze(-1)
    return factor.radii(uniforms), torch.from_numpy(weights / 2)


def sobol_rule(component: Component, in_features: int, count: int) -> Rule:
    """Make the rule of equal weights on Sobol points that are not scrambled."""
    columns = component.num_uniforms(in_features)
    width = in_features * len(component.factors) + columns
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    if width == 0:
        return torch.zeros(count, in_features, dtype=torch.float64), weights
    check_sobol_size("in_features", "sobol", width)
    if width == 1:
        points = (torch.arange(count, dtype=torch.float64).unsqueeze(-1) + 0.5) / count
    else:
        points = SobolEngine(width).draw(count, dtype=torch.float64)  # (n, width), in [0, 1)
        points += 0.5 / 2 ** max(count - 1, 1).bit_length()  # the middle of each cell
    normals = points[:, columns:]
    if all(isinstance(f, Radial | Laplacian | Periodic) for f in component.factors):
        # Opposite normal vectors mean opposite frequencies, so that half of the space suffices.
        normals[:, 0] = (1 + normals[:, 0]) / 2
    return component.frequencies(torch.special.ndtri(normals), points[:, :columns]), weights
