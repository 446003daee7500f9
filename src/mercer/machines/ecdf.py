"""The empirical distribution function of many variables, exact and fast."""

from collections.abc import Sequence
from typing import Any, Self, final

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ..linalg import dominance_sums, dominance_sums_on_grid
from .base import Machine
from .kernel_density import check_grid
from .rows import as_tensor, check_rows, check_weights, in_kind


@final
class ECDF(Machine):
    r"""The empirical distribution function of rows with any number of columns.

    .. math:: F(z) = \frac{\sum_i w_i \prod_k 1\{x_{ik} \le z_k\}}{\sum_i w_i}

    Exact: without weights, counts divided by their total. At n rows it takes
    :math:`O(n \log^{\max(d - 1, 1)} n)`, on a grid of M nodes :math:`O(n \log M + d M)`.

    Attributes
    ----------
    total_ : float
        The sum of the weights, or the number of rows.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    References
    ----------
    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import ECDF
    >>> X = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    >>> model = ECDF().fit(X)
    >>> model.evaluate()
    array([0.25, 0.5 , 0.5 , 1.  ])
    >>> model.survival(np.array([[0.0, 1.0]]))
    array([0.5])
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Keep the rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : None
            Ignored.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        ECDF
            The estimator itself.
        """
        rows = check_rows(self, X, reset=True)
        self._weights = check_weights(sample_weight, rows)
        self._points = as_tensor(rows).clone()
        self._array = not isinstance(rows, Tensor)
        self.total_ = float(len(rows) if self._weights is None else self._weights.sum())
        return self

    def evaluate(self, X: Any = None, *, upper: bool | Sequence[bool] = False) -> Any:
        """Compute the share of the rows at or below each row in every column.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features), optional
            Rows; None takes those of ``fit``.
        upper : bool or sequence of n_features bools, default False
            In which columns the share is of what lies strictly above.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Shares in [0, 1].

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        points = self._points
        if X is None:
            found = self._share(dominance_sums(points, self._weights, upper=upper))
            found = found.to(points.dtype)
            return found.cpu().numpy() if self._array else found
        rows = check_rows(self, X, reset=False)
        z = as_tensor(rows)
        # What is compared is what came: a float32 row stays below a float64 number above it.
        wide = torch.promote_types(points.dtype, z.dtype)
        found = dominance_sums(
            points.to(wide), self._weights, z.to(points.device, wide), upper=upper
        )
        return in_kind(self._share(found).to(z.dtype), rows)

    def _share(self, sums: Tensor) -> Tensor:
        return (sums.double() / self.total_).clamp_max_(1.0)  # rounding of weights

    def survival(self, X: Any = None) -> Any:
        """Compute the share of the rows strictly above each row in every column.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features), optional
            Rows; None takes those of ``fit``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Shares in [0, 1].

        Raises
        ------
        NotFittedError, ValueError
            As `evaluate`.
        """
        return self.evaluate(X, upper=True)

    def evaluate_grid(self, axes: Sequence[Any], *, upper: bool | Sequence[bool] = False) -> Any:
        """Compute the shares at all nodes of a rectilinear grid.

        Parameters
        ----------
        axes : sequence of n_features arrays or Tensors of shapes (M_k,)
            Ascending coordinates of the nodes in each column.
        upper : bool or sequence of n_features bools, default False
            In which columns the share is of what lies strictly above.

        Returns
        -------
        ndarray or Tensor of shape (M_1, ..., M_d)
            Shares in [0, 1]; a tensor where the axes are.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If the axes are not as described.
        """
        check_is_fitted(self)
        given, nodes = check_grid(axes, self._points.shape[1], self._points)
        points = self._points.double()
        found = dominance_sums_on_grid(points, nodes, self._weights, upper=upper)
        return in_kind(self._share(found), given)

    def survival_grid(self, axes: Sequence[Any]) -> Any:
        """Compute the shares strictly above all nodes of a rectilinear grid.

        Parameters
        ----------
        axes : sequence of n_features arrays or Tensors of shapes (M_k,)
            Ascending coordinates of the nodes in each column.

        Returns
        -------
        ndarray or Tensor of shape (M_1, ..., M_d)
            Shares in [0, 1]; a tensor where the axes are.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `evaluate_grid`.
        """
        return self.evaluate_grid(axes, upper=True)
