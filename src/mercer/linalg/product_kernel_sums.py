"""Products of the matrix of a product kernel with vectors, in near-linear time and exact."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .decaying_sums import decaying_sums
from .dominance_sums import (
    check_axes,
    check_columns,
    check_points,
    check_targets,
    compared_sums,
    divided_sums,
    lexicographic_groups,
    visits,
)
from .grid_sums import decaying_grid_sums, grid_columns
from .product_profiles import ProductProfile, resolve_bandwidth, resolve_profile
from .window_sums import expanded_sums, expands, paired_sums

# Nanoseconds of a pair and dimension, of a point and level of one orthant, and of the orthant
# itself; measured, they only choose between exact ways.
_PAIR, _LEVEL, _PASS = 4.0, 30.0, 1e6


@torch.no_grad()
def product_kernel_sums(
    points: Tensor,
    weights: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    kernel: str = "laplacian",
    bandwidth: float | Tensor | Sequence[float] = 1.0,
) -> Tensor:
    r"""Multiply the matrix of a product kernel with vectors, without it and without error.

    .. math:: f(z) = \sum_i w_i \prod_k \kappa\!\left(\frac{|x_{ik} - z_k|}{h_k}\right)

    for the kernels of the table. Those with an exponential are sums over the :math:`2^d` orthants
    around each target, where the exponential of a distance is a product of exponentials, each in
    :math:`O(n \log^{\max(d - 1, 1)} n)`; those with a window are sums over orthants with shifted
    corners where their expansion keeps its digits, else sums over pairs inside the window of the
    widest coordinate. Where all pairs are cheaper, they are taken.

    ================== =================================== ====================================
    kernel             :math:`\kappa(t)`                   digits
    ================== =================================== ====================================
    ``"laplacian"``    exp(-t)                             all, at any bandwidth
    ``"matern32"``     (1 + √3 t) exp(-√3 t)               all, at any bandwidth
    ``"matern52"``     (1 + √5 t + 5/3 t²) exp(-√5 t)      all, at any bandwidth
    ``"uniform"``      1 for t <= 1                        counts are exact
    ``"triangular"``   1 - t for t <= 1                    about 11 of the largest sum
    ``"epanechnikov"`` 1 - t² for t <= 1                   about 11 of the largest sum
    ``"biweight"``     (1 - t²)² for t <= 1                about 11 of the largest sum
    ``"triweight"``    (1 - t²)³ for t <= 1                about 11 of the largest sum
    ``"cosine"``       cos(π t / 2) for t <= 1             rounding of the sum of all weights
    ================== =================================== ====================================

    Parameters
    ----------
    points : Tensor of shape (n, d)
        The points.
    weights : Tensor of shape (n,) or (n, q), optional
        The vectors, of any sign; None is a vector of ones.
    targets : Tensor of shape (m, d), optional
        The rows of the matrix; None takes the points.
    kernel : str, default "laplacian"
        The factor :math:`\kappa`.
    bandwidth : float or sequence of d floats, default 1.0
        h, in each dimension.

    Returns
    -------
    Tensor of shape (m,) or (m, q)
        The products, in the dtype of the weights or else the points; computed in float64.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, a bandwidth is not positive, or the kernel
        has no such form, as the Gaussian.
    MemoryError
        If the sums do not fit the memory budget.

    References
    ----------
    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    >>> product_kernel_sums(x, torch.tensor([1.0, 2.0, -1.0]))
    tensor([ 1.7174,  2.3181, -0.8821])
    """
    profile = resolve_profile(kernel)
    check_points("points", points)
    if targets is not None:
        check_targets(targets, points)
    columns = check_columns(weights, points)  # (q, n)
    h = resolve_bandwidth(bandwidth, points)
    x, z, scale = _scaled(points, targets, h, profile)
    d, m = x.shape[1], len(x if z is None else z)
    count = len(x) if z is None else len(x) + m
    terms = max(len(profile.coefficients), 1)
    corners = 2**d if profile.rate or profile.even else 3**d
    cost = corners * (count * _LEVEL * visits(count, d) * terms**d * len(columns) + _PASS)
    reach = 1.0 if profile.rate else _share(x, z, scale)
    pairs = len(x) * m * (_PAIR * d + 4.0) * reach
    if pairs <= cost or not (profile.rate or expands(profile, _extent(x, z))):
        found = paired_sums(profile, x, x if z is None else z, columns)
    elif profile.rate:
        # What coincides is one element, most of all where the targets are the points.
        group, every = lexicographic_groups(x if z is None else torch.cat((x, z)))
        laid = columns.new_zeros(len(columns), len(every)).index_add_(1, group[: len(x)], columns)
        found = decaying_sums(every * profile.rate, laid, profile.coefficients)
        found = found[:, group if z is None else group[len(x) :]]
    else:
        found = _windowed(profile, x, x if z is None else z, columns)
    dtype = points.dtype if weights is None else weights.dtype
    return (found.mT if weights is not None and weights.ndim == 2 else found[0]).to(dtype)


@torch.no_grad()
def product_kernel_sums_on_grid(
    points: Tensor,
    axes: Sequence[Tensor],
    weights: Tensor | None = None,
    *,
    kernel: str = "laplacian",
    bandwidth: float | Tensor | Sequence[float] = 1.0,
) -> Tensor:
    r"""Sum a product kernel over all points, at all nodes of a rectilinear grid, exactly.

    The sums of `product_kernel_sums` in :math:`O(2^d (n \log M + d \prod_k M_k))`: each point
    adds to the nearest node on either side, damped by its distance, and the nodes hand on what
    they have along each axis, damped by theirs.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        The points.
    axes : sequence of d Tensors of shapes (M_k,)
        Ascending coordinates of the nodes in each dimension.
    weights : Tensor of shape (n,) or (n, q), optional
        Their weights, of any sign; None is ones.
    kernel : str, default "laplacian"
        One of the kernels of `product_kernel_sums`.
    bandwidth : float or sequence of d floats, default 1.0
        In each dimension.

    Returns
    -------
    Tensor of shape (M_1, ..., M_d) or (M_1, ..., M_d, q)
        The sums, in the dtype of the weights or else the points; computed in float64.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite, an axis does not ascend, a bandwidth is not
        positive, or the kernel has no such form.
    MemoryError
        If the grid does not fit the memory budget.

    References
    ----------
    Langrené, Warin, "Fast and stable multivariate kernel density estimation by fast sum updating",
    2019, arXiv 1712.00993.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> product_kernel_sums_on_grid(x, [torch.tensor([0.0, 0.5, 4.0])])
    tensor([1.3679, 1.2131, 0.0681])
    """
    profile = resolve_profile(kernel)
    check_points("points", points)
    nodes = check_axes(axes, points)
    columns = check_columns(weights, points)
    h = resolve_bandwidth(bandwidth, points)
    if profile.rate:
        wide = [axis.double() for axis in nodes]
        x = points.detach().double()
        found = decaying_grid_sums(x, wide, columns, profile.coefficients, h / profile.rate)
    else:
        found = _windowed_grid(profile, points, nodes, columns, h)
    dtype = points.dtype if weights is None else weights.dtype
    many = weights is not None and weights.ndim == 2
    return (found.movedim(0, -1) if many else found[0]).to(dtype)


def _scaled(
    points: Tensor, targets: Tensor | None, h: Tensor, profile: ProductProfile
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return points and targets in bandwidths around the middle, and the points' extents."""
    x = points.detach().double()
    z = None if targets is None else targets.detach().double()
    low, high = x.amin(0), x.amax(0)
    middle = low / 2 + high / 2
    every = (
        torch.stack((low, high))
        if z is None or not len(z)
        else torch.cat((low[None], z, high[None]))
    )
    if not bool(torch.isfinite((every - middle) / h * max(profile.rate, 1.0)).all()):
        raise ValueError(
            f"bandwidth: {float(h.min()):.3g} is too small for points from {float(low.min()):.3g} "
            f"to {float(high.max()):.3g}: their distance in bandwidths is not finite"
        )
    return (x - middle) / h, None if z is None else (z - middle) / h, (high - low) / h


