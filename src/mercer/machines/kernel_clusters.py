"""Lloyd's iteration and k-means++ in a feature space, from products with a kernel matrix."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.counter import RandomSource
from .._core.random import draw_uniform


@dataclass(frozen=True, eq=False)
class KernelClusters:
    """Clusters of points, by weights of the points in each centre.

    Attributes
    ----------
    labels : LongTensor of shape (n,)
        The nearest centre of each point.
    weights : Tensor of shape (n, k)
        The share of each point in each centre.
    squares : Tensor of shape (k,)
        Squared norms of the centres.
    inertia : float
        Weighted sum of the squared distances of points to their centre.
    rounds : int
        How many rounds it took.
    """

    labels: Tensor
    weights: Tensor
    squares: Tensor
    inertia: float
    rounds: int


def _drawn(masses: Tensor, uniforms: Tensor) -> Tensor:
    """Draw indices by masses (n, r), as uniform numbers (r, c) say; shape (r, c)."""
    levels = masses.cumsum(0).mT.contiguous()  # (r, n)
    found = torch.searchsorted(levels, uniforms * levels[:, -1:], right=True)
    return found.clamp(max=len(masses) - 1)


def spread_centers(
    gram: Any, diagonal: Tensor, weights: Tensor, k: int, restarts: int, source: RandomSource
) -> Tensor:
    """Draw points as first centres by k-means++ with a few trials for each, greedily.

    Parameters
    ----------
    gram : Gram or Tensor of shape (n, n)
        The kernel matrix.
    diagonal, weights : Tensor of shape (n,)
        Its diagonal, and weights of the points.
    k, restarts : int
        How many centres, and how many sets of them.
    source : RandomSource
        Source of the draws.

    Returns
    -------
    LongTensor of shape (restarts, k)
        Numbers of points.

    References
    ----------
    Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """
    trials = 2 + int(math.log(k))
    where = diagonal.device

    def distances(index: Tensor) -> Tensor:
        """Squared distances (n, r, c) of all points to points (r, c)."""
        flat = index.flatten()
        columns = gram[:, flat] if isinstance(gram, Tensor) else gram.columns(flat)
        found = diagonal.unsqueeze(-1) + diagonal[flat] - 2 * columns
        return found.clamp(min=0).unflatten(1, tuple(index.shape))

    uniforms = draw_uniform((k, restarts, trials), source).to(where)
    plain = weights.unsqueeze(-1).expand(-1, restarts)  # (n, r)
    chosen = _drawn(plain, uniforms[0, :, :1])  # (r, 1)
    nearest = distances(chosen)[..., 0]  # (n, r)
    for c in range(1, k):
        masses = plain * nearest
        masses = torch.where(masses.sum(0) > 0, masses, plain)
        candidates = _drawn(masses, uniforms[c])  # (r, trials)
        closer = torch.minimum(nearest.unsqueeze(-1), distances(candidates))  # (n, r, trials)
        left = torch.einsum("n,nrt->rt", weights, closer)
        best = left.argmin(1, keepdim=True)  # (r, 1)
        chosen = torch.cat([chosen, candidates.gather(1, best)], 1)
        nearest = closer.gather(2, best.expand(len(closer), -1, -1))[..., 0]
    return chosen


def lloyd(
    gram: Any, diagonal: Tensor, weights: Tensor, labels: Tensor, k: int, max_iter: int
) -> list[KernelClusters]:
    r"""Assign points to the nearest mean, and take means anew, until nothing changes.

    .. math:: d^2(i, c) = K_{ii} - \frac{2}{s_c} \sum_{j \in c} w_j K_{ij}
        + \frac{1}{s_c^2} \sum_{j, l \in c} w_j w_l K_{jl}, \qquad s_c = \sum_{j \in c} w_j

    All restarts share one product with the matrix a round. A cluster that runs empty takes the
    point that is farthest from its own centre.

    Parameters
    ----------
    gram : Gram or Tensor of shape (n, n)
        The kernel matrix.
    diagonal, weights : Tensor of shape (n,)
        Its diagonal, and positive weights.
    labels : LongTensor of shape (restarts, n)
        First clusters, none of them empty.
    k : int
        How many clusters.
    max_iter : int
        At most so many rounds.

    Returns
    -------
    list of KernelClusters
        What each restart came to.
    """
    n = len(diagonal)
    found: list[KernelClusters | None] = [None] * len(labels)
    active = list(range(len(labels)))
    labels = labels.clone()
    for rounds in range(1, max_iter + 1):
        current = labels[active]  # (r, n)
        r = len(active)
        share = weights.new_zeros(r, n, k)
        share.scatter_(2, current.unsqueeze(-1), weights.expand(r, n).unsqueeze(-1))
        share /= share.sum(1, keepdim=True)
        flat = share.permute(1, 0, 2).reshape(n, r * k)
        product = (gram @ flat).reshape(n, r, k).permute(1, 0, 2)  # (r, n, k)
        squares = (share * product).sum(1)  # (r, k)
        apart = diagonal.unsqueeze(-1) - 2 * product + squares.unsqueeze(1)  # (r, n, k)
        least, moved = apart.min(2)  # (r, n)
        going = []
        for i, number in enumerate(active):
            stays = bool((moved[i] == current[i]).all())
            if stays or rounds == max_iter:
                inertia = float(weights @ least[i].clamp(min=0))
                found[number] = KernelClusters(
                    moved[i], share[i].clone(), squares[i].clone(), inertia, rounds
                )
            else:
                labels[number] = _without_empty(moved[i], weights * least[i], k)
                going.append(number)
        active = going
        if not active:
            break
    return [clusters for clusters in found if clusters is not None]


def _without_empty(labels: Tensor, cost: Tensor, k: int) -> Tensor:
    """Give each empty cluster the costliest point of a cluster that has others."""
    counts = torch.bincount(labels, minlength=k)
    empty = (counts == 0).nonzero().flatten().tolist()
    if not empty:
        return labels
    labels = labels.clone()
    for point in cost.argsort(descending=True, stable=True).tolist():
        if not empty:
            break
        if counts[labels[point]] > 1:
            counts[labels[point]] -= 1
            labels[point] = empty.pop(0)
            counts[labels[point]] += 1
    return labels
