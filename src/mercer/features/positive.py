"""Positive random features of the exponential and the Gaussian kernel."""

import math
from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.checks import (
    check_choice,
    check_finite,
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
    check_real,
)
from .._core.counter import RandomSource
from .._core.precision import full_precision
from ..kernels import RBF, Exponential, Kernel
from .base import FeatureMap
from .blocks import can_block, map_blocks
from .draws import PROJECTION_KINDS, make_projection
from .gaussian_trick import best_damping, log_modulus_moment
from .projection import on_cpu
from .spectrum import inverse_lengthscale, unscaled

_GOLDEN = (math.sqrt(5) - 1) / 2


def relative_moment(
    square: Tensor, damping: Tensor | float, in_features: int, *, paired: bool
) -> Tensor:
    r"""Second moment of one estimate of :math:`e^{u \cdot v}`, divided by the mean's square.

    With :math:`S = |u + v|^2`, damping M and :math:`p = 1 + 4M`,

    .. math:: \Big(\frac{p^2}{2p - 1}\Big)^{d/2} e^{S / (2p - 1)},

    and for a pair of opposite directions the mean of that and of the same factor times
    :math:`e^{-S}`. The variance of n independent estimates is this less one, over n.

    Parameters
    ----------
    square : Tensor
        S.
    damping : Tensor or float
        M.
    in_features : int
        Length d of the vectors.
    paired : bool
        Whether every direction comes with its opposite.

    Returns
    -------
    Tensor
        The moment, of the shape that the arguments broadcast to.
    """
    damping = torch.as_tensor(damping, dtype=square.dtype, device=square.device)
    growth = log_modulus_moment(damping, 0.0, in_features)
    single = torch.exp(growth + square / (1 + 8 * damping))
    return (single + torch.exp(growth - square)) / 2 if paired else single


def optimal_damping(square: float, in_features: int, *, paired: bool) -> float:
    """Return the damping that makes `relative_moment` least.

    In closed form for single directions (OPRF); for pairs the minimum lies below that one, and
    is found by golden section.
    """
    # The exponent S / (2p - 1) is that of `best_damping` for 2 S, up to a constant.
    twice = torch.tensor(2 * square, dtype=torch.float64, device="cpu")
    high = float(best_damping(twice, in_features))
    if not paired or high == 0:
        return high

    def log_moment(damping: float) -> float:
        growth = in_features / 2 * math.log1p((4 * damping) ** 2 / (1 + 8 * damping))
        rate = square / (1 + 8 * damping)
        return growth + rate + math.log1p(math.exp(-square - rate))

    low = 0.0
    for _ in range(60):
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, b) if log_moment(a) <= log_moment(b) else (a, high)
    return (low + high) / 2


