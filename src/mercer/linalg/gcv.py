"""Generalised cross-validation on one eigendecomposition: the criterion for any ridge in O(p)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GCVCurve:
    r"""The criterion of a ridge regression as a function of its ridge.

    With eigenvalues :math:`s_j` of :math:`Z^\top Z` and :math:`c = V^\top Z^\top Y`,

    .. math::
        \mathrm{GCV}(\lambda) = \frac{n\,\mathrm{RSS}(\lambda)}{(n - \mathrm{df}(\lambda))^2},
        \qquad
        \mathrm{RSS}(\lambda) = \mathrm{RSS}(0)
        + \sum_j \frac{\lambda^2 \|c_j\|^2}{s_j (s_j + \lambda)^2}.

    Both terms are written without differences of nearly equal numbers, so that the curve stays
    right where the fit interpolates.

    Parameters
    ----------
    eigenvalues : Tensor of shape (rank,)
        The eigenvalues above rounding, float64.
    loadings : Tensor of shape (rank,)
        ``||c_j||^2``, summed over outputs.
    residual : float
        RSS(0), summed over outputs.
    count : float
        Number of rows n (or the sum of their weights).
    free : float
        Degrees of freedom that are always spent: 1 for an intercept, else 0.

    References
    ----------
    Golub, Heath, Wahba, "Generalized cross-validation as a method for choosing a good ridge
    parameter", Technometrics 21 (1979).

    Examples
    --------
    >>> import torch
    >>> s, c2 = torch.tensor([4.0, 1.0]).double(), torch.tensor([8.0, 1.0]).double()
    >>> curve = GCVCurve(s, c2, residual=1.0, count=10.0, free=1.0)
    >>> round(curve.effective_dof(1.0), 3), round(curve(1.0), 4)
    (2.3, 0.2243)
    """

    eigenvalues: Tensor
    loadings: Tensor
    residual: float
    count: float
    free: float

    @classmethod
    def from_spectrum(
        cls, eigenvalues: Tensor, rotated: Tensor, total: float, count: float, free: float
    ) -> "GCVCurve":
        """Read the curve off the eigenvalues above rounding and ``V^T Z^T Y`` (rank, outputs)."""
        loadings = rotated.square().sum(-1)  # (rank,)
        spare = count - free - len(eigenvalues)
        # As many parameters as rows: the residual is zero, whatever rounding makes of it.
        residual = total - float((loadings / eigenvalues).sum()) if spare > 0 else 0.0
        return cls(eigenvalues, loadings, max(residual, 0.0), count, free)

    def effective_dof(self, ridge: float) -> float:
        """Trace of the hat matrix, the intercept included."""
        return self.free + float((self.eigenvalues / (self.eigenvalues + ridge)).sum())

    def __call__(self, ridge: float) -> float:
        """Value of the criterion; infinite where no degree of freedom is left."""
        shrunk = ridge / (self.eigenvalues + ridge)  # (rank,), 1 - the filter factor
        rss = self.residual + float((shrunk.square() * self.loadings / self.eigenvalues).sum())
        left = max(self.count - self.free - len(self.eigenvalues), 0.0) + float(shrunk.sum())
        return self.count * rss / left**2 if left > 0 else float("inf")

    def minimise(self, scale: float) -> tuple[float, Tensor, Tensor]:
        """Scan a log grid of ridges around ``scale``, then refine the best one.

        Parameters
        ----------
        scale : float
            The grid runs from 1e-10 to 1e4 times this, four points a decade.

        Returns
        -------
        tuple
            The best ridge, the grid (57,) and the criterion on it (57,), float64.
        """
        from scipy.optimize import minimize_scalar

        grid = scale * torch.logspace(-10, 4, 57, dtype=torch.float64)
        path = torch.tensor([self(float(ridge)) for ridge in grid], dtype=torch.float64)
        # Of equally good ridges the largest: a flat curve then gives the tamest solution.
        best = len(grid) - 1 - int(path.flip(0).argmin())
        if not 0 < best < len(grid) - 1:
            return float(grid[best]), grid, path
        refined = minimize_scalar(
            lambda log_ridge: self(10.0**log_ridge),
            bounds=(float(grid[best - 1].log10()), float(grid[best + 1].log10())),
            method="bounded",
            options={"xatol": 1e-4},
        )
        ridge = 10.0 ** float(refined.x)
        return (ridge if self(ridge) < float(path[best]) else float(grid[best])), grid, path
