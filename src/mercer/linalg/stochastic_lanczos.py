"""Stochastic Lanczos quadrature: traces of functions and log-determinants, with their errors."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .._core.checks import check_choice, check_generator, check_int, check_tensor
from .._core.config import block_rows
from .._core.counter import RandomSource
from .._core.random import draw_normal, draw_signs
from .lanczos import Operator, lanczos
from .preconditioner import LowRankPreconditioner

PROBES = ("rademacher", "gaussian")
_LARGEST_BLOCK = 64  # probes at once


@final
@dataclass(frozen=True, eq=False)
class StochasticEstimate:
    """A mean over random probes, with what is known of its error.

    Attributes
    ----------
    value : float
        The mean.
    standard_error : float
        Of the mean, from the spread of the probes; NaN with a single one.
    samples : Tensor of shape (num_probes,)
        What each probe said, float64.
    """

    value: float
    standard_error: float
    samples: Tensor

    @classmethod
    def of(cls, samples: Tensor, offset: float = 0.0) -> "StochasticEstimate":
        """Make an estimate from samples (num_probes,), all shifted by a known number."""
        shifted = samples + offset
        error = float(shifted.std() / len(shifted) ** 0.5) if len(shifted) > 1 else math.nan
        return cls(float(shifted.mean()), error, shifted)


@torch.no_grad()
def stochastic_trace(
    matvec: Operator,
    size: int,
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    num_probes: int = 16,
    steps: int = 30,
    probes: str = "rademacher",
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> StochasticEstimate:
    r"""Estimate the trace of a function of a symmetric matrix that is only multiplied with.

    .. math::
        \operatorname{tr} f(A) = \mathbb{E}\, z^\top f(A) z, \qquad
        z^\top f(A) z \approx \sum_k w_k f(\theta_k)

    with random z of independent entries of mean 0 and variance 1, and the nodes and weights of
    Lanczos' tridiagonal matrix from z. The quadrature is exact for polynomials of degree
    2 steps - 1, and converges geometrically for a function that is smooth on the spectrum; the
    standard error speaks of the probes, not of that.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, s) to A times them.
    size : int
        n.
    function : callable, optional
        f, maps a tensor of eigenvalues to values, such as ``torch.log``; by default the identity,
        the trace of A itself, which needs one step.
    num_probes : int, default 16
        How many z.
    steps : int, default 30
        Products for each, at most n.
    probes : {"rademacher", "gaussian"}
        Their distribution: signs have the smaller variance, and are exact on a diagonal matrix.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the probes come from; None is torch's default generator.
    device : torch.device or str, optional
        Of the vectors that ``matvec`` is given.
    dtype : torch.dtype, default float64
        Of these vectors.

    Returns
    -------
    StochasticEstimate
        The trace, with its standard error.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, or f is not finite at a Ritz value.

    References
    ----------
    Ubaru, Chen, Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM
    Journal on Matrix Analysis and Applications 38 (2017).

    Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990.

    Examples
    --------
    >>> import torch
    >>> a = torch.diag(torch.linspace(1, 2, 500).double()) + 0.01
    >>> found = stochastic_trace(lambda v: a @ v, 500, torch.sqrt, generator=0)
    >>> exact = torch.linalg.eigvalsh(a).sqrt().sum().item()
    >>> abs(found.value - exact) < 4 * found.standard_error < 0.01 * exact
    True
    """
    if function is not None and not callable(function):
        raise TypeError(f"function: expected a callable, got {type(function).__name__}")
    if function is None:
        steps = 1
    parts = []
    for nodes, weights in quadratures(
        matvec, size, num_probes, steps, probes, generator, device, dtype
    ):
        values = nodes if function is None else _evaluate(function, nodes)
        parts.append((weights * values).sum(-1))  # (s,)
    return StochasticEstimate.of(torch.cat(parts))


@torch.no_grad()
def stochastic_logdet(
    matvec: Operator,
    size: int,
    *,
    preconditioner: LowRankPreconditioner | None = None,
    num_probes: int = 16,
    steps: int = 30,
    probes: str = "rademacher",
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> StochasticEstimate:
    r"""Estimate the log-determinant of a positive definite matrix that is only multiplied with.

    .. math:: \log\det A = \log\det P + \operatorname{tr} \log (P^{-1/2} A P^{-1/2})

    A preconditioner close to A leaves little to estimate: both the spread of the probes and the
    number of steps shrink with it.

    Parameters
    ----------
    matvec : callable
        Maps columns (n, s) to A times them, A with its ridge.
    size : int
        n.
    preconditioner : LowRankPreconditioner, optional
        P; by default the identity.
    num_probes : int, default 16
        How many random vectors.
    steps : int, default 30
        Products for each, at most n.
    probes : {"rademacher", "gaussian"}
        Their distribution.
    generator : torch.Generator, CounterGenerator or int, optional
        Where the probes come from; None is torch's default generator.
    device : torch.device or str, optional
        Of the vectors that ``matvec`` is given.
    dtype : torch.dtype, default float64
        Of these vectors.

    Returns
    -------
    StochasticEstimate
        The log-determinant, with its standard error.

    Raises
    ------
    TypeError
        If an argument is not of the kind described.
    ValueError
        If shapes do not fit, or A is not positive definite.

    References
    ----------
    Gardner, Pleiss, Bindel, Weinberger, Wilson, "GPyTorch: Blackbox matrix-matrix Gaussian
    process inference with GPU acceleration", NeurIPS 2018, arXiv 1809.11165.

    Wenger, Pleiss, Hennig, Cunningham, Gardner, "Preconditioning for scalable Gaussian process
    hyperparameter optimization", ICML 2022, arXiv 2107.00243.

    Examples
    --------
    >>> import torch
    >>> from mercer.linalg import LowRankPreconditioner, pivoted_cholesky
    >>> x = torch.linspace(0, 1, 500).double()
    >>> k = torch.exp(-50 * (x[:, None] - x).square())
    >>> a = k + 1e-2 * torch.eye(500)
    >>> p = LowRankPreconditioner(pivoted_cholesky(k, rank=25).factor, ridge=1e-2)
    >>> found = stochastic_logdet(lambda v: a @ v, 500, preconditioner=p, generator=0)
    >>> abs(found.value - torch.logdet(a).item()) < 1e-4, found.standard_error < 1e-4
    (True, True)
    """
    offset = 0.0
    product = matvec
    if preconditioner is not None:
        if not isinstance(preconditioner, LowRankPreconditioner):
            raise TypeError(
                "preconditioner: expected a LowRankPreconditioner, whose root and determinant are "
                f"known, got {type(preconditioner).__name__}"
            )
        if len(preconditioner.basis) != size:
            raise ValueError(
                f"preconditioner: expected one for {size} rows, got {preconditioner!r}"
            )
        offset = preconditioner.logdet()
        product = _between(preconditioner.inverse_root, matvec)
    parts = []
    for nodes, weights in quadratures(
        product, size, num_probes, steps, probes, generator, device, dtype
    ):
        if bool((nodes <= 0).any()):
            raise ValueError(
                "matvec: expected a positive definite operator, got one with the Ritz value "
                f"{float(nodes.min()):.3g} (largest {float(nodes.max()):.3g}); add a ridge"
            )
        parts.append((weights * nodes.log()).sum(-1))
    return StochasticEstimate.of(torch.cat(parts), offset)


def _between(root: Operator, matvec: Operator) -> Operator:
    """Return the product with R A R."""
    return lambda columns: root(matvec(root(columns)))


def _evaluate(function: Callable[[Tensor], Tensor], nodes: Tensor) -> Tensor:
    """Return f at nodes (s, m), checked."""
    values = check_tensor("function", function(nodes))
    if values.shape != nodes.shape:
        raise ValueError(
            f"function: expected a result of shape {tuple(nodes.shape)}, like its argument, "
            f"got {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        worst = float(nodes[~values.isfinite()][0])
        raise ValueError(f"function: expected finite values on the spectrum, not so at {worst:.6g}")
    return values.double()


def quadratures(
    matvec: Operator,
    size: int,
    num_probes: int,
    steps: int,
    probes: str,
    generator: RandomSource | int | None,
    device: torch.device | str | None,
    dtype: torch.dtype,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield nodes and weights (s, m), for as many probes at once as memory allows."""
    n = check_int("size", size)
    count, m = check_int("num_probes", num_probes), check_int("steps", steps)
    m = min(m, n)
    check_choice("probes", probes, PROBES)
    source = check_generator(generator)
    # All at once, so that the numbers do not depend on the memory there is.
    shape = (n, count)
    drawn = draw_signs(shape, source) if probes == "rademacher" else draw_normal(shape, source)
    block = block_rows(8 * n * (m + 6), most=_LARGEST_BLOCK)
    for part in drawn.split(block, 1):
        yield lanczos(matvec, part.to(device=device, dtype=dtype), m).quadrature()
