"""Kernel ridge regression that is killed, short of memory, or shared by processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mercer._core.saving import load_state
from mercer.machines import KernelRidge
from mercer.machines.checkpoint import Checkpoint

SHEET = "machines-introduction-to-ml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


def _command(folder, n, way, budget="4 GiB", keep="keep"):
    script = Path(__file__).with_name("ridge_job.py")
    return [sys.executable, str(script), str(folder), str(n), way, budget, keep]


def _run(folder, *args, **more):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        _command(folder, *args, **more),
        capture_output=True,
        text=True,
        timeout=500,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(folder / "coef.npy"), json.loads((folder / "done.json").read_text())


@pytest.mark.paper(SHEET, kind="exact", claim="A killed fit goes on to the same coefficients.")
@pytest.mark.parametrize(
    ("way", "n"),
    [
        ("iterated", 20_000),
        pytest.param("cg", 2_000, marks=pytest.mark.slow),
        pytest.param("summed", 60_000, marks=pytest.mark.slow),
        pytest.param("summed", 300_000, marks=pytest.mark.slow),
        pytest.param("iterated", 300_000, marks=pytest.mark.slow),
    ],
)
def test_a_fit_that_was_killed_goes_on(way, n, tmp_path, evidence):
    whole, _ = _run(tmp_path / "whole", n, way, keep="no")
    folder = tmp_path / "killed"
    folder.mkdir()
    state, kills, seen = folder / "state" / "model.safetensors", 0, []
    for _ in range(3 if n > 20_000 else 1):  # once where the tests are to be fast
        process = subprocess.Popen(
            _command(folder, n, way), env=ENVIRONMENT, stderr=subprocess.PIPE
        )
        before = state.stat().st_mtime_ns if state.exists() else 0
        # Once it has written a state of its own, at a random moment.
        while process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns != before:
                time.sleep(random.uniform(0.0, 0.3))
                break
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error.decode()[-2000:]
        if process.returncode == 0:
            break
        if (folder / "state").exists():
            _, tensors = load_state(folder / "state")
            seen.append(sorted({name.split("/")[0] for name in tensors}))
    coef, _ = _run(folder, n, way)
    assert kills >= 1 and seen, "nothing was interrupted"
    assert not (folder / "state").exists()
    error = float(np.abs(coef - whole).max() / np.abs(whole).max())
    evidence(required="<= 1e-10", measured=error, what=f"{way}, n = {n:,}, {kills} kills, {seen}")
    assert error <= 1e-10


@pytest.mark.paper(SHEET, kind="exact", claim="With a budget of 1 GiB a fit stays under 1.1 GiB.")
@pytest.mark.parametrize(
    ("way", "n"),
    [
        ("auto", 30_000),
        pytest.param("auto", 300_000, marks=pytest.mark.slow),
        pytest.param("iterated", 300_000, marks=pytest.mark.slow),
    ],
)
def test_memory_stays_within_the_budget(way, n, tmp_path, evidence):
    _, found = _run(tmp_path / "fit", n, way, budget="1 GiB", keep="no")
    peak = found["peak"] / 2**30
    evidence(required="<= 1.1 GiB", measured=peak, what=f"n = {n:,}, {found['solver']}")
    assert peak <= 1.1


def test_a_state_of_another_fit_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 2))
    Checkpoint(tmp_path / "state", "other").save("cg", {}, now=True)
    with pytest.raises(ValueError, match=r"checkpoint: .* another folder"):
        KernelRidge(solver="cg").fit(x, x[:, 0], checkpoint=tmp_path / "state")


@pytest.mark.paper(SHEET, kind="exact", claim="Processes give the answer of one process.")
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_the_answer_of_one(processes, tmp_path, evidence):
    script = Path(__file__).with_name("ridge_process.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={processes}", str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(processes):
        for name, error in load_file(tmp_path / f"errors.{rank}").items():
            evidence(
                required="<= 1e-10",
                measured=float(error),
                what=f"{name}, process {rank} of {processes}",
            )
            assert float(error) <= 1e-10
