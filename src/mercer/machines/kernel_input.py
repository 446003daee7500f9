"""The training points of a machine, and the kernel between them and new rows."""

import copy
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from ..kernels import Gram, Kernel, Precomputed, resolve_kernel
from ..kernels.median import MOST_ROWS
from .rows import as_tensor


def fit_kernel(kernel: str | Kernel, x: Tensor, weights: Tensor | None = None) -> Kernel:
    """Return a frozen copy of a kernel, with what it leaves to the data set from them.

    A lengthscale that is the median distance is that between the distinct rows of positive
    weight (of 2,000 rows evenly spaced, where there are more), so that weights are the same as
    repeated rows; it is 1 where no two rows differ.

    Parameters
    ----------
    kernel : str or Kernel
        The kernel, by name or itself; it is not changed.
    x : Tensor of shape (n, d)
        The data.
    weights : Tensor of shape (n,), optional
        The weights of rows.

    Returns
    -------
    Kernel
        The kernel, on the device of x.

    Raises
    ------
    TypeError, ValueError
        If it is no kernel, or no kernel of vectors.
    """
    found = copy.deepcopy(resolve_kernel(kernel)).requires_grad_(False).to(x.device)
    if found.event_ndim != 1:
        raise ValueError(
            f"kernel: expected a kernel of vectors (event_ndim 1), got {found!r} with event_ndim "
            f"{found.event_ndim}; a network of images can begin with nn.Unflatten"
        )
    waiting = [part for part in found.modules() if getattr(part, "_waits_for_data", False)]
    if not waiting:
        return found
    rows = x if weights is None else x[weights > 0]
    if len(rows) > MOST_ROWS:
        rows = rows[torch.linspace(0, len(rows) - 1, MOST_ROWS).long()]
    rows = rows.unique(dim=0)
    if len(rows) > 1:
        return found.fit(rows)
    for part in waiting:
        part.lengthscale = 1.0  # type: ignore[assignment]
    return found


@final
@dataclass(frozen=True, eq=False)
class KernelInput:
    """Training points with their kernel, by which a machine sees all rows.

    Attributes
    ----------
    kernel : Kernel
        The kernel, fitted and frozen.
    points : Tensor of shape (n, d)
        The training points, standardised if asked for; the numbers of items, (n,), where the
        kernel was given as a matrix.
    center, scale : Tensor of shape (d,) or None
        What was subtracted from columns, and what they were then divided by.
    size : int
        Columns of new rows: d, or the number of items that the matrix had in ``fit``.
    """

    kernel: Kernel
    points: Tensor
    center: Tensor | None = None
    scale: Tensor | None = None
    size: int = 0

    @classmethod
    def fit(
        cls,
        kernel: str | Kernel,
        rows: Any,
        *,
        weights: Tensor | None = None,
        standardize: bool = False,
    ) -> "KernelInput":
        """Take the training rows.

        Parameters
        ----------
        kernel : str or Kernel
            The kernel, by name or itself, or ``"precomputed"``.
        rows : ndarray or Tensor of shape (n, d), or (n, n) for ``"precomputed"``
            Checked rows, or the kernel matrix.
        weights : Tensor of shape (n,), optional
            The weights of rows.
        standardize : bool, default False
            Whether columns are brought to mean 0 and standard deviation 1 (weighted); constant
            ones are only centred.

        Returns
        -------
        KernelInput
            The points.

        Raises
        ------
        ValueError
            If a matrix is not square and symmetric, or no kernel fits the rows.
        """
        x = as_tensor(rows)
        if isinstance(kernel, str) and kernel == "precomputed":
            if x.shape[0] != x.shape[1]:
                raise ValueError(
                    "X: expected a square kernel matrix for kernel='precomputed', "
                    f"got shape {tuple(x.shape)}"
                )
            if standardize:
                raise ValueError("standardize: a precomputed kernel has no columns to standardise")
            own = Precomputed(x).requires_grad_(False)
            return cls(own, torch.arange(len(x), dtype=x.dtype, device=x.device), size=len(x))
        center = scale = None
        if standardize:
            share = None if weights is None else (weights / weights.sum()).unsqueeze(-1)  # (n, 1)
            wide = x.double()
            center = wide.mean(0) if share is None else (share * wide).sum(0)
            square = (wide - center).square()
            scale = (square.mean(0) if share is None else (share * square).sum(0)).sqrt()
            # Of a constant column rounding would be left.
            some = wide if weights is None else wide[weights > 0]
            known = scale > 1e-12 * some.abs().amax(0)
            scale = torch.where(known, scale, 1.0)
            x = ((wide - center) / scale).to(x.dtype)
        return cls(fit_kernel(kernel, x, weights), x, center, scale, x.shape[1])

    @property
    def precomputed(self) -> bool:
        """Whether rows are those of a kernel matrix."""
        return self.kernel.event_ndim == 0

    def gram(self, group: ProcessGroup | None = None) -> Gram:
        """Return the kernel matrix (n, n) of the training points."""
        return self.kernel.gram(self.points, group=group)

    def prepare(self, rows: Any) -> Tensor:
        """Return new rows (m, d) as the kernel sees them."""
        x = as_tensor(rows).to(self.points.device)
        if self.center is not None and self.scale is not None:
            x = (x.double() - self.center) / self.scale
        return x.to(self.points.dtype)

    def cross(self, rows: Any) -> Gram | Tensor:
        """Return the kernel (m, n) between new rows and training points, to multiply with."""
        x = self.prepare(rows)
        if self.precomputed:
            return x[:, self.points.long()]
        return self.kernel.gram(x, self.points)

    def diag(self, rows: Any) -> Tensor:
        """Return the kernel (m,) of each new row with itself.

        Raises
        ------
        ValueError
            For a precomputed kernel, which does not tell.
        """
        if self.precomputed:
            raise ValueError(
                "X: a precomputed kernel between new rows and training points does not tell the "
                "kernel of a new row with itself"
            )
        return self.kernel.diag(self.prepare(rows))

    def keep(self, index: Tensor) -> "KernelInput":
        """Return the same with some training points only, and without a given matrix."""
        kept = self.points[index.to(self.points.device)]
        kernel = Precomputed(kept.new_zeros(0, 0)) if self.precomputed else self.kernel
        return KernelInput(kernel, kept, self.center, self.scale, self.size)
