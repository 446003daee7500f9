"""One total order of rooms: a room imports only from rooms before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.surface import ORDER, SOURCE

FILES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path, source: str) -> Iterator[tuple[str, int]]:
    """Yield each module of Mercer that a file imports, anywhere in it, with the line."""
    package = ["mercer", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from mercer import nn` names a room in the alias.
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def wrong_imports(path: Path, source: str) -> list[str]:
    parts = path.relative_to(SOURCE).parts
    # The front door itself stands on the ground floor only.
    here = ORDER.index(parts[0]) if len(parts) > 1 else 0
    wrong = []
    for module, line in imported(path, source):
        head, _, rest = module.partition(".")
        room = rest.partition(".")[0]
        if head == "mercer" and room in ORDER and ORDER.index(room) > here:
            wrong.append(f"{'/'.join(parts)}:{line} imports {room}")
    return wrong


def test_every_room_has_its_place():
    found = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert found - set(ORDER) == set()
    loose = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert loose == set(), "a file outside the rooms"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path):
    assert wrong_imports(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "source", "wrong"),
    [
        ("features/x.py", "from ..nn import SNNK", 1),
        ("features/x.py", "from ..nn.snnk import SNNK", 1),
        ("features/x.py", "from .. import nn, linalg", 1),
        ("features/x.py", "import mercer.convert.bundle", 1),
        ("features/x.py", "from mercer import convert", 1),
        ("features/x.py", "def f():\n    from mercer.nn import SNNK", 1),
        ("features/x.py", "from . import nn", 0),
        ("features/x.py", "from ..linalg.ridge import Ridge\nfrom torch import nn", 0),
        ("nn/deep/x.py", "from ...features import FeatureMap", 0),
        ("nn/deep/x.py", "from ...convert import bundle", 1),
        ("linalg/x.py", "from ..kernels import Kernel", 1),
        ("cli/x.py", "from ..report import page\nfrom .. import nn", 0),
        ("__init__.py", "from .nn import SNNK", 1),
        ("__init__.py", "from ._core.config import config as config", 0),
    ],
)
def test_the_test_sees_wrong_imports(place, source, wrong):
    assert len(wrong_imports(SOURCE / place, source)) == wrong
