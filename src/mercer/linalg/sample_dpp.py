"""Determinantal point processes of random size: the eigenvectors are drawn one by one."""

import torch
from torch import Tensor

from .._core.checks import check_choice, check_generator
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .dpp import project
from .psd import psd_spectrum


@torch.no_grad()
def sample_dpp(
    matrix: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    kind: str = "ensemble",
    generator: RandomSource | int | None = None,
) -> Tensor:
    r"""Draw a subset of random size that repels, with all subsets' probabilities known.

    ============ ========================================= ======================================
    kind         law                                       expected size
    ============ ========================================= ======================================
    ``ensemble`` :math:`P(S) = \det(L_{SS}) / \det(I + L)` tr L (I + L)^-1, the effective
                                                           dimension of L at the ridge 1
    ``marginal`` :math:`P(T \subseteq S) = \det(K_{TT})`   tr K
    ============ ========================================= ======================================

    A DPP is a mixture of projection DPPs: eigenvector i takes part with probability
    :math:`\lambda_i / (1 + \lambda_i)` of L, or :math:`\lambda_i` of K; the set is then drawn
    from the projection on those that do. Divide L by a ridge for the DPP whose inclusion
    probabilities are the ridge leverage scores.

    Parameters
    ----------
    matrix : Tensor of shape (n, n), optional
        L, or K with eigenvalues in [0, 1]; symmetric positive semi-definite. Either this or
        ``factor``.
    factor : Tensor of shape (n, p), optional
        A with L = A A^T, or K = A A^T; then only p eigenvectors are computed, from the thin
        singular value decomposition, in O(n p^2), and no n by n matrix is formed.
    kind : {"ensemble", "marginal"}, default "ensemble"
        Which matrix it is.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LongTensor of shape (size,)
        The points, ascending; there may be none.

    Raises
    ------
    TypeError
        If both or none of ``matrix`` and ``factor`` are given, or it is not a floating-point
        tensor.
    ValueError
        If the matrix is not square, symmetric, finite and positive semi-definite, a marginal
        kernel has eigenvalues above one, or the kind is unknown.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Hough, Krishnapur, Peres, Virág, "Determinantal processes and independence", Probability
    Surveys 3 (2006), arXiv math/0503110.

    Kulesza, Taskar, "Determinantal point processes for machine learning", 2012, arXiv 1207.6083.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 50).double()
    >>> kernel = torch.exp(-200 * (x[:, None] - x).square())
    >>> len(sample_dpp(kernel, generator=0)), len(sample_dpp(kernel / 0.01, generator=0))
    (10, 26)
    >>> sample_dpp(torch.diag(torch.tensor([1.0, 0.0, 1.0])), kind="marginal")
    tensor([0, 2])
    """
    check_choice("kind", kind, ("ensemble", "marginal"))
    source = check_generator(generator)
    option = "give a factor with fewer columns, or draw from a sample of the points"
    eigenvalues, vectors = psd_spectrum(matrix, factor, option)  # (r,), (n, r)
    if kind == "ensemble":
        shares = eigenvalues / (1 + eigenvalues)  # (r,)
    else:
        given = matrix if matrix is not None else factor
        assert given is not None
        largest = float(eigenvalues.max()) if len(eigenvalues) else 0.0
        if largest > 1 + torch.finfo(given.dtype).eps ** 0.5:
            raise ValueError(
                f"{'matrix' if matrix is not None else 'factor'}: expected a marginal kernel, "
                f"with eigenvalues in [0, 1], got one of {largest:.6g}; kind='ensemble' has no "
                "such bound"
            )
        shares = eigenvalues.clamp_max(1.0)
    uniform = draw_uniform((len(shares),), source, shares.device).to(shares.device)
    basis = vectors[:, uniform < shares]  # (n, k)
    if not basis.shape[1]:
        return torch.empty(0, dtype=torch.long, device=basis.device)
    return project(basis, source)
