"""What a kernel was built with: parameters for scikit-learn, a config for files, a repr."""

import abc
import copyreg
import inspect
from typing import Any, Self

import torch
from torch import Tensor

from .._core.saving import Saveable, class_in
from .hyperparameter import plain_value
from .stable_state import HASHING, stable


class Specification(Saveable, abc.ABC):
    """A module that keeps its constructor arguments by identity and can be built again.

    Abstract. A subclass passes its constructor arguments on by name.

    Parameters
    ----------
    **arguments : object
        The constructor's arguments, by name.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = arguments

    @abc.abstractmethod
    def forward(self, *args: Any) -> Tensor:
        """Evaluate the module."""

    # -- the specification -----------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor arguments, as scikit-learn asks for them.

        Parameters
        ----------
        deep : bool, default True
            Whether to add those of the kernels inside, as ``left__lengthscale``.

        Returns
        -------
        dict
            Arguments by name.
        """
        found = dict(self._arguments)
        if deep:
            for name, value in self._arguments.items():
                if isinstance(value, Specification):
                    found |= {f"{name}__{k}": v for k, v in value.get_params().items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Build the kernel anew with some arguments changed.

        Parameters
        ----------
        **params : object
            New arguments; ``left__lengthscale`` reaches into a kernel inside.

        Returns
        -------
        Kernel
            The kernel itself. Values learnt since its construction are gone, and so is what
            else was done to it (``requires_grad_``, ``to``, hooks). A refused change of this
            kernel's own arguments leaves it whole; those of kernels inside come first.

        Raises
        ------
        ValueError
            If there is no such argument.
        """
        changed, inner = {}, {}
        for key, value in params.items():
            name, _, rest = key.partition("__")
            if name not in self._arguments or (
                rest and not isinstance(params.get(name, self._arguments[name]), Specification)
            ):
                raise ValueError(
                    f"Invalid parameter {key!r} for {type(self).__name__}; "
                    f"expected one of {sorted(self.get_params())}"
                )
            if rest:
                inner.setdefault(name, {})[rest] = value
            else:
                changed[name] = value
        arguments = {**self._arguments, **changed}
        for name, values in inner.items():
            arguments[name].set_params(**values)
        built = type(self)(**arguments)  # aside, as it may be refused
        vars(self).clear()
        vars(self).update(vars(built))
        return self

    def to_spec(self) -> Self:
        """Make a new kernel whose constructor arguments are the current values.

        Returns
        -------
        Kernel
            A kernel that scikit-learn clones with the values of this one.
        """
        return type(self)(**self._current())

    def _current(self) -> dict[str, Any]:
        """Return the constructor arguments, with the values that the hyperparameters have now."""
        found = {}
        for name, value in self._arguments.items():
            now = getattr(self, name, value)
            if isinstance(now, Specification):
                now = now.to_spec()
            elif isinstance(now, Tensor) and f"raw_{name}" in self._parameters:
                now = value if getattr(self, "_waits_for_data", False) else plain_value(now)
            elif isinstance(now, torch.nn.Parameter):
                now = plain_value(now)
            found[name] = now
        return found

    # -- saving ----------------------------------------------------------------------------------

    def _config(self) -> dict[str, Any]:
        return {
            name: _encode(value)
            for name, value in self._current().items()
            if name not in ("device", "dtype")
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: _decode(value) for name, value in config.items()})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as modules do, but so that joblib's hash of equal kernels is the same.

        scikit-learn compares parameters by that hash, and caches the fits of a pipeline by it.
        """
        if protocol != HASHING:
            return super().__reduce_ex__(protocol)
        return copyreg.__newobj__, (type(self),), stable(vars(self))  # type: ignore[attr-defined]

    # -- repr ------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Write the constructor call that gives this kernel's current values."""
        defaults = {
            name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()
        }
        parts = []
        for name, value in self._current().items():
            default = defaults.get(name, inspect.Parameter.empty)
            if name in ("device", "dtype") and value is None:
                continue
            if default is inspect.Parameter.empty:
                parts.append(_write(value))
            elif isinstance(value, Tensor) or value != default:
                parts.append(f"{name}={_write(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _write(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if any(c in text for c in ".en") else f"{text}.0"
    if isinstance(value, list):
        shown = [_write(v) for v in value[:4]]
        return f"[{', '.join(shown)}{f', ... {len(value)} in all' if len(value) > 4 else ''}]"
    if isinstance(value, Tensor):
        return f"<{'x'.join(map(str, value.shape))} matrix>"
    return repr(value)


def _encode(value: Any) -> Any:
    if hasattr(value, "to_config"):
        return value.to_config()
    if isinstance(value, Tensor):  # its numbers are in the state dict
        return {"shape": list(value.shape)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "class" in value:
        found = class_in(value)
        # A kernel inside, or a plain record that knows how it is written.
        return (
            found.from_config(value)
            if hasattr(found, "from_config")
            else Specification.build(value)
        )
    if isinstance(value, dict):
        return torch.zeros(value["shape"], dtype=torch.float64)
    return value
