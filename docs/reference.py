"""Write the reference pages from the packages' ``__init__`` files, so that none is forgotten."""

import importlib
import inspect
from pathlib import Path

from docs.surface import ON_DEMAND, public_names, rooms

CHOOSING = """\
Which one should I use?
=======================

One table for each room, the same that ``help(mercer.nn)`` and its like show.
"""
INDEX = """\
Reference
=========

Everything public, room by room. A room imports only from the rooms before it.

.. toctree::
   :maxdepth: 2

"""


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _room_page(room: str) -> str:
    module = importlib.import_module(f"mercer.{room}")
    names = public_names(room)
    if room in ON_DEMAND:  # what its room offers too is described there
        names = [name for name in names if name not in public_names(room.partition(".")[0])]
    things = [name for name in names if callable(getattr(module, name))]
    constants = [name for name in names if name not in things]
    lines = [
        _title(f"mercer.{room}", "="),
        f".. automodule:: mercer.{room}",
        "   :no-members:",
        "",
        f".. currentmodule:: mercer.{room}",
        "",
        ".. autosummary::",
        "   :toctree: generated",
        "",
        *(f"   {name}" for name in things),
        "",
    ]
    for name in constants:
        lines += [f".. autodata:: {name}", "   :no-value:", ""]
    return "\n".join(lines)


def _choosing_page() -> str:
    parts = [CHOOSING]
    for room in rooms():
        module = importlib.import_module(f"mercer.{room}")
        parts += [
            _title(f"mercer.{room}", "-"),
            f".. currentmodule:: mercer.{room}\n",
            inspect.getdoc(module) or "",
            "",
        ]
    return "\n".join(parts)


def _house_page() -> str:
    lines = [
        _title("mercer", "="),
        ".. automodule:: mercer",
        "   :no-members:",
        "",
        ".. py:data:: config",
        "   :module: mercer",
        "",
        "   The settings of the process, an instance of :class:`~mercer._core.config.Config`.",
        "",
        ".. autoclass:: mercer._core.config.Config",
        "   :members:",
        "",
    ]
    return "\n".join(lines)


def write_reference(folder: Path) -> None:
    """Write an index, one page for each room, and the page of tables."""
    pages = {"choosing": _choosing_page(), "mercer": _house_page()}
    listed = [
        name
        for room in rooms()
        for name in (room, *ON_DEMAND)
        if name == room or name.startswith(f"{room}.")
    ]
    pages |= {name: _room_page(name) for name in listed}
    pages["index"] = INDEX + "".join(f"   {name}\n" for name in ("mercer", *listed))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        # Left alone where nothing changed, so that Sphinx does not read it again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
