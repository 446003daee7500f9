"""k-means in the feature space of a kernel."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int
from .._core.config import block_rows
from ..kernels import Kernel
from .base import Machine
from .dense_or_tiles import dense_or_tiles
from .kernel_clusters import KernelClusters, lloyd, spread_centers
from .kernel_input import KernelInput
from .rows import as_tensor, check_rows, check_weights, in_kind


@final
class KernelKMeans(ClusterMixin, Machine):
    r"""Cluster rows around means in the feature space of a kernel.

    .. math:: \min_{\text{clusters}} \sum_c \sum_{i \in c} w_i \| \phi(x_i) - \mu_c \|^2, \qquad
        \mu_c = \frac{1}{s_c} \sum_{j \in c} w_j \phi(x_j)

    The means are never written down: distances to them come from products with the kernel
    matrix, which is built where it fits and otherwise evaluated in tiles. Clusters need not be
    convex, but the lengthscale decides: with one that is far from the distances between
    neighbouring clusters, they are not found.

    Parameters
    ----------
    n_clusters : int, default 8
        How many clusters.
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then the kernel matrix.
    init : {"auto", "k-means++", "random"} or array-like of shape (n_samples,), default "auto"
        Where restarts begin: from points far apart, from clusters at random, from either in turn,
        or from the numbers of clusters that are given. Points far apart suit compact clusters;
        winding ones are found from clusters at random, as a single point says little about them.
    n_init : int, default 10
        Restarts, of which the best is kept; they share the products with the matrix.
    max_iter : int, default 300
        Most rounds of a restart.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the first centres.

    Attributes
    ----------
    labels_ : ndarray or Tensor of shape (n_samples,)
        The cluster of each row, in the caller's kind.
    inertia_ : float
        The sum that is minimised.
    n_iter_ : int
        Rounds of the best restart.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
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
    Equal rows count as one with the sum of their weights, and the order of rows does not matter.
    For very many rows, `FeatureTransformer` before scikit-learn's ``KMeans`` does the same about,
    at a cost that grows with n.

    References
    ----------
    Dhillon, Guan, Kulis, "Kernel k-means, spectral clustering and normalized cuts", KDD 2004.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.metrics import adjusted_rand_score
    >>> from mercer.kernels import RBF
    >>> from mercer.machines import KernelKMeans
    >>> X, y = make_moons(300, noise=0.05, random_state=0)
    >>> model = KernelKMeans(2, RBF(0.316), n_init=20, random_state=0).fit(X)
    >>> adjusted_rand_score(y, model.labels_) > 0.9
    True
    """

    def __init__(
        self,
        n_clusters: int = 8,
        kernel: str | Kernel = "rbf",
        *,
        init: Any = "auto",
        n_init: int = 10,
        max_iter: int = 300,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.kernel = kernel
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows, or the kernel matrix (n_samples, n_samples) where it is precomputed.
        y : object
            Ignored.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of rows; the same as repeating them.

        Returns
        -------
        KernelKMeans
            The estimator itself.
        """
        clusters = check_int("n_clusters", self.n_clusters)
        check_int("n_init", self.n_init)
        check_int("max_iter", self.max_iter)
        rows = check_rows(self, X, reset=True)
        given = check_weights(sample_weight, rows)
        if len(rows) < clusters:
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={clusters}")
        first = self._first_labels(len(rows), clusters)
        x = as_tensor(rows)
        weights = x.new_ones(len(x), dtype=torch.float64) if given is None else given
        known = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        self.kernel_ = known.kernel
        index, weights = _distinct(x, weights)  # (u,), (u,)
        points = known.points[index].double()
        matrix = dense_or_tiles(known.kernel.gram(points))
        # Any order of the rows comes to the same one, up to ties, and so to the same draws.
        potential = matrix @ weights.unsqueeze(-1)  # (u, 1)
        order = potential.squeeze(-1).argsort(stable=True)
        index, weights, points = index[order], weights[order], points[order]
        matrix = (
            matrix[order][:, order] if isinstance(matrix, Tensor) else known.kernel.gram(points)
        )
        labels = None if first is None else first[index.cpu()].to(points.device)
        best = self._best(matrix, known.kernel.diag(points), weights, labels, clusters)
        self._input = known.keep(index)
        self._weights, self._squares = best.weights, best.squares
        self.inertia_, self.n_iter_ = best.inertia, best.rounds
        cross = known.kernel.gram(known.points.double(), points)
        self.labels_ = in_kind(self._nearest(cross), rows)
        return self

    def _first_labels(self, n: int, clusters: int) -> Tensor | None:
        """Return the clusters that were given, or None."""
        if isinstance(self.init, str):
            check_choice("init", self.init, ("auto", "k-means++", "random"))
            return None
        given = (
            self.init if isinstance(self.init, Tensor) else torch.as_tensor(np.asarray(self.init))
        )
        labels = given.detach().cpu()
        if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"init: expected 'auto', 'k-means++', 'random' or {n} numbers of clusters, got "
                f"{labels.dtype} of shape {tuple(labels.shape)}"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= clusters:
            raise ValueError(
                f"init: expected numbers from 0 to {clusters - 1}, got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        return labels.long()

    def _best(
        self, matrix: Any, diagonal: Tensor, weights: Tensor, labels: Tensor | None, clusters: int
    ) -> KernelClusters:
        """Run the restarts, as many at a time as fit, and return the best."""
        n = len(diagonal)
        k = min(clusters, n)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        source = torch.Generator().manual_seed(seed)
        if k < clusters:
            warnings.warn(
                f"n_clusters: there are {n} distinct rows for {clusters} clusters; some stay empty",
                ConvergenceWarning,
                stacklevel=3,
            )
        count = 1 if labels is not None else self.n_init
        step = block_rows(8 * 6 * n * clusters, most=count)
        best: KernelClusters | None = None
        for start in range(0, count, step):
            some = min(step, count - start)
            begin = labels
            if begin is None:
                begin = self._begin(matrix, diagonal, weights, k, some, source)
            begin = begin.reshape(-1, n)
            filled = [_filled(row, k) for row in begin]
            for found in lloyd(matrix, diagonal, weights, torch.stack(filled), k, self.max_iter):
                # Restarts that come to the same clusters differ by rounding: the first counts.
                if best is None or found.inertia < best.inertia * (1 - 1e-12):
                    best = found
        assert best is not None
        return _numbered(best) if labels is None else best

    def _begin(
        self,
        matrix: Any,
        diagonal: Tensor,
        weights: Tensor,
        k: int,
        restarts: int,
        source: torch.Generator,
    ) -> Tensor:
        """Assign points to first centres, shape (restarts, n)."""
        n = len(diagonal)
        labels = (torch.rand(restarts, n, generator=source, dtype=torch.float64) * k).long()
        labels = labels.to(diagonal.device)
        if self.init == "random":
            return labels
        spread = labels[:: 2 if self.init == "auto" else 1]
        centers = spread_centers(matrix, diagonal, weights, k, len(spread), source)
        for i, chosen in enumerate(centers):  # (k,)
            part = matrix[:, chosen] if isinstance(matrix, Tensor) else matrix.columns(chosen)
            spread[i] = (diagonal[chosen] - 2 * part).argmin(1)  # (n, k) to (n,)
        return labels

    def _nearest(self, cross: Any) -> Tensor:
        """Return the nearest centres by kernel values with the training points."""
        return (self._squares - 2 * (cross @ self._weights)).argmin(1)

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Return the cluster whose centre is nearest to each row.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows where it is precomputed.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Numbers of clusters.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        known = self._input
        if known.precomputed:
            cross = known.cross(rows)
            assert isinstance(cross, Tensor)
            return in_kind(self._nearest(cross.double()), rows)
        x = known.prepare(rows).double()
        return in_kind(self._nearest(self.kernel_.gram(x, known.points.double())), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


def _distinct(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers of distinct rows of positive weight, and the sums of their weights."""
    kept = (weights > 0).nonzero().flatten()
    _, inverse = x[kept].unique(dim=0, return_inverse=True)
    count = int(inverse.max()) + 1
    sums = weights.new_zeros(count).index_add_(0, inverse, weights[kept])
    first = torch.full((count,), len(x), dtype=torch.long, device=x.device)
    return first.scatter_reduce_(0, inverse, kept, "amin"), sums


def _filled(labels: Tensor, k: int) -> Tensor:
    """Give each empty cluster a point of a cluster that has others."""
    labels = labels.clone()
    counts = torch.bincount(labels, minlength=k)
    for empty in (counts == 0).nonzero().flatten().tolist():
        largest = int(counts.argmax())
        point = int((labels == largest).nonzero()[-1])
        labels[point] = empty
        counts[largest] -= 1
        counts[empty] += 1
    return labels


def _numbered(found: KernelClusters) -> KernelClusters:
    """Renumber clusters by their first point, so that the same ones have the same numbers."""
    k = found.weights.shape[1]
    first = torch.full((k,), len(found.labels), device=found.labels.device)
    position = torch.arange(len(found.labels), device=found.labels.device)
    first = first.scatter_reduce(0, found.labels, position, "amin")
    order = first.argsort(stable=True)  # new number -> old one
    weights = found.weights[:, order].contiguous()
    labels = order.argsort()[found.labels]
    return KernelClusters(labels, weights, found.squares[order], found.inertia, found.rounds)
