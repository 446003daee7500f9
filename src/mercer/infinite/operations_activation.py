"""Activations in a wide network: their duals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from .._core.activation import Activation
from ..kernels.activations import PolynomialActivation, PowerActivation
from ..kernels.dual import Dual, dual
from ..kernels.dual_closed_forms import closed_form
from ..kernels.dual_mesh import Profile, make_mesh
from ..kernels.surrogate import SurrogateActivation, surrogate_derivative
from .gaussian_mean import gaussian_mean
from .layout import Full, same_positions
from .operation import Operation, Place, State


@final
@dataclass(frozen=True)
class Slope:
    r"""The function :math:`\psi(z) = z \phi'(z)`, which a trained gain makes of an activation.

    Attributes
    ----------
    function : callable
        The activation.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        """Differentiate by autograd, once more where that is wanted."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().clone().requires_grad_()
            value = self.function(leaf * 1)
            found = None
            if value.requires_grad:
                (found,) = torch.autograd.grad(
                    value.sum(), leaf, create_graph=z.requires_grad, allow_unused=True
                )
            return torch.zeros_like(z) if found is None else z * found


@final
@dataclass(frozen=True)
class Pointwise(Operation):
    r"""An activation: its dual.

    A trained gain g of a normalisation that comes before, with only linear steps between, has the
    tangent z itself, which depends on the slope that the activation has at z: it adds
    :math:`E[\psi(u) \psi(v)]` with :math:`\psi(z) = z \phi'(z)`, not :math:`\dot K S`.

    Attributes
    ----------
    activation : Activation
        The function.
    gains : tuple of tuple of int
        For each trained gain before it, the position axes along which it has factors of its own.
    """

    activation: Activation
    gains: tuple[tuple[int, ...], ...] = ()

    @property
    def dual(self) -> Dual:
        """The dual of the activation; of what is computed forward, where a surrogate learns."""
        function = self.activation.function
        if isinstance(function, SurrogateActivation):
            return dual(function.activation)
        return dual(self.activation)

    @property
    def gain(self) -> Dual:
        """The dual of what a trained gain makes of it."""
        form = closed_form(self.activation)
        made: Any = Slope(self.activation.function)
        if isinstance(form, PowerActivation):
            k = form.order
            made = PolynomialActivation((0.0,))
            if k:
                made = PowerActivation(k, k * form.positive, k * form.negative)
        elif isinstance(form, PolynomialActivation):
            made = PolynomialActivation(tuple(k * c for k, c in enumerate(form.coefficients)))
        return dual(Activation(None, made))

    @property
    def slope(self) -> Dual | None:
        """The dual of what autograd takes for its derivative, where that is another function.

        Of a function that jumps it sees the pieces alone, of a surrogate the surrogate.
        """
        function = self.activation.function
        if isinstance(function, SurrogateActivation):
            return dual(surrogate_derivative(function.surrogate))
        form = closed_form(self.activation)
        if isinstance(form, PowerActivation):
            jumps = form.order == 0 and form.positive != form.negative
            return dual(PolynomialActivation((0.0,))) if jumps else None
        if form is not None:
            return None
        profile = Profile(self.activation.function)
        return dual(profile.slope) if make_mesh(profile, 16.0).jumps else None

    def apply(self, states: Sequence[State], place: Place) -> State:
        """Apply the dual."""
        ((s, t),) = states
        on_line = place.same and not any(place.full)
        q11, q22 = (s, s) if on_line else place.variances(self.inputs[0], place.full)

        def pair(rule: Dual) -> tuple[Tensor, Tensor]:
            return rule.diagonal(s) if on_line else rule(q11, q22, s)

        value, slope = pair(self.dual)
        if t is None:
            return value, None
        pieces = self.slope
        slope = slope if pieces is None else pair(pieces)[0]
        # What gains have added to T before is S, at their own positions.
        for axes in self.gains:
            t = t - same_positions(s, place.full, axes)
        t = slope * t
        if self.gains:
            gain = pair(self.gain)[0]
            for axes in self.gains:
                t = t + same_positions(gain, place.full, axes)
        return value, t

    def wants(self, full: Full) -> tuple[Full, ...]:
        """Take the same layout."""
        return (full,)

    def wants_self(self) -> tuple[int, ...]:
        """Take the variances of its input."""
        return self.inputs

    def mean(self, means: Sequence[Tensor | None], place: Place) -> Tensor | None:
        """Take the mean of the function of a normal variable."""
        q = place.variances(self.inputs[0], (False,) * len(self.positions))[0]
        return gaussian_mean(self.activation, q)

    @property
    def cost(self) -> str:
        """How its dual is computed."""
        return f"{self.activation!r}: {self.dual.method}"
