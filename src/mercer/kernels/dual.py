"""Dual activations: what a wide layer does to the covariance of its inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from .._core.activation import Activation, resolve_activation
from .._core.checks import check_tensor
from .dual_closed_forms import closed_diagonal, closed_dual, closed_form
from .dual_mesh import Profile, edges_of
from .dual_quadrature import density, reach_for
from .dual_series import Side, series_dual
from .dual_surrogate import closed_slope
from .dual_variance import variance_mean
from .surrogate import SurrogateActivation, surrogate_derivative


def _hardsigmoid_slope(z: Tensor) -> Tensor:
    return (z.abs() < 3).to(z.dtype) / 6


# The backward of torch's hardsigmoid multiplies by a sixth in single precision.
_SLOPES = {"hardsigmoid": _hardsigmoid_slope, "Hardsigmoid()": _hardsigmoid_slope}


def _product(left: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor], x: Tensor):
    return left(x) * right(x)


@final
@dataclass(frozen=True)
class Dual:
    r"""The dual of an activation, made by `dual`.

    .. math:: K = E[\phi(u)\phi(v)], \quad \dot K = E[\phi'(u)\phi'(v)], \quad
        (u, v) \sim N\left(0, \begin{pmatrix} q_{11} & q_{12} \\ q_{12} & q_{22}
        \end{pmatrix}\right)

    Attributes
    ----------
    activation : Activation
        The function :math:`\phi`.
    surrogate : str, callable or None
        What the column takes in place of :math:`\phi'`.
    derivative : callable or None
        The derivative, where it was given.
    method : {"closed form", "series", "quadrature"}
        How values are computed; the first two of K, the last one where a jump meets a surrogate
        without a closed form.
    """

    activation: Activation
    surrogate: str | Callable[[Tensor], Tensor] | None = None
    derivative: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def _form(self) -> Any:
        return closed_form(self.activation) if self.derivative is None else None

    @property
    def _sides(self) -> tuple[Side, Side]:
        slope = self.derivative or _SLOPES.get(self.activation.spec or "")
        profile = Profile(self.activation.function, slope)
        chosen = None if self.surrogate is None else surrogate_derivative(self.surrogate)
        return Side(profile), Side(profile, None if chosen is None else Profile(chosen))

    @property
    def method(self) -> str:
        """How values are computed."""
        form = self._form
        if form is None:
            return "series"
        if self.surrogate is None:
            return "closed form"
        rule = closed_slope(form, self.surrogate)
        if rule is None:
            return "series"
        return "closed form" if type(rule).__name__ == "_Erfs" else "quadrature"

    def __repr__(self) -> str:
        """Say the activation, the surrogate and the method."""
        extra = "" if self.surrogate is None else f", surrogate={self.surrogate!r}"
        return f"Dual({self.activation!r}{extra}, method={self.method!r})"

    def __call__(self, q11: Tensor, q22: Tensor, q12: Tensor) -> tuple[Tensor, Tensor]:
        """Compute K and Kdot from variances and covariances.

        Parameters
        ----------
        q11, q22, q12 : Tensor of shape (...)
            Variance of u (the row), variance of v (the column) and their covariance, of shapes
            that broadcast: ``(n, 1)``, ``(1, m)`` and ``(n, m)`` for a matrix.

        Returns
        -------
        tuple of Tensor of shape (...)
            K and Kdot, of the broadcast shape and the dtype of the inputs.

        Raises
        ------
        TypeError
            If one is not a tensor of floating-point numbers.
        ValueError
            If the shapes do not broadcast, or the activation grows too fast for its mean to exist.
        """
        given = {"q11": q11, "q22": q22, "q12": q12}
        for name, q in given.items():
            check_tensor(name, q)
        try:
            shape = torch.broadcast_shapes(q11.shape, q22.shape, q12.shape)
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {tuple(q.shape)}" for name, q in given.items())
            raise ValueError(f"q11, q22, q12: shapes do not broadcast, got {shapes}") from error
        dtype = torch.promote_types(torch.promote_types(q11.dtype, q22.dtype), q12.dtype)
        # Half precision has too few digits for what cancels.
        within = torch.promote_types(dtype, torch.float32)
        value, slope = self._pair(*(q.to(within) for q in (q11, q22, q12.expand(shape))))
        return value.expand(shape).to(dtype), slope.expand(shape).to(dtype)

    def _pair(self, q11: Tensor, q22: Tensor, q12: Tensor) -> tuple[Tensor, Tensor]:
        form = self._form
        if form is None:
            return series_dual(*self._sides, q11, q22, q12)
        if self.surrogate is None:
            return closed_dual(form, q11, q22, q12)
        value, _ = closed_dual(form, q11, q22, q12)
        rule = closed_slope(form, self.surrogate)
        if rule is not None:
            return value, rule(q11, q22, q12)
        return value, series_dual(*self._sides, q11, q22, q12)[1]

    def diagonal(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Compute K and Kdot of coinciding inputs, from means of one variable.

        Parameters
        ----------
        q : Tensor of shape (...)
            The variance: q11 = q22 = q12 = q.

        Returns
        -------
        tuple of Tensor of shape (...)
            K and Kdot.

        Raises
        ------
        TypeError
            If it is not a tensor of floating-point numbers.
        """
        check_tensor("q", q)
        within = q.to(torch.promote_types(q.dtype, torch.float32))
        form = self._form
        if form is not None and self.surrogate is None:
            value, slope = closed_diagonal(form, within)
        elif form is not None and (rule := closed_slope(form, self.surrogate)) is not None:
            value, slope = closed_diagonal(form, within)[0], rule(within, within, within)
        else:
            value, slope = self._means(within)
        return value.to(q.dtype), slope.to(q.dtype)

    def _means(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """K and Kdot of coinciding inputs by quadrature."""
        left, right = self._sides
        edges = partial(edges_of, (left.profile,))
        value = variance_mean(partial(_product, left.profile, left.profile), edges, q)
        first, second = left.function(1), right.function(1)
        if right.surrogate is not None:
            edges = partial(edges_of, (left.profile, right.surrogate))
        slope = variance_mean(partial(_product, first, second), edges, q)
        largest = float(q.detach().amax().clamp(min=0).sqrt()) if q.numel() else 1.0
        for place, height in left.jumps(reach_for(largest)):
            if self.surrogate is None:
                return value, torch.full_like(value, math.inf)
            s = torch.where(q > 0, q, 1.0).sqrt()
            at = torch.tensor([place], dtype=torch.float64, device=q.device)
            there = second(at)[0].to(q.dtype)
            slope = slope + torch.where(q > 0, height * there * density(place / s) / s, 0.0)
        return value, slope


def dual(
    activation: str | nn.Module | Callable[[Tensor], Tensor],
    derivative: Callable[[Tensor], Tensor] | None = None,
    *,
    surrogate: str | Callable[[Tensor], Tensor] | None = None,
) -> Dual:
    r"""Make the dual of an activation: covariance in, covariance and its slope out.

    .. math:: K = E[\phi(u)\phi(v)], \qquad
        \dot K = E[\phi'(u)\phi'(v)] = \partial K / \partial q_{12}, \qquad
        (u, v) \sim N\left(0, \begin{pmatrix} q_{11} & q_{12} \\ q_{12} & q_{22}
        \end{pmatrix}\right)

    This is what a wide layer does to the kernel of its inputs: K makes the NNGP kernel, Kdot
    beside it the neural tangent kernel.

    =========================== ==============================================================
    Method                      Activations
    =========================== ==============================================================
    closed form, derivatives    relu, leaky_relu, abs, step, sign, `PowerActivation`,
    by hand                     ``nn.LeakyReLU(...)``, ``nn.RReLU(...)``
    closed form                 identity, square, `PolynomialActivation`, `HermiteActivation`,
                                erf, `ErfActivation`, gelu, sin, cos, `SineActivation`, exp,
                                `ExponentialActivation`, gaussian, `GaussianActivation`,
                                `GaborActivation`
    Hermite series              tanh, sigmoid, silu, softplus, mish, ELU, SELU, hardtanh and
                                any other name, module or function; quadrature for entries
                                where the bound on what is left out is too large
    =========================== ==============================================================

    The series is computed in float64, its error is bounded by 1e-13 of
    ``sqrt(E[phi(u)^2] E[phi(v)^2])``; a function that cannot be resolved raises. Where kinks slow
    the series down (nearly collinear inputs), an entry costs milliseconds rather than microseconds.

    First derivatives of K are right everywhere, also where inputs coincide or are zero; those of
    Kdot are finite everywhere, and zero where they would be infinite (a kink under collinear
    inputs). For an activation with a jump (sign, step, hardshrink) Kdot is the formal derivative
    of K: infinite where the inputs coincide, finite apart; K alone, and its gradient, stay finite.
    A surrogate makes Kdot finite.

    Parameters
    ----------
    activation : str, Module or callable
        Anything elementwise: a name such as ``"gelu"``, a module such as ``nn.ELU(0.5)``, a
        function, a `SurrogateActivation` (which brings its surrogate).
    derivative : callable, optional
        The derivative of a function that autograd cannot differentiate.
    surrogate : str or callable, optional
        What the column takes in place of the derivative, see `surrogate_derivative`; then
        ``Kdot = E[phi'(u) surrogate(v)]`` and is not symmetric. K is not changed.

    Returns
    -------
    Dual
        A callable ``(q11, q22, q12) -> (K, Kdot)`` with `Dual.diagonal`.

    Raises
    ------
    TypeError, ValueError
        If the activation or the surrogate is unknown, or not elementwise.

    References
    ----------
    Cho, Saul: Kernel Methods for Deep Learning, 2009.

    Daniely, Frostig, Singer: Toward Deeper Understanding of Neural Networks, 2016,
    arXiv 1602.05897.

    Jacot, Gabriel, Hongler: Neural Tangent Kernel, 2018, arXiv 1806.07572.

    Eilers, Memmesheimer, Goedeke: A generalized neural tangent kernel for surrogate gradient
    learning, 2024, arXiv 2405.15539.

    Examples
    --------
    >>> import torch
    >>> one, half = torch.tensor(1.0), torch.tensor(0.5)
    >>> value, slope = dual("relu")(one, one, half)
    >>> round(value.item(), 4), round(slope.item(), 4)
    (0.3045, 0.3333)
    >>> dual("tanh")
    Dual(tanh, method='series')
    >>> value, slope = dual("sign", surrogate="erf")(one, one, one)
    >>> round(value.item(), 4), round(slope.item(), 4)
    (1.0, 0.9003)
    """
    found = resolve_activation(activation)
    if isinstance(found.function, SurrogateActivation):
        surrogate = found.function.surrogate if surrogate is None else surrogate
        found = found.function.activation
    if surrogate is not None:
        surrogate_derivative(surrogate)
    if derivative is not None and not callable(derivative):
        raise TypeError(f"derivative: expected a callable, got {type(derivative).__name__}")
    return Dual(found, surrogate, derivative)
