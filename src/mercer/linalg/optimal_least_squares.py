"""Optimal weighted least squares: few, well-placed evaluations of a function."""

from dataclasses import dataclass

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
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from .christoffel import ChristoffelDensity

DESIGNS = ("iid", "volume", "repeated_dpp")


@dataclass(frozen=True, eq=False)
class OptimalDesign:
    """Where `optimal_design` wants a function evaluated.

    Attributes
    ----------
    points : Tensor of shape (n, ...)
        The points.
    index : LongTensor of shape (n,) or None
        Their places among the nodes of the density, with repetitions; None where it has a
        sampler.
    weights : Tensor of shape (n,)
        Their weights, float64.
    basis : Tensor of shape (n, m)
        Their orthonormal features, float64.
    gram : Tensor of shape (m, m)
        G, the weighted moments of those; the identity on average.
    gram_min_eig : float
        Its smallest eigenvalue: errors of the values are amplified by at most its inverse.
    num_tries : int
        How many designs were drawn until one was good enough.
    """

    points: Tensor
    index: Tensor | None
    weights: Tensor
    basis: Tensor
    gram: Tensor
    gram_min_eig: float
    num_tries: int


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """What `weighted_least_squares` found.

    Attributes
    ----------
    coefficients : Tensor of shape (m,) or (m, q)
        The solution; the smallest, in units of the features' norms, where there are several.
    rank : int
        Numerical rank of the weighted features.
    """

    coefficients: Tensor
    rank: int


@torch.no_grad()
def optimal_design(
    density: ChristoffelDensity,
    size: int,
    *,
    kind: str = "repeated_dpp",
    delta: float | None = 0.9,
    max_tries: int = 100,
    uniform: float = 0.0,
    generator: RandomSource | int | None = None,
) -> OptimalDesign:
    r"""Choose the points at which to evaluate a function, for weighted least squares.

    ================ ========================================================= ================
    kind             n points                                                  enough are
    ================ ========================================================= ================
    ``iid``          independent                                               m log m
    ``volume``       volume-rescaled sampling: m that repel, n - m independent 2 or 3 m;
                                                                               unbiased
    ``repeated_dpp`` m that repel, and m again, ...; the rest of n independent m, or 2 m
    ================ ========================================================= ================

    All have the Christoffel density at every point. Designs are drawn until

    .. math::
        \lambda_\min(G) \ge 1 - \delta, \qquad G = \frac{1}{n} \sum_i w_i \varphi(x_i)
        \varphi(x_i)^\top

    Then the expected squared error of the fit is at most
    :math:`1 + (1 - \delta)^{-2} P^{-1} m / n` times the best one, P being the probability that a
    design passes.

    With a share s = ``uniform`` of the points drawn from the measure itself, weights are at most
    1 / s, and the error is bounded for every design, not on average only: at s = 1/2,
    :math:`\|f - \hat f\|_{L^2} \le (1 + \sqrt{2 / (1 - \delta)}) \inf_v \|f - v\|_\infty`.

    Parameters
    ----------
    density : ChristoffelDensity
        The space and the measure.
    size : int
        Number n of points, at least m.
    kind : {"repeated_dpp", "volume", "iid"}, default "repeated_dpp"
        See above.
    delta : float, optional
        In (0, 1); None takes the first design, which keeps ``volume`` unbiased.
    max_tries : int, default 100
        Most designs to draw.
    uniform : float, default 0.0
        Share of the points that have the law of the measure, in [0, 1); beyond the first m, for
        ``volume``.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the draws come from; None is torch's default generator.

    Returns
    -------
    OptimalDesign
        Points, weights and how good they are.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If there are fewer points than features, a number is out of its range, or no design is
        good enough; the text tells how good the best one was.

    References
    ----------
    Nouy, Michel, "Weighted least-squares approximation with determinantal point processes and
    generalized volume sampling", 2023, arXiv 2312.14057.

    Derezinski, Warmuth, Hsu, "Leveraged volume sampling for linear regression", NeurIPS 2018,
    arXiv 1802.06749.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(-1, 1, 1001).double()
    >>> powers = lambda x: torch.stack([x**k for k in range(6)], 1)
    >>> design = optimal_design(ChristoffelDensity(powers, x), 12, generator=0)
    >>> values = torch.exp(design.points)  # the function, evaluated 12 times
    >>> fit = weighted_least_squares(powers(design.points), values, design.weights)
    >>> bool((powers(x) @ fit.coefficients - torch.exp(x)).abs().max() < 1e-3)
    True
    """
    if not isinstance(density, ChristoffelDensity):
        raise TypeError(f"density: expected a ChristoffelDensity, got {type(density).__name__}")
    m = density.num_features
    n = check_int("size", size)
    if n < m:
        raise ValueError(f"size: expected at least as many points as the {m} features, got {n}")
    check_choice("kind", kind, DESIGNS)
    tries = check_int("max_tries", max_tries)
    least = 0.0
    if delta is not None:
        least = 1 - check_real("delta", delta, above=0.0)
        if least <= 0:
            raise ValueError(f"delta: expected a number in (0, 1), or None, got {delta!r}")
    share = check_real("uniform", uniform, least=0.0)
    if share >= 1:
        raise ValueError(f"uniform: expected a share in [0, 1), got {uniform!r}")
    source = check_generator(generator)
    repeats = {"iid": 0, "volume": 1, "repeated_dpp": int((1 - share) * n / m + 1e-9)}[kind]
    if kind == "repeated_dpp" and repeats == 0:
        raise ValueError(
            f"uniform: expected a share that leaves {m} of {n} points to a DPP, got {uniform!r}"
        )
    rest = n - repeats * m
    best = 0.0
    for turn in range(1, tries + 1):
        parts = [density.draw_projection(source) for _ in range(repeats)]
        plain, law = 0, share  # how many are drawn from the measure, and its share in weights
        if share > 0 and kind == "repeated_dpp":
            plain, law = rest, rest / n  # numbers that are known beat those that are drawn
        elif share > 0:
            plain = int((draw_uniform((rest,), source) < share).sum())
        if rest > plain:
            parts.append(density.draw_independent(rest - plain, source))
        if plain:
            parts.append(density.draw_measure(plain, source))
        basis = torch.cat([part[2] for part in parts])  # (n, m)
        weights = 1 / ((1 - law) * basis.square().sum(1) / m + law)  # (n,)
        gram = (basis.mT * (weights / n)) @ basis  # (m, m)
        lowest = float(torch.linalg.eigvalsh(gram)[0])
        if delta is None or lowest >= least:
            index = [part[1] for part in parts if part[1] is not None]
            return OptimalDesign(
                points=torch.cat([part[0] for part in parts]),
                index=torch.cat(index) if index else None,
                weights=weights,
                basis=basis,
                gram=gram,
                gram_min_eig=lowest,
                num_tries=turn,
            )
        best = max(best, lowest)
    raise ValueError(
        f"size: {n} points of kind {kind!r} did not reach a smallest eigenvalue of {least:.3g} in "
        f"{tries} designs, the best had {best:.3g}; ask for more points, a larger delta, or "
        "kind='repeated_dpp'"
    )


