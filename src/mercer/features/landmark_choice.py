"""Which points stand for all of them: the landmarks of a Nystroem map."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._core.checks import (
    check_choice,
    check_finite,
    check_generator,
    check_int,
    check_real,
    check_tensor,
)
from .._core.counter import RandomSource
from .._core.random import draw_integers, draw_permutation
from ..kernels import Kernel
from ..linalg import (
    approximate_leverage_scores,
    pivoted_cholesky,
    ridge_leverage_scores,
    sample_kdpp,
)
from ..linalg.approximate_leverage import (
    inclusion_probabilities,
    ridge_of_dimension,
    systematic_sample,
)

# Points up to which the matrix of all pairs is decomposed.
_DENSE = 1500
# Points that a method looks at, a uniform sample of more: so many, or so many a landmark.
_GREEDY_CANDIDATES = (100_000, 0)
_KMEANS_CANDIDATES = (20_000, 50)
_KDPP_CANDIDATES = (_DENSE, 4)
_KMEANS_ROUNDS = 25

Source = RandomSource | None
Choice = Callable[[Kernel, Tensor, int, float | None, Source], Tensor]


@torch.no_grad()
def choose_landmarks(
    kernel: Kernel,
    x: Tensor,
    num_landmarks: int,
    *,
    method: str = "kmeans",
    ridge: float | None = None,
    generator: RandomSource | int | None = None,
) -> Tensor:
    r"""Choose points between which and all others a kernel says most about the others.

    ============ ================================================== =========================
    method       landmarks                                          work
    ============ ================================================== =========================
    ``kmeans``   centres of the k-means clustering of at most       20,000 k d
                 20,000 points (or 50 k)
    ``leverage`` points drawn with probability min(1, c tau), tau   4 n k^2; a decomposition
                 their ridge leverage scores                        up to 1,500 points
    ``kdpp``     a set S drawn with probability ~ det K_SS, among   the same, and that of
                 1,500 points (or 4 k) that leverage drew           1,500 points (or 4 k)
    ``greedy``   pivots of the Cholesky decomposition of K, among   n k^2, n k numbers
                 at most 100,000 points
    ``uniform``  points at random                                   none
    ============ ================================================== =========================

    On data in clusters of very different sizes all of them leave a fraction of the error of
    uniform landmarks once there are more than the effective dimension; with fewer, ``greedy``
    goes for outliers and may be worse. ``kmeans`` leaves least on most data, and is the
    cheapest; but its centres are no points of the data, and it knows the Euclidean distance
    only, not the kernel. ``kdpp`` is the best of those that choose among the data.

    Parameters
    ----------
    kernel : Kernel
        The kernel. Hyperparameters left to the data are set from x, in a copy.
    x : Tensor of shape (n, *event)
        The data.
    num_landmarks : int
        k, at most n.
    method : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
        How to choose.
    ridge : float, optional
        Of the leverage scores, in units of the eigenvalues of K (not divided by n); None takes
        the one at which the effective dimension is about half of the landmarks.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws; None means torch's default generator.

    Returns
    -------
    Tensor of shape (num_landmarks, *event)
        The landmarks, in the dtype and on the device of x.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If there are fewer points than landmarks, a number is not finite, the method is unknown,
        or the ridge is not positive.
    MemoryError
        If the work does not fit the memory budget.

    References
    ----------
    Zhang, Tsang, Kwok, "Improved Nyström low-rank approximation and error analysis", ICML 2008.

    Alaoui, Mahoney, "Fast randomized kernel ridge regression with statistical guarantees",
    NeurIPS 2015, arXiv 1411.0306.

    Derezinski, Calandriello, Valko, "Exact sampling of determinantal point processes with
    sublinear time preprocessing", NeurIPS 2019, arXiv 1905.13476.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> x = torch.cat([torch.zeros(50, 1), torch.ones(2, 1)])
    >>> choose_landmarks(RBF(0.1), x, 2, method="greedy", generator=0).sort(0).values
    tensor([[0.],
            [1.]])
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
    if check_tensor("x", x).ndim != kernel.event_ndim + 1:
        raise ValueError(
            f"x: expected {kernel.event_ndim + 1} axes, one set of points, got {tuple(x.shape)}"
        )
    check_finite("x", x)
    k = check_int("num_landmarks", num_landmarks)
    if k > len(x):
        raise ValueError(
            f"num_landmarks: expected at most the {len(x)} points of x {tuple(x.shape)}, got {k}"
        )
    check_choice("method", method, _CHOICES)
    if ridge is not None:
        ridge = check_real("ridge", ridge, above=0.0)
    source = check_generator(generator)
    with torch.device("cpu"):  # whatever the default is; what follows x is made where x is
        return _CHOICES[method](fitted(kernel, x), x, k, ridge, source).detach().clone()


