"""The state of a module as joblib can hash it: equal modules, equal bytes."""

import copyreg
from typing import Any

import torch
from torch import Tensor, nn

# joblib hashes objects by what this protocol of pickle makes of them; nothing else asks for it.
HASHING = 3


class _Numbers:
    """Stands for a tensor whose own pickle tells where it lies in memory; comes back as it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self.tensor.detach()
        flat = stored.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        learns = isinstance(self.tensor, nn.Parameter), self.tensor.requires_grad
        where = str(stored.device)
        return _tensor, (flat, str(stored.dtype), tuple(stored.shape), where, *learns)


class _Plain:
    """Stands for a module that is no kernel; comes back as it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self.module),), stable(vars(self.module))  # type: ignore[attr-defined]


def _tensor(flat: Any, dtype: str, shape: tuple[int, ...], where: str, *learns: bool) -> Tensor:
    """Make the tensor that `_Numbers` stands for."""
    numbers = torch.from_numpy(flat.copy()).view(getattr(torch, dtype.removeprefix("torch.")))
    found = numbers.reshape(shape).to(where)
    parameter, trains = learns
    return nn.Parameter(found, trains) if parameter else found.requires_grad_(trains)


def stable(value: Any, known: dict[int, Any] | None = None) -> Any:
    """Replace tensors, and modules that are no kernels, in containers by what stands for them.

    Parameters
    ----------
    value : object
        A dictionary, list or tuple, or what is in one.
    known : dict, optional
        What stands for what was met, by identity.

    Returns
    -------
    object
        A copy of the containers; pickled, it comes back with the tensors.
    """
    known = {} if known is None else known
    if isinstance(value, dict):
        return {key: stable(item, known) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(stable(item, known) for item in value)
    if isinstance(value, Tensor) and not value.is_meta:
        return known.setdefault(id(value), _Numbers(value))
    if isinstance(value, nn.Module) and "__reduce_ex__" not in _own(type(value)):
        return known.setdefault(id(value), _Plain(value))
    return value


def _own(kind: type) -> set[str]:
    """Return the names that a class and its bases up to torch's define."""
    return {name for base in kind.__mro__ if base not in nn.Module.__mro__ for name in vars(base)}
