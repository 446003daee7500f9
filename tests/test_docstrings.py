"""What is public is documented: sections, parameters by name, an example that runs."""

import dataclasses
import importlib
import inspect
import re
from typing import Any

import pytest

from docs.surface import public_names, rooms

PUBLIC = [(room, name) for room in rooms() for name in public_names(room) if not name.isupper()]
_HEADING = re.compile(r"^(?P<name>[A-Z][A-Za-z ]+)\n-{3,}$", flags=re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """Split a numpydoc docstring into its sections; the part before the first is 'Summary'."""
    parts = _HEADING.split(inspect.cleandoc(text))
    return {"Summary": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(section: str) -> set[str]:
    """Return the names that a section of parameters describes, one or several to a line."""
    names = set()
    for line in section.splitlines():
        if match := re.match(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)( :.*)?$", line):
            names |= {name.strip().lstrip("*") for name in match[1].split(",")}
    return names


def problems(thing: Any) -> list[str]:
    """Say what a public thing's docstring lacks."""
    text = thing.__doc__ or ""
    parts = sections(text)
    found = []
    summary = parts["Summary"].strip()
    if not summary.partition("\n\n")[0].endswith("."):
        found.append("the summary is not a sentence")
    result = dataclasses.is_dataclass(thing)
    if inspect.isclass(thing) and inspect.isabstract(thing):
        return found
    parameters = {name for name in inspect.signature(thing).parameters if name[0] != "_"}
    described = documented(parts.get("Parameters", ""))
    if result:  # made by the library: the fields are what the reader wants to know
        described |= documented(parts.get("Attributes", ""))
    if parameters - described:
        found.append(f"not described: {sorted(parameters - described)}")
    if described - parameters and not result:
        found.append(f"described, but not there: {sorted(described - parameters)}")
    if inspect.isfunction(thing):
        returns = inspect.signature(thing).return_annotation
        if returns is inspect.Signature.empty:
            found.append("the return value has no annotation")
        elif returns is not None and not {"Returns", "Yields"} & set(parts):
            found.append("no section Returns")
    if not result and ">>>" not in parts.get("Examples", ""):
        found.append("no example that runs")
    return found


@pytest.mark.parametrize(("room", "name"), PUBLIC, ids=lambda value: str(value))
def test_public_thing_is_documented(room, name):
    thing = getattr(importlib.import_module(f"mercer.{room}"), name)
    assert problems(thing) == []


@pytest.mark.parametrize("room", rooms())
def test_room_says_which_one_to_use(room):
    """The docstring of a room has a table that names every public thing but plain results."""
    module = importlib.import_module(f"mercer.{room}")
    offered = [name for name in public_names(room) if callable(getattr(module, name))]
    missing = [
        name
        for name in offered
        if not dataclasses.is_dataclass(getattr(module, name))
        and not re.search(rf"\b{name}\b", module.__doc__ or "")
    ]
    assert missing == []


def good(x: int, *rest: int) -> int:
    """Add one.

    Parameters
    ----------
    x, *rest : int
        Numbers.

    Returns
    -------
    int
        One more.

    Examples
    --------
    >>> 1 + 1
    2
    """
    return x + 1


def bad(x: int, y: int) -> int:
    """Add one

    Parameters
    ----------
    x : int
        A number.
    z : int
        Gone.
    """
    return x + y


def test_the_test_sees_what_is_missing():
    assert problems(good) == []
    assert problems(bad) == [
        "the summary is not a sentence",
        "not described: ['y']",
        "described, but not there: ['z']",
        "no section Returns",
        "no example that runs",
    ]
