"""Determinantal point processes: random subsets that repel, probability by determinant."""

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .psd import psd_spectrum


@torch.no_grad()
def sample_kdpp(
    matrix: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    size: int,
    generator: RandomSource | int | None = None,
) -> Tensor:
    r"""Draw a subset of fixed size with probability proportional to its determinant.

    .. math:: P(S) = \det(L_{SS}) / e_k(\lambda), \qquad |S| = k

    First k eigenvectors of L are drawn through the elementary symmetric polynomials
    :math:`e_l(\lambda_1 \ldots \lambda_j)`, kept as logarithms so that neither hundreds of
    factors nor eigenvalues twelve decades apart over- or underflow; then a projection DPP on
    those eigenvectors.

    Parameters
    ----------
    matrix : Tensor of shape (n, n), optional
        L, symmetric positive semi-definite. Either this or ``factor``.
    factor : Tensor of shape (n, p), optional
        A with L = A A^T; the n by n matrix is then never formed.
    size : int
        Number k of points.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LongTensor of shape (size,)
        The points, ascending.

    Raises
    ------
    TypeError
        If both or none of ``matrix`` and ``factor`` are given, it is not a floating-point
        tensor, or ``size`` is not an integer.
    ValueError
        If L is not square, symmetric, finite and positive semi-definite, or ``size`` is below
        1 or above the numerical rank of L.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Kulesza, Taskar, "k-DPPs: fixed-size determinantal point processes", ICML 2011; Kulesza,
    Taskar, "Determinantal point processes for machine learning", 2012, arXiv 1207.6083.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 50)
    >>> kernel = torch.exp(-200 * (x[:, None] - x).square())
    >>> sample_kdpp(kernel.double(), size=4, generator=0).shape
    torch.Size([4])
    """
    check_int("size", size)
    source = check_generator(generator)
    option = "give a factor with fewer columns, or draw from a sample of the points"
    eigenvalues, vectors = psd_spectrum(matrix, factor, option)
    if size > len(eigenvalues):
        raise ValueError(
            f"size: expected at most the numerical rank {len(eigenvalues)} of the "
            f"{'matrix' if matrix is not None else 'factor'}, got {size}"
        )
    require_memory(
        8 * (len(eigenvalues) + 1) * (size + 1), "the table of symmetric polynomials", option
    )
    chosen = _choose_eigenvectors(eigenvalues.log().cpu(), size, 1, source)[0]  # (k,)
    basis = vectors[:, chosen.to(vectors.device)]  # (n, k)
    return project(basis, source)


@torch.no_grad()
def projection_dpp(basis: Tensor, generator: RandomSource | int | None = None) -> Tensor:
    r"""Draw from the projection DPP of an orthonormal basis.

    With the projector :math:`P = V V^\top` of rank k, a subset of k points has the probability
    :math:`\det(P_{SS})`, and a point i is in it with probability :math:`P_{ii}`.

    Parameters
    ----------
    basis : Tensor of shape (..., n, k)
        V, with orthonormal columns; leading axes are independent draws.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LongTensor of shape (..., k)
        The points, ascending.

    Raises
    ------
    TypeError
        If ``basis`` is not a floating-point tensor.
    ValueError
        If its columns are not orthonormal, or a number is not finite.

    References
    ----------
    Hough, Krishnapur, Peres, Virág, "Determinantal processes and independence", Probability
    Surveys 3 (2006), arXiv math/0503110.

    Examples
    --------
    >>> import torch
    >>> projection_dpp(torch.eye(5)[:, [1, 3]], generator=0)
    tensor([1, 3])
    """
    if check_tensor("basis", basis).ndim < 2 or basis.shape[-1] == 0:
        raise ValueError(f"basis: expected shape (..., n, k), got {tuple(basis.shape)}")
    check_finite("basis", basis)
    columns = basis.detach().double()
    gram = columns.mT @ columns  # (..., k, k)
    gap = float((gram - torch.eye(gram.shape[-1]).to(gram)).abs().max()) if gram.numel() else 0.0
    if gap > torch.finfo(basis.dtype).eps ** 0.5:
        raise ValueError(
            f"basis: expected orthonormal columns, got V^T V that differs from the identity by "
            f"{gap:.3g}, shape {tuple(basis.shape)}"
        )
    return project(columns, check_generator(generator))


def _log_symmetric_polynomials(log_values: Tensor, size: int) -> Tensor:
    """Logarithms of e_l of the first j values, as table[j, l], shape (n + 1, size + 1).

    Row by row, e_l(1..j) = e_l(1..j-1) + value_j e_{l-1}(1..j-1): sums of positive terms only.
    """
    table = log_values.new_full((len(log_values) + 1, size + 1), -torch.inf)
    table[:, 0] = 0.0
    for j, log_value in enumerate(log_values, start=1):
        torch.logaddexp(table[j - 1, 1:], table[j - 1, :-1] + log_value, out=table[j, 1:])
    return table


def _choose_eigenvectors(
    log_values: Tensor, size: int, draws: int, generator: RandomSource | None
) -> Tensor:
    """Draw sets of ``size`` eigenvectors, each set with its product as weight: (draws, size)."""
    n = len(log_values)
    table = _log_symmetric_polynomials(log_values, size)
    uniform = draw_uniform((draws, n), generator).cpu()
    missing = torch.full((draws,), size)
    taken = torch.zeros(draws, n, dtype=torch.bool)
    for j in range(n, 0, -1):
        before = (missing - 1).clamp_min(0)
        # P(take j | l missing among the first j) = value_j e_{l-1}(j-1) / e_l(j); 1 where l = j.
        log_take = log_values[j - 1] + table[j - 1, before] - table[j, missing]  # (draws,)
        take = (missing > 0) & (uniform[:, j - 1] < log_take.exp())
        taken[:, j - 1] = take
        missing -= take.long()
    return taken.nonzero()[:, 1].view(draws, size)


def project(basis: Tensor, generator: RandomSource | None) -> Tensor:
    """Chain rule: draw by what the rows of V keep outside the span of the rows drawn so far."""
    *batch, n, k = basis.shape
    rows = basis.reshape(-1, n, k)  # (b, n, k)
    uniform = draw_uniform((k, len(rows), 1), generator, rows.device).to(rows.device)
    each = torch.arange(len(rows), device=rows.device)
    residual = rows.square().sum(-1)  # (b, n)
    span = rows.new_zeros(len(rows), k, k)  # orthonormal, one row a step
    points = torch.empty(len(rows), k, dtype=torch.long, device=rows.device)
    for step in range(k):
        # What is left sums to k - step >= 1, so the draw never runs on rounding.
        mass = residual.cumsum(-1)
        point = torch.searchsorted(mass, uniform[step] * mass[:, -1:], right=True)  # (b, 1)
        point = point.squeeze(-1).clamp_max(n - 1)
        direction = rows[each, point].unsqueeze(-1)  # (b, k, 1)
        done = span[:, :step]  # (b, step, k)
        for _ in range(2):  # once is not orthogonal to rounding, twice is
            direction = direction - done.mT @ (done @ direction)
        direction = direction / direction.norm(dim=1, keepdim=True)
        residual -= (rows @ direction).squeeze(-1).square()
        residual.clamp_min_(0.0)
        residual[each, point] = 0.0  # a point is drawn once
        span[:, step] = direction.squeeze(-1)
        points[:, step] = point
    return points.sort(-1).values.view(*batch, k)