@torch.no_grad()
def weighted_least_squares(
    features: Tensor, values: Tensor, weights: Tensor | None = None
) -> LeastSquares:
    r"""Solve a weighted least-squares problem by orthogonal transformations.

    .. math:: \min_c \sum_i w_i (v_i - \psi_i^\top c)^2

    by a QR factorisation of :math:`\mathrm{diag}(\sqrt w) \Psi`, never by its normal equations,
    whose condition is the square; columns are brought to norm one first. Where the rank is not
    full, the singular values of R give the smallest of the solutions.

    Parameters
    ----------
    features : Tensor of shape (n, m)
        Psi.
    values : Tensor of shape (n,) or (n, q)
        v.
    weights : Tensor of shape (n,), optional
        w, at least 0; equal by default.

    Returns
    -------
    LeastSquares
        Coefficients in the dtype of the features, computed in float64, and the rank.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes do not fit, a number is not finite, or a weight is negative.
    MemoryError
        If the factorisation does not fit the memory budget.

    References
    ----------
    Golub, Van Loan, "Matrix Computations", 4th edition, 2013, section 5.3.

    Examples
    --------
    >>> import torch
    >>> psi = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> weighted_least_squares(psi, torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1.0, 1.0, 0.0]))
    LeastSquares(coefficients=tensor([1., 2.]), rank=2)
    """
    check_finite("features", check_tensor("features", features, ndim=2))
    check_finite("values", check_tensor("values", values))
    n, m = features.shape
    if n == 0 or m == 0:
        raise ValueError(f"features: expected shape (n, m), got {(n, m)}")
    if values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(
            f"values: expected shape ({n},) or ({n}, q) beside features {(n, m)}, "
            f"got {tuple(values.shape)}"
        )
    require_memory(8 * 3 * n * m, f"the factorisation of features {(n, m)}", "use fewer rows")
    system, target = features.detach().double(), values.detach().to(features.device).double()
    target = target.reshape(n, -1)  # (n, q)
    if weights is not None:
        check_finite("weights", check_tensor("weights", weights))
        if weights.shape != (n,) or bool((weights < 0).any()):
            raise ValueError(
                f"weights: expected shape ({n},) and numbers >= 0, got {tuple(weights.shape)} with "
                f"{int((weights < 0).sum())} below zero"
            )
        root = weights.detach().to(system).sqrt().unsqueeze(1)  # (n, 1)
        system, target = root * system, root * target
    norms = system.norm(dim=0)  # (m,)
    norms = torch.where(norms > 0, norms, 1.0)
    q, r = torch.linalg.qr(system / norms)
    left, singular, right = torch.linalg.svd(r, full_matrices=False)
    eps = torch.finfo(features.dtype).eps
    known = singular > 4 * max(n, m) ** 0.5 * eps * singular[0]
    inner = (left[:, known].mT @ (q.mT @ target)) / singular[known].unsqueeze(1)
    found = (right[known].mT @ inner) / norms.unsqueeze(1)  # (m, q)
    return LeastSquares(
        coefficients=found.reshape(m, *values.shape[1:]).to(features.dtype),
        rank=int(known.sum()),
    )
