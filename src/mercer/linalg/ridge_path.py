"""Kernel ridge regression for every ridge at once, from one eigendecomposition."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_finite, check_real, check_tensor
from .._core.config import require_memory
from .psd import check_psd_matrix

CRITERIA = ("loo", "gcv")
_BLOCK = 1024  # rows of eigenvectors that are squared at a time


@final
@dataclass(frozen=True, eq=False)
class RidgeChoice:
    """A ridge that was chosen by a criterion, and the criterion on a grid.

    Attributes
    ----------
    ridge : float
        The ridge of the smallest criterion.
    criterion : str
        ``"loo"`` or ``"gcv"``.
    score : float
        The criterion there: a mean squared error of one left-out target.
    ridges, scores : Tensor of shape (g,)
        The grid and the criterion on it, float64.

    Examples
    --------
    >>> import torch
    >>> grid = torch.tensor([0.1, 1.0, 10.0]).double()
    >>> choice = RidgeChoice(1.0, "loo", 0.2, grid, torch.tensor([0.5, 0.2, 0.9]).double())
    >>> choice.plot().get_xlabel()
    'ridge'
    """

    ridge: float
    criterion: str
    score: float
    ridges: Tensor
    scores: Tensor

    def plot(self, ax: Any = None) -> Any:
        """Draw the criterion over the ridge.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        ax = axes_or_new(ax)
        name = {"loo": "leave-one-out", "gcv": "generalised cross-validation"}[self.criterion]
        ax.loglog(self.ridges, self.scores, color="#0072B2", label=name)
        ax.axvline(self.ridge, color="#D55E00", linestyle="--", label=f"chosen: {self.ridge:.3g}")
        ax.set(xlabel="ridge", ylabel="mean squared error", title="Choice of the ridge")
        ax.legend()
        return ax


