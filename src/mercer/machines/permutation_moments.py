"""Mean and variance of tr(A B) over all orders of B, in closed form."""

from typing import NamedTuple


class CenteredMoments(NamedTuple):
    """What the moments need of a symmetric matrix A with rows that sum to zero."""

    trace: float  # tr A
    square: float  # tr A^2
    diagonal: float  # sum of A_ii^2


def permutation_moments(
    n: int, left: CenteredMoments, right: CenteredMoments
) -> tuple[float, float]:
    r"""Return mean and variance of :math:`\sum_{ij} A_{ij} B_{\pi(i) \pi(j)}` over all orders.

    Both matrices split into a part on which all orders act alike: from the trace, the sum of
    squares of the diagonal, and that of all entries.

    Parameters
    ----------
    n : int
        Size of the matrices, at least 4.
    left, right : CenteredMoments
        Of A and of B.

    Returns
    -------
    tuple of two floats
        Mean and variance.
    """
    mean = left.trace * right.trace / (n - 1)
    # Of the n x n symmetric matrices without row sums, permutations leave three parts alone: the
    # centring matrix, the one-dimensional family that a centred diagonal makes, and the rest, on
    # which they act irreducibly. The variance of tr(A B) is the sum over the latter two of
    # |part of A|^2 |part of B|^2 / dimension of the part.
    first = [_parts(n, one) for one in (left, right)]
    variance = 0.0
    for (a, b), dimension in zip(zip(*first, strict=True), (n - 1, n * (n - 3) / 2), strict=True):
        variance += a * b / dimension
    return mean, variance


def _parts(n: int, one: CenteredMoments) -> tuple[float, float]:
    """Split the squared norm of A, less its multiple of H, into the diagonal part and the rest."""
    whole = one.square - one.trace**2 / (n - 1)
    spread = one.diagonal - one.trace**2 / n  # squared norm of the centred diagonal
    # The part made by a vector d without mean is A = H diag(d) H, with diagonal (1 - 2/n) d and
    # squared norm (1 - 2/n) |d|^2; its diagonal's squared norm is (1 - 2/n)^2 |d|^2.
    part = spread / (1 - 2 / n)
    return max(part, 0.0), max(whole - part, 0.0)
