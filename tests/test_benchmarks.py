"""The runner of the benchmark scripts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GOOD = """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--json")
with open(parser.parse_args().json, "w") as file:
    json.dump({"ratio": 2.5}, file)
print("the ratio is 2.5")
"""


@pytest.fixture
def bench(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(BENCHMARKS / "run.py", folder)

    def run(scripts, *args):
        for name, text in scripts.items():
            (folder / f"{name}.py").write_text(text)
        return subprocess.run(
            [sys.executable, folder / "run.py", *args], capture_output=True, text=True
        )

    return run


def test_every_script_runs_and_is_collected(bench, tmp_path):
    result = bench({"one": GOOD, "two": GOOD, "figure_x": "raise SystemExit(1)"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("the ratio is 2.5") == 2
    collected = json.loads((tmp_path / "out" / "benchmarks" / "all.json").read_text())
    assert collected["cores"] >= 1 and set(collected["results"]) == {"one", "two"}
    assert collected["results"]["one"]["result"] == {"ratio": 2.5}


def test_one_script_by_name(bench, tmp_path):
    assert bench({"one": GOOD, "two": "raise SystemExit(1)"}, "one").returncode == 0
    assert bench({}, "three").returncode == 2


@pytest.mark.parametrize("text", ["raise ValueError('broken')", "print('wrote nothing')"])
def test_a_script_that_fails_fails_the_run_but_not_the_others(bench, tmp_path, text):
    result = bench({"bad": text, "good": GOOD})
    assert result.returncode == 1
    assert "bad: FAILED" in result.stdout and "good: done" in result.stdout
    collected = json.loads((tmp_path / "out" / "benchmarks" / "all.json").read_text())
    assert not collected["results"]["bad"]["ok"] and collected["results"]["good"]["ok"]


def test_scripts_say_what_they_claim():
    for path in BENCHMARKS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""'), path.name
        assert "--json" in text or path.name.startswith(("figure_", "_")), path.name
