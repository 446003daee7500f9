"""Least squares in a space of features, with the best places to evaluate a function."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_finite, check_tensor
from .._core.config import block_rows
from ..features import FeatureMap
from ..linalg import ChristoffelDensity, OptimalDesign, optimal_design, weighted_least_squares
from ..linalg.optimal_least_squares import DESIGNS
from .base import Machine
from .rows import as_tensor, check_rows, check_targets, check_weights, in_kind

_LARGEST_BLOCK = 8192  # rows at once


@final
class WeightedLeastSquares(MultiOutputMixin, RegressorMixin, Machine):
    r"""Fit a function by the best weighted combination of given features.

    .. math:: \min_c \sum_i w_i \left( y_i - \psi(x_i)^\top c \right)^2

    by orthogonal transformations, block by block. `fit` takes data as they are. Where values are
    expensive and you may choose where to have them, `design_points` picks a few of many rows, and
    their weights, so that the fit is nearly the best in mean square over all of them; fit to
    these with ``sample_weight=design.weights``, or let `fit_function` do all three steps. For
    designs between given rows, on a continuum, see `mercer.linalg.optimal_design`.

    Parameters
    ----------
    features : FeatureMap or callable, optional
        The features: a `mercer.features.FeatureMap`, or a function of tensors (b, d) to tensors
        (b, m), which cannot be saved. By default a constant and the columns.
    design : {"repeated_dpp", "volume", "iid"}, default "repeated_dpp"
        How `design_points` chooses; see `mercer.linalg.optimal_design`.
    delta : float or None, default 0.9
        Designs are drawn until the smallest eigenvalue of their moments, 1 on average, is at least
        1 - delta; None takes the first.
    max_tries : int, default 100
        Most designs to draw.
    random_state : int, RandomState instance or None, default None
        Source of the designs.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (m,) or (n_targets, m)
        c; the smallest one, in units of the features' norms, where features depend on each other.
    rank_ : int
        Numerical rank of the weighted features.
    design_ : OptimalDesign or None
        Where `fit_function` evaluated; None after `fit`.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    References
    ----------
    Cohen, Migliorati, "Optimal weighted least-squares methods", SMAI Journal of Computational
    Mathematics 3 (2017), arXiv 1608.00512.

    Nouy, Michel, "Weighted least-squares approximation with determinantal point processes and
    generalized volume sampling", 2023, arXiv 2312.14057.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.features import MonomialFeatures
    >>> from mercer.kernels import Polynomial
    >>> from mercer.machines import WeightedLeastSquares
    >>> X = np.random.default_rng(0).uniform(-1, 1, size=(2000, 2))
    >>> costly = lambda X: np.exp(X[:, 0] - X[:, 1])
    >>> cubics = MonomialFeatures(Polynomial(degree=3), 2)
    >>> machine = WeightedLeastSquares(cubics, random_state=0).fit_function(costly, X, 20)
    >>> machine.score(X, costly(X)) > 0.99  # from 20 values
    True
    >>> machine.design_.gram_min_eig > 0.1
    True
    """

    def __init__(
        self,
        features: FeatureMap | Callable[[Tensor], Tensor] | None = None,
        design: str = "repeated_dpp",
        delta: float | None = 0.9,
        max_tries: int = 100,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.features = features
        self.design = design
        self.delta = delta
        self.max_tries = max_tries
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows with their values.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The values.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            The weights w; a whole number is the same as repeating the row.

        Returns
        -------
        WeightedLeastSquares
            The estimator itself.
        """
        self._check_parameters()
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows)
        self._solve(rows, targets, check_weights(sample_weight, rows))
        self.design_: OptimalDesign | None = None
        return self

    def design_points(self, X: Any, n_points: int, sample_weight: Any = None) -> OptimalDesign:
        """Choose rows at which to evaluate a function; nothing is fitted.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows that represent all that matter: data, or a fine grid.
        n_points : int
            Evaluations, at least as many as features; rows may come repeatedly.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            How much each row matters.

        Returns
        -------
        OptimalDesign
            ``points``, their ``weights`` and their ``index`` in X, in the caller's kind; in all
            `mercer.linalg.optimal_design` tells.

        Raises
        ------
        ValueError
            If there are fewer points than features, the features are linearly dependent on X, or
            no design is good enough.
        MemoryError
            If the features of X do not fit the memory budget.
        """
        self._check_parameters()
        rows = check_rows(self, X, reset=True)
        weights = check_weights(sample_weight, rows)
        density = ChristoffelDensity(self._features_of, as_tensor(rows), weights)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        found = optimal_design(
            density,
            n_points,
            kind=self.design,
            delta=self.delta,
            max_tries=self.max_tries,
            generator=seed,
        )
        assert found.index is not None
        return dataclasses.replace(
            found,
            points=in_kind(found.points, rows),
            index=in_kind(found.index, rows),
            weights=in_kind(found.weights, rows),
        )

    def fit_function(
        self, function: Callable[[Any], Any], X: Any, n_points: int, sample_weight: Any = None
    ) -> Self:
        """Choose rows, evaluate a function there, and fit to what it says.

        Parameters
        ----------
        function : callable
            Maps rows (n_points, n_features), in the kind of X, to values (n_points,) or
            (n_points, n_targets). It is called once.
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows that represent all that matter.
        n_points : int
            Evaluations, at least as many as features.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            How much each row matters.

        Returns
        -------
        WeightedLeastSquares
            The estimator itself, with ``design_``.
        """
        if not callable(function):
            raise TypeError(f"function: expected a callable, got {type(function).__name__}")
        found = self.design_points(X, n_points, sample_weight)
        targets = check_targets(function(found.points), found.points)
        self._solve(found.points, targets, as_tensor(found.weights))
        self.design_ = found
        return self

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Evaluate the fit.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_targets)
            Values, in the caller's kind and dtype.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x, coefficients = as_tensor(rows), as_tensor(self.coef_)
        matrix = coefficients.double()
        matrix = matrix.mT if matrix.ndim == 2 else matrix  # (m, q) or (m,)
        found = [
            self._features_of(part).to(matrix) @ matrix  # (b, q) or (b,)
            for part in x.split(self._step(x))
        ]
        return in_kind(torch.cat(found).to(x.dtype), rows)

    # -- behind it ---------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        if self.features is not None and not callable(self.features):
            raise TypeError(
                "features: expected a FeatureMap, a callable or None, got "
                f"{type(self.features).__name__}"
            )
        check_choice("design", self.design, DESIGNS)

    def _features_of(self, x: Tensor) -> Tensor:
        """Features (b, m) of rows (b, d)."""
        if self.features is None:
            return torch.cat([x.new_ones(len(x), 1), x], 1)
        found = check_tensor("features", self.features(x), ndim=2).detach()
        if len(found) != len(x) or found.shape[1] == 0:
            raise ValueError(
                f"features: expected shape ({len(x)}, m) for rows {tuple(x.shape)}, "
                f"got {tuple(found.shape)}"
            )
        check_finite("features", found)
        return found

    def _step(self, x: Tensor) -> int:
        width = self._features_of(x[:1]).shape[1]
        return block_rows(8 * 6 * (width + x.shape[1]), most=_LARGEST_BLOCK)

    @torch.no_grad()
    def _solve(self, rows: Any, targets: Tensor, weights: Tensor | None) -> None:
        """Reduce rows to a triangular system with the same solutions, block by block."""
        x, values = as_tensor(rows), targets.reshape(len(targets), -1)  # (n, d), (n, q)
        step, reduced, m = self._step(x), None, 0
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            psi = self._features_of(x[part])  # (b, m)
            m = psi.shape[1]
            system = torch.cat([psi.double(), values[part].to(psi.device).double()], 1)
            if weights is not None:
                system = weights[part].to(system).sqrt().unsqueeze(1) * system
            system = system if reduced is None else torch.cat([reduced, system])
            reduced = torch.linalg.qr(system, mode="r").R  # at most (m + q, m + q)
        assert reduced is not None
        # Rows in float32 have features with its rounding: dependence is judged by that.
        lhs = reduced[:, :m].to(x.dtype) if x.dtype == torch.float32 else reduced[:, :m]
        found = weighted_least_squares(lhs, reduced[:, m:])
        solution = found.coefficients.mT.to(x.dtype)  # (q, m)
        self.rank_ = found.rank
        self.coef_ = in_kind(solution.squeeze(0) if targets.ndim == 1 else solution, rows)
