"""The inverse gamma distribution of a variance."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from .._core.checks import check_real


@final
@dataclass(frozen=True)
class InverseGamma:
    r"""The inverse gamma distribution, of the variance that a process is scaled by.

    .. math:: p(v) = \frac{b^a}{\Gamma(a)} v^{-a - 1} e^{-b / v}

    Parameters
    ----------
    alpha : float
        The shape a, positive.
    beta : float
        The scale b, positive.

    Raises
    ------
    TypeError, ValueError
        If one of them is no positive number.

    Examples
    --------
    >>> from mercer.machines import InverseGamma
    >>> InverseGamma(3.0, 4.0).mean
    2.0
    """

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        check_real("alpha", self.alpha, above=0.0)
        check_real("beta", self.beta, above=0.0)

    @property
    def mean(self) -> float:
        """The mean; infinite for a shape of at most 1."""
        return self.beta / (self.alpha - 1.0) if self.alpha > 1.0 else math.inf

    def draw(self, count: int, state: np.random.RandomState) -> np.ndarray:
        """Draw some variances, shape (count,)."""
        return self.beta / state.standard_gamma(self.alpha, count)

    def divergence(self, prior: "InverseGamma") -> float:
        r"""Return the Kullback-Leibler divergence of this distribution from a prior.

        .. math::

            \alpha \ln \frac b\beta - \ln \Gamma(a) + \ln \Gamma(\alpha) + (a - \alpha) \psi(a)
            + \frac ab (\beta - b)
        """
        from scipy.special import digamma

        a, b = self.alpha, self.beta
        return float(
            prior.alpha * math.log(b / prior.beta)
            - math.lgamma(a)
            + math.lgamma(prior.alpha)
            + (a - prior.alpha) * digamma(a)
            + a / b * (prior.beta - b)
        )
