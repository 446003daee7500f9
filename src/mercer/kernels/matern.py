"""The Matern kernels of half-integer smoothness."""

import math
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from .gamma import inverse_gamma_cdf
from .in_place import InPlace
from .stationary import Radial

_ORDERS = {0.5: 0, 1.5: 1, 2.5: 2}


def _polynomial(a: Tensor, order: int) -> Tensor:
    """Evaluate the polynomial before exp(-a) in the Matern kernel of smoothness order + 1/2."""
    if order == 0:
        return torch.ones_like(a)
    return 1 + a if order == 1 else 1 + a + a * a / 3


def _root(t: Tensor) -> Tensor:
    """Square root whose derivative at zero is taken as zero."""
    zero = t == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, t).sqrt())


class _Profile(torch.autograd.Function):
    r"""The Matern kernel as a function of :math:`t = 2 \nu |x - y|^2 / \ell^2`.

    Its derivative is the profile of the next lower order times a constant,
    :math:`m_1' = -m_0 / 2` and :math:`m_2' = -m_1 / 6`, finite at t = 0, where the chain rule
    through the square root would divide by zero.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor, order: int) -> Tensor:
        a = t.sqrt()
        return _polynomial(a, order) * torch.exp(-a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.order = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        return g * _slope(t, ctx.order), None

    @staticmethod
    def jvp(ctx: Any, dt: Tensor, _: None) -> Tensor:
        (t,) = ctx.saved_tensors
        return dt * _slope(t, ctx.order)


class _CompiledProfile(torch.autograd.Function):
    """`_Profile` for the compiler, which refuses a forward-mode derivative."""

    forward = staticmethod(_Profile.forward)
    setup_context = staticmethod(_Profile.setup_context)
    backward = staticmethod(_Profile.backward)  # pyright: ignore


def _slope(t: Tensor, order: int) -> Tensor:
    return _matern(t, order - 1) * (-0.5 if order == 1 else -1 / 6)


def _matern(t: Tensor, order: int) -> Tensor:
    if order == 0:
        return torch.exp(-_root(t))
    profile = _CompiledProfile if torch.compiler.is_compiling() else _Profile
    return profile.apply(t, order)  # type: ignore[return-value]


def _tile(s: Tensor, spare: Tensor, order: int, factor: float) -> Tensor:
    """Evaluate the kernel in place."""
    s.sqrt_().mul_(factor)  # a
    decay = torch.exp(torch.neg(s, out=spare), out=spare)
    if order == 0:
        return s.copy_(decay)
    if order == 1:
        return s.add_(1).mul_(decay)
    # 1 + a (1 + a / 3) without a third tile: (a + 3/2)^2 / 3 + 1/4.
    return s.add_(1.5).square_().div_(3).add_(0.25).mul_(decay)


@final
class Matern(Radial):
    r"""The Matern kernel: sample paths with as many derivatives as its smoothness allows.

    With :math:`a = \sqrt{2 \nu} |x - y| / \ell`,

    .. math::

        k_{1/2} = e^{-a}, \quad k_{3/2} = (1 + a) e^{-a}, \quad
        k_{5/2} = (1 + a + a^2 / 3) e^{-a}

    At coincident points the second derivatives of the smoothness 3/2 and 5/2 are finite and
    exact; smoothness 1/2 has a kink there, at which the gradient is taken as zero.

    Parameters
    ----------
    lengthscale : float, sequence of floats, Tensor or "median", default 1.0
        :math:`\ell`, in units of the inputs: one number, one a dimension (ARD), or the median
        distance of the data that `fit` is given.
    nu : {0.5, 1.5, 2.5}, default 1.5
        The smoothness.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    ValueError, TypeError
        If the lengthscale is not positive, finite numbers, or nu is none of the three.

    References
    ----------
    Rasmussen, Williams, "Gaussian processes for machine learning", 2006, section 4.2.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> Matern(nu=0.5).requires_grad_(False)(x)
    tensor([[1.0000, 0.3679],
            [0.3679, 1.0000]])
    """

    def __init__(
        self,
        lengthscale: Any = 1.0,
        *,
        nu: float = 1.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(lengthscale=lengthscale, nu=nu, device=device, dtype=dtype)
        if isinstance(nu, str | bool) or nu not in _ORDERS:
            raise ValueError(f"nu: expected one of {sorted(_ORDERS)}, got {nu!r}")
        self.nu = float(nu)
        self._register_lengthscale(lengthscale, device, dtype)

    def profile(self, s: Tensor) -> Tensor:
        """Evaluate the kernel at squared scaled distances."""
        return _matern(2 * self.nu * s, _ORDERS[self.nu])

    def inplace(self) -> InPlace:
        """Return the kernel at squared scaled distances, for tiles."""
        return partial(_tile, order=_ORDERS[self.nu], factor=math.sqrt(2 * self.nu))

    def num_uniforms(self, in_features: int) -> int:
        """Return 1, for the length of a frequency."""
        return 1

    def radii(self, uniforms: Tensor) -> Tensor:
        r"""Return :math:`\sqrt{2 \nu / \chi^2_{2 \nu}}`: the frequencies are a Student-t."""
        # chi^2 with 2 nu degrees is twice a Gamma of shape nu.
        return (self.nu / inverse_gamma_cdf(uniforms[:, 0], self.nu)).sqrt()
