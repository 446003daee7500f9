"""Ridge leverage scores of a matrix that is never built, by recursive sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_real, check_tensor
from .._core.config import block_rows, require_memory
from .._core.counter import RandomSource
from .._core.random import draw_permutation, draw_uniform
from .solve_psd import factorise

Entries = Callable[[Tensor, Tensor], Tensor]

_LARGEST_BLOCK = 4096  # rows at once
_SPARE = 4.0  # landmarks for each effective dimension, where the ridge is left to the library
_FEWEST = 64  # landmarks, where their number is left to the data


@dataclass(frozen=True, eq=False)
class LeverageEstimate:
    """What `approximate_leverage_scores` found.

    Attributes
    ----------
    scores : Tensor of shape (n,)
        Estimates of the ridge leverage scores, in [0, 1], in the dtype of the diagonal. Their sum
        estimates the effective dimension.
    ridge : float
        The ridge that they belong to.
    landmarks : LongTensor of shape (num_landmarks,)
        The points that the last estimate stands on.
    probabilities : Tensor of shape (num_landmarks,)
        With which each of them had been drawn.
    """

    scores: Tensor
    ridge: float
    landmarks: Tensor
    probabilities: Tensor

    @property
    def effective_dimension(self) -> float:
        """Sum of the scores: an estimate of tr K (K + ridge I)^-1."""
        return float(self.scores.double().sum())


@torch.no_grad()
def approximate_leverage_scores(
    entries: Entries,
    diagonal: Tensor,
    *,
    num_landmarks: int | None = None,
    oversampling: float | None = None,
    ridge: float | None = None,
    generator: RandomSource | int | None = None,
) -> LeverageEstimate:
    r"""Estimate ridge leverage scores from a few columns, chosen by their own leverage.

    .. math::
        \hat\tau_i = \frac{1}{\lambda} \left( k_{ii} - k_{iD} (K_{DD} + \lambda \,
        \mathrm{diag}(p))^{-1} k_{Di} \right)

    estimates :math:`[K (K + \lambda I)^{-1}]_{ii}` from points D that were drawn with the
    probabilities p. It is exact for D all points with p = 1, and good where D was drawn by
    leverage; so the points are halved at random until all of a part can be D, and on the way
    back each part is scored by the D of the one half its size, and gives a new D. The work is
    O(n s^2) for s landmarks, the memory O(n + s^2).

    The number of landmarks is given, or it is ``oversampling`` times the effective dimension (the
    sum of the scores) of each part, as it is found. The more for that dimension, the closer: at 3
    times as many nearly all estimates are between 0.4 and 7 times the exact score, at 6 times
    between 0.6 and 2.5, at 12 times between 0.7 and 2. With too few they are too large: what the
    landmarks missed looks important. They are not one-sided.

    Parameters
    ----------
    entries : callable
        Maps indices (a,) of rows and (b,) of columns to those entries (a, b) of K, such as
        ``lambda i, j: kernel(x[i], x[j])``.
    diagonal : Tensor of shape (n,)
        Of K.
    num_landmarks : int, optional
        s, at most n.
    oversampling : float, optional
        In place of it: s is so many times the effective dimension, and at least 64.
    ridge : float, optional
        The ridge, positive, in the units of K's eigenvalues (not divided by n); needed beside
        ``oversampling``. None takes the one at which the effective dimension is about a quarter
        of the landmarks.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    LeverageEstimate
        The scores, their ridge, and the landmarks.

    Raises
    ------
    TypeError
        If an argument is not of the kind described, or not exactly one of ``num_landmarks`` and
        ``oversampling`` is given.
    ValueError
        If shapes do not fit, a number is not finite, the matrix is found not to be positive
        semi-definite, ``num_landmarks`` is below 1 or above n, or ``oversampling`` or the ridge is
        not positive.
    MemoryError
        If the landmarks' matrix does not fit the memory budget.

    References
    ----------
    Musco, Musco, "Recursive sampling for the Nyström method", NeurIPS 2017, arXiv 1605.07583.

    Rudi, Calandriello, Carratino, Rosasco, "On fast leverage score sampling and optimal
    learning", NeurIPS 2018, arXiv 1810.13258.

    Examples
    --------
    >>> import torch
    >>> x = torch.cat([0.01 * torch.arange(500.0), torch.tensor([9.0])]).double()  # one far away
    >>> rbf = lambda i, j: torch.exp(-(x[i][:, None] - x[j]).square())
    >>> found = approximate_leverage_scores(
    ...     rbf, torch.ones(501).double(), num_landmarks=90, ridge=1.0, generator=0
    ... )
    >>> int(found.scores.argmax()), round(found.scores.max().item(), 3)
    (500, 0.5)
    """
    if not callable(entries):
        raise TypeError(f"entries: expected a callable, got {type(entries).__name__}")
    check_tensor("diagonal", diagonal, ndim=1)
    check_finite("diagonal", diagonal)
    n = len(diagonal)
    if n == 0 or bool((diagonal < 0).any()):
        raise ValueError(
            f"diagonal: expected n >= 1 entries >= 0, got shape {tuple(diagonal.shape)} "
            f"with {int((diagonal < 0).sum())} below zero"
        )
    if (num_landmarks is None) == (oversampling is None):
        given = "neither" if num_landmarks is None else "both"
        raise TypeError(f"num_landmarks, oversampling: expected exactly one of them, got {given}")
    if num_landmarks is not None and check_int("num_landmarks", num_landmarks) > n:
        raise ValueError(f"num_landmarks: expected at most the {n} points, got {num_landmarks}")
    if ridge is not None:
        ridge = check_real("ridge", ridge, above=0.0)
    if oversampling is not None:
        oversampling = check_real("oversampling", oversampling, above=0.0)
        if ridge is None:
            raise TypeError("ridge: expected a number beside oversampling, got None")
    source = check_generator(generator)
    diag = diagonal.detach().double()
    order = draw_permutation(n, source).to(diag.device)
    s = min(n, _FEWEST) if num_landmarks is None else num_landmarks
    _require(s, n)
    sizes = [n]
    while sizes[-1] > s:
        sizes.append((sizes[-1] + 1) // 2)
    chosen, probability, seen = order[: sizes[-1]], diag.new_ones(sizes[-1]), sizes[-1]
    for size in reversed(sizes):
        part = order[:size]
        if size > len(chosen):
            if oversampling is not None:
                # A half at random of a part: its dimension is to be that of the whole.
                probability = probability * (seen / size)
            scores, _ = _score(entries, diag, part, chosen, probability, ridge, s)
            if oversampling is not None:
                s = min(size, max(_FEWEST, math.ceil(oversampling * float(scores.sum()))))
                _require(s, n)
            probability = inclusion_probabilities(scores, s)  # (size,)
            drawn = systematic_sample(probability, source)
            chosen, probability = part[drawn], probability[drawn]
        seen = size
    everything = torch.arange(n, device=diag.device)
    scores, ridge = _score(entries, diag, everything, chosen, probability, ridge, s)
    return LeverageEstimate(
        scores=scores.to(diagonal.dtype),
        ridge=ridge,
        landmarks=chosen,
        probabilities=probability.to(diagonal.dtype),
    )


def _require(landmarks: int, n: int) -> None:
    require_memory(
        8 * (5 * landmarks * landmarks + 4 * n),
        f"the matrix of {landmarks} landmarks",
        "ask for fewer landmarks",
    )


def ridge_of_dimension(eigenvalues: Tensor, dimension: float, *, positive: bool = True) -> float:
    """Find the ridge at which sum(v / (v + ridge)) is ``dimension``, by bisection.

    Where the rank is no larger than that it is zero, or the rounding of v if it is to be
    positive.
    """
    values = eigenvalues.double().clamp_min(0.0)
    low = len(values) * torch.finfo(eigenvalues.dtype).eps * float(values.max())
    if int((values > low).sum()) <= dimension:
        # Of a zero matrix any ridge will do: the scores are zero.
        return (low or 1.0) if positive else 0.0
    high = max(float(values.sum()) / dimension, low)  # there the dimension is too small
    for _ in range(100):
        middle = (low * high) ** 0.5
        if float((values / (values + middle)).sum()) > dimension:
            low = middle
        else:
            high = middle
    return high


def _score(
    entries: Entries,
    diagonal: Tensor,
    part: Tensor,
    chosen: Tensor,
    probability: Tensor,
    ridge: float | None,
    num_landmarks: int,
) -> tuple[Tensor, float]:
    """Estimate the scores of some points (a,) from the chosen ones (s,); also the ridge."""
    small = _ask(entries, chosen, chosen)
    eps = torch.finfo(small.dtype).eps
    small = ((small + small.mT) / 2).double()  # (s, s)
    if ridge is None:
        weights = probability.rsqrt()
        spectrum = torch.linalg.eigvalsh(weights.unsqueeze(-1) * small * weights)
        ridge = ridge_of_dimension(spectrum, num_landmarks / _SPARE)
    system = small + torch.diag(ridge * probability)
    scale = float(system.diagonal().mean())
    factor, _ = factorise(system, scale, eps)  # (s, s), lower
    step = block_rows(8 * 4 * len(chosen), most=_LARGEST_BLOCK)
    found = torch.empty(len(part), dtype=torch.float64, device=diagonal.device)
    for start in range(0, len(part), step):
        rows = part[start : start + step]
        block = _ask(entries, rows, chosen).double()  # (b, s)
        half = torch.linalg.solve_triangular(factor, block.mT, upper=False)  # (s, b)
        found[start : start + step] = diagonal[rows] - half.square().sum(0)
    return (found / ridge).clamp(0.0, 1.0), ridge


def _ask(entries: Entries, rows: Tensor, columns: Tensor) -> Tensor:
    block = check_tensor("entries", entries(rows, columns)).detach()
    if block.shape != (len(rows), len(columns)):
        raise ValueError(
            f"entries: expected shape ({len(rows)}, {len(columns)}) for as many rows and columns, "
            f"got {tuple(block.shape)}"
        )
    check_finite("entries", block)
    return block.to(rows.device)


def inclusion_probabilities(scores: Tensor, size: int) -> Tensor:
    """Find min(1, c scores) that adds up to ``size``, at most as many as there are scores."""
    weights = scores.clamp_min(1e-12 * float(scores.max()) + 1e-300)
    ascending = weights.sort().values
    rest = ascending.cumsum(0)  # of the i + 1 smallest
    count = len(weights)
    # With the m largest at one, c = (size - m) / (sum of the others); the first m that leaves
    # c times the largest of the others at one or below is the solution.
    m = torch.arange(min(size, count), device=weights.device)
    factors = (size - m) / rest[count - 1 - m]
    fits = factors * ascending[count - 1 - m] <= 1
    factor = factors[int(fits.int().argmax())] if bool(fits.any()) else factors[-1]
    return (factor * weights).clamp_max(1.0)


def systematic_sample(probability: Tensor, generator: RandomSource | None) -> Tensor:
    """Draw a set in which each point is with its probability, of size their sum, ascending."""
    # In a random order: data may repeat with a period that is the step's.
    order = draw_permutation(len(probability), generator).to(probability.device)
    start = draw_uniform((), generator)
    marks = probability[order].cumsum(0)
    count = round(float(marks[-1]))
    marks = marks * (count / marks[-1])  # rounding must not lose the last one
    ticks = torch.arange(count, device=probability.device) + start.to(probability.device)
    found = torch.searchsorted(marks, ticks, right=True).clamp_max(len(marks) - 1)
    return order[found].unique()
