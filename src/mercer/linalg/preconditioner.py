"""The inverse of a low-rank matrix plus a ridge, as a preconditioner."""

import math
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_real, check_tensor
from .._core.config import require_memory


@final
class LowRankPreconditioner:
    r"""Apply :math:`(L L^\top + \lambda I)^{-1}`, with L tall and thin.

    With the thin singular value decomposition L = U S V^T, by way of a QR decomposition,

    .. math::
        (L L^\top + \lambda I)^{-1} r = U (S^2 + \lambda I)^{-1} U^\top r
            + \lambda^{-1} (I - U U^\top) r

    which forms no square of L and no difference of large numbers, however small the ridge:
    Woodbury's identity as it is usually written loses all digits there. The rest
    :math:`(I - U U^\top) r` is taken twice, so that nothing of U's range is left in it to be
    blown up by the ridge.

    Parameters
    ----------
    factor : Tensor of shape (n, k)
        L, such as the ``factor`` of a `pivoted_cholesky` of the kernel matrix.
    ridge : float
        The ridge of the system that is solved, positive.
    rest : float, optional
        What stands for the ridge outside the range of L, where the matrix is larger than that,
        as it is with the approximation of `nystrom_preconditioner`; the ridge by default.

    Raises
    ------
    TypeError
        If ``factor`` is not a floating-point tensor.
    ValueError
        If it has no row, a number is not finite, or the ridge is not positive.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Gardner, Pleiss, Bindel, Weinberger, Wilson, "GPyTorch: Blackbox matrix-matrix Gaussian
    process inference with GPU acceleration", NeurIPS 2018, arXiv 1809.11165.

    Examples
    --------
    >>> import torch
    >>> from mercer.linalg import conjugate_gradient, pivoted_cholesky
    >>> x = torch.linspace(0, 1, 300).double()
    >>> k = torch.exp(-50 * (x[:, None] - x).square())
    >>> system, b = k + 1e-6 * torch.eye(300), torch.sin(9 * x)
    >>> p = LowRankPreconditioner(pivoted_cholesky(k, rank=30).factor, ridge=1e-6)
    >>> conjugate_gradient(lambda v: system @ v, b).iterations > 20
    True
    >>> conjugate_gradient(lambda v: system @ v, b, preconditioner=p).iterations < 5
    True
    """

    def __init__(self, factor: Tensor, *, ridge: float, rest: float | None = None) -> None:
        n, k = check_tensor("factor", factor, ndim=2).shape
        if n == 0:
            raise ValueError(f"factor: expected at least one row, got shape {(n, k)}")
        check_finite("factor", factor)
        self.ridge = check_real("ridge", ridge, above=0.0)
        self.rest = self.ridge if rest is None else check_real("rest", rest, above=0.0)
        what = f"the QR decomposition of a factor of shape {(n, k)}"
        require_memory(8 * 3 * n * k, what, "ask for a smaller rank")
        with torch.no_grad():
            q, triangle = torch.linalg.qr(factor.detach().double())  # (n, k), (k, k)
            left, singular, _ = torch.linalg.svd(triangle, full_matrices=False)
            self.basis = q @ left  # (n, k)
            self.eigenvalues = singular.square()  # (k,), of L L^T

    @torch.no_grad()
    def __call__(self, columns: Tensor) -> Tensor:
        """Return the inverse times columns of shape (n, c) or (n,), in their dtype."""
        return self._power(columns, -1.0)

    @torch.no_grad()
    def inverse_root(self, columns: Tensor) -> Tensor:
        """Return the symmetric root of the inverse times columns (n, c) or (n,), in their dtype."""
        return self._power(columns, -0.5)

    def logdet(self) -> float:
        """Return the logarithm of the determinant of the matrix that is inverted."""
        n, k = self.basis.shape
        inside = float((self.eigenvalues + self.ridge).log().sum())
        return inside + (n - k) * math.log(self.rest)

    def _power(self, columns: Tensor, exponent: float) -> Tensor:
        if check_tensor("columns", columns).ndim not in (1, 2) or len(columns) != len(self.basis):
            raise ValueError(
                f"columns: expected shape ({len(self.basis)}, c), got {tuple(columns.shape)}"
            )
        r = columns.reshape(len(columns), -1).to(self.basis)  # (n, c)
        inside = self.basis.mT @ r  # (k, c)
        outside = r - self.basis @ inside
        outside = outside - self.basis @ (self.basis.mT @ outside)
        scaled = (self.eigenvalues + self.ridge).pow(exponent).unsqueeze(-1) * inside
        found = self.basis @ scaled + self.rest**exponent * outside
        return found.reshape(columns.shape).to(columns)

    def __repr__(self) -> str:
        n, k = self.basis.shape
        return f"LowRankPreconditioner(n={n}, rank={k}, ridge={self.ridge:g})"
