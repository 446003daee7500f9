"""The runner of the benchmark scripts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

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


@pytest.fixture
def process(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _infinite_process

    return _infinite_process


MLP = {"kind": "mlp", "depth": 2, "n": 6, "d": 3, "batch": 0, "memory": 0}


def test_a_side_in_its_own_process_answers(process):
    inputs = np.random.default_rng(0).standard_normal((6, 3), dtype=np.float32)
    with process.Process("mercer", MLP, inputs) as side:
        assert side.failed is None and side.first > 0 and side.run() > 0
        nngp, ntk = side.values()
        truth = side.truth(4)
        peak, before = side.peak()
    s = 2 / 3 * inputs @ inputs.T + 0.01  # the affine maps and ReLU's dual, written out
    t, q = s, np.diagonal(s)
    for _ in range(2):
        sine = np.sqrt(np.maximum(np.outer(q, q) - s * s, 0))
        slope = (np.pi - np.arctan2(sine, s)) / (2 * np.pi)
        s = 2 * (sine / (2 * np.pi) + slope * s) + 0.01
        t, q = s + 2 * slope * t, q + 0.01
    np.testing.assert_allclose(nngp, s, rtol=1e-3)
    np.testing.assert_allclose(ntk, t, rtol=1e-3)
    np.testing.assert_allclose(truth, [nngp[:4, :4], ntk[:4, :4]], rtol=1e-5)
    assert truth.dtype == np.float64 and peak >= before > 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "import os; input(); os.kill(os.getpid(), 9)",
            "killed, as the system does when memory runs out",
        ),
        ("input(); raise SystemExit('no such layer')", "ended with the code 1: no such layer"),
        ("""input(); print('{"error": "MemoryError: 8 GiB"}')""", "MemoryError: 8 GiB"),
    ],
)
def test_a_side_that_fails_says_why_and_gives_no_numbers(process, tmp_path, script, reason):
    (tmp_path / "worker.py").write_text(script)
    inputs = np.zeros((6, 3), np.float32)
    with process.Process("mercer", MLP, inputs, tmp_path / "worker.py") as side:
        assert np.isnan(side.run()) and side.values() is None and side.peak() == (0, 0)
        assert side.failed == reason


def test_a_peer_that_is_not_installed_is_named(process, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PEERS", tmp_path)
    with process.Process("neural-tangents", MLP, np.zeros((6, 3), np.float32)) as side:
        assert side.values() is None and "make peers" in side.failed


def test_what_the_peer_environment_needs_is_pinned():
    lines = (BENCHMARKS / "peers" / "neural-tangents.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["neural-tangents"] == "0.6.5" and pins["jax"] == pins["jaxlib"] == "0.4.30"
    assert pins["tf2jax"] == "0.3.6" and int(pins["numpy"].split(".")[0]) < 2


@pytest.fixture
def uci(monkeypatch):
    monkeypatch.setenv("MERCER_DATA", "unused")  # the script sets it where it is not set
    monkeypatch.syspath_prepend(BENCHMARKS)
    import infinite_uci

    return infinite_uci


def test_errors_of_points_left_out_are_those_of_refits(uci):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=source, dtype=torch.float64)
    y = x[:, 0].sin() + 0.3 * torch.randn(30, generator=source, dtype=torch.float64)
    with torch.no_grad():
        kernels = uci.tangent_kernels(3) | uci.rbf_kernels(3)
        assert len(uci.tangent_kernels(3)) == len(uci.rbf_kernels(3)) == 24
        matrix = kernels["GELU depth 2 w 1.41 b 0.3"](x)
        least, ridge = uci.leave_one_out(matrix, y)
        errors = []
        for i in range(30):
            rest = torch.arange(30) != i
            system = matrix[rest][:, rest] + ridge * torch.eye(29)
            errors.append(y[i] - matrix[i, rest] @ torch.linalg.solve(system, y[rest]))
    assert least == pytest.approx(float(torch.stack(errors).square().mean()), rel=1e-9)


def test_splits_are_disjoint_and_standardised_by_their_training_rows(uci):
    table = torch.arange(200, dtype=torch.float64).reshape(50, 4).square()
    table[:, 1] = 3.0
    x, y, x_test, y_test, unit = uci.split(table, 0)
    assert (len(x), len(x_test), unit) == (45, 5, pytest.approx(float(y.std() * unit)))
    assert float(x.mean(0).abs().max()) < 1e-12 and float(x[:, 0].std()) == pytest.approx(1)
    assert not set(y.tolist()) & set(y_test.tolist())
