"""Which neurons of a layer stand best for all of them."""

import torch
from torch import Tensor

from .._core.checks import (
    check_choice,
    check_finite,
    check_int,
    check_last_dim,
    check_real,
    check_tensor,
)
from .._core.counter import RandomSource
from ..linalg.approximate_leverage import ridge_of_dimension
from ..linalg.dpp import sample_kdpp
from ..linalg.leverage import ridge_leverage_scores
from ..linalg.pivoted_cholesky import pivoted_cholesky
from ..linalg.psd import check_psd_matrix

SELECTIONS = ("leverage", "dpp", "greedy")


@torch.no_grad()
def select_neurons(
    covariance: Tensor,
    num_features: int,
    *,
    method: str = "leverage",
    output_weight: Tensor | None = None,
    ridge: float | None = None,
    generator: RandomSource | int | None = None,
) -> Tensor:
    r"""Choose neurons from which the others are well predicted.

    The choice looks at the neurons' second moments, each neuron weighted by what it passes on:

    .. math:: C = D \, (H^\top H / n) \, D, \qquad D = \mathrm{diag}(\|v_1\|, \ldots, \|v_p\|)

    with H the activations of n inputs and :math:`v_j` the column of the next layer that reads
    neuron j.

    ============ ======================================================================
    method       chooses
    ============ ======================================================================
    ``leverage`` the largest ridge leverage scores of C: which neurons matter one by one
    ``dpp``      a sample with probability ~ det C_S: as a set, at random
    ``greedy``   pivots of the Cholesky decomposition of C: as a set, one after the other
    ============ ======================================================================

    Parameters
    ----------
    covariance : Tensor of shape (p, p)
        :math:`H^\top H / n`, symmetric positive semi-definite.
    num_features : int
        How many neurons to choose, at most p.
    method : {"leverage", "dpp", "greedy"}, default "leverage"
        How to choose.
    output_weight : Tensor of shape (out, p), optional
        The next layer's weight; None weighs all neurons alike.
    ridge : float, optional
        Of the leverage scores, in units of the eigenvalues of C; None takes the one at which the
        scores add up to ``num_features``.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the sample for ``"dpp"``.

    Returns
    -------
    LongTensor of shape (num_features,)
        The neurons, ascending.

    Raises
    ------
    TypeError
        If a tensor is not one, or not of floating point.
    ValueError
        If shapes do not fit, a number is not finite, the matrix is not positive semi-definite, or
        ``num_features`` is below 1 or above p.

    References
    ----------
    Alaoui, Mahoney: Fast Randomized Kernel Ridge Regression with Statistical Guarantees, 2015,
    arXiv 1411.0306.

    Kulesza, Taskar: k-DPPs: Fixed-Size Determinantal Point Processes, 2011.

    Examples
    --------
    >>> import torch
    >>> h = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0], [1.0, 1.0, 3.0]])
    >>> select_neurons(h.mT @ h / 3, 2, method="greedy")
    tensor([1, 2])
    """
    check_choice("method", method, SELECTIONS)
    matrix = check_psd_matrix("covariance", covariance)  # (p, p), float64
    p = len(matrix)
    if check_int("num_features", num_features) > p:
        raise ValueError(
            f"num_features: expected at most the {p} neurons of covariance "
            f"{tuple(covariance.shape)}, got {num_features}"
        )
    if output_weight is not None:
        check_last_dim("output_weight", check_tensor("output_weight", output_weight, ndim=2), p)
        check_finite("output_weight", output_weight)
        norms = output_weight.double().norm(dim=0).to(matrix.device)  # (p,)
        matrix = norms.unsqueeze(-1) * matrix * norms
    if ridge is not None:
        ridge = check_real("ridge", ridge, least=0.0)

    if method == "leverage":
        if ridge is None:
            spectrum = torch.linalg.eigvalsh(matrix)
            ridge = ridge_of_dimension(spectrum, num_features, positive=False)
        priority = ridge_leverage_scores(matrix, ridge=ridge)  # (p,)
    else:
        if method == "dpp":
            # Samples stay within the rank, and dead neurons or few inputs may leave less than
            # asked for: a jitter above rounding lets them fill up the sample.
            precision = torch.finfo(matrix.dtype)
            jitter = 4 * p * precision.eps * torch.linalg.matrix_norm(matrix) + precision.tiny
            chosen = sample_kdpp(
                matrix + jitter * torch.eye(p).to(matrix), size=num_features, generator=generator
            )
        else:
            chosen = pivoted_cholesky(matrix, rank=num_features).pivots
        # Pivots end with the rank as well: what is missing is filled up by size, at the end.
        priority = matrix.diagonal() / matrix.diagonal().max().clamp_min(1e-300)
        priority[chosen] += 2
    order = torch.argsort(priority, descending=True, stable=True)
    return order[:num_features].sort().values
