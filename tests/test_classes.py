"""Classes are abstract or final, and every concrete noun passes its contract."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from torch import nn

import mercer
from docs.surface import public_names, rooms
from mercer.features import FeatureMap
from mercer.kernels import Kernel
from mercer.machines import Machine

TESTS = Path(__file__).parent
# Written by Python or by abc into every class.
MACHINERY = {
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__abstractmethods__",
    "__parameters__",
    "__orig_bases__",
    "__static_attributes__",
    "__firstlineno__",
    "__init__",  # a constructor is not a method that a caller relies on
}
# Written by dataclasses into every class anew, because it has fields of its own.
RECORD = {"__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__"}


def own_classes() -> list[type]:
    """Return every class that is defined in Mercer."""
    found = []
    for info in pkgutil.walk_packages(mercer.__path__, "mercer."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == info.name:
                found.append(kind)
    return found


def is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "mercer"


def broken_laws(kind: type) -> list[str]:
    """Say where a class inherits from a concrete one, or overrides what is implemented."""
    broken = []
    for base in kind.__mro__[1:]:
        if not is_own(base):
            continue
        if not inspect.isabstract(base):
            broken.append(f"{kind.__name__} inherits from {base.__name__}, which is final")
        for name, value in vars(base).items():
            method = inspect.isroutine(value) or isinstance(
                value, property | classmethod | staticmethod
            )
            implemented = method and not getattr(value, "__isabstractmethod__", False)
            record = name in RECORD and all(map(dataclasses.is_dataclass, (base, kind)))
            if implemented and name in vars(kind) and name not in MACHINERY and not record:
                broken.append(f"{kind.__name__} overrides {base.__name__}.{name}")
    return broken


@pytest.mark.parametrize("kind", own_classes(), ids=lambda kind: kind.__name__)
def test_abstract_or_final(kind):
    assert broken_laws(kind) == []


def test_the_test_sees_broken_laws():
    class Concrete(FeatureMap):
        __module__ = "mercer.features.concrete"

        def forward(self, x):
            return x

        def reset_parameters(self, generator=None):
            pass

        def _config(self):
            return {}

        @classmethod
        def _from_config(cls, config):
            return cls()

        def to_config(self):
            return {}

    class Further(Concrete):
        def forward(self, x):
            return 2 * x

    assert broken_laws(Concrete) == ["Concrete overrides Saveable.to_config"]
    assert "Further inherits from Concrete, which is final" in broken_laws(Further)
    assert "Further overrides Concrete.forward" in broken_laws(Further)


def nouns() -> list[str]:
    """Return the public classes that have a contract: kernels, maps, layers and machines."""
    names = []
    for room in rooms():
        module = importlib.import_module(f"mercer.{room}")
        for name in public_names(room):
            kind = getattr(module, name)
            if not inspect.isclass(kind) or inspect.isabstract(kind):
                continue
            # The contract of kernels speaks of vectors; items of a finite set have their own tests.
            if issubclass(kind, Kernel) and kind.event_ndim == 0:
                continue
            nouns = FeatureMap | Kernel | Machine
            if issubclass(kind, nouns) or (room == "nn" and issubclass(kind, nn.Module)):
                names.append(name)
    return names


def under_contract() -> set[str]:
    """Return every name that the body of a contract's subclass mentions, over all tests."""
    names = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base).endswith("Contract") for base in node.bases
            ):
                names |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return names


@pytest.mark.parametrize("name", nouns())
def test_every_noun_is_under_contract(name):
    assert name in under_contract(), f"no subclass of a contract in tests/ makes a {name}"