@final
class RidgePath:
    r"""Solutions, leave-one-out errors and generalised cross-validation for any ridge.

    With :math:`K = V \Lambda V^\top` and :math:`G = V (\Lambda + \lambda I)^{-1} V^\top`,

    .. math::
        a = G y, \qquad y_i - \hat y_i^{(-i)} = \frac{[G y]_i}{G_{ii}}, \qquad
        \mathrm{GCV}(\lambda) = \frac{n \|G y\|^2}{(\operatorname{tr} G)^2}

    after one decomposition in O(n^3), each ridge costs O(n^2). With an unpenalised intercept
    :math:`G - G s s^\top G / (s^\top G s)`, s the vector of ones, stands for G; weights w scale
    rows and columns by :math:`\sqrt{w}`, s with them.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric positive semi-definite.
    targets : Tensor of shape (n, q) or (n,)
        y.
    weights : Tensor of shape (n,), optional
        Positive weights of the squared errors.
    intercept : bool, default False
        Whether there is an intercept, which is not penalised.

    Attributes
    ----------
    eigenvalues : Tensor of shape (n,)
        Those of K (weighted), ascending, float64; what rounding left below zero is zero.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes do not fit, a number is not finite, K is not symmetric positive semi-definite,
        or a weight is not positive.
    MemoryError
        If the decomposition does not fit the memory budget.

    References
    ----------
    Golub, Heath, Wahba, "Generalized cross-validation as a method for choosing a good ridge
    parameter", Technometrics 21 (1979).

    Rifkin, Lippert, "Notes on regularized least squares", MIT-CSAIL-TR-2007-025.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 50).double()
    >>> k = torch.exp(-20 * (x[:, None] - x).square())
    >>> noise = 0.1 * torch.randn(50, generator=torch.Generator().manual_seed(0))
    >>> path = RidgePath(k, torch.sin(6 * x) + noise)
    >>> choice = path.minimise("loo")
    >>> 1e-4 < choice.ridge < 1, choice.score < 0.02
    (True, True)
    """

    @torch.no_grad()
    def __init__(
        self,
        matrix: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        intercept: bool = False,
    ) -> None:
        clean = check_psd_matrix("matrix", matrix)  # (n, n)
        n = len(clean)
        if check_tensor("targets", targets).ndim not in (1, 2) or len(targets) != n:
            raise ValueError(
                f"targets: expected shape ({n},) or ({n}, q) beside matrix {tuple(matrix.shape)}, "
                f"got {tuple(targets.shape)}"
            )
        check_finite("targets", targets)
        option = "choose the ridge on a sample of the points"
        require_memory(8 * 4 * n * n, f"the eigenvectors of a matrix of shape {(n, n)}", option)
        self._root = clean.new_ones(n)
        if weights is not None:
            check_finite("weights", check_tensor("weights", weights, ndim=1))
            if len(weights) != n or bool((weights <= 0).any()):
                raise ValueError(
                    f"weights: expected {n} positive numbers, got shape {tuple(weights.shape)} "
                    f"from {float(weights.min()):.3g}"
                )
            self._root = weights.to(clean).sqrt()
            clean *= self._root
            clean *= self._root.unsqueeze(-1)
        eigenvalues, self._vectors = torch.linalg.eigh(clean)  # ascending
        lowest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
        if lowest < -(torch.finfo(matrix.dtype).eps ** 0.5) * max(largest, -lowest):
            raise ValueError(
                "matrix: expected a positive semi-definite matrix, got eigenvalues from "
                f"{lowest:.3g} to {largest:.3g}"
            )
        self.eigenvalues = eigenvalues.clamp_min(0.0)
        self.intercept = intercept
        self._flat = targets.ndim == 1
        y = targets.detach().to(clean).reshape(n, -1) * self._root.unsqueeze(-1)  # (n, q)
        self._rotated = self._vectors.mT @ y  # (n, q)
        self._ones = self._vectors.mT @ self._root  # (n,)

    # -- one ridge ---------------------------------------------------------------------------------

    @torch.no_grad()
    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the coefficients a of :math:`f(x) = k(x)^T a + b`, and b.

        Parameters
        ----------
        ridge : float
            The ridge, positive.

        Returns
        -------
        tuple of Tensor
            a (n, q) or (n,), and b (q,) or (), in float64; zero without an intercept.
        """
        inverse = 1.0 / (self.eigenvalues + check_real("ridge", ridge, above=0.0))  # (n,)
        solved = self._rotated * inverse.unsqueeze(-1)  # (n, q), V^T G y
        bias = solved.new_zeros(solved.shape[1])
        if self.intercept:
            along = self._ones * inverse  # (n,), V^T G s
            bias = (self._ones @ solved) / (self._ones @ along)  # (q,)
            solved = solved - torch.outer(along, bias)
        a = self._root.unsqueeze(-1) * (self._vectors @ solved)
        return (a.squeeze(-1), bias.squeeze(-1)) if self._flat else (a, bias)

    @torch.no_grad()
    def leave_one_out(self, ridge: float) -> Tensor:
        """Return the residuals y_i less what is predicted without row i.

        Parameters
        ----------
        ridge : float
            The ridge, positive.

        Returns
        -------
        Tensor of shape (n, q) or (n,)
            The residuals, float64.
        """
        ridges = self._rotated.new_tensor([check_real("ridge", ridge, above=0.0)])
        a, _ = self.solve(ridge)
        diagonal = self._diagonals(ridges).squeeze(-1)  # (n,), that of sqrt(w) (...)^-1 sqrt(w)
        shares = (self._root.square() * diagonal).reshape(-1, *[1] * (a.ndim - 1))
        return a / shares

    def effective_dimension(self, ridge: float) -> float:
        """Return the trace of the hat matrix, the intercept included."""
        ridges = self._rotated.new_tensor([check_real("ridge", ridge, above=0.0)])
        return len(self.eigenvalues) - float(ridge * self._trace(ridges))

    # -- all ridges --------------------------------------------------------------------------------

    @torch.no_grad()
    def scores(self, ridges: Tensor, criterion: str = "loo") -> Tensor:
        """Evaluate a criterion for some ridges.

        Parameters
        ----------
        ridges : Tensor of shape (g,)
            Positive ridges.
        criterion : {"loo", "gcv"}, default "loo"
            The mean squared error of a left-out target, weighted and summed over outputs, or
            its rotation-invariant form.

        Returns
        -------
        Tensor of shape (g,)
            The criterion, float64.
        """
        check_choice("criterion", criterion, CRITERIA)
        ridges = ridges.to(self._rotated)
        total = float(self._root.square().sum())
        if criterion == "gcv":
            rest = torch.stack([self._solved(r).square().sum() for r in ridges])  # (g,)
            n = len(self.eigenvalues)
            return n * n / total * rest / self._trace(ridges).square()
        shares = self._diagonals(ridges)  # (n, g)
        found = []
        for r, share in zip(ridges, shares.mT, strict=True):
            residual = (self._vectors @ self._solved(r)) / share.unsqueeze(-1)  # (n, q)
            found.append(residual.square().sum() / total)
        return torch.stack(found)

    @torch.no_grad()
    def minimise(self, criterion: str = "loo") -> RidgeChoice:
        """Choose the ridge: a grid of three a decade, then a search around its best.

        Parameters
        ----------
        criterion : {"loo", "gcv"}, default "loo"
            What is to be small.

        Returns
        -------
        RidgeChoice
            The ridge with the grid; from 1e-10 to 1e4 of the mean of the diagonal.
        """
        from scipy.optimize import minimize_scalar

        scale = float(self.eigenvalues.mean())
        if scale == 0.0:
            raise ValueError("matrix: expected a matrix that is not zero, to choose a ridge for")
        grid = scale * torch.logspace(-10, 4, 43, dtype=torch.float64)
        # One row with an intercept leaves nothing to judge by.
        scores = self.scores(grid, criterion).nan_to_num(nan=torch.inf)
        # Of equally good ridges the largest: a flat curve then gives the tamest solution.
        best = len(grid) - 1 - int(scores.flip(0).argmin())
        ridge, score = float(grid[best]), float(scores[best])
        if 0 < best < len(grid) - 1:

            def at(exponent: float) -> float:
                return float(
                    self.scores(torch.tensor([10.0**exponent], dtype=torch.float64), criterion)
                )

            low, high = float(grid[best - 1].log10()), float(grid[best + 1].log10())
            refined: Any = minimize_scalar(
                at, bounds=(low, high), method="bounded", options={"xatol": 1e-3}
            )
            if refined.fun < score:
                ridge, score = 10.0 ** float(refined.x), float(refined.fun)
        return RidgeChoice(ridge, criterion, score, grid, scores)

    def _solved(self, ridge: Tensor) -> Tensor:
        """Return V^T G y (n, q)."""
        inverse = 1.0 / (self.eigenvalues + ridge)  # (n,)
        solved = self._rotated * inverse.unsqueeze(-1)
        if not self.intercept:
            return solved
        along = self._ones * inverse
        return solved - torch.outer(along, (self._ones @ solved) / (self._ones @ along))

    def _diagonals(self, ridges: Tensor) -> Tensor:
        """Return the diagonal of G (n, g) for each ridge."""
        inverse = 1.0 / (self.eigenvalues.unsqueeze(-1) + ridges)  # (n, g)
        found = torch.cat([v.square() @ inverse for v in self._vectors.split(_BLOCK)])
        if self.intercept:
            along = self._ones.unsqueeze(-1) * inverse  # (n, g)
            found = found - (self._vectors @ along).square() / (self._ones @ along)
        return found

    def _trace(self, ridges: Tensor) -> Tensor:
        """Return the trace of G (g,) for each ridge."""
        inverse = 1.0 / (self.eigenvalues.unsqueeze(-1) + ridges)  # (n, g)
        found = inverse.sum(0)
        if self.intercept:
            along = self._ones.unsqueeze(-1) * inverse
            found = found - along.square().sum(0) / (self._ones @ along)
        return found
