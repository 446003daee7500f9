"""What an infinitely wide network becomes as a classifier when its depth grows too."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_int, check_tensor
from .gaussian_moments import ActivationLike
from .koenigs import NormalisedDual, deep_kernel, normalised_dual

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, eq=False)
class DeepLimit:
    r"""The deep limit of an activation, made by `deep_limit`.

    Attributes
    ----------
    activation : str
        Its name.
    kind : {"majority", "nearest", "singular"}
        What classifying by the kernel becomes: the majority of all labels (the mean of the
        activation is not zero), the label of the nearest neighbour (its derivative has mean
        zero), or a mean of labels weighted by a kernel that is singular at zero distance.
    value_at_zero : float
        The normalised dual at zero, :math:`(E \phi)^2 / E \phi^2`.
    slope_at_zero : float
        Its derivative there, A in (0, 1) for "singular".
    slope_at_one : float
        Its derivative at one, B; infinite where the activation jumps.
    exponent : float
        The :math:`\alpha` of the weight :math:`\|x - x'\|^{-\alpha}` near zero distance,
        :math:`-2 \log A / \log B`; infinite for "nearest", 0 for "majority". The classifier is
        consistent where it equals the dimension of the sphere of inputs, is like the nearest
        neighbour above it, and looks too far below it.
    """

    activation: str
    kind: str
    value_at_zero: float
    slope_at_zero: float
    slope_at_one: float
    exponent: float
    _dual: NormalisedDual = field(repr=False)

    def log_weight(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        r"""Compute the weight of a label in the deep limit, as sign and logarithm.

        .. math:: G(z) = \lim_{L \to \infty} k_L(z) / A^L, \qquad z = 1 - \text{gap}

        with the kernel :math:`k_L` of L layers: Koenigs' function, which solves
        :math:`G(\check\phi(z)) = A\,G(z)`.

        Parameters
        ----------
        gap : Tensor of shape (...)
            One minus the inner product of two inputs of length one, or half of their squared
            distance, which is right for close inputs too.

        Returns
        -------
        sign, log : Tensor of shape (...)
            Sign and log of the absolute value, float64; infinite at gap zero.

        Raises
        ------
        TypeError
            If it is not a tensor of floating-point numbers.
        ValueError
            If the limit is not singular.
        """
        check_tensor("gap", gap)
        if self.kind != "singular":
            raise ValueError(
                f"activation: the deep limit of {self.activation} is {self.kind!r} and has no "
                "weights"
            )
        return deep_kernel(self._dual, gap.detach(), None)

    def log_kernel(self, gap: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        r"""Compute the kernel of a network of finite depth, as sign and logarithm.

        .. math:: k_L = \check\phi \circ \dots \circ \check\phi\,(z), \qquad z = 1 - \text{gap}

        Parameters
        ----------
        gap : Tensor of shape (...)
            One minus the inner product of two inputs of length one.
        depth : int
            The number L of hidden layers.

        Returns
        -------
        sign, log : Tensor of shape (...)
            Sign and log of the absolute value, float64, for any depth.

        Raises
        ------
        TypeError, ValueError
            If ``gap`` is not a tensor of floating-point numbers or ``depth`` not an integer >= 0.
        """
        check_tensor("gap", gap)
        return deep_kernel(self._dual, gap.detach(), check_int("depth", depth, least=0))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the weights of the limit, or the kernels on the way to it, over the distance.

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
        if self.kind == "singular":
            distance = torch.logspace(-3, math.log10(1.4), 200, dtype=torch.float64)
            _, log = self.log_weight(distance.square() / 2)
            ax.plot(distance, (log - log[-1]).exp(), color="#0072B2", label="deep limit G")
            line = -self.exponent * (distance / distance[0]).log() + (log[0] - log[-1])
            label = f"distance to the power −{self.exponent:.3g}"
            ax.plot(distance, line.exp(), "--", color="#D55E00", label=label)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_ylabel("weight, relative to the farthest")
        else:
            distance = torch.linspace(0, 2, 401, dtype=torch.float64)
            for depth, color in ((1, "#56B4E9"), (4, "#E69F00"), (16, "#009E73"), (64, "#0072B2")):
                sign, log = self.log_kernel(distance.square() / 2, depth)
                ax.plot(distance, sign * log.exp(), color=color, label=f"{depth} layers")
            ax.set_ylabel("kernel")
        ax.set_xlabel("distance of two inputs on the sphere")
        ax.set_title(f"Infinite depth, {self.activation}: {self.kind}")
        ax.legend()
        return ax


def deep_limit(activation: ActivationLike) -> DeepLimit:
    r"""Find what classifying by a wide network becomes when it is infinitely deep.

    For inputs of length one a layer takes their inner product z to the normalised dual
    :math:`\check\phi(z) = E[\phi(u)\phi(v)] / E[\phi(u)^2]`, with unit normal u, v of
    correlation z. Iterated, off-diagonal entries of the kernel tend

    - to one positive constant where :math:`\check\phi(0) > 0`: the majority decides;
    - to zero doubly exponentially where :math:`\check\phi(0) = A = 0`, with
      :math:`A = \check\phi'(0)`: the nearest neighbour decides;
    - to :math:`A^L G(z)` otherwise, while the diagonal stays at one: the sign of
      :math:`\sum_i y_i G(x \cdot x_i)` decides, with :math:`G \sim \|x - x_i\|^{-\alpha}`,
      :math:`\alpha = -2 \log A / \log B` and :math:`B = \check\phi'(1)`.

    Parameters
    ----------
    activation : str, Module or callable
        The activation.

    Returns
    -------
    DeepLimit
        Its kind, numbers and weights, with `DeepLimit.plot`.

    Raises
    ------
    TypeError, ValueError
        If the activation is unknown, zero, or linear (depth then changes nothing).

    References
    ----------
    Radhakrishnan, Belkin, Uhler: Wide and deep neural networks achieve consistency for
    classification, PNAS 2023, arXiv 2204.14126. The theorem speaks of the neural tangent kernel;
    the kernel here is that of the last layer (NNGP), as in the authors' code: it has the same
    limit, at much smaller depth.

    Devroye, Györfi, Krzyżak: The Hilbert kernel regression estimate, 1998.

    Examples
    --------
    >>> from mercer.infinite import deep_limit
    >>> [deep_limit(name).kind for name in ("relu", "erf", "square")]
    ['majority', 'singular', 'majority']
    >>> round(deep_limit("erf").exponent, 4)
    0.8882
    """
    found = normalised_dual(activation)
    a, b = float(found.coefficients[1]), found.slope
    if found.kind == "singular" and 1 - a < 1e-14:
        raise ValueError(f"activation: {found.name} is linear, and depth changes nothing")
    exponent = {"majority": 0.0, "nearest": math.inf, "singular": math.nan}[found.kind]
    if found.kind == "singular":
        exponent = -2 * math.log(a) / math.log(b)
        near = round(exponent, 9)
        exponent = near if abs(exponent - near) < 1e-12 * max(near, 1) else exponent
    return DeepLimit(
        activation=found.name,
        kind=found.kind,
        value_at_zero=float(found.coefficients[0]),
        slope_at_zero=a,
        slope_at_one=b,
        exponent=exponent,
        _dual=found,
    )
