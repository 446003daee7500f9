"""Random features of the arc-cosine kernels: one-sided monomials of random projections."""

import math
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.nn import functional as F

from .._core.checks import (
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
    check_tensor,
)
from .._core.counter import RandomSource
from .base import TwoSidedFeatureMap
from .draws import make_projection


def arc_cosine_kernel(order: int, uu: Tensor, vv: Tensor, uv: Tensor) -> Tensor:
    r"""Compute ``E[step(g.u) (g.u)^n step(g.v) (g.v)^n]`` from the inner products of u and v.

    .. math:: k_n(u, v) = \frac{1}{2\pi} \|u\|^n \|v\|^n J_n(\theta), \quad
        J_0 = \pi - \theta, \quad J_1 = \sin\theta + (\pi - \theta)\cos\theta, \quad
        J_2 = 3 \sin\theta\cos\theta + (\pi - \theta)(1 + 2\cos^2\theta).

    Zero where u or v is zero, because ``step(0) = 0``. Gradients are finite everywhere: where u
    and v are collinear order 0 has a kink, and its gradient there is taken as zero.

    Parameters
    ----------
    order : {0, 1, 2}
        The exponent n.
    uu, vv, uv : Tensor of shape (...)
        ``u.u``, ``v.v`` and ``u.v``.

    Returns
    -------
    Tensor of shape (...)
        The kernel.
    """
    product = uu * vv  # (|u| |v|)^2
    squared_sine = product - uv.square()
    # Rounding leaves a few eps of collinear vectors; where() twice keeps 0/0 out of the gradient.
    apart = squared_sine > 8 * torch.finfo(uv.dtype).eps * product
    sine = torch.where(apart, torch.where(apart, squared_sine, 1.0).sqrt(), 0.0)  # |u||v| sin
    nonzero = product > 0
    angle = torch.atan2(sine, torch.where(nonzero, uv, 1.0))
    if order == 0:
        value = math.pi - angle
    elif order == 1:
        value = sine + (math.pi - angle) * uv
    else:
        value = 3 * sine * uv + (math.pi - angle) * (product + 2 * uv.square())
    return torch.where(nonzero, value, 0.0) / (2 * math.pi)


