"""Kernel density estimation: radial and product kernels, exact, with chosen bandwidths."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_int
from ..linalg import product_kernel_sums, product_kernel_sums_on_grid, smooth
from .bandwidth import (
    distinct_rows,
    left_out,
    minimise_over_bandwidths,
    nearest_rule,
    rule_of_thumb,
)
from .base import Machine
from .kernel_draws import draw, log_integral
from .local_kernel import LocalKernel, check_bandwidth, make_local_kernel
from .rows import as_tensor, check_rows, check_weights, in_kind

_RULES = ("scott", "silverman", "nn", "cv")
_FEW, _SHARE, _ROWS = 10.0, 0.01, 100  # neighbours that are few, as a share of rows, of how many
_LOOKED_AT = 256  # rows at which they are counted
_SMALLEST = 1e-280  # densities below are summed again by their logarithms


@final
class KernelDensity(Machine):
    r"""Estimate a density by a kernel around each point.

    .. math:: \hat f(z) = \frac{1}{\sum_i w_i} \sum_i \frac{w_i}{c \, \prod_k h_k}
        \kappa\!\left(\frac{z - x_i}{h}\right), \qquad c = \int \kappa

    Nothing is approximated. Radial kernels are summed in blocks by the logarithms of their
    weights, which never underflow; products of one-dimensional kernels over the dimensions in
    near-linear time (`mercer.linalg.product_kernel_sums`).

    Parameters
    ----------
    bandwidth : float, sequence of floats, "scott", "silverman", "nn" or "cv", default 1.0
        h, in all dimensions or each. ``"scott"`` and ``"silverman"`` are scikit-learn's, for
        columns of standard deviation one (see ``standardize``), of as many rows as are different;
        ``"nn"`` is `nearest_neighbor_bandwidth`; ``"cv"`` maximises the likelihood of each
        different row, of 1,024 evenly spaced where there are more, by all others.
    kernel : str, default "gaussian"
        Radial, of the Euclidean distance: ``"gaussian"``, ``"tophat"``, ``"epanechnikov"``,
        ``"exponential"``, ``"linear"``, ``"cosine"``, as scikit-learn has them. Products:
        ``"laplacian"``, ``"matern32"``, ``"matern52"``, ``"uniform"``, ``"triangular"``,
        ``"biweight"``, ``"triweight"``.
    product : bool, default False
        Whether the names that are radial mean products over the dimensions too.
    standardize : bool, default False
        Whether columns are divided by their (weighted) standard deviation, so that a bandwidth is
        in units of it. Densities are of the rows as they came.

    Attributes
    ----------
    bandwidth_ : float or ndarray of shape (n_features_in_,)
        The bandwidth, in units of the columns.
    effective_neighbors_ : float
        Median, over up to 256 rows, of the effective number of other points that the density
        rests on there.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    Warns
    -----
    UserWarning
        In ``fit``, if the effective number of neighbours is below 10 and below 1 % of the
        different rows, of 100 or more, and the bandwidth was not chosen by ``"nn"`` or ``"cv"``:
        the estimate is then no average, but a lookup of the nearest points.

    Notes
    -----
    Weights are the same as repeated rows, for the choice of a bandwidth too.

    References
    ----------
    Langrené, Warin, "Fast multivariate empirical cumulative distribution function with connection
    to kernel density estimation", 2021, arXiv 2005.03246.

    Biroli, Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import KernelDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> model = KernelDensity(bandwidth="cv").fit(X)
    >>> bool(0.2 < model.bandwidth_ < 0.6)
    True
    >>> model.score_samples(np.zeros((1, 2))).round(1)  # the true one is -1.8
    array([-2.])
    """

    def __init__(
        self,
        *,
        bandwidth: Any = 1.0,
        kernel: str = "gaussian",
        product: bool = False,
        standardize: bool = False,
    ) -> None:
        self.bandwidth = bandwidth
        self.kernel = kernel
        self.product = product
        self.standardize = standardize

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Keep the points, and choose the bandwidth.

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
        KernelDensity
            The estimator itself.
        """
        rows = check_rows(self, X, reset=True)
        weights = check_weights(sample_weight, rows)
        x = as_tensor(rows)
        d = x.shape[1]
        given = check_bandwidth(self.bandwidth, d, _RULES)
        kernel = make_local_kernel(self.kernel, self.product, d, own=False)
        points, total, _ = distinct_rows(x, weights)
        self._points, self._weights = points[total > 0], total[total > 0]
        scale = torch.ones(d, dtype=torch.float64)
        if self.standardize:
            scale = _deviations(self._points.double(), self._weights).cpu()
        h, self.effective_neighbors_ = self._choose(given, kernel, scale)
        self._kernel = kernel.with_bandwidth(h.to(x.device))
        self.bandwidth_ = float(h[0]) if bool((h == h[0]).all()) else h.numpy()
        rows_seen = len(self._points)
        few = rows_seen >= _ROWS and self.effective_neighbors_ < min(_FEW, _SHARE * rows_seen)
        if few and not (isinstance(given, str) and given in ("nn", "cv")):
            warnings.warn(
                f"bandwidth: the density rests on {self.effective_neighbors_:.1f} points at a "
                f"typical row (of {len(self._points)}): it is no average but a lookup of nearest "
                "points; see mercer.machines.kde_phase, or choose a larger bandwidth or 'cv'",
                UserWarning,
                stacklevel=2,
            )
        return self

    def _choose(self, given: Tensor | str, kernel: LocalKernel, scale: Tensor) -> tuple[Any, float]:
        """Resolve the bandwidth (d,), and count neighbours."""
        n, d = self._points.shape
        unit = kernel.with_bandwidth(scale.to(self._points.device))
        if isinstance(given, Tensor):
            h = given * scale
        elif given in ("scott", "silverman"):
            h = rule_of_thumb(given, n, d) * scale
        else:
            start = nearest_rule(self._points.double() / unit.bandwidth, self._weights)
            if given == "cv" and n > 1:
                start = self._by_likelihood(unit, start)
            h = start * scale
        if n == 1:
            return h, 0.0
        at = kernel.with_bandwidth(h.to(self._points.device))
        _, found = left_out(at, self._points, self._weights, most=_LOOKED_AT, diagnostics=True)
        assert found.neighbours is not None
        return h, float(found.neighbours.median())

    def _by_likelihood(self, unit: LocalKernel, start: float) -> float:
        """Maximise the likelihood of each row by all others."""

        def loss(factor: float) -> float:
            at = unit.with_bandwidth(unit.bandwidth * factor)
            some, found = left_out(at, self._points, self._weights)
            others = (self._weights.sum() - self._weights[some]).log()
            log_density = found.log_total - others - log_integral(at)
            share = self._weights[some] / self._weights[some].sum()
            return -float((share * log_density).sum())

        return minimise_over_bandwidths(loss, start)

    @torch.no_grad()
    def score_samples(self, X: Any) -> Any:
        """Compute the logarithm of the density.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Log-densities, minus infinity where there is none.

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
        points = self._points.double()
        if self._kernel.product:
            h = self._kernel.bandwidth
            found = product_kernel_sums(
                points, self._weights, z, kernel=self._kernel.name, bandwidth=h
            ).clamp_min(0.0)
            log_total = found.log()
            if self._kernel.profile.rate and bool((tiny := found < _SMALLEST).any()):
                log_total[tiny] = self._by_logarithms(z[tiny], points)
        else:
            log_total = self._by_logarithms(z, points)
        log_density = log_total - self._weights.sum().log() - log_integral(self._kernel)
        return in_kind(log_density.to(x.dtype), rows)

    def _by_logarithms(self, z: Tensor, points: Tensor) -> Tensor:
        kernel = self._kernel
        return smooth(
            lambda i, j: kernel.log(z[i], points[j]),
            shape=(len(z), len(points)),
            weights=self._weights,
            diagnostics=False,
        ).log_total

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the total log-likelihood of rows.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.
        y : None
            Ignored.

        Returns
        -------
        float
            The sum of their log-densities.
        """
        return float(np.sum(np.asarray(torch.as_tensor(self.score_samples(X)).cpu().double())))

    @torch.no_grad()
    def density_on_grid(self, axes: Sequence[Any]) -> Any:
        """Compute the density at all nodes of a rectilinear grid.

        Parameters
        ----------
        axes : sequence of n_features arrays or Tensors of shapes (M_k,)
            Ascending coordinates of the nodes in each dimension.

        Returns
        -------
        ndarray or Tensor of shape (M_1, ..., M_d)
            Densities; a tensor where the axes are.
        """
        check_is_fitted(self)
        given, nodes = check_grid(axes, self._points.shape[1], self._points)
        if self._kernel.product:
            found = product_kernel_sums_on_grid(
                self._points.double(),
                nodes,
                self._weights,
                kernel=self._kernel.name,
                bandwidth=self._kernel.bandwidth,
            )
            norm = float(self._weights.sum()) * math.exp(log_integral(self._kernel))
            density = found.clamp_min(0.0) / norm
        else:
            at = torch.cartesian_prod(*nodes).view(-1, len(nodes))
            log_total = self._by_logarithms(at, self._points.double())
            log_density = log_total - self._weights.sum().log() - log_integral(self._kernel)
            density = log_density.exp().view(*map(len, nodes))
        return in_kind(density, given)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw rows from the density.

        Parameters
        ----------
        n_samples : int, default 1
            How many.
        random_state : int, RandomState instance or None, default None
            Source of the draws.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows, float64.
        """
        check_is_fitted(self)
        count = check_int("n_samples", n_samples)
        rng = check_random_state(random_state)
        share = (self._weights / self._weights.sum()).cpu().numpy()
        chosen = torch.from_numpy(rng.choice(len(share), size=count, p=share))
        return (self._points.cpu().double()[chosen] + draw(self._kernel, count, rng)).numpy()


def check_grid(axes: Any, d: int, like: Tensor) -> tuple[Any, list[Tensor]]:
    """Return one of the axes as it came, and all of them as float64 tensors."""
    if isinstance(axes, Tensor | np.ndarray) or not isinstance(axes, Sequence):
        raise TypeError(f"axes: expected a sequence of {d} arrays, got {type(axes).__name__}")
    if len(axes) != d:
        raise ValueError(f"axes: expected one array for each of {d} features, got {len(axes)}")
    nodes = [
        axis.detach().to(like.device, torch.float64)
        if isinstance(axis, Tensor)
        else torch.from_numpy(np.array(axis, dtype=np.float64)).to(like.device)
        for axis in axes
    ]
    return (axes[0] if isinstance(axes[0], Tensor) else np.empty(0)), nodes


def _deviations(x: Tensor, weights: Tensor) -> Tensor:
    """Compute weighted standard deviations (d,), 1 for constant columns."""
    share = (weights / weights.sum()).unsqueeze(-1)
    centre = (share * x).sum(0)
    found = (share * (x - centre).square()).sum(0).sqrt()
    return torch.where(found > 1e-12 * x.abs().amax(0), found, 1.0)
