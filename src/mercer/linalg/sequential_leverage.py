"""Ridge leverage scores of a stream: one pass, a bounded weighted dictionary, valid at any time."""

from collections.abc import Callable
from typing import Self, final

import torch
from torch import Tensor

from .._core.checks import (
    check_finite,
    check_generator,
    check_int,
    check_real,
    check_tensor,
)
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_permutation, draw_uniform
from .approximate_leverage import inclusion_probabilities
from .residual_kernel import ResidualKernel

_LEAST_BLOCK, _LARGEST_BLOCK = 32, 1024  # rows at once


@final
class SequentialLeverage:
    r"""A weighted dictionary of the rows seen so far, by which any row's leverage is estimated.

    .. math::
        \hat\tau(x) = \frac{1}{\lambda} \left( k(x, x) - k_D(x)^\top (K_{DD} + \lambda \,
        \mathrm{diag}(p))^{-1} k_D(x) \right)

    estimates the ridge leverage score of x among all rows seen, from the few that are kept, each
    with the probability p with which it came to be there. As rows join, scores fall, and members
    are dropped at random, such that each is kept with probability proportional to its score. No
    row that was dropped is needed again, and after every `update` the dictionary represents all
    that was seen: :math:`K - K_{\cdot D} (K_{DD} + \lambda \, \mathrm{diag}(p))^{-1} K_{D \cdot}`
    is never negative, and a few times :math:`\lambda` at most.

    A row's p is the smallest of min(1, q tau) over time, with q = ``oversampling``, so that the
    dictionary has about q d_eff members or fewer: it grows with the effective dimension d_eff, the
    sum of all scores, not with the rows. Rows are taken in blocks of about the dictionary's size
    s, at O(s^2) a row.

    Parameters
    ----------
    kernel : callable
        Maps rows (a, ...) and (b, ...) to their kernel matrix (a, b); a ``Kernel`` is one.
    diagonal : callable
        Maps rows (a, ...) to k(x, x) of shape (a,), such as ``kernel.diag``.
    ridge : float
        :math:`\lambda`, positive, in the units of the eigenvalues of K (not divided by n).
    oversampling : float, default 2.0
        q. More makes estimates closer.
    budget : int, optional
        Largest size of the dictionary; where it binds, all probabilities shrink alike. None has
        no bound but the memory budget.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Attributes
    ----------
    rows : Tensor of shape (s, ...) or None
        The dictionary, in the order in which its members came; None before the first row.
    index : LongTensor of shape (s,)
        Their places in the stream, from 0.
    probabilities : Tensor of shape (s,)
        p, float64; a member stands for 1 / p rows.
    num_seen : int
        Rows seen.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If the ridge or ``oversampling`` is not positive, or the budget below 1.

    References
    ----------
    Calandriello, Lazaric, Valko, "Analysis of Nyström method with sequential ridge leverage
    scores", UAI 2016, arXiv 2604.20077.

    Calandriello, Lazaric, Valko, "Distributed adaptive sampling for kernel matrix
    approximation", AISTATS 2017, arXiv 1803.10172.

    Examples
    --------
    >>> import torch
    >>> rbf = lambda x, y: torch.exp(-(x[:, None] - y).square().sum(-1))
    >>> ones = lambda x: torch.ones(len(x)).double()
    >>> state = SequentialLeverage(rbf, ones, ridge=1.0, generator=0)
    >>> source = torch.Generator().manual_seed(0)
    >>> for _ in range(20):  # a stream of 2,000 rows
    ...     rows = torch.randn(100, 1, generator=source, dtype=torch.float64)
    ...     state = state.update(rows)
    >>> state.num_seen, len(state) < 40
    (2000, True)
    >>> state.scores(torch.tensor([[0.0], [9.0]]).double()).numpy().round(2)
    array([0., 1.])
    """

    def __init__(
        self,
        kernel: Callable[[Tensor, Tensor], Tensor],
        diagonal: Callable[[Tensor], Tensor],
        *,
        ridge: float,
        oversampling: float = 2.0,
        budget: int | None = None,
        generator: RandomSource | int | None = None,
    ) -> None:
        for name, value in (("kernel", kernel), ("diagonal", diagonal)):
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {type(value).__name__}")
        self.kernel, self.diagonal = kernel, diagonal
        self.ridge = check_real("ridge", ridge, above=0.0)
        self.oversampling = check_real("oversampling", oversampling, above=0.0)
        self.budget = None if budget is None else check_int("budget", budget)
        self._source = check_generator(generator)
        self.rows: Tensor | None = None
        self.index = torch.empty(0, dtype=torch.long)
        self.probabilities = torch.empty(0, dtype=torch.float64)
        self.num_seen = 0
        self._matrix = torch.empty(0, 0, dtype=torch.float64)  # K_DD
        self._residual: ResidualKernel | None = None  # made when it is asked for

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return (
            f"SequentialLeverage({len(self)} of {self.num_seen} rows, ridge={self.ridge:g}, "
            f"oversampling={self.oversampling:g})"
        )

    @torch.no_grad()
    def update(self, rows: Tensor) -> Self:
        """See some more rows of the stream.

        Parameters
        ----------
        rows : Tensor of shape (b, ...)
            The rows, as many as there are; only those that are kept are copied.

        Returns
        -------
        SequentialLeverage
            Itself.

        Raises
        ------
        TypeError
            If the rows, or what the callables return, are no floating-point tensors.
        ValueError
            If shapes do not fit, a number is not finite, or the kernel is found not to be
            positive semi-definite.
        MemoryError
            If the dictionary outgrows the memory budget.
        """
        rows = self._check_rows(rows)
        start = 0
        while start < len(rows):
            step = max(_LEAST_BLOCK, min(len(self), _LARGEST_BLOCK))
            self._see(rows[start : start + step])
            start += step
        return self

    @torch.no_grad()
    def scores(self, rows: Tensor) -> Tensor:
        """Estimate the leverage scores of rows, seen or not.

        Parameters
        ----------
        rows : Tensor of shape (b, ...)
            The rows.

        Returns
        -------
        Tensor of shape (b,)
            The scores, in [0, 1], in the dtype that ``diagonal`` returns. A row unlike all that
            was seen has min(1, k(x, x) / ridge).
        """
        rows = self._check_rows(rows)
        if self._residual is None:
            self._residual = ResidualKernel(self.kernel, self.diagonal, ridge=self.ridge)
            if self.rows is not None:
                self._residual.append(self.rows, self.probabilities)
        return (self._residual.variance(rows) / self.ridge).clamp(0.0, 1.0)

    @property
    def effective_dimension(self) -> float:
        """Estimate of the sum of the scores of all rows seen, tr K (K + ridge I)^-1."""
        return float(_shares(self._matrix, self.probabilities, self.ridge).sum())

    def resume(self, rows: Tensor, index: Tensor, probabilities: Tensor, num_seen: int) -> Self:
        """Go on from a dictionary that was kept elsewhere.

        Parameters
        ----------
        rows : Tensor of shape (s, ...)
            The dictionary.
        index : LongTensor of shape (s,)
            Places in the stream.
        probabilities : Tensor of shape (s,)
            p, in (0, 1].
        num_seen : int
            Rows seen.

        Returns
        -------
        SequentialLeverage
            Itself.

        Raises
        ------
        ValueError
            If lengths do not fit, or a number is not as described.
        """
        check_finite("probabilities", check_tensor("probabilities", probabilities, ndim=1))
        if not (len(rows) == len(index) == len(probabilities)):
            raise ValueError(
                f"rows, index, probabilities: expected equal lengths, got {len(rows)}, "
                f"{len(index)}, {len(probabilities)}"
            )
        if bool(((probabilities <= 0) | (probabilities > 1)).any()):
            raise ValueError("probabilities: expected numbers in (0, 1], got others")
        self.num_seen = check_int("num_seen", num_seen, least=len(index))
        self.rows = check_tensor("rows", rows).detach().clone()
        self.index = index.clone()
        self.probabilities = probabilities.detach().to(rows.device, torch.float64, copy=True)
        self._matrix = self._ask(self.rows, self.rows)
        self._residual = None
        return self

    # -- one block ---------------------------------------------------------------------------------

    def _see(self, block: Tensor) -> None:
        """Let a block join, score all members by all of them, and drop some."""
        old, new = len(self), len(block)
        size = old + new
        require_memory(
            8 * 4 * size * size,
            f"a dictionary of {old} rows beside {new} new ones",
            "set a budget, or a larger ridge",
        )
        matrix = block.new_empty(size, size, dtype=torch.float64)
        matrix[old:, old:] = self._ask(block, block)
        rows, index, p = block, torch.arange(new, device=block.device) + self.num_seen, None
        if self.rows is not None and old:
            matrix[:old, :old] = self._matrix
            matrix[:old, old:] = self._ask(self.rows, block)
            matrix[old:, :old] = matrix[:old, old:].mT
            rows = torch.cat([self.rows, block])
            index = torch.cat([self.index, index])
            p = self.probabilities
        ones = matrix.new_ones(new)
        p = ones if p is None else torch.cat([p, ones])
        ratio = (self.oversampling * _shares(matrix, p, self.ridge)).clamp_max(1.0)  # (size,)
        if self.budget is not None and float(ratio.sum()) > self.budget:
            ratio = inclusion_probabilities(ratio, self.budget)
        kept = _keep(ratio, self._source)
        self.rows, self.index = rows[kept], index[kept]
        self.probabilities = (p * ratio)[kept]
        self._matrix = matrix[kept][:, kept]
        self.num_seen += new
        self._residual = None

    def _check_rows(self, rows: Tensor) -> Tensor:
        check_finite("rows", check_tensor("rows", rows))
        known = self.rows
        if rows.ndim == 0 or (known is not None and rows.shape[1:] != known.shape[1:]):
            like = "..." if known is None else ", ".join(map(str, known.shape[1:]))
            raise ValueError(f"rows: expected shape (b, {like}), got {tuple(rows.shape)}")
        return rows.detach() if known is None else rows.detach().to(known)

    def _ask(self, rows: Tensor, columns: Tensor) -> Tensor:
        block = check_tensor("kernel", self.kernel(rows, columns)).detach()
        if block.shape != (len(rows), len(columns)):
            raise ValueError(
                f"kernel: expected shape ({len(rows)}, {len(columns)}) for as many rows, "
                f"got {tuple(block.shape)}"
            )
        check_finite("kernel", block)
        return block.to(rows.device, torch.float64)


