"""INK-Estimate: a small weighted set of columns, chosen while the columns of a matrix arrive."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._core.checks import check_finite, check_generator, check_int, check_real, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .approximate_leverage import Entries


@dataclass(frozen=True, eq=False)
class InkEstimate:
    """What `ink_estimate` kept.

    Attributes
    ----------
    index : LongTensor of shape (m,)
        The columns, ascending.
    weights : Tensor of shape (m,)
        Whole numbers b of at least 1: column i was kept with probability 1 / b.
    probabilities : Tensor of shape (m,)
        The least that each score ever was as a share of the effective dimension.
    scores : Tensor of shape (m,)
        Lower estimates of their ridge leverage scores.
    dimension : float
        An upper estimate of the effective dimension.
    """

    index: Tensor
    weights: Tensor
    probabilities: Tensor
    scores: Tensor
    dimension: float


@torch.no_grad()
def ink_estimate(
    entries: Entries,
    diagonal: Tensor,
    *,
    ridge: float,
    num_columns: int,
    accuracy: float = 0.5,
    generator: RandomSource | int | None = None,
) -> InkEstimate:
    r"""Choose columns of a matrix in one pass, by lower estimates of their leverage.

    With the columns I kept so far and :math:`\tilde K = K_{\cdot I} (K_{II} + \lambda \,
    \mathrm{diag}(1/b))^{-1} K_{I \cdot}`, the scores are

    .. math::
        \tilde\tau_i = \frac{1}{\alpha \lambda} \left( k_{ii} - k_i^\top (\tilde K + \alpha \lambda
        I)^{-1} k_i \right), \qquad \alpha = \frac{2 - \varepsilon}{1 - \varepsilon}

    and :math:`\tau_i / \alpha \le \tilde\tau_i \le \tau_i` as long as :math:`\tilde K` is within
    :math:`\lambda / (1 - \varepsilon)` of K. A column stays with probability proportional to its
    score over the effective dimension, which is estimated from above, so that fewer than
    ``num_columns`` stay: the estimate was four to eight times too high in tests, and more where
    eigenvalues are larger against the ridge. With too few columns, :math:`\tilde K` leaves more
    of K, the scores come out too low, and more columns are dropped for good; a hundred or more for
    each effective dimension were needed, of which about a tenth stayed.

    Every column is asked for once, when it arrives, in full: the memory is O(n m), the work
    O(n^2 m). `SequentialLeverage` needs neither old rows nor the dimension, its scores err on the
    safe side, and its dictionary is smaller by far. It is what to use, unless scores must not be
    too large.

    Parameters
    ----------
    entries : callable
        Maps indices (a,) of rows and (b,) of columns to those entries (a, b) of K.
    diagonal : Tensor of shape (n,)
        Of K.
    ridge : float
        :math:`\lambda`, positive, in the units of K's eigenvalues (not divided by n).
    num_columns : int
        How many columns to expect at most; see above.
    accuracy : float, default 0.5
        :math:`\varepsilon`, in [0, 1).
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    InkEstimate
        The columns, with weights and scores.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, a number is not finite or out of its range, the matrix is found not
        to be positive semi-definite, or no column stays.
    MemoryError
        If the columns do not fit the memory budget.

    References
    ----------
    Calandriello, Lazaric, Valko, "Analysis of Nyström method with sequential ridge leverage
    scores", UAI 2016, arXiv 2604.20077.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 200).double()
    >>> rbf = lambda i, j: torch.exp(-8 * (x[i][:, None] - x[j]).square())
    >>> kept = ink_estimate(rbf, torch.ones(200).double(), ridge=1.0, num_columns=600, generator=0)
    >>> 10 < len(kept.index) < 100, bool((kept.scores < 0.2).all())
    (True, True)
    """
    if not callable(entries):
        raise TypeError(f"entries: expected a callable, got {type(entries).__name__}")
    check_finite("diagonal", check_tensor("diagonal", diagonal, ndim=1))
    if not len(diagonal) or bool((diagonal < 0).any()):
        raise ValueError(
            f"diagonal: expected n >= 1 entries >= 0, got shape {tuple(diagonal.shape)} with "
            f"{int((diagonal < 0).sum())} below zero"
        )
    ridge = check_real("ridge", ridge, above=0.0)
    expected = check_int("num_columns", num_columns)
    epsilon = check_real("accuracy", accuracy, least=0.0)
    if epsilon >= 1:
        raise ValueError(f"accuracy: expected a number in [0, 1), got {accuracy!r}")
    source = check_generator(generator)
    n = len(diagonal)
    require_memory(
        8 * 3 * n * min(n, 2 * expected), f"{2 * expected} columns of {n} rows", "ask for fewer"
    )
    diag = diagonal.detach().double()
    alpha = (2 - epsilon) / (1 - epsilon)
    index = torch.empty(0, dtype=torch.long, device=diag.device)
    columns, weights = diag.new_empty(0, 0), diag.new_empty(0)  # (t, m), (m,)
    p, scores, dimension = weights, weights, 0.0
    everything = torch.arange(n, device=diag.device)
    for t in range(n):
        column = _ask(entries, everything[:t], everything[t : t + 1])  # (t,)
        kappa = float(diag[t])
        inverse = SketchedInverse(columns, columns[index], weights, ridge)
        along, cross, own = inverse.forms(column, alpha)
        square = inverse.square(column)
        # The bordered matrix [[K~, k], [k', kappa]] + alpha ridge I, by its Schur complement.
        left = max(kappa - along, 0.0)
        schur = left + alpha * ridge
        row = column[index]
        scores = (diag[index] - own - (row - cross).square() / schur) / (alpha * ridge)
        scores = torch.cat([scores, diag.new_tensor([left / schur])]).clamp(0.0, 1.0)
        dimension += alpha * dimension_increment(
            kappa, along, (1 - epsilon) ** 2 / 4 * square, ridge
        )
        before = torch.cat([p, diag.new_tensor([torch.inf])])
        p = torch.minimum(scores / max(dimension, 1e-300), before)
        # The least whole b with b p > 1 / q; a step from b to b + 1 is survived with b / (b + 1).
        old = torch.cat([weights, diag.new_ones(1)])
        weights = torch.maximum(((1 / (expected * p)).floor() + 1), old)
        uniform = draw_uniform((len(old),), source).to(diag.device)
        stays = uniform * weights < old
        columns = torch.cat([columns, row.unsqueeze(0)])  # (t + 1, m)
        if bool(stays[-1]):
            new = torch.cat([column, diag[t : t + 1]]).unsqueeze(1)
            columns = torch.cat([columns, new], 1)
        columns = columns[:, stays[: columns.shape[1]]]
        index = torch.cat([index, everything[t : t + 1]])[stays]
        weights, p, scores = weights[stays], p[stays], scores[stays]
    if not len(index) and float(diag.max()) > 0:
        raise ValueError(
            f"num_columns: all columns were dropped with {expected} of them; the effective "
            f"dimension was estimated as {dimension:.3g} at the end, ask for a hundred times as "
            "many or more, or use SequentialLeverage"
        )
    return InkEstimate(
        index=index,
        weights=weights.to(diagonal.dtype),
        probabilities=p.to(diagonal.dtype),
        scores=scores.to(diagonal.dtype),
        dimension=dimension,
    )


class SketchedInverse:
    """(K~ + alpha ridge I)^-1 for K~ = C (K_II + ridge diag(1/b))^-1 C', never formed.

    By Woodbury's identity it is (I - C N^-1 C') / (alpha ridge), with the small matrix
    N = alpha ridge (K_II + ridge diag(1/b)) + C' C.
    """

    def __init__(self, columns: Tensor, inner: Tensor, weights: Tensor, ridge: float) -> None:
        self.columns, self.ridge = columns, ridge  # (t, m)
        self.system = inner + torch.diag(ridge / weights)  # (m, m)
        self.moments = columns.mT @ columns
        self._factors: dict[float, Tensor] = {}

    def forms(self, k: Tensor, alpha: float) -> tuple[float, Tensor, Tensor]:
        """Return k' M k, C' M k (m,) and the diagonal of C' M C (m,), for M the inverse."""
        factor = self._factor(alpha)
        scale = 1 / (alpha * self.ridge)
        h = self.columns.mT @ k  # (m,)
        solved = torch.cholesky_solve(torch.cat([h.unsqueeze(1), self.moments], 1), factor)
        cross = (h - self.moments @ solved[:, 0]) * scale
        own = (self.moments.diagonal() - (self.moments * solved[:, 1:]).sum(0)) * scale
        return self.along(k, alpha), cross, own

    def along(self, k: Tensor, alpha: float) -> float:
        """Return k' M k alone."""
        h = (self.columns.mT @ k).unsqueeze(1)  # (m, 1)
        half = torch.linalg.solve_triangular(self._factor(alpha), h, upper=False)
        return float(k @ k - half.square().sum()) / (alpha * self.ridge)

    def square(self, k: Tensor) -> float:
        """Return k' (K~ + ridge I)^-2 k."""
        h = self.columns.mT @ k
        u = torch.cholesky_solve(h.unsqueeze(1), self._factor(1.0)).squeeze(1)
        found = float(k @ k - 2 * h @ u + u @ self.moments @ u) / self.ridge**2
        return max(found, 0.0)

    def _factor(self, alpha: float) -> Tensor:
        """Cholesky factor of N."""
        if alpha not in self._factors:
            factor, info = torch.linalg.cholesky_ex(alpha * self.ridge * self.system + self.moments)
            if int(info):
                raise ValueError(
                    "entries: expected a positive semi-definite matrix, got an indefinite one, or "
                    f"one for whose rounding the ridge {self.ridge:.3g} is too small"
                )
            self._factors[alpha] = factor
        return self._factors[alpha]


def dimension_increment(kappa: float, along: float, square: float, ridge: float) -> float:
    """By how much a column k with diagonal kappa raises the effective dimension.

    With M = (K + ridge I)^-1, along = k' M k and square = k' M^2 k it is exact.
    """
    left = max(kappa - along, 0.0)
    return max(left - ridge * square, 0.0) / (left + ridge)


def _ask(entries: Entries, rows: Tensor, column: Tensor) -> Tensor:
    if not len(rows):
        return torch.empty(0, dtype=torch.float64, device=rows.device)
    block = check_tensor("entries", entries(rows, column)).detach()
    if block.shape != (len(rows), 1):
        raise ValueError(
            f"entries: expected shape ({len(rows)}, 1) for as many rows and one column, "
            f"got {tuple(block.shape)}"
        )
    check_finite("entries", block)
    return block.squeeze(1).to(rows.device, torch.float64)
