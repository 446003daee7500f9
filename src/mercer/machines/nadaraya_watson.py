"""Kernel regression by local averages, and by local lines."""

from collections.abc import Sequence
from typing import Any, Self, final

import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice
from ..kernels.distance import squared_distance
from ..linalg import product_kernel_sums, product_kernel_sums_on_grid, smooth
from .bandwidth import (
    distinct_rows,
    left_out,
    minimise_over_bandwidths,
    nearest_rule,
    rule_of_thumb,
)
from .base import Machine
from .kernel_density import check_grid
from .kernel_input import fit_kernel
from .local_kernel import LocalKernel, check_bandwidth, make_local_kernel
from .local_linear import lines, moments
from .rows import as_tensor, check_rows, check_targets, check_weights, in_kind

_RULES = ("scott", "silverman", "nn", "cv")
_LOCAL = ("constant", "linear")
_SMALLEST = 1e-280  # sums of weights below are taken again by logarithms


@final
class NadarayaWatson(MultiOutputMixin, RegressorMixin, Machine):
    r"""Predict by averages of the targets nearby, or by lines fitted nearby.

    .. math:: \hat y(z) = \frac{\sum_i w_i \, k\!\left(\frac{z - x_i}{h}\right) y_i}
        {\sum_i w_i \, k\!\left(\frac{z - x_i}{h}\right)}

    With ``local="linear"`` a line is fitted by least squares with these weights, around each
    query; it has no bias at the edge of the data and where their density slopes. Nothing is
    approximated: products of one-dimensional kernels are summed in near-linear time
    (`mercer.linalg.product_kernel_sums`), all others in blocks by the logarithms of their weights.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        A name as in `KernelDensity` (``"rbf"`` is ``"gaussian"``), or a kernel of Mercer's
        without negative values, which then sees rows divided by the bandwidth; it is not changed.
    bandwidth : float, sequence of floats, "scott", "silverman", "nn" or "cv", default "cv"
        h, in all columns or each. ``"cv"`` minimises the squared error at each different row by
        all others; the other rules are those of `KernelDensity`.
    local : {"constant", "linear"}, default "constant"
        What is fitted around a query.
    product : bool, default False
        Whether names that are radial mean products over the columns.
    standardize : bool, default False
        Whether bandwidths are in units of the columns' (weighted) standard deviations.

    Attributes
    ----------
    bandwidth_ : float or ndarray of shape (n_features_in_,)
        The bandwidth, in units of the columns.
    loo_error_ : float
        Mean squared error of predicting each different row, of up to 1,024, by all others; NaN
        for a single one.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    Notes
    -----
    Where a compact kernel sees no point, the targets of the nearest one are the prediction, and
    `effective_neighbors` is 0. Weights are the same as repeated rows, for the choice of a
    bandwidth too. Where all rows near a query lie in fewer dimensions, the line is flat across
    the others.

    References
    ----------
    Nadaraya, "On estimating regression", Theory of Probability and its Applications 1964.

    Fan, Gijbels, "Local polynomial modelling and its applications", 1996.

    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import NadarayaWatson
    >>> X = np.linspace(0, 6, 200)[:, None]
    >>> model = NadarayaWatson(local="linear").fit(X, np.sin(X[:, 0]))
    >>> model.predict(np.array([[1.0], [6.0]])).round(3)
    array([ 0.841, -0.279])
    """

    def __init__(
        self,
        kernel: Any = "rbf",
        bandwidth: Any = "cv",
        *,
        local: str = "constant",
        product: bool = False,
        standardize: bool = False,
    ) -> None:
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.local = local
        self.product = product
        self.standardize = standardize

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Keep the points and their targets, and choose the bandwidth.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            Their targets.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        NadarayaWatson
            The estimator itself.
        """
        check_choice("local", self.local, _LOCAL)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows)
        weights = check_weights(sample_weight, rows)
        x = as_tensor(rows)
        d = x.shape[1]
        given = check_bandwidth(self.bandwidth, d, _RULES)
        kernel = make_local_kernel(self.kernel, self.product, d, own=True)
        # Rows that coincide are one, with the mean of their targets: no prediction changes.
        points, total, group = distinct_rows(x, weights)
        each = torch.ones_like(total[group]) if weights is None else weights
        wide = targets.double().reshape(len(x), -1)
        sums = wide.new_zeros(len(points), wide.shape[1])
        sums.index_add_(0, group, wide * each.unsqueeze(1))
        kept = total > 0
        self._points, self._weights = points[kept], total[kept]
        self._values = sums[kept] / self._weights.unsqueeze(1)  # (u, q)
        self._flat = targets.ndim == 1
        self._centre = self._points.double().mean(0)
        scale = torch.ones(d, dtype=torch.float64, device=x.device)
        if self.standardize:
            share = (self._weights / self._weights.sum()).unsqueeze(1)
            off = self._points.double() - (share * self._points).sum(0)
            found = (share * off.square()).sum(0).sqrt()
            scale = torch.where(found > 1e-12 * self._points.abs().amax(0), found, 1.0)
        if kernel.own is not None:
            own = fit_kernel(kernel.own, self._points.double() / scale)
            kernel = LocalKernel("own", False, scale, own)
        unit = kernel.with_bandwidth(scale)
        if isinstance(given, Tensor):
            factor = given.to(scale)
        elif given in ("scott", "silverman"):
            factor = torch.full_like(scale, rule_of_thumb(given, len(self._points), d))
        else:
            start = nearest_rule(self._points.double() / scale, self._weights)
            if given == "cv" and len(self._points) > 2:
                start = minimise_over_bandwidths(
                    lambda factor: self._error(unit.with_bandwidth(scale * factor)), start
                )
            factor = torch.full_like(scale, start)
        self._kernel = unit.with_bandwidth(scale * factor)
        h = self._kernel.bandwidth.cpu()
        self.bandwidth_ = float(h[0]) if bool((h == h[0]).all()) else h.numpy()
        self.loo_error_ = self._error(self._kernel) if len(self._points) > 1 else float("nan")
        return self

    def _columns(self) -> Tensor:
        """Return what is averaged: targets, and for lines moments of the rows too."""
        if self.local == "constant":
            return self._values
        return moments(self._points.double() - self._centre, self._values)

    def _error(self, kernel: Any) -> float:
        """Compute the mean squared error at some rows by all others."""
        some, smoothed = left_out(kernel, self._points, self._weights, self._columns())
        assert smoothed.means is not None
        found = self._fitted(smoothed.means, self._points[some].double())
        lost = found.isnan().any(1)
        if bool(lost.any()):  # no other row in the window: the worst guess, so that it is avoided
            share = self._weights / self._weights.sum()
            found[lost] = share @ self._values
        square = (found - self._values[some]).square().mean(1)
        return float((square * self._weights[some]).sum() / self._weights[some].sum())

    def _fitted(self, means: Tensor, z: Tensor) -> Tensor:
        """Turn weighted means into predictions at queries (m, d)."""
        if self.local == "constant":
            return means
        return lines(means, z - self._centre, self._values.shape[1])

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Predict targets.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_targets)
            Predictions.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        z = x.to(self._points.device, torch.float64)
        found = self._fitted(self._means(z), z)
        found = self._nearest(found, z)
        found = found[:, 0] if self._flat else found
        return in_kind(found.to(x.dtype), rows)

    def _means(self, z: Tensor) -> Tensor:
        """Compute weighted means of the columns at queries (m, d), NaN where no weight is."""
        if not self._kernel.product:
            return self._means_by_logarithms(z)
        columns = self._columns()
        weight = self._weights.unsqueeze(1)
        sums = product_kernel_sums(
            self._points.double(),
            torch.cat((weight, weight * columns), 1),
            z,
            kernel=self._kernel.name,
            bandwidth=self._kernel.bandwidth,
        )  # (m, 1 + columns)
        total = sums[:, :1]
        means = torch.where(total > 0, sums[:, 1:] / total, torch.nan)
        tiny = total[:, 0] < _SMALLEST
        if self._kernel.profile.rate and bool(tiny.any()):
            means[tiny] = self._means_by_logarithms(z[tiny])
        return means

    def _means_by_logarithms(self, z: Tensor) -> Tensor:
        kernel, points = self._kernel, self._points
        found = smooth(
            lambda i, j: kernel.log(z[i], points[j]),
            self._columns(),
            shape=(len(z), len(points)),
            weights=self._weights,
            diagnostics=False,
        )
        assert found.means is not None
        return found.means

    def _nearest(self, found: Tensor, z: Tensor) -> Tensor:
        """Take the targets of the nearest point where no point has a weight."""
        lost = found.isnan().any(1).nonzero()[:, 0]
        points = self._points.double() / self._kernel.bandwidth
        for part in lost.split(max(1, 2**22 // len(points))):
            squared = squared_distance(z[part] / self._kernel.bandwidth, points)
            found[part] = self._values[squared.argmin(1)]
        return found

    @torch.no_grad()
    def predict_grid(self, axes: Sequence[Any]) -> Any:
        """Predict targets at all nodes of a rectilinear grid.

        Parameters
        ----------
        axes : sequence of n_features arrays or Tensors of shapes (M_k,)
            Ascending coordinates of the nodes in each column.

        Returns
        -------
        ndarray or Tensor of shape (M_1, ..., M_d) or (M_1, ..., M_d, n_targets)
            Predictions; a tensor where the axes are.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If the axes are not as described.
        """
        check_is_fitted(self)
        given, nodes = check_grid(axes, self._points.shape[1], self._points)
        z = torch.cartesian_prod(*nodes).view(-1, len(nodes))
        if self._kernel.product:
            weight = self._weights.unsqueeze(1)
            sums = product_kernel_sums_on_grid(
                self._points.double(),
                nodes,
                torch.cat((weight, weight * self._columns()), 1),
                kernel=self._kernel.name,
                bandwidth=self._kernel.bandwidth,
            ).flatten(0, -2)
            means = torch.where(sums[:, :1] > _SMALLEST, sums[:, 1:] / sums[:, :1], torch.nan)
            lost = means.isnan().any(1)
            if bool(lost.any()):
                means[lost] = self._means_by_logarithms(z[lost])
        else:
            means = self._means_by_logarithms(z)
        found = self._nearest(self._fitted(means, z), z)
        shape = tuple(map(len, nodes))
        return in_kind(found.view(shape if self._flat else (*shape, -1)), given)

    @torch.no_grad()
    def effective_neighbors(self, X: Any) -> Any:
        r"""Count the points that a prediction rests on, :math:`(\sum_i w_i)^2 / \sum_i w_i^2`.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Effective numbers of different rows of ``fit``; 0 where none has a weight.

        Raises
        ------
        NotFittedError, ValueError
            As `predict`.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        z = x.to(self._points.device)
        kernel, points = self._kernel, self._points
        found = smooth(
            lambda i, j: kernel.log(z[i], points[j]),
            shape=(len(z), len(points)),
            weights=self._weights,
        )
        assert found.neighbours is not None
        return in_kind(found.neighbours.to(x.dtype), rows)
