"""The activation whose infinitely deep classifier is consistent in a given dimension."""

from .._core.checks import check_int
from ..kernels.activations import HermiteActivation, PolynomialActivation


def optimal_activation(dimension: int) -> PolynomialActivation:
    r"""Make the activation whose infinitely deep classifier is optimal on a sphere.

    For inputs on the sphere :math:`S^d` and Hermite polynomials :math:`h_j`
    (`mercer.kernels.HermiteActivation`),

    .. math::
        \phi = \begin{cases}
        (h_1 + h_7) / \sqrt 2 & d = 1 \\
        (h_1 + h_3) / \sqrt 2 & d = 2 \\
        2^{-d/4} (h_1 + h_3) + \sqrt{1 - 2^{1 - d/2}}\, h_2 & d \ge 3
        \end{cases}

    whose `deep_limit` is singular with the exponent d: the classifier of infinite depth weights
    labels by the distance to the power -d, and tends to the best possible one with more data,
    whatever their distribution.

    Parameters
    ----------
    dimension : int
        The dimension d of the sphere, one less than that of its space.

    Returns
    -------
    PolynomialActivation
        The activation, of unit mean square; its dual is a polynomial.

    Raises
    ------
    TypeError, ValueError
        If the dimension is not an integer of at least 1.

    References
    ----------
    Radhakrishnan, Belkin, Uhler: Wide and deep neural networks achieve consistency for
    classification, PNAS 2023, arXiv 2204.14126.

    Examples
    --------
    >>> from mercer.infinite import deep_limit, optimal_activation
    >>> deep_limit(optimal_activation(8)).exponent
    8.0
    """
    d = check_int("dimension", dimension)
    if d <= 2:
        weights = {1: 0.5**0.5, 7 if d == 1 else 3: 0.5**0.5}
    else:
        side = 2.0 ** (-d / 4)
        weights = {1: side, 2: (1 - 2 * side * side) ** 0.5, 3: side}
    total = [0.0] * (max(weights) + 1)
    for degree, weight in weights.items():
        for power, c in enumerate(HermiteActivation(degree).coefficients):
            total[power] += weight * c
    return PolynomialActivation(tuple(total))
