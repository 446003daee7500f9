"""The Hilbert-Schmidt independence criterion: whether two variables have to do with each other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._core.checks import check_choice, check_generator, check_int
from .._core.config import block_rows, require_memory
from .._core.counter import RandomSource
from .._core.random import draw_permutation, own_stream
from ..kernels import Gram, Kernel
from .centered_gram import CenteredGram
from .permutation_moments import CenteredMoments, permutation_moments
from .sample_points import (
    as_statistic,
    check_point_weights,
    check_points,
    sample_gram,
    sample_kernel,
)
from .significance import SampleTest, gamma_test, permutation_test

_BLOCK = 512  # rows of both matrices at a time
_STRIP = 32  # rows of a permuted matrix


def _samples(x: Any, y: Any, least: int) -> tuple[Tensor, Tensor]:
    a, b = check_points("x", x, least=least), check_points("y", y, least=least)
    if len(a) != len(b):
        raise ValueError(f"y: expected {len(a)} rows, one for each of x, got {len(b)}")
    return a, b.to(a.device)


def _blocks(n: int) -> list[Tensor]:
    """Cut n rows so that blocks of two matrices fit the memory budget."""
    return list(torch.arange(n).split(block_rows(8 * 6 * n, most=_BLOCK)))


def hsic(
    x: Any,
    y: Any,
    x_kernel: str | Kernel = "rbf",
    y_kernel: str | Kernel = "rbf",
    *,
    unbiased: bool = False,
    weights: Any = None,
) -> Any:
    r"""Measure the dependence of two variables: the squared norm of their cross-covariance.

    .. math:: \mathrm{HSIC} = \frac{1}{n^2} \, \mathrm{tr}(K H L H), \qquad
        H = I - \tfrac1n 1 1^\top

    It is zero only for independent variables where both kernels are characteristic, such as
    `RBF` and `Laplacian`; with linear kernels it sees correlation alone. The matrices are
    evaluated a block of rows at a time.

    Parameters
    ----------
    x : array-like or Tensor of shape (n, d) or (n,)
        One variable, or its kernel matrix (n, n).
    y : array-like or Tensor of shape (n, e) or (n,)
        The other one, row by row.
    x_kernel, y_kernel : str or Kernel, default "rbf"
        Kernels, by name (then with the median distance as lengthscale), themselves, or
        ``"precomputed"``; they are copied.
    unbiased : bool, default False
        Whether terms in which an index repeats are left out, so that the mean over samples is
        the criterion of the distributions; the statistic may then be below zero.
    weights : array-like or Tensor of shape (n,), optional
        Weights of rows, at least 0; only their shares count. Not for the unbiased one.

    Returns
    -------
    float or Tensor of shape ()
        The criterion, float64: a tensor for tensors, differentiable in the points.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the text names it.

    References
    ----------
    Gretton, Fukumizu, Teo, Song, Schölkopf, Smola, "A kernel statistical test of independence",
    NeurIPS 2007.

    Song, Smola, Gretton, Bedo, Borgwardt, "Feature selection via dependence maximization", JMLR
    13 (2012): the unbiased one.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([-1.0, 0.0, 1.0])
    >>> hsic(x, 2 * x, "linear", "linear")  # the squared covariance
    tensor(1.7778, dtype=torch.float64)
    """
    a, b = _samples(x, y, 4 if unbiased else 2)
    if unbiased and weights is not None:
        raise ValueError("weights: the unbiased criterion has none; leave them out")
    share = check_point_weights("weights", weights, a)
    kx, ky = sample_gram("x_kernel", a, x_kernel), sample_gram("y_kernel", b, y_kernel)
    n = len(a)
    skip = 1.0 if unbiased else 0.0
    w = a.new_ones(n) if unbiased else share

    def part(p: Tensor, q: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kr = _rows(kx, p, rows, skip)  # (b, n)
        lr = _rows(ky, q, rows, skip)
        return (w[rows] @ (kr * lr)) @ w, kr @ w, lr @ w

    terms = []
    for rows in _blocks(n):
        rows = rows.to(a.device)
        # Kept for the gradient would be both matrices: they are evaluated again instead.
        needed = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        again = checkpoint(part, a, b, rows, use_reentrant=False) if needed else part(a, b, rows)
        terms.append(again)
    both = torch.stack([term[0] for term in terms]).sum()
    u, v = torch.cat([term[1] for term in terms]), torch.cat([term[2] for term in terms])  # (n,)
    if unbiased:
        product = u.sum() * v.sum() / ((n - 1) * (n - 2))
        found = (both + product - 2 / (n - 2) * (u @ v)) / (n * (n - 3))
    else:
        found = both - 2 * (w @ (u * v)) + (w @ u) * (w @ v)
    return as_statistic(found, x)


def _rows(gram: Gram, points: Tensor, rows: Tensor, skip: float) -> Tensor:
    """Evaluate rows of a kernel matrix from points, with or without its diagonal."""
    if gram.kernel.event_ndim == 0:
        found = points[rows]
    else:
        found = gram.kernel(points[rows], points)
    if skip:
        mask = torch.ones_like(found)
        mask[torch.arange(len(rows), device=rows.device), rows] = 0.0
        found = found * mask
    return found


@torch.no_grad()
def hsic_test(
    x: Any,
    y: Any,
    x_kernel: str | Kernel = "rbf",
    y_kernel: str | Kernel = "rbf",
    *,
    method: str = "permutation",
    permutations: int = 999,
    num_features: int | None = None,
    generator: RandomSource | int | None = None,
) -> SampleTest:
    r"""Test whether two variables are independent, by their HSIC.

    Under that hypothesis every order of y is as likely as the given one, so that the rank of
    the criterion among those of random orders gives a p-value that is valid for any sample size
    and kernels: :math:`P(p \le \alpha) \le \alpha`. With ``method="gamma"`` the distribution over
    all orders is replaced by the gamma distribution of the same, exact, mean and variance. There
    is nothing to draw then, but p-values are approximate, off by 0.01 or so near 0.05.

    Parameters
    ----------
    x : array-like or Tensor of shape (n, d) or (n,)
        One variable, or its kernel matrix (n, n); n at least 6.
    y : array-like or Tensor of shape (n, e) or (n,)
        The other one, row by row.
    x_kernel, y_kernel : str or Kernel, default "rbf"
        Kernels, by name (then with the median distance as lengthscale), themselves, or
        ``"precomputed"``; they are copied.
    method : {"permutation", "gamma"}
        Where the distribution under the hypothesis comes from.
    permutations : int, default 999
        How many; the smallest p-value is 1 / (permutations + 1).
    num_features : int, optional
        Take so many features of both kernels in their place (`mercer.features.kernel_features`):
        work and memory that grow with n, not with its square. Permutations remain valid.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the permutations, and of features; None means torch's default generator.

    Returns
    -------
    SampleTest
        The criterion, its p-value and the permuted ones, with a plot.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the text names it.
    MemoryError
        If permutations of two dense matrices do not fit the memory budget.

    References
    ----------
    Gretton, Fukumizu, Teo, Song, Schölkopf, Smola, "A kernel statistical test of independence",
    NeurIPS 2007; there the gamma distribution has moments of the limit of many points.

    Kazi-Aoual, Hitier, Sabatier, Lebreton, "Refined approximations to permutation tests for
    multivariate inference", Computational Statistics and Data Analysis 20 (1995).

    Examples
    --------
    >>> import torch
    >>> source = torch.Generator().manual_seed(0)
    >>> x = torch.randn(200, generator=source)
    >>> noise = torch.randn(200, generator=source)
    >>> hsic_test(x, noise, generator=0).p_value > 0.05
    True
    >>> hsic_test(x, x**2 + noise, generator=0).p_value  # not correlated, but dependent
    0.001
    """
    a, b = _samples(x, y, 6)
    check_choice("method", method, ("permutation", "gamma"))
    count = check_int("permutations", permutations)
    source = own_stream(check_generator(generator))
    n = len(a)
    if num_features is not None:
        size = check_int("num_features", num_features)
        option = "ask for fewer features"
        require_memory(8 * 4 * n * size, f"two times {n} rows of {size} features", option)
        kx = sample_kernel("x_kernel", x_kernel, a)
        ky = sample_kernel("y_kernel", y_kernel, b)
        phi = kx.features(size, like=a, generator=source)(a)  # (n, p)
        psi = ky.features(size, like=b, generator=source)(b)  # (n, q)
        phi, psi = phi - phi.mean(0), psi - psi.mean(0)
        if method == "gamma":
            return _gamma(n, _of_features(phi), _of_features(psi), (phi.mT @ psi).square().sum())
        return _permuted(n, lambda order: (phi.mT @ psi[order]).square().sum(), count, source)
    kx, ky = sample_gram("x_kernel", a, x_kernel), sample_gram("y_kernel", b, y_kernel)
    if method == "gamma":
        return _gamma(n, *_of_blocks(n, CenteredGram(kx), CenteredGram(ky)))
    option = "give num_features=, or take method='gamma'"
    left = CenteredGram(kx).to_dense(option)  # (n, n)
    right = CenteredGram(ky).to_dense(option)

    def trace(order: Tensor) -> Tensor:
        order, total = order.to(left.device), left.new_zeros(())
        for start in range(0, n, _STRIP):  # the upper half, in strips that stay in the caches
            stop = min(start + _STRIP, n)
            strip = right[order[start:stop]].index_select(1, order[start:])  # (b, n - start)
            pairs = left[start:stop, start:] * strip
            total += 2 * pairs.sum() - pairs[:, : stop - start].sum()
        return total

    return _permuted(n, trace, count, source)


def _permuted(
    n: int, trace: Callable[[Tensor], Tensor], count: int, source: RandomSource
) -> SampleTest:
    """Evaluate tr(A B) for random orders of B, and rank the given order among them."""
    observed = trace(torch.arange(n)) / n**2
    null = torch.stack([trace(draw_permutation(n, source)) for _ in range(count)]) / n**2
    scale = float(null.abs().max())
    return permutation_test("HSIC", observed, null, scale=scale)


def _gamma(n: int, left: CenteredMoments, right: CenteredMoments, trace: Tensor) -> SampleTest:
    mean, variance = permutation_moments(n, left, right)
    return gamma_test("HSIC", float(trace) / n**2, mean / n**2, variance / n**4)


def _of_features(phi: Tensor) -> CenteredMoments:
    """Take the moments of A = phi phi^T, centred features (n, p)."""
    squares = phi.square().sum(1)  # (n,)
    second = (phi.mT @ phi).square().sum()
    return CenteredMoments(float(squares.sum()), float(second), float(squares.square().sum()))


def _of_blocks(
    n: int, left: CenteredGram, right: CenteredGram
) -> tuple[CenteredMoments, CenteredMoments, Tensor]:
    """Take the moments of two centred matrices, and the trace of their product, in one pass."""
    sums = left.means.new_zeros(2, 3)
    product = left.means.new_zeros(())
    for rows in _blocks(n):
        rows = rows.to(left.means.device)
        a, b = left.rows(rows), right.rows(rows)  # (b, n)
        product += (a * b).sum()
        for i, part in enumerate((a, b)):
            diagonal = part.gather(1, rows.unsqueeze(-1))  # (b, 1)
            found = [diagonal.sum(), part.square().sum(), diagonal.square().sum()]
            sums[i] += torch.stack(found)
    return CenteredMoments(*sums[0].tolist()), CenteredMoments(*sums[1].tolist()), product
