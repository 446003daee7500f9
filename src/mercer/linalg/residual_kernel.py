"""What a set of weighted points leaves of a kernel, while points join and leave."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from .._core.config import block_rows
from .incremental_cholesky import IncrementalCholesky, check_positions

Entries = Callable[[Tensor, Tensor], Tensor]

_LARGEST_BLOCK = 4096  # items at once


@final
class ResidualKernel:
    r"""The residual of a kernel on a dictionary D of weighted points.

    .. math::
        r(x, y) = k(x, y) - k_D(x)^\top (K_{DD} + \lambda \, \mathrm{diag}(p))^{-1} k_D(y)

    With p = 1 it is the posterior covariance of a Gaussian process with noise :math:`\lambda`
    that was observed at D; :math:`r(x, x) / \lambda` is the ridge leverage score of x, estimated
    from points drawn with the probabilities p; with :math:`\lambda = 0` it is what a projection
    on D leaves, whose determinant a DPP multiplies.

    An item is whatever ``entries`` understands, one row of a tensor: an index, or a point itself
    where there is no list to index. The factor of the dictionary is kept, so that a variance
    takes O(s^2) for s points in it, and so does a point that joins or leaves.

    Parameters
    ----------
    entries : callable
        Maps items (a, ...) and (b, ...) to the matrix (a, b) of k, such as
        ``lambda i, j: kernel(x[i], x[j])`` with indices as items, or ``kernel`` itself.
    diagonal : callable
        Maps items (a, ...) to k(x, x) of shape (a,).
    ridge : float
        :math:`\lambda`, at least 0, in the units of k.
    capacity : int, default 0
        Points to reserve room for.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If the ridge is negative, or ``capacity``.

    References
    ----------
    Calandriello, Lazaric, Valko, "Distributed adaptive sampling for kernel matrix
    approximation", AISTATS 2017, arXiv 1803.10172.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 5).double()
    >>> rbf = lambda i, j: torch.exp(-4 * (x[i][:, None] - x[j]).square())
    >>> left = ResidualKernel(rbf, lambda i: torch.ones(len(i)).double(), ridge=0.1)
    >>> everything = torch.arange(5)
    >>> left.append(torch.tensor([0, 4])).variance(everything)
    tensor([0.0909, 0.4408, 0.7580, 0.4408, 0.0909], dtype=torch.float64)
    >>> left.remove(1).variance(everything)[-1] > 0.9
    tensor(True)
    """

    def __init__(
        self,
        entries: Entries,
        diagonal: Callable[[Tensor], Tensor],
        *,
        ridge: float,
        capacity: int = 0,
    ) -> None:
        for name, value in (("entries", entries), ("diagonal", diagonal)):
            if not callable(value):
                raise TypeError(f"{name}: expected a callable, got {type(value).__name__}")
        self.entries, self.diagonal = entries, diagonal
        self.ridge = check_real("ridge", ridge, least=0.0)
        self._capacity = check_int("capacity", capacity, least=0)
        self._factor: IncrementalCholesky | None = None  # until the first items say the device
        self._items: Tensor | None = None
        self._weights = torch.empty(0, dtype=torch.float64)

    def __len__(self) -> int:
        return 0 if self._factor is None else len(self._factor)

    def __repr__(self) -> str:
        return f"ResidualKernel(points={len(self)}, ridge={self.ridge:g})"

    @property
    def items(self) -> Tensor:
        """The dictionary's items (s, ...), in the order in which they joined."""
        return torch.empty(0, dtype=torch.long) if self._items is None else self._items

    @property
    def probabilities(self) -> Tensor:
        """Their p of shape (s,), float64."""
        return self._weights

    @property
    def factor(self) -> IncrementalCholesky:
        """The factor of K_DD + ridge diag(p)."""
        return IncrementalCholesky() if self._factor is None else self._factor

    @torch.no_grad()
    def append(self, items: Tensor, probabilities: Tensor | None = None) -> "ResidualKernel":
        """Let items join the dictionary.

        Parameters
        ----------
        items : Tensor of shape (k, ...)
            Which.
        probabilities : Tensor of shape (k,), optional
            Their p, in (0, 1]; ones by default.

        Returns
        -------
        ResidualKernel
            Itself.

        Raises
        ------
        ValueError
            If shapes do not fit, a number is not finite, a probability is not in (0, 1], or the
            ridge is too small to tell an item from those that are there; nothing is changed
            then.
        """
        k = len(_check_items(items))
        if k == 0:
            return self
        weights = _check_probabilities(probabilities, k)
        block = _ask(self.entries, items, items)
        block = (block + block.mT) / 2  # (k, k)
        weights = weights.to(block)
        system = block + torch.diag(self.ridge * weights)
        if self._items is None or self._factor is None:
            empty = IncrementalCholesky(capacity=self._capacity, device=block.device)
            # Assigned only once the items are in: a refused one leaves nothing behind.
            self._factor = empty.append(block.new_zeros(0, k), system)
            self._items, self._weights = items.detach().clone(), weights
            return self
        self._factor.append(_ask(self.entries, self._items, items), system)
        self._items = torch.cat([self._items, items.detach().to(self._items)])
        self._weights = torch.cat([self._weights, weights])
        return self

    @torch.no_grad()
    def remove(self, positions: int | Sequence[int] | Tensor) -> "ResidualKernel":
        """Let items leave the dictionary.

        Parameters
        ----------
        positions : int, sequence of int or LongTensor of shape (k,)
            Places in the dictionary, from 0 to s - 1; those behind move up.

        Returns
        -------
        ResidualKernel
            Itself.
        """
        leave = check_positions(positions, len(self))
        if self._items is None or self._factor is None or not len(leave):
            return self
        self._factor.remove(leave)
        stays = torch.ones(len(self._weights), dtype=torch.bool, device=self._weights.device)
        stays[leave.to(stays.device)] = False
        self._items, self._weights = self._items[stays.to(self._items.device)], self._weights[stays]
        return self

    @torch.no_grad()
    def reweight(self, probabilities: Tensor) -> "ResidualKernel":
        """Give the dictionary's items other probabilities, which takes a new factorisation.

        Parameters
        ----------
        probabilities : Tensor of shape (s,)
            p, in (0, 1].

        Returns
        -------
        ResidualKernel
            Itself.
        """
        weights = _check_probabilities(probabilities, len(self))
        if self._factor is None:
            return self
        system = self._factor.to_dense()
        weights = weights.to(system)
        system.diagonal().add_(self.ridge * (weights - self._weights))
        self._factor = IncrementalCholesky(system, capacity=self._capacity)
        self._weights = weights
        return self

    @torch.no_grad()
    def variance(self, items: Tensor) -> Tensor:
        """Return r(x, x) of items.

        Parameters
        ----------
        items : Tensor of shape (m, ...)
            Which; they need not be in the dictionary.

        Returns
        -------
        Tensor of shape (m,)
            The variances, at least 0, in the dtype that ``diagonal`` returns.
        """
        step = block_rows(8 * 4 * max(len(self), 1), most=_LARGEST_BLOCK)
        found = []
        for part in _check_items(items).split(step) if len(items) else [items]:
            prior = check_tensor("diagonal", self.diagonal(part)).detach()
            if prior.shape != (len(part),):
                raise ValueError(
                    f"diagonal: expected shape ({len(part)},) for as many items, "
                    f"got {tuple(prior.shape)}"
                )
            check_finite("diagonal", prior)
            left = prior.double()
            if self._items is not None and self._factor is not None and len(self):
                half = self._factor.half_solve(_ask(self.entries, self._items, part))  # (s, b)
                left = (left.to(half) - half.square().sum(0)).clamp_min(0.0)
            found.append(left.to(prior))
        return torch.cat(found)

    @torch.no_grad()
    def covariance(self, rows: Tensor, columns: Tensor | None = None) -> Tensor:
        """Return r(x, y) between items.

        Parameters
        ----------
        rows : Tensor of shape (a, ...)
            Items x.
        columns : Tensor of shape (b, ...), optional
            Items y; by default the same as ``rows``.

        Returns
        -------
        Tensor of shape (a, b)
            The covariances, float64.
        """
        others = rows if columns is None else _check_items(columns)
        prior = _ask(self.entries, _check_items(rows), others)  # (a, b)
        if self._items is None or self._factor is None or not len(self):
            return prior
        left = self._factor.half_solve(_ask(self.entries, self._items, rows))  # (s, a)
        right = left
        if columns is not None:
            right = self._factor.half_solve(_ask(self.entries, self._items, columns))  # (s, b)
        return prior - left.mT @ right


