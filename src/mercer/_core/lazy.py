"""Rooms that load on first use (PEP 562), so that ``import mercer`` stays light."""

import importlib
from collections.abc import Callable
from types import ModuleType


def lazy_rooms(
    package: str, rooms: tuple[str, ...]
) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """Make a package's ``__getattr__`` and ``__dir__`` that import subpackages on first use.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    rooms : tuple of str
        Names of subpackages.

    Returns
    -------
    tuple of callables
        ``(__getattr__, __dir__)``.
    """

    def getattr_(name: str) -> ModuleType:
        if name in rooms:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *rooms})

    return getattr_, dir_
