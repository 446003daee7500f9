"""The noun Machine: an estimator with scikit-learn's interface that saves itself without pickle."""

import abc
import os
from typing import Any, Self

from sklearn.base import BaseEstimator
from torch import Tensor

from .._core.saving import load_state, save_state
from .saved_values import class_of, decode, encode, name_of


class Machine(BaseEstimator, abc.ABC):
    """An estimator of scikit-learn's kind, on NumPy arrays and torch tensors.

    Abstract. A subclass keeps its constructor arguments as they come and what it learns in
    attributes that end in an underscore (or begin with one): numbers, texts, arrays, tensors,
    kernels, feature maps, containers and frozen dataclasses of these. All of them are written by
    `save_pretrained`.
    """

    @abc.abstractmethod
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a folder, atomically, no pickle.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing.

        Raises
        ------
        TypeError
            If a constructor argument is of a kind that cannot be written, such as a function.
        """
        tensors: dict[str, Tensor] = {}
        save_state(folder, _encode(self, "", tensors), tensors)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read an estimator that `save_pretrained` wrote.

        Parameters
        ----------
        folder : str or path
            The folder.

        Returns
        -------
        Machine
            The estimator, as it was; tensors are on the CPU.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved estimator.
        ValueError
            If it holds something else than an estimator of this class.
        """
        try:
            config, state = load_state(folder)
            if "values" not in config:
                raise ValueError(f"folder: {folder} holds a {config.get('class')}, not a machine")
            found = _decode(config, state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"folder: {folder} holds a config that no machine wrote: "
                f"{type(error).__name__} {error}"
            ) from None
        if not isinstance(found, cls):
            raise ValueError(
                f"folder: {folder} holds a {type(found).__name__}, not a {cls.__name__}"
            )
        return found


def _encode(machine: Machine, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write an estimator with the estimators inside."""

    def other(value: Any, name: str) -> Any:
        return _encode(value, f"{name}.", tensors) if isinstance(value, Machine) else None

    values = {k: encode(v, f"{path}{k}", tensors, other) for k, v in vars(machine).items()}
    return {"kind": "machine", "class": name_of(type(machine)), "values": values}


def _decode(config: dict[str, Any], tensors: dict[str, Tensor]) -> Machine:
    """Read what `_encode` wrote."""

    def other(value: dict[str, Any]) -> Any:
        return _decode(value, tensors) if value.get("kind") == "machine" else None

    kind = class_of(config["class"])
    if not issubclass(kind, Machine):
        raise ValueError(f"config: {config['class']!r} is no machine")
    made = kind.__new__(kind)
    vars(made).update({k: decode(v, tensors, other) for k, v in config["values"].items()})
    return made