def _check_items(items: Tensor) -> Tensor:
    if not isinstance(items, Tensor) or items.ndim == 0:
        what = f"shape {tuple(items.shape)}" if isinstance(items, Tensor) else type(items).__name__
        raise TypeError(f"items: expected a tensor with one row for each item, got {what}")
    return items


def _check_probabilities(probabilities: Tensor | None, count: int) -> Tensor:
    if probabilities is None:
        return torch.ones(count, dtype=torch.float64)
    check_tensor("probabilities", probabilities, ndim=1)
    check_finite("probabilities", probabilities)
    outside = (probabilities <= 0) | (probabilities > 1)
    if len(probabilities) != count or bool(outside.any()):
        raise ValueError(
            f"probabilities: expected {count} numbers in (0, 1], got shape "
            f"{tuple(probabilities.shape)} with {int(outside.sum())} outside"
        )
    return probabilities.detach().double()


def _ask(entries: Entries, rows: Tensor, columns: Tensor) -> Tensor:
    """Ask for entries (a, b), as checked float64."""
    block = check_tensor("entries", entries(rows, columns)).detach()
    if block.shape != (len(rows), len(columns)):
        raise ValueError(
            f"entries: expected shape ({len(rows)}, {len(columns)}) for as many rows and columns, "
            f"got {tuple(block.shape)}"
        )
    check_finite("entries", block)
    return block.double()
