"""How wide networks that saw single bits only permute whole words: an ensemble's exact law."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_int, check_real
from ..kernels.dual import dual

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 10**9  # models


@final
@dataclass(frozen=True)
class PermutationLaw:
    """Law of one output of one network, made by `permutation_law`; all outputs are independent.

    Attributes
    ----------
    bits : int
        Length of the words.
    ones : int
        Ones among the bits of the input.
    kernel : {"ntk", "nngp"}
        Whether all layers are trained or the last one only.
    mean_on, mean_off : float
        Mean where the permuted word has a one, and where it has a zero.
    variance : float
        Variance over networks.
    """

    bits: int
    ones: int
    kernel: str
    mean_on: float
    mean_off: float
    variance: float

    def success(self, models: int | Tensor) -> Tensor:
        r"""Compute the chance that a mean over networks has the right sign at every bit.

        .. math::
            \Phi\left(\sqrt N \mu_{on} / \sigma\right)^m
            \Phi\left(\sqrt N |\mu_{off}| / \sigma\right)^{k - m}

        Parameters
        ----------
        models : int or Tensor of shape (...)
            Numbers N of networks.

        Returns
        -------
        Tensor of shape (...)
            Probabilities, float64.
        """
        return self._log_success(models).exp()

    def _log_success(self, models: int | Tensor) -> Tensor:
        root = torch.as_tensor(models, dtype=torch.float64).sqrt()
        if self.variance == 0:
            return torch.zeros_like(root)
        size = math.sqrt(self.variance)
        on = torch.special.log_ndtr(root * (self.mean_on / size))
        off = torch.special.log_ndtr(root * (-self.mean_off / size))
        return self.ones * on + (self.bits - self.ones) * off

    def required_models(self, failure: float = 0.1, inputs: int = 1) -> int:
        """Compute how many networks to average.

        Parameters
        ----------
        failure : float, default 0.1
            The chance, in (0, 1), that a bit of the result may be wrong.
        inputs : int, default 1
            How many inputs are to be right at once, by a union bound: for all words of k bits
            ``2**k - 1``, and as ``ones`` those whose words are hardest.

        Returns
        -------
        int
            The least number whose `success` is enough.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or a billion networks are not enough.
        """
        delta = check_real("failure", failure, above=0.0)
        if delta >= 1:
            raise ValueError(f"failure: expected a number below 1, got {failure}")
        # As a logarithm: 2^k inputs soon leave no digits of a probability.
        target = math.log(delta) - math.log(check_int("inputs", inputs))

        def fails(models: int) -> bool:
            log = self._log_success(models)
            return float(torch.log(-torch.expm1(log))) > target if float(log) < 0 else False

        low, high = 0, 1
        while fails(high):
            low, high = high, 2 * high
            if high > _MOST:
                raise ValueError(f"failure: {failure:g} needs more than {_MOST} networks")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fails(middle) else (low, middle)
        return high

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the chance of an exact result over the number of networks.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        most = 2 * self.required_models(0.01)
        models = torch.linspace(1, max(most, 10), 200)
        ax.plot(models, self.success(models), color="#0072B2", label="all bits right")
        if self.variance:
            needed = self.required_models(0.1)
            ax.plot(needed, 0.9, "o", color="#D55E00", label=f"90% with {needed}")
        ax.set_xlabel("networks in the ensemble")
        ax.set_ylabel("probability")
        ax.set_ylim(0, 1.03)
        ax.set_title(f"{self.ones} of {self.bits} bits set, {self.kernel.upper()}")
        ax.legend()
        return ax


def permutation_law(bits: int, ones: int, kernel: str = "ntk") -> PermutationLaw:
    r"""Compute what networks that learnt a permutation from single bits say about a word.

    Networks :math:`W_2\,\mathrm{relu}(W_1 x / \sqrt k) / \sqrt n` of infinite width n are trained
    by gradient flow on the k words with a single one, to permute their bits. At another word x
    with m ones, divided by its length :math:`\sqrt m`, outputs are independent normal numbers,

    .. math::
        \mu = \Theta(x, X)\, \Theta(X, X)^{-1} Y, \qquad
        \sigma^2 = K(x, x) + A K(X, X) A^\top - 2 A K(X, x), \qquad
        A = \Theta(x, X)\, \Theta(X, X)^{-1},

    positive in the mean where the permuted word has a one, and negative elsewhere. So the signs of
    the mean over enough networks are the permuted word, for any of the :math:`2^k - 1`.

    Parameters
    ----------
    bits : int
        The length k of the words, at least 2.
    ones : int
        The number m of ones in the input, 1 to k.
    kernel : {"ntk", "nngp"}, default "ntk"
        Networks trained in all layers, or with the NNGP kernel for :math:`\Theta` in the last one
        only. Networks in the standard parametrisation, trained with one small rate, are close to
        the latter: their last layer moves most.

    Returns
    -------
    PermutationLaw
        Means and variance of an output, with the number of networks that they ask for.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Giapitzakis, Back de Luca, Fountoulakis: Exact learning of permutations for nonzero binary
    inputs with logarithmic training size and quadratic ensemble complexity, 2025,
    arXiv 2502.16763.

    Examples
    --------
    >>> from mercer.infinite import permutation_law
    >>> law = permutation_law(10, 2)
    >>> round(law.mean_on, 5), round(law.mean_off, 5), law.required_models(0.1)
    (0.56542, -0.00985, 333)
    """
    k = check_int("bits", bits, least=2)
    m = check_int("ones", ones)
    if m > k:
        raise ValueError(f"ones: expected at most {k}, the number of bits, got {ones}")
    check_choice("kernel", kernel, ("ntk", "nngp"))
    if m == 1:  # a training point: what is left of the formulas is rounding
        return PermutationLaw(k, m, kernel, 1.0, 0.0, 0.0)
    # Times 2 k, for unit inputs: same, orthogonal, and at the angle of x to one of its bits.
    u = torch.tensor([1.0, 0.0, m**-0.5], dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    value, slope = dual("relu")(one, one, u)
    nngp = 2 * value
    theta = nngp + 2 * u * slope if kernel == "ntk" else nngp
    same, apart, near = theta.tolist()
    # Theta_XX = (same - apart) I + apart 11', and its inverse by Sherman and Morrison.
    pull = apart / (same - apart + k * apart)
    total = m * near + (k - m) * apart
    on, off = ((t - pull * total) / (same - apart) for t in (near, apart))
    # A has m entries `on` and k - m entries `off`; K_XX = (1 - 1 / pi) I + 11' / pi.
    first, other, there = nngp.tolist()
    squares, sums = m * on**2 + (k - m) * off**2, m * on + (k - m) * off
    cross = m * on * there + (k - m) * off * other
    spread = first + (first - other) * squares + other * sums**2 - 2 * cross
    return PermutationLaw(k, m, kernel, on, off, max(spread, 0.0) / (2 * k))
