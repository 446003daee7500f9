"""The public face of Mercer, read from the ``__init__`` files; the docs and the tests share it."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "mercer"

# A room imports only from rooms before it.
ORDER = (
    "_core",
    "datasets",
    "linalg",
    "kernels",
    "features",
    "nn",
    "infinite",
    "tangent",
    "curvature",
    "machines",
    "operators",
    "fields",
    "learning",
    "convert",
    "report",
    "cli",
)

# Modules that a room imports only when they are asked for, and that are public themselves.
ON_DEMAND = ("convert.peft",)


def rooms() -> list[str]:
    """Return the public rooms that have moved in, in their order."""
    return [room for room in ORDER[1:] if (SOURCE / room / "__init__.py").exists()]


def public_names(room: str) -> list[str]:
    """Return what a room or a module offers by ``from .file import Name as Name``, sorted.

    What a room imports only when it is asked for stands under ``if typing.TYPE_CHECKING``.
    """
    path = SOURCE.joinpath(*room.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = [node.body for node in tree.body if isinstance(node, ast.If)]
    nodes = [*tree.body, *(node for body in lazy for node in body)]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    return sorted(
        alias.name for node in imports for alias in node.names if alias.asname == alias.name
    )
