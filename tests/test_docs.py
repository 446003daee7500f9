"""The documentation: nothing public is missing, and the evidence page is the evidence."""

import importlib
import json
import re

import pytest

from docs.reference import write_reference
from docs.render_evidence import render
from docs.surface import ON_DEMAND, SOURCE, public_names, rooms

ROOT = SOURCE.parents[1]
ROW = {
    "sheet": "core-some-paper",
    "kind": "exact",
    "claim": "a | b_c holds in `x_y | z`",
    "what": "sin",
    "case": "7",
    "required": "<= 1e-12",
    "measured": 3.14159265e-15,
    "outcome": "passed",
    "seconds": 0.25,
    "test": "tests/test_x.py::test_y",
}
ENVIRONMENT = {
    "date": "2026-01-02",
    "python": "3.12.1",
    "system": "Linux x86_64",
    "cores": 4,
    "threads": 2,
    "device": "cpu",
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    write_reference(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


@pytest.mark.parametrize("room", rooms())
def test_every_public_thing_is_in_the_reference(pages, room):
    assert f"   {room}\n" in pages["index"]
    listed = set(re.findall(r"^(?:   |\.\. autodata:: )(\w+)$", pages[room], flags=re.MULTILINE))
    # Read from the module itself, not from the source as the pages are.
    module = importlib.import_module(f"mercer.{room}")
    own = (f"mercer.{room}.", "mercer._core.")  # what all rooms share is offered by one of them
    public = {
        name
        for name, value in ((name, getattr(module, name)) for name in dir(module))
        if not name.startswith("_")
        and getattr(value, "__module__", own[0]).startswith(own)
        and type(value).__name__ != "module"
    }
    assert public == set(public_names(room)) == listed


@pytest.mark.parametrize("module", ON_DEMAND)
def test_what_is_imported_on_demand_is_in_the_reference(pages, module):
    assert f"   {module}\n" in pages["index"]
    assert f".. automodule:: mercer.{module}\n" in pages[module]
    offered = importlib.import_module(f"mercer.{module}")
    for name in public_names(module):
        assert hasattr(offered, name)
        on = [page for page in (module, module.partition(".")[0]) if f"   {name}\n" in pages[page]]
        assert len(on) == 1, f"{name} is described on {on}"


@pytest.mark.parametrize("room", rooms())
def test_choosing_page_has_the_table_of_each_room(pages, room):
    table = importlib.import_module(f"mercer.{room}").__doc__
    assert table and table.strip() in pages["choosing"]
    assert re.search(r"^={3,} ={3,}$", table, flags=re.MULTILINE), "a table with two columns"


def test_evidence_is_rendered():
    rows = [
        ROW,
        {**ROW, "what": "cos", "measured": 5, "outcome": "failed"},
        {**ROW, "what": "cos", "case": "8"},
        {**ROW, "what": ""},
        {**ROW, "sheet": "a-sheet", "measured": None, "required": None, "outcome": "skipped"},
    ]
    text = render({"environment": ENVIRONMENT, "rows": rows})
    assert "2026-01-02: 3 of 5 rows passed, with Python 3.12.1, torch 2.13.0" in text
    assert text.index("## a-sheet") < text.index("## core-some-paper")
    claim = r"a \| b\_c holds in `x_y \| z`"
    assert rf"| {claim} | exact | sin | \<= 1e-12 | 3.142e-15 | 0.2 |" in text
    assert r"|  |  | cos \[7\] | \<= 1e-12 | **failed** 5 | 0.2 |" in text
    assert r"|  |  | cos \[8\] | \<= 1e-12 | 3.142e-15 | 0.2 |" in text
    assert r"|  |  | \[7\] | \<= 1e-12 | 3.142e-15 | 0.2 |" in text
    assert rf"| {claim} | exact | sin | — | **skipped** — | 0.2 |" in text


def test_evidence_page_is_the_committed_evidence():
    evidence = json.loads((ROOT / "docs" / "evidence.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert page == render(evidence)
    assert {row["outcome"] for row in evidence["rows"]} == {"passed"}


def test_links_between_files_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"
