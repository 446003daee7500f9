"""Spectral clustering: the leading eigenvectors of a kernel's random walk, then k-means."""

import warnings
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClusterMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from .._core.config import block_rows, require_memory
from ..features import Nystroem
from ..features.landmark_choice import LANDMARK_CHOICES
from ..kernels import Kernel
from ..linalg.top_eigenpairs import fix_signs, top_eigenpairs
from .base import Machine
from .dense_or_tiles import dense_or_tiles
from .kernel_input import KernelInput
from .rows import check_rows, in_kind

_SOLVERS = ("auto", "dense", "randomized", "nystroem")
_DENSE = 1000  # rows up to which all eigenvectors are found


@final
class SpectralClustering(ClusterMixin, Machine):
    r"""Cluster rows by the eigenvectors of a kernel's normalised matrix.

    .. math:: D^{-1/2} K D^{-1/2} = V \Lambda V^\top, \qquad D = \mathrm{diag}(K 1), \qquad
        \text{row } i \mapsto D_{ii}^{-1/2} (V_{i1}, \dots, V_{im})

    The leading eigenvectors say where a random walk with steps in proportion to the kernel stays
    long; scikit-learn's k-means on them is a relaxation of the normalised cut, which is itself
    weighted kernel k-means. Clusters may have any shape, where the kernel is narrow beside the
    gaps between them.

    Parameters
    ----------
    n_clusters : int, default 8
        How many clusters.
    kernel : str or Kernel, default "rbf"
        The affinity, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then its matrix. Its row sums
        must be positive.
    n_components : int, optional
        How many eigenvectors; as many as clusters by default.
    eigen_solver : {"auto", "dense", "randomized", "nystroem"}
        ``"dense"`` decomposes the matrix, ``"randomized"`` only multiplies with it, in tiles where
        it does not fit, and ``"nystroem"`` takes features of landmarks in its place, at a cost
        that grows with n. ``"auto"`` is dense up to 1,000 rows.
    landmarks : int, default 256
        How many, for ``"nystroem"``; at most one a row.
    selection : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
        How they are chosen; see `mercer.features.choose_landmarks`.
    eigen_tol : float, default 1e-8
        Residual of ``"randomized"``, as a share of the largest eigenvalue, which is 1.
    n_init : int, default 10
        Restarts of k-means.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the starts, of eigenvectors and of k-means, and of landmarks.

    Attributes
    ----------
    labels_ : ndarray or Tensor of shape (n_samples,)
        The cluster of each row, in the caller's kind.
    cluster_centers_ : ndarray or Tensor of shape (n_clusters, n_components)
        The centres among the embedded rows.
    embedding_ : ndarray or Tensor of shape (n_samples, n_components)
        The rows that k-means saw.
    eigenvalues_ : ndarray or Tensor of shape (n_components,)
        Of the normalised matrix, descending from 1: as many near 1 as there are clusters that
        hardly touch.
    eigen_solver_ : str
        The solver that was taken.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, or a row sum is not positive.
    MemoryError
        In ``fit``, if the matrix does not fit the memory budget; the text says what would.

    Notes
    -----
    The diagonal of the kernel counts: a row is close to itself. scikit-learn leaves it out.

    References
    ----------
    Shi, Malik, "Normalized cuts and image segmentation", IEEE TPAMI 22 (2000).

    Fowlkes, Belongie, Chung, Malik, "Spectral grouping using the Nyström method", IEEE TPAMI 26
    (2004).

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.metrics import adjusted_rand_score
    >>> from mercer.kernels import RBF
    >>> from mercer.machines import SpectralClustering
    >>> X, y = make_moons(300, noise=0.05, random_state=0)
    >>> model = SpectralClustering(2, RBF(0.13), random_state=0).fit(X)
    >>> adjusted_rand_score(y, model.labels_)
    1.0
    """

    def __init__(
        self,
        n_clusters: int = 8,
        kernel: str | Kernel = "rbf",
        *,
        n_components: int | None = None,
        eigen_solver: str = "auto",
        landmarks: int = 256,
        selection: str = "kmeans",
        eigen_tol: float = 1e-8,
        n_init: int = 10,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.kernel = kernel
        self.n_components = n_components
        self.eigen_solver = eigen_solver
        self.landmarks = landmarks
        self.selection = selection
        self.eigen_tol = eigen_tol
        self.n_init = n_init
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows, or the matrix (n_samples, n_samples) of affinities.
        y : object
            Ignored.

        Returns
        -------
        SpectralClustering
            The estimator itself.
        """
        clusters, wanted = self._check_parameters()
        rows = check_rows(self, X, reset=True)
        n = len(rows)
        if n < clusters:
            raise ValueError(f"n_samples={n} should be >= n_clusters={clusters}")
        wanted = min(wanted, n)
        known = KernelInput.fit(self.kernel, rows, standardize=self.standardize)
        state = check_random_state(self.random_state)
        seeds = state.randint(np.iinfo(np.int32).max, size=2).tolist()
        solver = self.eigen_solver
        if solver == "auto":
            solver = "dense" if n <= _DENSE else "randomized"
        if solver == "nystroem":
            values, embedding = self._of_landmarks(known, wanted, seeds[0])
        else:
            values, embedding = self._of_matrix(known, wanted, solver == "dense", seeds[0])
        means = KMeans(clusters, n_init=self.n_init, random_state=seeds[1])  # type: ignore[arg-type]
        labels = means.fit_predict(embedding.cpu().numpy())
        self._centers = torch.from_numpy(means.cluster_centers_).to(embedding)
        self._input = known.keep(torch.arange(n)) if known.precomputed else known
        own = known.points.dtype
        self.kernel_, self.eigen_solver_ = known.kernel, solver
        self.eigenvalues_ = in_kind(values.to(own), rows)
        self.embedding_ = in_kind(embedding.to(own), rows)
        self.cluster_centers_ = in_kind(self._centers.to(own), rows)
        self.labels_ = in_kind(torch.as_tensor(labels, dtype=torch.int64), rows)
        return self

    def _check_parameters(self) -> tuple[int, int]:
        """Return how many clusters and components are asked for."""
        clusters = check_int("n_clusters", self.n_clusters)
        wanted = clusters
        if self.n_components is not None:
            wanted = check_int("n_components", self.n_components)
        check_choice("eigen_solver", self.eigen_solver, _SOLVERS)
        check_choice("selection", self.selection, LANDMARK_CHOICES)
        check_int("landmarks", self.landmarks)
        check_int("n_init", self.n_init)
        check_real("eigen_tol", self.eigen_tol, above=0.0)
        matrix = isinstance(self.kernel, str) and self.kernel == "precomputed"
        if matrix and self.eigen_solver == "nystroem":
            raise ValueError(
                "eigen_solver: landmarks need rows, got a precomputed kernel; use 'randomized'"
            )
        return clusters, wanted

    def _of_matrix(
        self, known: KernelInput, wanted: int, dense: bool, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return eigenvalues (m,) and the embedding (n, m) from the matrix."""
        n = len(known.points)
        gram = known.kernel.gram(known.points.double())
        if dense:
            option = "use eigen_solver='randomized' or 'nystroem'"
            require_memory(8 * 5 * n * n, f"the eigenvectors of {n} rows", option)
        matrix = gram.to_dense() if dense else dense_or_tiles(gram)
        sums = matrix @ known.points.new_ones(n, 1, dtype=torch.float64)
        roots = _roots(sums.squeeze(-1))  # (n,)
        if dense:
            assert isinstance(matrix, Tensor)
            values, vectors = torch.linalg.eigh(roots.unsqueeze(-1) * matrix * roots)
            return self._embedded(values.flip(0)[:wanted], vectors.flip(1)[:, :wanted], roots)
        found = top_eigenpairs(
            lambda v: roots.unsqueeze(-1) * (matrix @ (roots.unsqueeze(-1) * v)),
            n,
            wanted,
            tolerance=self.eigen_tol,
            start=(1 / roots).unsqueeze(-1),  # the first eigenvector is known
            generator=seed,
            device=roots.device,
        )
        if not found.converged:
            warnings.warn(
                f"eigen_solver='randomized' stopped after {found.products} products with residuals "
                f"up to {float(found.residuals.max()):.3g}; raise eigen_tol or use 'nystroem'",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self._embedded(found.eigenvalues, found.eigenvectors, roots)

    def _embedded(self, values: Tensor, vectors: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the rows, and keep what embeds others: a step of the walk, over the eigenvalue."""
        embedding = fix_signs(vectors * roots.unsqueeze(-1))  # (n, m)
        inverse = torch.where(values.abs() > 1e-12, 1 / values, 0.0)
        self._weights = torch.cat([embedding * inverse, torch.ones_like(embedding[:, :1])], 1)
        self.feature_map_ = None
        return values, embedding

    def _of_landmarks(self, known: KernelInput, wanted: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the same for features of landmarks in the place of the kernel."""
        points = known.points.double()
        n = len(points)
        size = min(self.landmarks, n)
        phi = Nystroem.from_data(
            known.kernel, points, size, landmarks=self.selection, generator=seed
        )
        blocks = points.split(block_rows(8 * 4 * size, most=2**14))
        total = torch.stack([phi(block).sum(0) for block in blocks]).sum(0)  # (m,)
        roots = _roots(torch.cat([phi(block) @ total for block in blocks]))  # (n,)
        scatter = points.new_zeros(size, size)
        starts = range(0, n, len(blocks[0]))
        for start, block in zip(starts, blocks, strict=True):
            part = phi(block) * roots[start : start + len(block)].unsqueeze(-1)
            scatter.addmm_(part.mT, part)
        values, turn = torch.linalg.eigh(scatter)  # ascending
        wanted = min(wanted, size)
        values, turn = values.flip(0)[:wanted], turn.flip(1)[:, :wanted]
        steps = torch.cat([phi(block) @ turn for block in blocks]) * roots.unsqueeze(-1)  # (n, m)
        turn = turn / steps.norm(dim=0).clamp(min=1e-150)
        plain = torch.cat([phi(block) @ turn for block in blocks]) * roots.square().unsqueeze(-1)
        embedding = fix_signs(plain)
        turn = turn * torch.where((embedding * plain).sum(0) < 0, -1.0, 1.0)
        self._weights = torch.cat([turn, total.unsqueeze(-1)], 1)  # (m, m + 1)
        self.feature_map_ = phi.eval()
        return values, embedding

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Return the cluster of new rows, which are embedded by a step of the walk from them.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their affinities to the training rows where those are precomputed.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            Numbers of clusters; of the training rows those in ``labels_``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        known, phi = self._input, self.feature_map_
        if phi is not None:
            x = known.prepare(rows).double()
            step = block_rows(8 * 4 * phi.num_features, most=2**14)
            sums = torch.cat([phi(block) @ self._weights for block in x.split(step)])
        elif known.precomputed:
            cross = known.cross(rows)
            assert isinstance(cross, Tensor)
            sums = cross.double() @ self._weights
        else:
            x = known.prepare(rows).double()
            sums = self.kernel_.gram(x, known.points.double()) @ self._weights
        walked, total = sums[:, :-1], sums[:, -1:]
        # Rows so far away that all affinities vanish have no step to take.
        embedding = torch.where(total > 0, walked / total, 0.0)  # (n, m)
        return in_kind(torch.cdist(embedding, self._centers).argmin(1), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


def _roots(sums: Tensor) -> Tensor:
    """Return the inverse roots of row sums.

    Raises
    ------
    ValueError
        If one is not positive: the walk has no such thing as a step from there.
    """
    least = float(sums.min())
    if not least > 0:
        raise ValueError(
            f"kernel: expected a kernel with positive row sums, got {least:.3g}; take one that is "
            "not negative, such as 'rbf'"
        )
    return sums.rsqrt()