@final
class ArcCosineFeatures(TwoSidedFeatureMap):
    r"""Features whose inner product is an arc-cosine kernel, on average over the draw.

    .. math:: \phi(x) = m^{-1/2} \, \mathrm{step}(G u) \, (G u)^n, \quad u = (x, 1), \qquad
        E[\phi(x) \cdot \psi(w, b)] = \frac{1}{2\pi} \|u\|^n \|v\|^n J_n(\theta), \quad v = (w, b).

    Both sides are the same function. Order 1 is ``relu(G u)``: a layer on these features is a
    random two-layer ReLU network whose last matrix is read off a network's neurons; it is not a
    function of ``w.x`` alone, hence does not approximate ``relu(w.x + b)`` but a smoother kernel
    between input and neuron (the ReLU-SNNK).

    Parameters
    ----------
    in_features : int
        Length d of an input vector.
    num_features : int
        Number m of features.
    order : {0, 1, 2}, default 1
        The exponent n: steps, ReLU, squared ReLU.
    bias : bool, default True
        Whether inputs and neurons get one entry more, 1 and b.
    draw : {"orthogonal", "gaussian", "sobol", "hadamard", "fastfood"}, default "orthogonal"
        How G is drawn; see `make_projection`. The mean above is exact for ``"gaussian"`` and
        ``"orthogonal"``, and nearly so for the others.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the buffers.

    Raises
    ------
    ValueError
        If a size is below one, the order is not 0, 1 or 2, or the draw is unknown.

    References
    ----------
    Cho, Saul: Kernel Methods for Deep Learning, 2009.

    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network Kernels, 2024,
    arXiv 2310.13225.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import ArcCosineFeatures
    >>> phi = ArcCosineFeatures(3, 20000, draw="gaussian", generator=0)
    >>> x, w, b = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 0.0]]), torch.zeros(1)
    >>> estimate = phi(x) @ phi.dual(w, b).mT
    >>> bool((estimate / phi.expected(x, w, b) - 1).abs() < 0.05)
    True
    """

    lengths: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_features: int,
        *,
        order: int = 1,
        bias: bool = True,
        draw: str = "orthogonal",
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int("in_features", in_features)
        self.num_features = check_int("num_features", num_features)
        if check_int("order", order, least=0) > 2:
            raise ValueError(f"order: expected 0, 1 or 2, got {order}")
        self.order = int(order)
        self.bias = bool(bias)
        generator = check_generator(generator)
        self.projection = make_projection(
            draw,
            self.num_features,
            self.in_features + self.bias,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.draw = draw
        # Only structured rows have a fixed length; the others would store ones.
        lengths = torch.empty(num_features, device=device, dtype=dtype)
        self.register_buffer("lengths", lengths if draw == "hadamard" else None)
        self._reset_lengths(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""
        generator = check_generator(generator)
        self.projection.reset_parameters(generator)
        self._reset_lengths(generator)

    def _reset_lengths(self, generator: RandomSource | None) -> None:
        if self.lengths is not None and not self.lengths.is_meta:
            self.lengths.copy_(self.projection.draw_lengths(generator))

    def _augment(self, x: Tensor, last: Tensor | None) -> Tensor:
        return x if last is None else torch.cat([x, last.unsqueeze(-1)], dim=-1)

    def _features(self, u: Tensor) -> Tensor:
        z = self.projection(u)  # (..., m)
        # Squares of half-precision products leave its range.
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if self.lengths is not None:
            z = z * self.lengths
        # The sign of a ReLU is the step, with a gradient: zero.
        z = z.relu().sign() if self.order == 0 else z.relu().pow(self.order)
        return (z * self.num_features**-0.5).to(u.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, next(self.buffers()), x)
        return self._features(self._augment(x, torch.ones_like(x[..., 0]) if self.bias else None))

    def _neurons(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Check neurons and augment them, shape (out, in_features + 1)."""
        check_tensor("weight", weight, ndim=2)
        check_last_dim("weight", weight, self.in_features)
        if bias is not None and (not self.bias or bias.shape != weight.shape[:1]):
            raise ValueError(
                f"bias: expected shape {tuple(weight.shape[:1]) if self.bias else None}, got "
                f"{tuple(bias.shape)} beside weight {tuple(weight.shape)} with bias={self.bias}"
            )
        if not self.bias:
            return weight
        return self._augment(weight, torch.zeros_like(weight[:, 0]) if bias is None else bias)

    def dual(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map neurons to the features of their vectors ``(w, b)``.

        Parameters
        ----------
        weight : Tensor of shape (out, in_features)
            One neuron a row.
        bias : Tensor of shape (out,), optional
            Their biases; None means zeros.

        Returns
        -------
        Tensor of shape (out, num_features)
            The neurons' side: ``phi(x) @ phi.dual(weight, bias).mT`` estimates `expected`.

        Raises
        ------
        ValueError
            If the shapes do not fit, or a bias comes to a map with ``bias=False``.
        """
        return self._features(self._neurons(weight, bias))

    def expected(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the arc-cosine kernel that the features estimate, in closed form.

        Computed in float64. Nearly collinear vectors are taken as collinear below an angle of
        about 1e-8, an error of as much for order 0 and of none that shows for the others.

        Parameters
        ----------
        x : Tensor of shape (..., in_features)
            Inputs.
        weight : Tensor of shape (out, in_features)
            One neuron a row.
        bias : Tensor of shape (out,), optional
            Their biases; None means zeros.

        Returns
        -------
        Tensor of shape (..., out)
            The kernel between every input and every neuron.

        Raises
        ------
        ValueError
            If the shapes do not fit, or a bias comes to a map with ``bias=False``.
        """
        check_last_dim("x", x, self.in_features)
        v = self._neurons(weight, bias).double()
        u = self._augment(x, torch.ones_like(x[..., 0]) if self.bias else None).double()
        with torch.autocast(x.device.type, enabled=False):
            uv = F.linear(u, v)  # (..., out)
        uu = u.square().sum(-1, keepdim=True)  # (..., 1)
        return arc_cosine_kernel(self.order, uu, v.square().sum(-1), uv).to(x.dtype)

    def _config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "num_features": self.num_features,
            "order": self.order,
            "bias": self.bias,
            "draw": self.draw,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is drawn; the numbers come from the state dict.
        return cls(**config, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the sizes and options for ``repr``."""
        return (
            f"in_features={self.in_features}, num_features={self.num_features}, "
            f"order={self.order}, bias={self.bias}"
        )
