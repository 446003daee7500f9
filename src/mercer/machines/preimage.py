"""Back from a feature space: the input whose Gaussian feature is nearest to a combination."""

import torch
from torch import Tensor

from .._core.config import block_rows
from ..kernels import RBF, Kernel

_MOST_ROUNDS = 500


def check_preimage_kernel(kernel: Kernel) -> None:
    """Raise unless the fixed point is one of this kernel."""
    if not isinstance(kernel, RBF):
        raise ValueError(
            "preimage: the fixed point is one of Gaussian kernels (RBF), "
            f"got {kernel!r}; use preimage='ridge'"
        )


@torch.no_grad()
def fixed_point_preimage(
    kernel: Kernel,
    points: Tensor,
    weights: Tensor,
    start: Tensor,
    *,
    tolerance: float = 1e-8,
) -> Tensor:
    r"""Iterate to the input whose feature is nearest to a weighted sum of features.

    .. math:: z \leftarrow \frac{\sum_i \gamma_i k(z, x_i) x_i}{\sum_i \gamma_i k(z, x_i)}

    A step that does not bring z nearer, as the denominator is near zero, ends the iteration of
    its row.

    Parameters
    ----------
    kernel : RBF
        The kernel.
    points : Tensor of shape (n, d)
        x, in float64.
    weights : Tensor of shape (m, n)
        :math:`\gamma` of each sum.
    start : Tensor of shape (m, d)
        Where to start.
    tolerance : float, default 1e-8
        Largest step at the end, as a share of the spread of the points.

    Returns
    -------
    Tensor of shape (m, d)
        The inputs.
    """
    found = start.clone()
    n = len(points)
    limit = tolerance * float((points - points.mean(0)).norm(dim=1).max())
    for part in torch.arange(len(start)).split(block_rows(8 * 6 * n, most=1024)):
        rows = part.to(points.device)
        z, gamma = start[rows], weights[rows]  # (b, d), (b, n)
        best = torch.full((len(rows),), -torch.inf, dtype=z.dtype, device=z.device)
        for _ in range(_MOST_ROUNDS):
            pull = gamma * kernel(z, points)  # (b, n)
            # The squared distance of the feature of z to the sum is a constant less twice this.
            total = pull.sum(1)  # (b,)
            better = (total > best) & (total > 0)
            if not bool(better.any()):
                break
            rows, z, gamma = rows[better], z[better], gamma[better]
            best = total[better]
            found[rows] = z
            moved = (pull[better] @ points) / best.unsqueeze(-1)  # (b, d)
            going = (moved - z).norm(dim=1) > limit
            rows, z, gamma, best = rows[going], moved[going], gamma[going], best[going]
            if not len(rows):
                break
    return found
