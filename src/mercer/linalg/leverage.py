"""Ridge leverage scores: how much each point matters to a kernel ridge regression."""

import torch
from torch import Tensor

from .._core.checks import check_real
from .psd import psd_spectrum


@torch.no_grad()
def ridge_leverage_scores(
    matrix: Tensor | None = None, *, factor: Tensor | None = None, ridge: float
) -> Tensor:
    r"""Exact ridge leverage scores of a positive semi-definite matrix.

    .. math:: \tau_i = [K (K + \lambda I)^{-1}]_{ii} \in [0, 1]

    Their sum is the effective dimension :math:`\operatorname{tr} K (K + \lambda I)^{-1}`. At
    :math:`\lambda = 0` the score is the diagonal of the projection on the range of K.

    Parameters
    ----------
    matrix : Tensor of shape (n, n), optional
        K, symmetric positive semi-definite. Either this or ``factor``.
    factor : Tensor of shape (n, p), optional
        A with K = A A^T; the n by n matrix is then never formed.
    ridge : float
        The ridge, at least 0, in the units of K's eigenvalues (not divided by n).

    Returns
    -------
    Tensor of shape (n,)
        The scores, in the input's dtype; computed in float64.

    Raises
    ------
    TypeError
        If both or none of ``matrix`` and ``factor`` are given, or it is not a floating-point
        tensor.
    ValueError
        If K is not square, symmetric, finite and positive semi-definite, or the ridge is
        negative.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Alaoui, Mahoney, "Fast randomized kernel ridge regression with statistical guarantees",
    NeurIPS 2015, arXiv 1411.0306.

    Examples
    --------
    >>> import torch
    >>> a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> ridge_leverage_scores(factor=a, ridge=1.0)
    tensor([0.5000, 0.3333, 0.3333])
    >>> ridge_leverage_scores(a @ a.mT, ridge=0.0)
    tensor([1.0000, 0.5000, 0.5000])
    """
    ridge = check_real("ridge", ridge, least=0.0)
    option = "give a factor with fewer columns, or score a sample of the points"
    eigenvalues, vectors = psd_spectrum(matrix, factor, option)
    # A sum of squares: small scores keep their relative accuracy, which 1 - ridge * [...]^-1
    # would lose.
    scores = vectors.square() @ (eigenvalues / (eigenvalues + ridge))  # (n,)
    given = matrix if matrix is not None else factor
    assert given is not None
    return scores.clamp_max(1.0).to(given.dtype)


@torch.no_grad()
def effective_dimension(
    matrix: Tensor | None = None, *, factor: Tensor | None = None, ridge: float
) -> float:
    r"""How many directions of a positive semi-definite matrix stand out against a ridge.

    .. math:: d(\lambda) = \operatorname{tr} K (K + \lambda I)^{-1} = \sum_i \tau_i

    It is the sum of the ridge leverage scores, the degrees of freedom of a kernel ridge
    regression, and the expected size of the DPP of :math:`K / \lambda`.

    Parameters
    ----------
    matrix : Tensor of shape (n, n), optional
        K, symmetric positive semi-definite. Either this or ``factor``.
    factor : Tensor of shape (n, p), optional
        A with K = A A^T; the n by n matrix is then never formed.
    ridge : float
        The ridge, at least 0, in the units of K's eigenvalues (not divided by n). At 0 it is the
        numerical rank.

    Returns
    -------
    float
        The dimension, from 0 to n.

    Raises
    ------
    TypeError
        If both or none of ``matrix`` and ``factor`` are given, or it is not a floating-point
        tensor.
    ValueError
        If K is not square, symmetric, finite and positive semi-definite, or the ridge is
        negative.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Alaoui, Mahoney, "Fast randomized kernel ridge regression with statistical guarantees",
    NeurIPS 2015, arXiv 1411.0306.

    Examples
    --------
    >>> import torch
    >>> effective_dimension(torch.diag(torch.tensor([3.0, 1.0, 0.0])), ridge=1.0)
    1.25
    """
    ridge = check_real("ridge", ridge, least=0.0)
    option = "give a factor with fewer columns, or take a sample of the points"
    eigenvalues, _ = psd_spectrum(matrix, factor, option)
    return float((eigenvalues / (eigenvalues + ridge)).sum())
