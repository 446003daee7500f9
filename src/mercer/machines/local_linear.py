"""Weighted least squares around a query, from weighted means of moments."""

import torch
from torch import Tensor

_RANK = 1e-10  # eigenvalues of a local covariance below this share of the largest are none


def moments(x: Tensor, values: Tensor) -> Tensor:
    """Join what is averaged, (n, q + d + d d + d q), of rows (n, d) and targets (n, q)."""
    second = (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)
    mixed = (x.unsqueeze(2) * values.unsqueeze(1)).flatten(1)
    return torch.cat((values, x, second, mixed), 1)


def lines(means: Tensor, z: Tensor, targets: int) -> Tensor:
    r"""Evaluate at each query the line that its weighted moments fit.

    .. math:: \hat y = \bar y + (z - \bar x)^\top C_{xx}^{+} C_{xy}

    with means and covariances under the query's weights. Directions in which the points nearby do
    not spread get no slope.

    Parameters
    ----------
    means : Tensor of shape (m, q + d + d d + d q)
        Weighted means of `moments`; NaN where there is no weight.
    z : Tensor of shape (m, d)
        Queries, in the coordinates of the moments.
    targets : int
        q.

    Returns
    -------
    Tensor of shape (m, q)
        Predictions; NaN where the means are.
    """
    d = z.shape[1]
    mean_y, mean_x, second, mixed = means.split((targets, d, d * d, d * targets), 1)
    known = ~means.isnan().any(1)
    outer = mean_x.unsqueeze(2) * mean_x.unsqueeze(1)
    spread = second.view(-1, d, d) - outer  # (m, d, d)
    joint = mixed.view(-1, d, targets) - mean_x.unsqueeze(2) * mean_y.unsqueeze(1)
    spread = torch.where(known[:, None, None], spread, 0.0)
    eigenvalues, vectors = torch.linalg.eigh((spread + spread.mT) / 2)
    # Below the rounding of the second moments, or of the largest, there is no spread.
    noise = 1e-14 * second.view(-1, d, d).diagonal(dim1=1, dim2=2).sum(1).nan_to_num(0.0)
    least = torch.maximum(_RANK * eigenvalues[:, -1], noise).unsqueeze(1)
    inverse = torch.where(eigenvalues > least, 1 / eigenvalues, 0.0)  # (m, d)
    away = (z - mean_x).unsqueeze(1)  # (m, 1, d)
    along = (away @ vectors) * inverse.unsqueeze(1)
    return mean_y + (along @ vectors.mT @ joint)[:, 0]
