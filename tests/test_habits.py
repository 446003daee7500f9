"""Habits of the house that a reader of the source can rely on."""

import ast
import re
import subprocess
from collections.abc import Iterator

import pytest

from docs.surface import SOURCE

ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN_FILES = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
FORBIDDEN_CALLS = {
    "print": "report by return values, progress bars or the command",
    "warnings.filterwarnings": "filters belong to the user",
    "warnings.simplefilter": "filters belong to the user",
    "torch.manual_seed": "the global random state belongs to the user",
    "torch.load": "no pickle is loaded",
    "torch.save": "no pickle is written",
    "pickle.load": "no pickle is loaded",
    "pickle.loads": "no pickle is loaded",
    "eval": "no text is run",
    "exec": "no text is run",
}


def forked(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes inside `with torch.random.fork_rng(...)`, where seeding harms nobody."""
    withs = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    safe = [node for node in withs if "fork_rng" in ast.unparse(node.items[0])]
    return {inner for node in safe for inner in ast.walk(node)}


def broken_habits(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    seeding_allowed = forked(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            if node in seeding_allowed and "seed" in ast.unparse(node.func):
                continue
            name = ast.unparse(node.func)
            yield f"line {node.lineno}: {name} ({FORBIDDEN_CALLS[name]})"
        elif isinstance(node, ast.Name) and node.id in ("__all__", "NotImplementedError"):
            yield f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                yield f"line {node.lineno}: an exception is swallowed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_habits_are_kept(path):
    source = path.read_text(encoding="utf-8")
    assert list(broken_habits(source)) == []
    assert path.name not in FORBIDDEN_FILES
    assert len(source.splitlines()) <= 400, "past 400 lines it is two ideas"


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "__all__ = ['a']",
        "import warnings\nwarnings.filterwarnings('ignore')",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    x = 1",
        "raise NotImplementedError('later')",
        "import torch\ntorch.manual_seed(0)",
    ],
)
def test_the_test_sees_broken_habits(source):
    assert len(list(broken_habits(source))) == 1


def test_kept_habits_pass():
    source = "try:\n    f()\nexcept Exception as e:\n    raise ValueError('x') from e\n"
    assert list(broken_habits(source)) == []
    source = "with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(1)\n"
    assert list(broken_habits(source)) == []


def test_package_is_typed():
    assert (SOURCE / "py.typed").exists()


def test_tests_mirror_the_source():
    """A folder of tests carries the name of a room, or is one of the few that serve all."""
    known = {path.name for path in SOURCE.iterdir()} | {"contracts", "__pycache__"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders - known == set()


def test_nothing_in_the_repository_needs_a_neighbour():
    """Only the data for tests may lie beside the repository, and the tests skip without it."""
    listed = subprocess.run(
        ["git", "ls-files", "src", "benchmarks", "examples", "docs", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    allowed = {"docs/contributing.rst"}
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        text = path.suffix in (".py", ".rst", "") and path.is_file() and name not in allowed
        if text and re.search(r"\.\./shared|/work/", path.read_text(encoding="utf-8")):
            found.append(name)
    assert found == []
