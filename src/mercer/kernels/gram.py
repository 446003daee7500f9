"""Gram: the matrix of a kernel between two sets of points, as a lazy operator."""

from typing import Any, final

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.checks import check_tensor
from .._core.precision import full_precision
from ..linalg import LinearSolution
from .base import Kernel
from .gram_product import multiply
from .gram_solve import solve
from .ordered_sum import check_same


@final
class Gram:
    r"""The kernel matrix :math:`K_{ij} = k(x_i, y_j)` as a lazy operator.

    It is made by `Kernel.gram` and never built as a whole unless `to_dense` is called: products
    evaluate it in tiles, the symmetric half once, and their gradient evaluates the tiles again,
    so that memory grows with n + m, not with n m. With a group of processes each computes a
    share of the tiles; the sums are taken in one order, so that the result has the same bits for
    any number of processes (of equally many threads).

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    x : Tensor of shape (n, *event)
        Points of the rows.
    y : Tensor of shape (m, *event), optional
        Points of the columns; without them those of the rows.
    group : torch.distributed.ProcessGroup, optional
        Processes that share the work; each must hold the same points and hyperparameters.

    Attributes
    ----------
    kernel, x, y, group : object
        As given; ``y`` is None for a symmetric matrix.

    Raises
    ------
    TypeError
        If points are not floating-point tensors, or the group is no process group.
    ValueError
        If shapes, dtypes or devices do not fit, or the processes hold different points.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> x = torch.linspace(0, 1, 5000).unsqueeze(-1)
    >>> gram = RBF(0.2).requires_grad_(False).gram(x)
    >>> gram
    Gram(RBF(lengthscale=0.2), shape=(5000, 5000), dtype=torch.float32)
    >>> (gram @ torch.ones(5000)).shape
    torch.Size([5000])
    """

    def __init__(
        self,
        kernel: Kernel,
        x: Tensor,
        y: Tensor | None = None,
        *,
        group: ProcessGroup | None = None,
    ) -> None:
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
        if group is not None and not isinstance(group, ProcessGroup):
            raise TypeError(
                f"group: expected a torch.distributed.ProcessGroup that this process belongs to, "
                f"got {type(group).__name__}"
            )
        y = None if y is x else y
        for name, points in (("x", x), ("y", y)):
            if points is not None and check_tensor(name, points).ndim != kernel.event_ndim + 1:
                raise ValueError(
                    f"{name}: expected {kernel.event_ndim + 1} axes, one set of points without "
                    f"batches, got shape {tuple(points.shape)}"
                )
        kernel(x[:1], None if y is None else y[:1])  # shapes and dtypes are its to judge
        if group is not None:
            points = [x] if y is None else [x, y]
            check_same(group, "points", points)
        self.kernel, self.x, self.y, self.group = kernel, x, y, group

    # -- what it is --------------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """Rows and columns."""
        return torch.Size((len(self.x), len(self.x if self.y is None else self.y)))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the entries, that of the points."""
        return self.x.dtype

    @property
    def device(self) -> torch.device:
        """Device of the points."""
        return self.x.device

    @property
    def mT(self) -> "Gram":  # noqa: N802  (torch's name)
        """The transposed matrix."""
        if self.y is None:
            return self
        return Gram(self.kernel, self.y, self.x, group=self.group)

    def __repr__(self) -> str:
        share = "" if self.group is None else f", group of {self.group.size()}"
        return f"Gram({self.kernel!r}, shape={tuple(self.shape)}, dtype={self.dtype}{share})"

    # -- products ----------------------------------------------------------------------------------

    def __matmul__(self, v: Any) -> Tensor:
        """Multiply by a vector (m,) or by several (m, r), in tiles.

        Parameters
        ----------
        v : Tensor of shape (m,) or (m, r)
            Vectors, in the dtype of the points.

        Returns
        -------
        Tensor of shape (n,) or (n, r)
            The product; its gradient evaluates the tiles again.
        """
        check_tensor("v", v)
        if v.ndim not in (1, 2) or len(v) != self.shape[1]:
            raise ValueError(
                f"v: expected shape ({self.shape[1]},) or ({self.shape[1]}, r) beside a matrix "
                f"{tuple(self.shape)}, got {tuple(v.shape)}"
            )
        if v.dtype != self.dtype or v.device != self.device:
            raise ValueError(
                f"v: expected {self.dtype} on {self.device} like the points, "
                f"got {v.dtype} on {v.device}"
            )
        with full_precision(self.x):
            matrix = v if v.ndim == 2 else v.unsqueeze(-1)
            out = multiply(self.kernel, self.x, self.y, matrix, self.group)
        return out if v.ndim == 2 else out.squeeze(-1)

    def __rmatmul__(self, v: Any) -> Tensor:
        """Multiply a vector (n,) or several (r, n) by the matrix from the right."""
        check_tensor("v", v)
        return (self.mT @ v.mT).mT if v.ndim > 1 else self.mT @ v

    # -- parts -------------------------------------------------------------------------------------

    def diagonal(self) -> Tensor:
        """Return the diagonal, shape (min(n, m),)."""
        if self.y is None:
            return self.kernel.diag(self.x)
        size = min(self.shape)
        pairs = self.kernel(self.x[:size].unsqueeze(1), self.y[:size].unsqueeze(1))  # (n, 1, 1)
        return pairs.reshape(size)

    def rows(self, index: slice | Tensor) -> Tensor:
        """Return some rows.

        Parameters
        ----------
        index : slice or LongTensor of shape (k,)
            Which rows.

        Returns
        -------
        Tensor of shape (k, m)
            The rows, those of `to_dense` up to rounding.
        """
        index = self._index(index, 0)
        part = self.kernel(self.x[index], self.x if self.y is None else self.y)
        if self.y is not None:
            return part
        own = torch.arange(len(index), device=self.device)
        return part.index_put((own, index), self.kernel.diag(self.x[index]))

    def columns(self, index: slice | Tensor) -> Tensor:
        """Return some columns.

        Parameters
        ----------
        index : slice or LongTensor of shape (k,)
            Which columns.

        Returns
        -------
        Tensor of shape (n, k)
            The columns, those of `to_dense` up to rounding.
        """
        index = self._index(index, 1)
        if self.y is not None:
            return self.kernel(self.x, self.y[index])
        part = self.kernel(self.x, self.x[index])
        own = torch.arange(len(index), device=self.device)
        return part.index_put((index, own), self.kernel.diag(self.x[index]))

    def to_dense(self) -> Tensor:
        """Build the matrix.

        Returns
        -------
        Tensor of shape (n, m)
            The matrix, symmetric to the last bit where x and y are the same.

        Raises
        ------
        MemoryError
            If it does not fit the memory budget.
        """
        return self.kernel(self.x, self.y)

    def _index(self, index: Any, axis: int) -> Tensor:
        """Return indices as a tensor inside the axis."""
        size = self.shape[axis]
        if isinstance(index, slice):
            return torch.arange(size, device=self.device)[index]
        if not isinstance(index, Tensor) or index.is_floating_point() or index.ndim != 1:
            raise TypeError(f"index: expected a slice or a LongTensor of shape (k,), got {index!r}")
        if index.dtype == torch.bool:
            raise TypeError("index: expected numbers of rows, got booleans; use mask.nonzero()")
        if len(index) and not (-size <= int(index.min()) and int(index.max()) < size):
            raise ValueError(
                f"index: expected numbers from 0 to {size - 1}, "
                f"got {int(index.min())} to {int(index.max())}"
            )
        return (index % size if size else index).to(self.device)

    # -- solving -----------------------------------------------------------------------------------

    def solve(
        self,
        rhs: Tensor,
        *,
        ridge: float = 0.0,
        method: str | None = None,
        tolerance: float | None = None,
        max_iterations: int | None = None,
        preconditioner_rank: int | None = None,
        start: Tensor | None = None,
        show_progress: bool = False,
    ) -> LinearSolution:
        r"""Solve :math:`(K + \lambda I) a = b` for a symmetric matrix.

        Parameters
        ----------
        rhs : Tensor of shape (n,) or (n, r)
            b.
        ridge : float, default 0.0
            :math:`\lambda`, in the units of the kernel, at least 0.
        method : {"cholesky", "cg"}, optional
            Build and factor the matrix, or iterate with products. None factors where the matrix
            and its factor fit half of what the memory budget leaves.
        tolerance : float, optional
            Residual, relative to the right-hand side, at which iterations stop; None is the
            square root of the dtype's precision.
        max_iterations : int, optional
            Most iterations; None is 10 n, and at most 10,000.
        preconditioner_rank : int, optional
            Pivots of the Cholesky preconditioner of the iterations, which needs a ridge; 0 is
            none, None is 256.
        start : Tensor like rhs, optional
            Where iterations start, such as the solution that an interrupted call had.
        show_progress : bool, default False
            Whether to show a progress bar of the iterations.

        Returns
        -------
        LinearSolution
            The solution with its residual, and whether it converged; not differentiated.

        Raises
        ------
        ValueError
            If the matrix is not symmetric by construction, shapes do not fit, or the matrix is
            found not to be positive semi-definite.
        MemoryError
            If ``"cholesky"`` does not fit the memory budget.
        """
        return solve(
            self,
            rhs,
            ridge=ridge,
            method=method,
            tolerance=tolerance,
            max_iterations=max_iterations,
            preconditioner_rank=preconditioner_rank,
            start=start,
            show_progress=show_progress,
        )
