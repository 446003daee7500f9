"""Volume sampling: subsets of rows, probability by the volume that they span."""

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_tensor
from .._core.counter import RandomSource
from .._core.random import draw_integers, draw_permutation, draw_uniform
from .dpp import project, sample_kdpp
from .psd import psd_spectrum

_REFRESH = 0.9  # the share of rows at which rounding is cleared away


@torch.no_grad()
def volume_sampling(
    factor: Tensor, *, size: int, generator: RandomSource | int | None = None
) -> Tensor:
    r"""Draw a subset of rows with probability proportional to its squared volume.

    .. math::
        P(S) = \frac{\det(A_S^\top A_S)}{\binom{n-p}{k-p} \det(A^\top A)} \quad (k \ge p), \qquad
        P(S) = \frac{\det(A_S A_S^\top)}{e_k(A A^\top)} \quad (k \le p)

    for the k = ``size`` rows :math:`A_S` of A, which has rank p. Least squares on such a subset
    is unbiased, :math:`E[A_S^+ y_S] = A^+ y`, for every y.

    Up to p rows it is the k-DPP of A A^T, from the singular values of A, in the log domain. With
    more, the law depends on the span of the columns only. So they are made orthonormal, and rows
    are thrown out one by one, each with probability proportional to one minus its leverage among
    those left, by rejection: O(n p^2) in all.

    Parameters
    ----------
    factor : Tensor of shape (n, p)
        A. Where its rank is smaller than p, the rank takes its place in the formulae.
    size : int
        k, at most n.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LongTensor of shape (size,)
        The rows, ascending.

    Raises
    ------
    TypeError
        If ``factor`` is not a floating-point tensor, or ``size`` not an integer.
    ValueError
        If A has no rank, a number is not finite, or ``size`` is below 1 or above n.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Deshpande, Rademacher, Vempala, Wang, "Matrix approximation and projective clustering via
    volume sampling", SODA 2006.

    Derezinski, Warmuth, "Reverse iterative volume sampling for linear regression", JMLR 19
    (2018), arXiv 1806.01969.

    Examples
    --------
    >>> import torch
    >>> a = torch.cat([torch.eye(2), torch.zeros(3, 2)])  # rows without volume
    >>> volume_sampling(a, size=2, generator=0)
    tensor([0, 1])
    >>> len(volume_sampling(a, size=4, generator=0))
    4
    """
    k = check_int("size", size)
    source = check_generator(generator)
    option = "give a factor with fewer columns, or draw from a sample of the rows"
    _, basis = psd_spectrum(None, factor, option)  # (n, r), orthonormal
    n, rank = basis.shape
    if rank == 0:
        raise ValueError(f"factor: expected a matrix with a rank, got zeros {tuple(factor.shape)}")
    if k > n:
        raise ValueError(f"size: expected at most the {n} rows of factor, got {k}")
    if k <= rank:
        return sample_kdpp(factor=factor, size=k, generator=source)
    return _reverse(basis.cpu(), k, source).to(factor.device)


