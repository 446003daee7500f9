"""Activations by name, by torch module or by callable: one place that resolves them."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# Functions, not lambdas, so that whatever holds an activation can be pickled.
def _gaussian(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2)


def _gelu_tanh(z: Tensor) -> Tensor:
    return F.gelu(z, approximate="tanh")


def _quick_gelu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(1.702 * z)


def _identity(z: Tensor) -> Tensor:
    return z


def _step(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "celu": F.celu,
    "elu": F.elu,
    "gelu": F.gelu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "silu": F.silu,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "sign": torch.sign,
    "softsign": F.softsign,
    "step": _step,
    "tanhshrink": F.tanhshrink,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "erf": torch.erf,
    "abs": torch.abs,
    "square": torch.square,
    "gaussian": _gaussian,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "identity": _identity,
}

# Transformers has its own classes for activations that torch.nn has too.
_BY_FOREIGN_CLASS = {
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "QuickGELUActivation": "quick_gelu",
    "SiLUActivation": "silu",
    "MishActivation": "mish",
    "LinearActivation": "identity",
}


@dataclass(frozen=True)
class Activation:
    """An elementwise function with the text that brings it back.

    Attributes
    ----------
    spec : str or None
        A name such as ``"gelu"`` or a torch module such as ``"LeakyReLU(negative_slope=0.1)"``;
        None for a callable of the user's, which cannot be saved.
    function : callable
        From tensor to tensor, elementwise.
    """

    spec: str | None
    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    def __repr__(self) -> str:
        return self.spec or getattr(self.function, "__name__", type(self.function).__name__)

    def to_spec(self) -> str:
        """Return the text that `resolve_activation` reads back.

        Raises
        ------
        ValueError
            If the activation is a callable without a name.
        """
        if self.spec is None:
            raise ValueError(
                f"activation: the callable {self!r} has no name and cannot be saved; "
                f"use one of {sorted(BY_NAME)} or a module of torch.nn"
            )
        return self.spec


def from_module_text(text: str) -> nn.Module | None:
    """Build the torch.nn activation that its repr describes; only literals are read."""
    match = re.fullmatch(r"([A-Z]\w*)\((.*)\)", text, flags=re.DOTALL)
    found = getattr(nn.modules.activation, match[1], None) if match else None
    if match is None or not (isinstance(found, type) and issubclass(found, nn.Module)):
        return None
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        return found(*args, **kwargs).eval()  # RReLU is random in training
    except (AssertionError, SyntaxError, TypeError, ValueError):
        return None


def _is_elementwise(function: Callable[[Tensor], Tensor]) -> bool:
    """Whether f of a vector is the vector of f, tried on a few numbers."""
    with torch.no_grad(), torch.device("cpu"):  # whatever the default is
        z = torch.tensor([-1.7, -0.3, 0.0, 0.4, 2.1], dtype=torch.float64)
        whole = function(z.clone())  # a clone, because it may work in place
        if not isinstance(whole, Tensor) or whole.shape != z.shape:
            return False
        parts = torch.cat([function(z[i : i + 1].clone()) for i in range(len(z))])
    return torch.allclose(whole, parts, rtol=1e-6, atol=1e-9, equal_nan=True)


def resolve_activation(activation: "str | nn.Module | Callable[[Tensor], Tensor]") -> Activation:
    """Find an activation by name, torch module or callable.

    Parameters
    ----------
    activation : str, Module or callable
        A name (``"gelu"``), the text of a torch module (``"ELU(alpha=0.5)"``), a module of
        ``torch.nn`` or any elementwise function of a tensor.

    Returns
    -------
    Activation
        The function with the text that brings it back.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the name is unknown, or the function is not elementwise or has parameters.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation in BY_NAME:
            return Activation(activation, BY_NAME[activation])
        module = from_module_text(activation)
        if module is None:
            raise ValueError(
                f"activation: unknown {activation!r}; expected one of {sorted(BY_NAME)}, "
                "a module of torch.nn, or an elementwise callable"
            )
        activation = module
    if not callable(activation):
        raise TypeError(
            "activation: expected a name, a module of torch.nn or an elementwise callable, "
            f"got {type(activation).__name__}"
        )
    for name, function in BY_NAME.items():
        same = (function, getattr(torch, name, None), getattr(F, name, None))
        if any(activation is other for other in same):
            return Activation(name, function)
    spec = None
    if isinstance(activation, nn.Module):
        if next(activation.parameters(), None) is not None:
            raise ValueError(
                f"activation: {type(activation).__name__} has parameters; "
                "pass an elementwise function without any"
            )
        kind = type(activation)
        if isinstance(activation, nn.Identity):
            return resolve_activation("identity")
        if kind.__module__ == nn.modules.activation.__name__:
            text = repr(activation).replace("inplace=True", "inplace=False")
            rebuilt = from_module_text(text)
            if rebuilt is not None:
                spec, activation = text, rebuilt
        elif kind.__name__ in _BY_FOREIGN_CLASS:
            return resolve_activation(_BY_FOREIGN_CLASS[kind.__name__])
    try:
        elementwise = _is_elementwise(activation)
    except Exception as error:
        raise ValueError(
            f"activation: {activation!r} fails on a float64 vector: {error}"
        ) from error
    if not elementwise:
        raise ValueError(f"activation: {activation!r} is not an elementwise function")
    return Activation(spec, activation)