def _extent(x: Tensor, z: Tensor | None) -> Tensor:
    """Return twice the largest distance from zero in each dimension, (d,)."""
    every = x if z is None or len(z) == 0 else torch.cat((x.abs().amax(0, True), z.abs()))
    return 2 * every.abs().amax(0)


def _share(x: Tensor, z: Tensor | None, extent: Tensor) -> float:
    """Estimate which share of the points a window sees in the widest coordinate."""
    return min(1.0, 2.0 / max(float(extent.max()), 1e-300))


def _windowed(profile: ProductProfile, x: Tensor, z: Tensor, columns: Tensor) -> Tensor:
    def below(laid: Tensor, shift: list[float], strict: list[bool]) -> Tensor:
        moved = z + z.new_tensor(shift)
        if len(x) * len(z) <= 4096:
            return compared_sums(x, laid, moved, strict)
        return divided_sums(x, laid, moved, strict)

    return expanded_sums(profile, x, list(z.unbind(1)), columns, below)


def _windowed_grid(
    profile: ProductProfile, points: Tensor, axes: list[Tensor], columns: Tensor, h: Tensor
) -> Tensor:
    x, _, _ = _scaled(points, None, h, profile)
    middle = points.detach().double().amin(0) / 2 + points.detach().double().amax(0) / 2
    nodes = [(axis.double() - middle[k]) / h[k] for k, axis in enumerate(axes)]
    ends = torch.stack([torch.stack((axis[0], axis[-1])) for axis in nodes], 1)  # (2, d)
    if not expands(profile, _extent(x, ends)):
        z = torch.cartesian_prod(*nodes).view(-1, len(nodes))
        return paired_sums(profile, x, z, columns).view(len(columns), *map(len, nodes))

    def below(laid: Tensor, shift: list[float], strict: list[bool]) -> Tensor:
        # What is strictly below is above for the mirrored points and nodes.
        sign = x.new_tensor([-1.0 if over else 1.0 for over in strict])
        moved = [
            -(axis + s).flip(0) if over else axis + s
            for axis, s, over in zip(nodes, shift, strict, strict=True)
        ]
        found = grid_columns(x * sign, moved, laid, strict)
        return found.flip([k + 1 for k, over in enumerate(strict) if over])

    shape = [[-1 if j == k else 1 for j in range(len(nodes))] for k in range(len(nodes))]
    z = [axis.view(s) for axis, s in zip(nodes, shape, strict=True)]
    return expanded_sums(profile, x, z, columns, below)