@torch.no_grad()
def rescaled_volume_sampling(
    factor: Tensor,
    *,
    size: int,
    proposal: Tensor | None = None,
    generator: RandomSource | int | None = None,
) -> Tensor:
    r"""Draw rows with repetition, by the volume that they span once they are rescaled.

    .. math::
        P(i_1, \ldots, i_k) = \frac{(k-p)!}{k!} \,
        \frac{\det \sum_j a_{i_j} a_{i_j}^\top / \nu_{i_j}}{\det A^\top A} \,
        \prod_j \nu_{i_j}

    Least squares on these rows with the weights :math:`1 / \nu` is unbiased for any proposal
    :math:`\nu`, and by default it is the best one, the leverage of the rows; then each row drawn
    has that law. It is drawn exactly: p rows by the projection DPP of A, k - p independently by
    :math:`\nu`, shuffled.

    Parameters
    ----------
    factor : Tensor of shape (n, p)
        A. Where its rank is smaller than p, the rank takes its place.
    size : int
        Number k of draws, at least the rank.
    proposal : Tensor of shape (n,), optional
        The probabilities :math:`\nu`, scaled to sum to one; positive wherever a row is not zero.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LongTensor of shape (size,)
        The rows, in the order of the draws.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If A has no rank, a number is not finite, ``size`` is below the rank, or the proposal is
        not as described.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Derezinski, Warmuth, Hsu, "Leveraged volume sampling for linear regression", NeurIPS 2018,
    arXiv 1802.06749.

    Nouy, Michel, "Weighted least-squares approximation with determinantal point processes and
    generalized volume sampling", 2023, arXiv 2312.14057.

    Examples
    --------
    >>> import torch
    >>> a = torch.cat([torch.eye(2), torch.zeros(3, 2)])
    >>> rescaled_volume_sampling(a, size=6, generator=0).unique()  # both rows, some repeatedly
    tensor([0, 1])
    """
    k = check_int("size", size)
    source = check_generator(generator)
    option = "give a factor with fewer columns, or draw from a sample of the rows"
    _, basis = psd_spectrum(None, factor, option)  # (n, r), orthonormal
    n, rank = basis.shape
    if rank == 0:
        raise ValueError(f"factor: expected a matrix with a rank, got zeros {tuple(factor.shape)}")
    if k < rank:
        raise ValueError(f"size: expected at least the rank {rank} of factor, got {k}")
    leverage = basis.square().sum(1)  # (n,)
    law = leverage
    if proposal is not None:
        check_finite("proposal", check_tensor("proposal", proposal, ndim=1))
        law = proposal.detach().to(leverage)
        if len(law) != n or bool((law < 0).any()) or bool(((law == 0) & (leverage > 1e-12)).any()):
            raise ValueError(
                f"proposal: expected {n} numbers >= 0, positive where rows of factor are not zero, "
                f"got shape {tuple(proposal.shape)}"
            )
    ends = law.cumsum(0)
    uniform = draw_uniform((k - rank,), source).to(ends.device)
    free = torch.searchsorted(ends, uniform * ends[-1], right=True).clamp_max(n - 1)
    drawn = torch.cat([project(basis, source), free])
    return drawn[draw_permutation(k, source).to(drawn.device)]


def _reverse(basis: Tensor, size: int, source: RandomSource | None) -> Tensor:
    """Throw out rows of an orthonormal basis until ``size`` are left."""
    rows = torch.arange(len(basis))
    while len(rows) > size:
        # Orthonormal again: what was thrown out has made the columns less and less so.
        basis = torch.linalg.qr(basis).Q
        goal = max(size, min(len(rows) - 1, int(_REFRESH * len(rows))))
        kept = _throw_out(basis, goal, source)
        rows, basis = rows[kept], basis[kept]
    return rows


def _throw_out(basis: Tensor, size: int, source: RandomSource | None) -> Tensor:
    """Throw out rows until ``size`` are left; positions of the others, ascending."""
    n, rank = basis.shape
    inverse = torch.eye(rank, dtype=basis.dtype)  # of the moments of the rows left
    left = torch.arange(n)
    count = n
    while count > size:
        # With l the leverage, (count - rank) / count of the proposals are taken: in batches.
        batch = 8 * count // (count - rank) + 8
        places = draw_integers(count, (batch,), source).cpu()
        uniform = draw_uniform((batch,), source).cpu()
        proposed = basis[left[places]]  # (b, r)
        spare = 1 - ((proposed @ inverse) * proposed).sum(1)  # (b,)
        taken = (uniform < spare).nonzero()
        if not len(taken):
            continue
        first = int(taken[0])
        place, row = int(places[first]), proposed[first]
        step = inverse @ row  # (r,)
        inverse += torch.outer(step, step / spare[first])
        count -= 1
        left[place] = left[count]
    return left[:count].sort().values