@final
class PositiveFeatures(FeatureMap):
    r"""Positive random features of the exponential kernel, and of the Gaussian one.

    For :math:`k(x, y) = e^{u \cdot v}` with :math:`u = x / \ell`, :math:`v = y / \ell`, damping
    :math:`M \ge 0` and :math:`p = 1 + 4M`,

    .. math::

        \phi(x) = n^{-1/2} \, p^{d/4}
        \exp\left(-M |g_j|^2 + \sqrt{p}\, g_j \cdot u - |u|^2 / 2\right)_{j \le n},
        \quad g_j \sim N(0, I_d)

    and for the Gaussian kernel :math:`-|u|^2` at the end. Unbiased, and no feature is negative,
    so that attention weights from them are none either. Without damping these are FAVOR+'s;
    the damping that makes the error least for the norms given is OPRF's (FAVOR++).

    The error relative to the kernel grows as :math:`e^{|u + v|^2}` without damping, and more
    slowly with it: the features are for vectors of norms around one lengthscale
    (`relative_error` predicts it). For the Gaussian kernel `RandomFourier` has the smaller
    error, unless the kernel is far below one.

    Parameters
    ----------
    kernel : Kernel
        `Exponential` or `RBF`, at most scaled; the map keeps a frozen copy.
    in_features : int
        Length d of an input vector.
    num_features : int
        Number of features; even if they come in pairs.
    paired : bool, default True
        Whether every direction comes with its opposite (hyperbolic features): half the products
        for the same number of features, and never more error.
    damping : float, optional
        M; None takes the best one for the norms.
    norms : tuple of two floats, optional
        Typical norm of x and of y, in units of the inputs; without them one lengthscale each.
    like : Tensor of shape (n, in_features), optional
        Data to take the damping from instead: the mean of :math:`|u + v|^2` over its pairs.
    draw : {"orthogonal", "gaussian", "sobol", "hadamard", "fastfood"}, default "orthogonal"
        How the directions g are drawn; see `make_projection`. Unbiased for all but
        ``"hadamard"``, whose bias is small where d is large.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Attributes
    ----------
    damping : float
        M.

    Raises
    ------
    TypeError
        If the kernel is none.
    ValueError
        If the kernel is neither of the two, num_features is odd with pairs, a number is out of
        range, or the draw is unknown.
    RuntimeError
        If a hyperparameter was left to the data and is not set.

    Notes
    -----
    Exponents are cut near half the logarithm of the dtype's largest number, so that nothing
    overflows. Where weights are normalised afterwards, take `log_features` and subtract a
    maximum first.

    References
    ----------
    Choromanski et al., "Rethinking attention with Performers", 2020, arXiv 2009.14794.

    Likhosherstov, Choromanski, Dubey, Liu, Sarlos, Weller, "Chefs' random tables: non-trigonometric
    random features", 2022, arXiv 2205.15317.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import PositiveFeatures
    >>> from mercer.kernels import Exponential
    >>> x = torch.linspace(-0.5, 0.5, 15, dtype=torch.float64).reshape(5, 3)
    >>> phi = PositiveFeatures(Exponential(), 3, 4000, like=x, generator=0, dtype=torch.float64)
    >>> z = phi(x)
    >>> bool((z > 0).all()), bool((z @ z.mT / phi.kernel(x) - 1).abs().max() < 0.05)
    (True, True)
    """

    offset: Tensor
    inverse_lengthscale: Tensor
    lengths: Tensor | None

    def __init__(
        self,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        paired: bool = True,
        damping: float | None = None,
        norms: tuple[float, float] | None = None,
        like: Tensor | None = None,
        draw: str = "orthogonal",
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._scale, kernel = unscaled(self._approximate(kernel))
        if not isinstance(kernel, RBF | Exponential):
            raise ValueError(
                f"kernel: expected an Exponential or RBF kernel, at most scaled, got {kernel!r}"
            )
        self._squares = 1.0 if isinstance(kernel, RBF) else 0.5  # of |u|^2 in the exponent
        self.in_features = check_int("in_features", in_features)
        self.num_features = check_int("num_features", num_features)
        self.paired = bool(paired)
        if self.paired and self.num_features % 2:
            raise ValueError(
                f"num_features: expected an even number, as features come in pairs, got "
                f"{num_features}; or pass paired=False"
            )
        self._inverse = inverse_lengthscale(kernel, self.in_features)
        if damping is None:
            square = self._mean_square(norms, like)
            damping = optimal_damping(square, self.in_features, paired=self.paired)
        self.damping = check_real("damping", damping, least=0)
        half = self.num_features // 2 if self.paired else self.num_features
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.draw = check_choice("draw", draw, PROJECTION_KINDS)
        self.projection = make_projection(draw, half, in_features, generator=0, **factory)
        self.register_buffer("offset", torch.empty(half, **factory))
        self.register_buffer("inverse_lengthscale", torch.empty(in_features, **factory))
        lengths = torch.empty(half, **factory) if draw == "hadamard" else None
        self.register_buffer("lengths", lengths)  # only those rows have fixed ones
        self.reset_parameters(generator)

    def _mean_square(self, norms: tuple[float, float] | None, like: Tensor | None) -> float:
        """Return the mean of |u + v|^2 that the damping is for."""
        if norms is not None and like is not None:
            raise ValueError("norms: expected None beside like, got both")
        if like is not None:
            check_last_dim("like", like, self.in_features)
            check_finite("like", like)
            u = like.detach().reshape(-1, self.in_features).double().cpu() * self._inverse
            if len(u) == 0:
                raise ValueError(f"like: expected rows, got shape {tuple(like.shape)}")
            return float(2 * u.square().sum(-1).mean() + 2 * u.mean(0).square().sum())
        if norms is None:
            return 2.0
        if not (isinstance(norms, tuple | list) and len(norms) == 2):
            raise ValueError(f"norms: expected two numbers, of x and y, got {norms!r}")
        mean = float(self._inverse.square().mean())
        return mean * sum(check_real("norms", norm, least=0) ** 2 for norm in norms)

    @on_cpu
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""
        if self.offset.is_meta:
            return
        generator = check_generator(generator)
        self.projection.reset_parameters(generator)
        squares = self.projection.squared_lengths()
        if self.lengths is not None:
            self.lengths.copy_(self.projection.draw_lengths(generator))
            squares = squares * self.lengths.double().square()
        self.inverse_lengthscale.copy_(self._inverse)
        # sqrt(scale / m) p^(d/4) exp(-M |g|^2), as a logarithm
        constant = math.log(self._scale / self.num_features) / 2 if self._scale else -math.inf
        constant += self.in_features / 4 * math.log1p(4 * self.damping)
        self.offset.copy_(constant - self.damping * squares)

    def _exponents(self, x: Tensor) -> Tensor:
        """Return the logarithms of the features of x (..., d), in its dtype."""
        u = x * self.inverse_lengthscale.to(x.dtype)
        t = math.sqrt(1 + 4 * self.damping) * self.projection(u)  # (..., n)
        if self.lengths is not None:
            t = t * self.lengths.to(x.dtype)
        rest = self.offset.to(x.dtype) - self._squares * u.square().sum(-1, keepdim=True)
        return torch.cat([rest + t, rest - t], -1) if self.paired else rest + t

    def _full(self, x: Tensor) -> Tensor:
        """Check inputs and return them in at least single precision."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.offset, x)
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def log_features(self, x: Tensor) -> Tensor:
        """Return the logarithms of the features, for where these would overflow.

        Parameters
        ----------
        x : Tensor of shape (..., in_features)
            Inputs.

        Returns
        -------
        Tensor of shape (..., num_features)
            The logarithms, in at least single precision.
        """
        full = self._full(x)
        with full_precision(x):
            return self._exponents(full)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        full = self._full(x)
        # Either side stays below the root of what the products of both may add up to.
        largest = math.log(torch.finfo(x.dtype).max / self.num_features) / 2
        with full_precision(x):
            if x.ndim > 1 and can_block(x, self.num_features, *self.buffers()):

                def write(rows: Tensor, out: Tensor) -> None:
                    torch.exp(self._exponents(rows).clamp_(max=largest), out=out)

                return map_blocks(full, self.num_features, x.dtype, write)
            return self._exponents(full).clamp(max=largest).exp().to(x.dtype)

    def relative_error(self, x: Tensor, y: Tensor) -> Tensor:
        """Predict the standard deviation of the estimate, divided by the kernel.

        Exact for the draw ``"gaussian"``; others are as a rule somewhat better.

        Parameters
        ----------
        x, y : Tensor of shape (..., in_features)
            Pairs of inputs, in any shapes that broadcast.

        Returns
        -------
        Tensor of shape (...)
            The relative error, in float64.
        """
        inverse = self._inverse.to(x.device)
        square = ((x.double() + y.double()) * inverse).square().sum(-1)
        moment = relative_moment(square, self.damping, self.in_features, paired=self.paired)
        count = self.num_features // 2 if self.paired else self.num_features
        return ((moment - 1).clamp(min=0) / count).sqrt()

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self.num_features,
            "paired": self.paired,
            "damping": self.damping,
            "draw": self.draw,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        kernel = Kernel.build(config["kernel"])
        return cls(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the kernel, sizes and options for ``repr``."""
        return (
            f"kernel={self.kernel!r}, in_features={self.in_features}, "
            f"num_features={self.num_features}, paired={self.paired}, "
            f"damping={self.damping:.4g}, draw={self.draw!r}"
        )
