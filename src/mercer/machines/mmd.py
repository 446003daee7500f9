"""Maximum mean discrepancy: whether two samples come from one distribution."""

from typing import Any

import torch
from torch import Tensor

from .._core.checks import check_generator, check_int
from .._core.config import block_rows, require_memory
from .._core.counter import RandomSource
from .._core.random import draw_permutation, own_stream
from ..kernels import Kernel
from .dense_or_tiles import dense_or_tiles
from .sample_points import as_statistic, check_point_weights, check_points, sample_kernel
from .significance import SampleTest, permutation_test


def _samples(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    a, b = check_points("x", x), check_points("y", y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"y: expected {a.shape[1]} columns beside x {tuple(a.shape)}, got {tuple(b.shape)}"
        )
    return a, b.to(a.device)


def mmd(
    x: Any,
    y: Any,
    kernel: str | Kernel = "rbf",
    *,
    unbiased: bool = False,
    x_weights: Any = None,
    y_weights: Any = None,
) -> Any:
    r"""Measure how far two samples are apart: the squared distance of their means in the RKHS.

    .. math:: \Big\| \sum_i w_i k(\cdot, x_i) - \sum_j v_j k(\cdot, y_j) \Big\|^2
        = w^\top K_{xx} w - 2 w^\top K_{xy} v + v^\top K_{yy} v

    With weights it compares measures, such as curves and surfaces made of pieces. Kernel matrices
    are multiplied in tiles and never built.

    Parameters
    ----------
    x : array-like or Tensor of shape (n, d) or (n,)
        One sample.
    y : array-like or Tensor of shape (m, d) or (m,)
        The other one.
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance between all points as its lengthscale)
        or itself; it is copied.
    unbiased : bool, default False
        Whether pairs of a point with itself are left out, so that the mean over samples is the
        distance of the distributions; the statistic may then be below zero.
    x_weights : array-like or Tensor of shape (n,), optional
        Weights w of x, at least 0; only their shares count.
    y_weights : array-like or Tensor of shape (m,), optional
        Weights v of y.

    Returns
    -------
    float or Tensor of shape ()
        The squared discrepancy, float64: a tensor for tensors, differentiable in the points and
        the weights.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the text names it.

    References
    ----------
    Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", JMLR 13 (2012).

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> mmd(x, x + 3.0, "linear")
    tensor(9., dtype=torch.float64)
    """
    a, b = _samples(x, y)
    w, v = (
        check_point_weights("x_weights", x_weights, a),
        check_point_weights("y_weights", y_weights, b),
    )
    own = sample_kernel("kernel", kernel, torch.cat([a, b]))

    def within(points: Tensor, share: Tensor) -> Tensor:
        total = share @ (own.gram(points) @ share)
        if not unbiased:
            return total
        squares = share.square()
        if not float(squares.detach().sum()) < 1:
            raise ValueError("weights: expected two points of positive weight for unbiased=True")
        return (total - squares @ own.diag(points)) / (1 - squares.sum())

    found = within(a, w) - 2 * (w @ (own.gram(a, b) @ v)) + within(b, v)
    return as_statistic(found, x)


@torch.no_grad()
def mmd_test(
    x: Any,
    y: Any,
    kernel: str | Kernel = "rbf",
    *,
    permutations: int = 999,
    num_features: int | None = None,
    generator: RandomSource | int | None = None,
) -> SampleTest:
    r"""Test whether two samples come from one distribution, by the unbiased squared MMD.

    Under that hypothesis all ways to share out the points are alike, so the rank of the statistic
    among those of random ones gives a p-value that is valid for any sample size and kernel:
    :math:`P(p \le \alpha) \le \alpha`.

    Parameters
    ----------
    x : array-like or Tensor of shape (n, d) or (n,)
        One sample.
    y : array-like or Tensor of shape (m, d) or (m,)
        The other one.
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance between all points as its lengthscale)
        or itself; it is copied.
    permutations : int, default 999
        How many; the smallest p-value is 1 / (permutations + 1).
    num_features : int, optional
        Take so many features of the kernel in its place (`mercer.features.kernel_features`): work
        and memory that grow with n + m, not with its square. The test remains valid.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the permutations, and of features; None means torch's default generator.

    Returns
    -------
    SampleTest
        The statistic, its p-value and the permuted statistics, with a plot.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the text names it.
    MemoryError
        If the features do not fit the memory budget.

    Notes
    -----
    The kernel matrix of all points is built where it fits; otherwise it is multiplied in tiles,
    with as many permutations at a time as fit.

    References
    ----------
    Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", JMLR 13 (2012).

    Examples
    --------
    >>> import torch
    >>> source = torch.Generator().manual_seed(0)
    >>> x = torch.randn(100, 2, generator=source)
    >>> y = torch.randn(100, 2, generator=source)
    >>> mmd_test(x, y, generator=0).p_value > 0.05
    True
    >>> mmd_test(x, y + 1, generator=0).p_value
    0.001
    """
    a, b = _samples(x, y)
    count = check_int("permutations", permutations)
    source = own_stream(check_generator(generator))
    points = torch.cat([a, b])
    n, m = len(a), len(b)
    own = sample_kernel("kernel", kernel, points)
    product, diagonal = _matrix(own, points, num_features, source)

    def statistics(members: Tensor) -> Tensor:
        """Evaluate the statistic for memberships (n + m, c) in the first sample, shape (c,)."""
        times = product(members)
        first = (members * times).sum(0)  # sum of k over pairs within the first sample
        both = (totals @ members) - first  # over pairs between the samples
        second = totals.sum() - first - 2 * both
        trace = diagonal @ members
        return (
            (first - trace) / (n * (n - 1))
            + (second - (diagonal.sum() - trace)) / (m * (m - 1))
            - 2 * both / (n * m)
        )

    ones = points.new_ones(n + m, 1)
    totals = product(ones).squeeze(-1)  # (n + m,)
    members = (torch.arange(n + m, device=points.device) < n).double()
    observed = statistics(members.unsqueeze(-1))[0]
    step = block_rows(8 * 8 * (n + m), most=count)
    null = []
    for start in range(0, count, step):
        orders = [draw_permutation(n + m, source) for _ in range(min(step, count - start))]
        shuffled = members[torch.stack(orders, 1).to(points.device)]  # (n + m, c)
        null.append(statistics(shuffled))
    return permutation_test("MMD²", observed, torch.cat(null), scale=float(diagonal.mean()))


def _matrix(kernel: Kernel, points: Tensor, num_features: int | None, source: RandomSource) -> Any:
    """Return the product with a kernel matrix, or that of features, and its diagonal (n,)."""
    if num_features is not None:
        size = check_int("num_features", num_features)
        option = "ask for fewer features"
        require_memory(16 * len(points) * size, f"{len(points)} rows of {size} features", option)
        phi = kernel.features(size, like=points, generator=source)(points)  # (n, r)
        return lambda v: phi @ (phi.mT @ v), phi.square().sum(1)
    gram = kernel.gram(points)
    matrix = dense_or_tiles(gram)
    return lambda v: matrix @ v, gram.diagonal()
