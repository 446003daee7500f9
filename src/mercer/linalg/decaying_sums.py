"""Sums of products of polynomials and decaying exponentials, by divide and conquer."""

import math
from itertools import product

import torch
from torch import Tensor

from .block_halving import Halving, halve, halved_size
from .dominance_sums import sums_below
from .product_profiles import FARTHEST

_LEAF = 16  # points in a block that are taken pair by pair
_BATCH = 2**15 - 1  # entries of blocks at once: in the caches, and below what torch shares out
_LONGEST = 500.0  # exponents that one anchor can span in double precision
_SMOOTHEST = 30.0  # the same with a polynomial beside them, whose terms cancel


def decaying_sums(points: Tensor, columns: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    r"""Sum :math:`w_i \prod_k p(|x_{ik} - x_{jk}|) e^{-|x_{ik} - x_{jk}|}` at each of the points.

    Each of the :math:`2^d` orthants is one pass of divide and conquer. Between a low half and a
    high one a middle m stands in place of the origin,

    .. math:: (a + b)^p e^{-(a + b)} = e^{-a} \sum_q \binom{p}{q} a^q \, b^{p-q} e^{-b},
        \qquad a = z - m \ge 0, \quad b = m - x \ge 0,

    so that nothing overflows, and nothing cancels unless the weights do.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        In units of the decay, float64; those without weight are targets alone.
    columns : Tensor of shape (q, n)
        Weights, float64.
    coefficients : tuple of float
        Of the polynomial, constant first.

    Returns
    -------
    Tensor of shape (q, n)
        The sums, each point's own weight times the constant with it.
    """
    n, d = points.shape
    limit = _LONGEST if len(coefficients) == 1 else _SMOOTHEST
    extent = points.amax(0) - points.amin(0)
    first = int(extent.argmin())  # summed along, so that its exponents stay small
    dims = [first, *(k for k in range(d) if k != first)]
    along = bool(extent[first] <= limit)
    # Where one anchor spans all coordinates, weights are scaled once instead of at every level.
    anchored = d > 1 and len(coefficients) == 1 and bool(extent.sum() <= limit)
    x = points[:, dims]
    found = columns * coefficients[0]
    size = halved_size(n, _LEAF)
    orders = [x[:, k].sort(stable=True).indices for k in range(d)]
    place = torch.arange(n, dtype=torch.int32, device=x.device)
    for signs in product((False, True), repeat=d):
        flipped = [o.flip(0) if sign else o for o, sign in zip(orders, signs, strict=True)]
        layout = flipped[0]
        ranks, places = [], []
        for k, (order, sign) in enumerate(zip(flipped, signs, strict=True)):
            rank = torch.empty_like(place)
            rank[order] = place
            ranks.append(_filled(rank[layout], torch.arange(n, size, device=x.device)))
            column = -x[layout, k] if sign else x[layout, k]
            places.append(_filled(column, column.max().expand(size - n)))
        laid = columns.new_zeros(len(columns), 1, size)
        laid[:, 0, :n] = columns[:, layout]
        if anchored:
            start = torch.stack([p - p.amin() for p in places]).sum(0)  # (1, S)
            growth = torch.exp(start)
            below = sums_below(ranks[1:], laid * growth).div_(growth)
        elif d == 1 and along:
            below = _along(places[0], laid, coefficients, own=False)
        else:
            below = _before(ranks[1:] if along else ranks, places, laid, coefficients, along)
        found[:, layout] += below[:, 0, :n]
    return found


def _filled(values: Tensor, rest: Tensor) -> Tensor:
    return torch.cat((values, rest.to(values.dtype))).unsqueeze(0)  # (1, size)


def _before(
    ranks: list[Tensor],
    places: list[Tensor],
    weights: Tensor,
    coefficients: tuple[float, ...],
    along: bool,
) -> Tensor:
    """Sum over what is below in all ranks (C, B, S), entries in the order of the first place.

    Where ``along``, the first place has no rank: its order is that of the entries.
    """
    blocks, size = weights.shape[1:]
    if not ranks:
        if along:
            return _along(places[0], weights, coefficients, own=True)
        return weights.sum(-1, keepdim=True).expand(-1, -1, size).clone()
    if blocks > 1 and weights.numel() > _BATCH:
        middle = blocks // 2
        parts = [
            _before(
                [rank[a:b] for rank in ranks],
                [place[a:b] for place in places],
                weights[:, a:b],
                coefficients,
                along,
            )
            for a, b in ((0, middle), (middle, blocks))
        ]
        return torch.cat(parts, 1)
    if size <= _LEAF:
        return _in_leaf(ranks, places, weights, coefficients, along)
    *others, rank = ranks
    *kept, split = places
    halving, rank = halve(rank)
    found = _across(others, kept, split, halving, weights, coefficients, along)
    inner = _before(
        [*(halving.ranks(other) for other in others), rank],
        [halving.divide(place) for place in places],
        halving.divide(weights),
        coefficients,
        along,
    )
    return found.add_(halving.unite(inner))


def _across(
    ranks: list[Tensor],
    places: list[Tensor],
    split: Tensor,
    halving: Halving,
    weights: Tensor,
    coefficients: tuple[float, ...],
    along: bool,
) -> Tensor:
    """Let the low half of each block add to its high one, in all other coordinates."""
    high = halving.right
    middle = split.masked_fill(~high, torch.inf).amin(-1, keepdim=True)  # (B, 1)
    gap = (split - middle).abs_().clamp_max_(FARTHEST)  # (B, S), of either side
    decay = torch.exp(-gap)
    sending = decay.masked_fill(high, 0.0)
    degree = len(coefficients) - 1
    sent = []
    for q in range(degree + 1):
        sum_ = torch.zeros_like(gap)
        for p in reversed(range(q, degree + 1)):
            sum_ = sum_ * gap + coefficients[p] * math.comb(p, q)
        sent.append(weights * (sum_ * sending if degree else sending))
    below = _before(ranks, places, torch.cat(sent), coefficients, along)
    receiving = decay.masked_fill_(~high, 0.0)
    parts = below.unflatten(0, (degree + 1, -1))
    found = parts[degree]
    for q in reversed(range(degree)):
        found = found * gap + parts[q]
    return found * receiving


def _along(place: Tensor, weights: Tensor, coefficients: tuple[float, ...], own: bool) -> Tensor:
    """Sum along ascending places (B, S), each block from its first entry, with or without own."""
    start = place - place[:, :1]  # (B, S), >= 0
    growth = torch.exp(start)
    found = torch.zeros_like(weights)
    scaled = weights * growth
    for q in range(len(coefficients)):  # moments of the sources
        total = (scaled * (-start) ** q if q else scaled).cumsum(-1)
        if not own:
            total = torch.cat((torch.zeros_like(total[..., :1]), total[..., :-1]), -1)
        factor = torch.zeros_like(start)
        for p in reversed(range(q, len(coefficients))):
            factor = factor * start + coefficients[p] * math.comb(p, q)
        found += total * factor
    return found.div_(growth)


def _in_leaf(
    ranks: list[Tensor],
    places: list[Tensor],
    weights: Tensor,
    coefficients: tuple[float, ...],
    along: bool,
) -> Tensor:
    """Take all pairs of each small block, one entry with all others in all blocks."""
    last = weights.permute(2, 0, 1).contiguous()  # (S, C, B)
    small = [rank.to(torch.uint8).mT.contiguous() for rank in ranks]  # (S, B)
    x = [place.mT.contiguous() for place in places]
    found = torch.zeros_like(last)
    for i in range(len(last)):
        start = i + 1 if along else 0  # in the order of the first place
        below = small[0][i] < small[0][start:]  # (S - start, B)
        for rank in small[1:]:
            below &= rank[i] < rank[start:]
        distance = torch.zeros_like(x[0][start:])
        polynomial = None
        for place in x:
            gap = (place[start:] - place[i]).abs_().clamp_max_(FARTHEST)
            distance += gap
            if len(coefficients) > 1:
                value = torch.full_like(gap, coefficients[-1])
                for c in reversed(coefficients[:-1]):
                    value = value * gap + c
                polynomial = value if polynomial is None else polynomial * value
        value = distance.neg_().exp_()
        if polynomial is not None:
            value *= polynomial
        value.masked_fill_(~below, 0.0)
        found[start:].addcmul_(last[i], value.unsqueeze(1))
    return found.permute(1, 2, 0)
