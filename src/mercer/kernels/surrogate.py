"""Surrogate derivatives: what stands in for a derivative that is zero almost everywhere."""

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from .._core.activation import Activation, resolve_activation


# Functions, not lambdas, so that whatever holds a surrogate can be pickled.
def _identity(z: Tensor) -> Tensor:
    return torch.ones_like(z)


def _erf(z: Tensor) -> Tensor:
    return (2 / math.sqrt(math.pi)) * torch.exp(-z.square())


def _sigmoid(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _triangle(z: Tensor) -> Tensor:
    return (1 - z.abs()).clamp(min=0)


def _clipped(z: Tensor) -> Tensor:
    return (z.abs() <= 1).to(z.dtype)


_BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "clipped": _clipped,
    "erf": _erf,
    "identity": _identity,
    "sigmoid": _sigmoid,
    "sine": torch.cos,
    "straight_through": _identity,
    "triangle": _triangle,
}


def surrogate_derivative(
    surrogate: str | Callable[[Tensor], Tensor],
) -> Callable[[Tensor], Tensor]:
    r"""Find a surrogate derivative by name.

    ====================== ====================================================
    Name                   Derivative at z
    ====================== ====================================================
    ``"identity"``         1
    ``"straight_through"`` 1
    ``"clipped"``          1 for ``|z| <= 1``, else 0: that of hardtanh
    ``"triangle"``         ``max(0, 1 - |z|)``
    ``"erf"``              ``2 / sqrt(pi) exp(-z^2)``
    ``"sigmoid"``          ``s(z) (1 - s(z))`` with the logistic function s
    ``"sine"``             ``cos(z)``, for a forward that is periodic
    ====================== ====================================================

    Parameters
    ----------
    surrogate : str or callable
        A name of the table, or the derivative itself: an elementwise function of a tensor.

    Returns
    -------
    callable
        The derivative, elementwise.

    Raises
    ------
    TypeError
        If it is neither a name nor callable.
    ValueError
        If the name is unknown.

    References
    ----------
    Bengio, Leonard, Courville: Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation, 2013, arXiv 1308.3432.

    Examples
    --------
    >>> import torch
    >>> surrogate_derivative("triangle")(torch.tensor([0.0, 0.25, 3.0]))
    tensor([1.0000, 0.7500, 0.0000])
    """
    if isinstance(surrogate, str):
        if surrogate not in _BY_NAME:
            raise ValueError(
                f"surrogate: expected one of {sorted(_BY_NAME)} or a callable, got {surrogate!r}"
            )
        return _BY_NAME[surrogate]
    if not callable(surrogate):
        raise TypeError(f"surrogate: expected a name or a callable, got {type(surrogate).__name__}")
    return surrogate


def _forward(function: Any, derivative: Any, z: Tensor) -> Tensor:
    # A clone, because the function may work in place or return its input.
    return function(z.clone())


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.derivative = inputs[1]
    ctx.save_for_backward(inputs[2])
    ctx.save_for_forward(inputs[2])


def _backward(ctx: Any, *grads: Any) -> Any:
    (z,) = ctx.saved_tensors
    return None, None, grads[0] * ctx.derivative(z)


class _Compiled(torch.autograd.Function):
    """One function forward, another in place of its derivative; torch.compile takes no jvp."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)


class _Replaced(torch.autograd.Function):
    """One function forward, another in place of its derivative."""

    generate_vmap_rule = True
    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (z,) = ctx.saved_tensors
        return tangents[2] * ctx.derivative(z)


@final
class SurrogateActivation(nn.Module):
    r"""An activation that is differentiated by a surrogate.

    .. math:: y = \phi(z), \qquad \frac{\partial L}{\partial z}
        := \frac{\partial L}{\partial y}\,\tilde\phi'(z)

    The values are exactly those of the activation. Reverse and forward mode use the surrogate,
    and differentiate it again for higher derivatives.

    Parameters
    ----------
    activation : str, Module or callable, default "sign"
        What is computed; anything that `dual` takes.
    surrogate : str or callable, default "erf"
        What stands in for the derivative; see `surrogate_derivative`.

    Raises
    ------
    TypeError, ValueError
        If the activation or the surrogate is unknown.

    References
    ----------
    Eilers, Memmesheimer, Goedeke: A generalized neural tangent kernel for surrogate gradient
    learning, NeurIPS 2024, arXiv 2405.15539.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([-0.5, 2.0], requires_grad=True)
    >>> y = SurrogateActivation("sign", "triangle")(z)
    >>> y.sum().backward()
    >>> y.detach(), z.grad
    (tensor([-1.,  1.]), tensor([0.5000, 0.0000]))
    """

    def __init__(
        self,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "sign",
        surrogate: str | Callable[[Tensor], Tensor] = "erf",
    ) -> None:
        super().__init__()
        self._activation = resolve_activation(activation)
        self._derivative = surrogate_derivative(surrogate)
        self.surrogate = surrogate

    @property
    def activation(self) -> Activation:
        """What is computed forward."""
        return self._activation

    def forward(self, z: Tensor) -> Tensor:
        """Apply the activation to every entry."""
        rule = _Compiled if torch.compiler.is_compiling() else _Replaced
        return rule.apply(self._activation.function, self._derivative, z)  # pyright: ignore

    def extra_repr(self) -> str:
        """Describe both functions for ``repr``."""
        name = self.surrogate
        text = repr(name) if isinstance(name, str) else getattr(name, "__name__", repr(name))
        return f"activation={self._activation!r}, surrogate={text}"
