"""The median heuristic: a lengthscale from the distances between the points themselves."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST_ROWS = 2000  # of which all pairs are looked at


def median_distance(x: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the median of a distance over all pairs of different rows.

    Beyond 2,000 rows it is taken over 2,000 evenly spaced ones, so that it depends on the data
    alone. Pairs at distance zero count only if there are no others.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Rows.
    distance : callable
        From rows (n, d) and (n, d) to distances (n, n).

    Returns
    -------
    Tensor of shape ()
        The median, in float64.

    Raises
    ------
    ValueError
        If there are no two different rows, or a number is not finite.
    """
    rows = x.detach().reshape(-1, x.shape[-1]).double()
    if len(rows) > MOST_ROWS:
        rows = rows[torch.linspace(0, len(rows) - 1, MOST_ROWS).long()]
    i, j = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    pairs = distance(rows, rows)[i, j]
    if not bool(torch.isfinite(pairs).all()):
        raise ValueError("x: expected finite numbers, to take the median distance of")
    apart = pairs[pairs > 0]
    if len(apart) == 0:
        raise ValueError(
            f"x: expected at least two different rows, to take the median distance of, "
            f"got shape {tuple(x.shape)}"
        )
    return apart.median()
