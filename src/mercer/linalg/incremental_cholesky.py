"""A Cholesky factor that rows join and leave, without starting again."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_tensor
from .._core.config import require_memory

_EPS = torch.finfo(torch.float64).eps
_BLOCK = 48  # columns that are rotated at once
_OPTION = "keep fewer rows, or solve by conjugate_gradient"


@final
class IncrementalCholesky:
    r"""Keep A = L L^T while rows and columns are appended, removed, or changed by low rank.

    Appending k rows to n takes O(n^2 k), removing k takes O((n - i)^2 k) behind the first one
    removed i, a rank-one change O(n^2), where a new factorisation takes O(n^3):

    .. math::
        \begin{pmatrix} A & B \\ B^\top & C \end{pmatrix} =
        \begin{pmatrix} L & \\ W^\top & M \end{pmatrix}
        \begin{pmatrix} L & \\ W^\top & M \end{pmatrix}^\top, \qquad
        W = L^{-1} B, \quad M M^\top = C - W^\top W

    Removing rows leaves their columns of L to be added to the rest, and what is added goes in by
    orthogonal transformations of [L, V], a few columns at once, so that nothing is squared.
    All of it runs in float64.

    Parameters
    ----------
    matrix : Tensor of shape (n, n), optional
        What to start with, positive definite; without it, an empty matrix.
    capacity : int, default 0
        Rows to reserve room for; more is taken when it is needed.
    device : torch.device or str, optional
        Where an empty matrix lives.

    Raises
    ------
    TypeError
        If ``matrix`` is not a floating-point tensor.
    ValueError
        If shapes do not fit, a number is not finite, or a matrix is not positive definite.
    MemoryError
        If the factor does not fit the memory budget.

    References
    ----------
    Gill, Golub, Murray, Saunders, "Methods for modifying matrix factorizations", Mathematics of
    Computation 28 (1974).

    Golub, Van Loan, "Matrix Computations", 4th edition, section 6.5.

    Examples
    --------
    >>> import torch
    >>> a = torch.tensor([[4.0, 2.0, 1.0], [2.0, 3.0, 0.5], [1.0, 0.5, 2.0]]).double()
    >>> kept = IncrementalCholesky(a[:2, :2]).append(a[:2, 2], a[2, 2])
    >>> torch.allclose(kept.factor, torch.linalg.cholesky(a))
    True
    >>> kept.remove(0).to_dense()
    tensor([[3.0000, 0.5000],
            [0.5000, 2.0000]], dtype=torch.float64)
    >>> round(kept.logdet(), 4), torch.det(a[1:, 1:]).log().item() - kept.logdet() < 1e-15
    (1.7492, True)
    """

    def __init__(
        self,
        matrix: Tensor | None = None,
        *,
        capacity: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        capacity = check_int("capacity", capacity, least=0)
        if matrix is not None:
            device = check_tensor("matrix", matrix, ndim=2).device
        self._storage = torch.zeros(0, 0, dtype=torch.float64, device=device)
        self._size = 0
        self._reserve(capacity, capacity)
        if matrix is not None:
            n = len(matrix)
            self.append(matrix.new_zeros(0, n), matrix)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"IncrementalCholesky(n={self._size}, capacity={len(self._storage)})"

    @property
    def factor(self) -> Tensor:
        """L of shape (n, n), lower triangular, float64; a view that later changes write to."""
        return self._storage[: self._size, : self._size]

    @torch.no_grad()
    def append(self, cross: Tensor, block: Tensor) -> "IncrementalCholesky":
        """Add rows and columns at the end.

        Parameters
        ----------
        cross : Tensor of shape (n, k) or (n,)
            The new columns against the rows that are there.
        block : Tensor of shape (k, k) or ()
            The new columns against the new rows.

        Returns
        -------
        IncrementalCholesky
            Itself.

        Raises
        ------
        ValueError
            If shapes do not fit, a number is not finite, or the larger matrix is not positive
            definite to within rounding; then nothing is changed.
        """
        n = self._size
        square = check_tensor("block", block)
        square = square.reshape(1, 1) if square.ndim == 0 else square
        k = len(square)
        if square.shape != (k, k):
            raise ValueError(f"block: expected a square matrix, got shape {tuple(block.shape)}")
        beside = check_tensor("cross", cross)
        beside = beside.unsqueeze(-1) if beside.ndim == 1 and k == 1 else beside
        if beside.shape != (n, k):
            raise ValueError(
                f"cross: expected shape ({n}, {k}) beside {n} rows and a block of {k}, "
                f"got {tuple(cross.shape)}"
            )
        check_finite("cross", cross)
        check_finite("block", block)
        square = square.detach().to(self._storage)  # (k, k)
        white = _solve_lower(self.factor, beside.detach().to(self._storage))  # (n, k)
        corner, info = torch.linalg.cholesky_ex(square - white.mT @ white)
        variance = square.diagonal()
        shares = corner.diagonal().square() / variance.abs().clamp_min(1e-300)  # (k,)
        if k and (int(info) or float(shares.min()) <= 10 * _EPS):
            worst = int(info) - 1 if int(info) else int(shares.argmin())
            raise ValueError(
                f"block: expected rows that leave the matrix positive definite, got new row "
                f"{worst} of {k} whose diagonal {float(variance[worst]):.3g} the {n} rows that "
                "are there and the new ones before it use up; add a ridge, or leave it out"
            )
        self._reserve(n + k, max(n + k, (3 * n) // 2))
        self._size = n + k
        self._storage[n : n + k, :n] = white.mT
        self._storage[n : n + k, n : n + k] = corner.tril()
        return self

    @torch.no_grad()
    def remove(self, positions: int | Sequence[int] | Tensor) -> "IncrementalCholesky":
        """Take out rows and their columns; those behind them move up.

        Parameters
        ----------
        positions : int, sequence of int or LongTensor of shape (k,)
            Which, from 0 to n - 1, without repetition.

        Returns
        -------
        IncrementalCholesky
            Itself.
        """
        n = self._size
        leave = check_positions(positions, n).to(self._storage.device)
        if not len(leave):
            return self
        stays = torch.ones(n, dtype=torch.bool, device=leave.device)
        stays[leave] = False
        first = int(leave.min())
        behind = stays.nonzero().squeeze(-1)[first:]  # positions of those that move
        rows = self.factor[behind]  # (m, n)
        added = rows[:, leave]  # (m, k)
        self._storage[first:n, :n] = 0.0
        self._size = n - len(leave)
        self._storage[first : self._size, :first] = rows[:, :first]
        self._storage[first : self._size, first : self._size] = rows[:, behind]
        self._rotate_in(added, first)
        return self

    @torch.no_grad()
    def update(self, vectors: Tensor) -> "IncrementalCholesky":
        """Change A to A + V V^T.

        Parameters
        ----------
        vectors : Tensor of shape (n, k) or (n,)
            V.

        Returns
        -------
        IncrementalCholesky
            Itself.
        """
        added = self._check_rows("vectors", vectors).clone()
        self._rotate_in(added.reshape(self._size, -1), 0)
        return self

    @torch.no_grad()
    def downdate(self, vector: Tensor) -> "IncrementalCholesky":
        """Change A to A - v v^T.

        Parameters
        ----------
        vector : Tensor of shape (n,)
            v.

        Returns
        -------
        IncrementalCholesky
            Itself.

        Raises
        ------
        ValueError
            If the difference is not positive definite to within rounding; then nothing is
            changed.
        """
        if check_tensor("vector", vector).ndim != 1:
            raise ValueError(f"vector: expected one axis, got shape {tuple(vector.shape)}")
        taken = self._check_rows("vector", vector)
        factor = self.factor
        p = _solve_lower(factor, taken.unsqueeze(-1)).squeeze(-1)  # (n,)
        length = float(p.norm())
        if length >= 1.0 - 10 * _EPS:
            raise ValueError(
                "vector: expected one that leaves the matrix positive definite, got "
                f"v^T A^-1 v = {length**2:.6g}, which must be below 1"
            )
        # With I - p p^T = T T^T, L T is the new factor; T needs the sums of squares behind each
        # entry of p, which are added up from the end, so that nothing cancels. As |p| < 1, the
        # partial sums of L p are no larger than L: this is as stable as rotations are.
        squares = p.square()
        left = (1.0 - length) * (1.0 + length)
        later = squares.flip(0).cumsum(0).flip(0)[1:]  # (n - 1,)
        behind = left + torch.cat([later, later.new_zeros(1)])  # (n,), s_j
        stretch = (behind / (behind + squares)).sqrt()  # (n,)
        pull = p / (behind * (behind + squares)).sqrt()  # (n,)
        running = torch.zeros_like(p)  # L p, of the columns behind
        for start in range((self._size - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
            stop = min(start + _BLOCK, self._size)
            old = factor[start:, start:stop]  # (m, b)
            shares = old * p[start:stop]
            below = torch.ones(stop - start, stop - start).to(shares).tril(-1)  # (b, b)
            tails = shares @ below + running[start:].unsqueeze(-1)  # (m, b)
            running[start:] += shares.sum(-1)
            factor[start:, start:stop] = old * stretch[start:stop] - tails * pull[start:stop]
            factor[start:stop, start:stop].tril_()
        return self

    @torch.no_grad()
    def half_solve(self, rhs: Tensor) -> Tensor:
        """Return L^-1 b for b of shape (n, r) or (n,), in its dtype."""
        columns = self._check_rows("rhs", rhs).reshape(self._size, -1)
        return _solve_lower(self.factor, columns).reshape(rhs.shape).to(rhs)

    @torch.no_grad()
    def solve(self, rhs: Tensor) -> Tensor:
        """Return A^-1 b for b of shape (n, r) or (n,), in its dtype."""
        columns = self._check_rows("rhs", rhs).reshape(self._size, -1)
        half = _solve_lower(self.factor, columns)
        found = torch.linalg.solve_triangular(self.factor.mT, half, upper=True)
        return found.reshape(rhs.shape).to(rhs)

    def logdet(self) -> float:
        """Return the logarithm of A's determinant; 0 of an empty matrix."""
        return 2.0 * float(self.factor.diagonal().log().sum())

    def to_dense(self) -> Tensor:
        """Return A = L L^T of shape (n, n), float64."""
        return self.factor @ self.factor.mT

    def _rotate_in(self, added: Tensor, first: int) -> None:
        """Add V V^T to the lower right corner from row ``first`` on; overwrites V (m, k)."""
        corner = self._storage[first : self._size, first : self._size]  # (m, m)
        m, k = added.shape
        step = max(_BLOCK, k)
        for start in range(0, m, step):
            stop = min(start + step, m)
            wide = torch.cat([corner[start:stop, start:stop], added[start:stop]], -1)  # (b, b + k)
            turn, upper = torch.linalg.qr(wide.mT, mode="complete")  # (b+k, b+k), (b+k, b)
            b = stop - start
            # A factor has a positive diagonal.
            signs = torch.where(upper.diagonal() < 0, -1.0, 1.0).to(upper)  # (b,)
            corner[start:stop, start:stop] = (upper[:b] * signs.unsqueeze(-1)).mT.tril()
            below = torch.cat([corner[stop:, start:stop], added[stop:]], -1) @ turn
            corner[stop:, start:stop] = below[:, :b] * signs
            added[stop:] = below[:, b:]

    def _check_rows(self, name: str, value: Tensor) -> Tensor:
        """Return a tensor (n, r) or (n,) in float64 where the factor lives."""
        if check_tensor(name, value).ndim not in (1, 2) or len(value) != self._size:
            raise ValueError(
                f"{name}: expected shape ({self._size}, r) or ({self._size},) beside "
                f"{self._size} rows, got {tuple(value.shape)}"
            )
        check_finite(name, value)
        return value.detach().to(self._storage)

    def _reserve(self, least: int, wanted: int) -> None:
        """Make room for at least so many rows, and for as many as wanted where memory is grown."""
        if least <= len(self._storage):
            return
        require_memory(8 * wanted * wanted, f"a factor of {wanted} rows", _OPTION)
        # Zeros that nobody wrote to take no memory yet.
        larger = self._storage.new_zeros(wanted, wanted)
        larger[: self._size, : self._size] = self.factor
        self._storage = larger


def check_positions(positions: int | Sequence[int] | Tensor, size: int) -> Tensor:
    """Return positions (k,) as whole numbers, each once and from 0 to ``size`` - 1."""
    if isinstance(positions, bool):
        raise TypeError(f"positions: expected integers, got {positions!r}")
    chosen = torch.as_tensor(positions).detach().reshape(-1)
    if not len(chosen):
        return chosen.long()
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise TypeError(f"positions: expected integers, got {chosen.dtype}")
    if int(chosen.min()) < 0 or int(chosen.max()) >= size or len(chosen.unique()) < len(chosen):
        raise ValueError(
            f"positions: expected different ones from 0 to {size - 1}, got {chosen.tolist()[:10]}"
        )
    return chosen.long()


def _solve_lower(factor: Tensor, columns: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, columns, upper=False)