def fitted(kernel: Kernel, x: Tensor) -> Kernel:
    """Return the kernel, or a copy whose hyperparameters left to the data are set from x."""
    if any(getattr(part, "_waits_for_data", False) for part in kernel.modules()):
        return copy.deepcopy(kernel).fit(x)
    return kernel


def _some(n: int, k: int, like: Tensor, source: Source) -> Tensor:
    """Draw k of n indices without repetition, ascending."""
    drawn = draw_permutation(n, source)[:k]
    return drawn.sort().values.to(like.device)


def _candidates(x: Tensor, k: int, limits: tuple[int, int], source: Source) -> Tensor:
    """Return the points, or a uniform sample where they are more than a method looks at."""
    most = max(limits[0], limits[1] * k)
    return x if len(x) <= most else x[_some(len(x), most, x, source)]


def _filled(chosen: Tensor, n: int, k: int, source: Source) -> Tensor:
    """Add indices drawn among the others where fewer than k were chosen."""
    free = torch.ones(n, dtype=torch.bool, device=chosen.device)
    free[chosen] = False
    rest = free.nonzero().squeeze(-1)
    return torch.cat([chosen, rest[_some(len(rest), k - len(chosen), rest, source)]])


def _uniform(kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source) -> Tensor:
    return x[_some(len(x), k, x, source)]


def _leverage_scores(
    kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source
) -> Tensor:
    """Ridge leverage scores (n,) in float64, exact where the pairs are few."""
    if len(x) > max(_DENSE, 2 * k):
        return approximate_leverage_scores(
            lambda i, j: kernel(x[i], x[j]),
            kernel.diag(x),
            num_landmarks=2 * k,
            ridge=ridge,
            generator=source,
        ).scores.double()
    matrix = kernel(x)
    if ridge is None:
        ridge = ridge_of_dimension(torch.linalg.eigvalsh(matrix.double()), k / 2)
    return ridge_leverage_scores(matrix, ridge=ridge).double()


def _leverage(kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source) -> Tensor:
    scores = _leverage_scores(kernel, x, k, ridge, source)
    drawn = systematic_sample(inclusion_probabilities(scores, k), source)
    return x[_filled(drawn, len(x), k, source)]


def _greedy(kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source) -> Tensor:
    some = _candidates(x, k, _GREEDY_CANDIDATES, source)
    found = pivoted_cholesky(lambda idx: kernel(some, some[idx]), kernel.diag(some), rank=k)
    return some[_filled(found.pivots, len(some), k, source)]


def _kdpp(kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source) -> Tensor:
    most = max(_KDPP_CANDIDATES[0], _KDPP_CANDIDATES[1] * k)
    rarity = torch.ones(min(len(x), most), dtype=torch.float64, device=x.device)
    if len(x) > most:
        # Points of little leverage are hardly ever in a sample. Dividing by the probability of
        # being a candidate at all undoes the choice: what is rare here stands for many.
        probability = inclusion_probabilities(_leverage_scores(kernel, x, k, ridge, source), most)
        drawn = systematic_sample(probability, source)
        x, rarity = x[drawn], probability[drawn].rsqrt()
    matrix = rarity.unsqueeze(-1) * kernel(x).double() * rarity
    # A sample stays within the numerical rank; a jitter above rounding lets it have k points.
    eps = torch.finfo(x.dtype if x.dtype == torch.float64 else torch.float32).eps
    jitter = 4 * len(x) * eps * float(torch.linalg.matrix_norm(matrix)) + 1e-300
    matrix.diagonal().add_(jitter)
    return x[sample_kdpp(matrix, size=k, generator=source)]


def _kmeans(kernel: Kernel, x: Tensor, k: int, ridge: float | None, source: Source) -> Tensor:
    import sklearn.cluster  # heavier than torch, and needed here only

    some = _candidates(x, k, _KMEANS_CANDIDATES, source).cpu()
    work = some.flatten(1) if some.dtype == torch.float64 else some.flatten(1).float()
    rows, counts = work.unique(dim=0, return_counts=True)  # (u, d), (u,)
    if len(rows) <= k:  # a centre for each, and copies that add nothing
        centres = rows.repeat(math.ceil(k / len(rows)), 1)[:k]
    else:
        seed = int(draw_integers(2**31 - 1, (), source))
        means = sklearn.cluster.KMeans(k, n_init="auto", max_iter=_KMEANS_ROUNDS, random_state=seed)
        means.fit(rows.numpy(), sample_weight=counts.to(rows).numpy())
        centres = torch.from_numpy(means.cluster_centers_)
    return centres.reshape(k, *x.shape[1:]).to(x)


_CHOICES: dict[str, Choice] = {
    "kmeans": _kmeans,
    "leverage": _leverage,
    "kdpp": _kdpp,
    "greedy": _greedy,
    "uniform": _uniform,
}
LANDMARK_CHOICES = tuple(_CHOICES)
