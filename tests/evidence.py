"""Pytest plugin: what a test of a fact sheet requires, what it measured, and a file of it all.

A test that carries a check is marked ``@pytest.mark.paper(sheet, kind=..., claim=...)`` and calls
the fixture ``evidence(required=..., measured=...)``. With ``--evidence=PATH`` the session writes
what was recorded as JSON, also under pytest-xdist: records travel as the reports' user properties.
"""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KINDS = ("exact", "behaviour")
PACKAGES = ("mercer", "torch", "numpy", "scipy", "scikit-learn", "transformers")


def _paper(sheet: str, kind: str, claim: str) -> dict[str, str]:
    """Check the marker's arguments; the signature is the one that the marker documents."""
    if not (isinstance(sheet, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", sheet)):
        raise ValueError(f"sheet: expected a name such as 'core-some-paper', got {sheet!r}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if not (isinstance(claim, str) and claim.strip()):
        raise ValueError(f"claim: expected one sentence, got {claim!r}")
    return {"sheet": sheet, "kind": kind, "claim": " ".join(claim.split())}


def _plain(name: str, value: Any) -> str | int | float | bool:
    """Turn a number of Python, NumPy or torch into one that JSON holds."""
    if hasattr(value, "item"):
        value = value.item()  # raises for more than one element, and names the cause
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, str | int | float | bool):
        raise TypeError(f"{name}: expected a number or a text, got {type(value).__name__}")
    return value


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--evidence", metavar="PATH", help="write what the tests marked 'paper' measured as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "paper(sheet, kind, claim): the test carries a check of a fact sheet; "
        "kind is 'exact' or 'behaviour'",
    )
    # Reports reach the controller only; a worker of pytest-xdist has nothing to write.
    if config.getoption("evidence") and not hasattr(config, "workerinput"):
        path = Path(config.invocation_params.dir, config.getoption("evidence"))
        config.pluginmanager.register(_Collector(path), "evidence-collector")


@pytest.hookimpl(tryfirst=True)  # before -m deselects: a marker must be right in every lane
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("paper")
        if mark is None:
            continue
        try:
            paper = _paper(*mark.args, **mark.kwargs)
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"{item.nodeid}: marker paper: {error}") from None
        item.user_properties.append(("paper", paper))


def _records(item: pytest.Item) -> list[Any]:
    return [value for name, value in item.user_properties if name == "evidence"]


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record what a check requires and what was measured; call it before asserting."""
    item = request.node
    varied = getattr(getattr(item, "callspec", None), "id", "")

    def record(*, required: Any, measured: Any, what: str | None = None) -> None:
        row = {
            "what": what or "",
            "case": varied,
            "required": _plain("required", required),
            "measured": _plain("measured", measured),
        }
        item.user_properties.append(("evidence", row))

    return record


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Hold the marker and the fixture together: neither means anything without the other."""
    marked = pyfuncitem.get_closest_marker("paper") is not None
    if not marked and "evidence" in pyfuncitem.fixturenames:
        pytest.fail("uses the fixture 'evidence' without the marker 'paper'", pytrace=False)
    result = yield
    if marked and not _records(pyfuncitem):
        pytest.fail("is marked 'paper' but never called the fixture 'evidence'", pytrace=False)
    return result


def environment() -> dict[str, Any]:
    """Describe where the session ran."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions,
    }


def _natural(item: tuple[str, Any]) -> list[str | int]:
    """Order tests by name, numbers by size: however many processes ran them, one order."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", item[0])]


class _Collector:
    """Gathers the reports of marked tests and writes them when the session ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = list(report.user_properties)
        paper = next((value for name, value in properties if name == "paper"), None)
        if paper is None:
            return
        test = self.tests.setdefault(
            report.nodeid, {**paper, "outcome": "passed", "seconds": 0.0, "records": []}
        )
        test["seconds"] += report.duration
        test["records"] = [value for name, value in properties if name == "evidence"]
        if test["outcome"] == "passed":  # the first phase that did not pass decides
            test["outcome"] = "xfailed" if hasattr(report, "wasxfail") else report.outcome

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        unrecorded = {"what": "", "case": "", "required": None, "measured": None}
        for nodeid, test in sorted(self.tests.items(), key=_natural):
            # A test that was skipped or broke early has a row too: silence is not evidence.
            for record in test["records"] or [unrecorded]:
                rows.append(
                    {
                        "sheet": test["sheet"],
                        "kind": test["kind"],
                        "claim": test["claim"],
                        **record,
                        "outcome": test["outcome"],
                        "seconds": round(test["seconds"], 2),
                        "test": nodeid,
                    }
                )
        return sorted(rows, key=lambda row: (row["sheet"], row["kind"] != "exact", row["claim"]))

    def pytest_sessionfinish(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"environment": environment(), "rows": self.rows()}, indent=1)
        aside = self.path.with_name(self.path.name + ".part")
        aside.write_text(text + "\n", encoding="utf-8")
        aside.replace(self.path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"evidence: {len(self.rows())} rows in {self.path}")