def _shares(matrix: Tensor, probabilities: Tensor, ridge: float) -> Tensor:
    """Members' estimated scores over their probabilities (s,), in [0, 1].

    They are the exact scores of P^-1/2 K P^-1/2, where each member stands for the rows that it
    represents: tau_i / p_i = 1 - ridge [(P^-1/2 K P^-1/2 + ridge I)^-1]_ii.
    """
    if not len(matrix):
        return matrix.diagonal()
    root = probabilities.rsqrt()  # (s,)
    system = root.unsqueeze(1) * (matrix + matrix.mT) * (root / 2)  # (s, s)
    system.diagonal().add_(ridge)
    factor, info = torch.linalg.cholesky_ex(system)
    if int(info):
        raise ValueError(
            "kernel: expected a positive semi-definite matrix, got one whose factorisation fails "
            f"with the ridge {ridge:.3g} on its diagonal (largest entry "
            f"{float(matrix.abs().max()):.3g}); it is indefinite, or the ridge is too small for "
            "its rounding: take a larger one, or rows in float64"
        )
    inverse = torch.cholesky_inverse(factor)
    return (1 - ridge * inverse.diagonal()).clamp(0.0, 1.0)


def _keep(ratio: Tensor, source: RandomSource | None) -> Tensor:
    """Draw a set in which each is with its probability, of a size within one of their sum."""
    # In a random order: data may repeat with a period that is the step's.
    order = draw_permutation(len(ratio), source).to(ratio.device)
    start = draw_uniform((), source).to(ratio.device)
    ends = ratio[order].cumsum(0) + start
    # A tick at every whole number: who has one in [end - ratio, end) stays.
    ticks = ends.floor() - torch.cat([start.reshape(1), ends[:-1]]).floor()
    found = ratio >= 1.0
    found[order] |= ticks > 0
    return found.nonzero().squeeze(1)
