"""neural-tangents' answers, from the process that the benchmark runs; `make peers` installs it."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.peer
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIDES = ("mercer", "neural-tangents")
CASES = {
    "mlp": {"kind": "mlp", "depth": 3, "n": 12, "d": 5, "batch": 0},
    "pooled": {"kind": "cnn", "depth": 2, "n": 4, "size": 6, "pool": True, "batch": 2},
    "flat": {"kind": "cnn", "depth": 3, "n": 6, "size": 5, "pool": False, "batch": 0},
}


@pytest.mark.parametrize("name", CASES)
def test_both_kernels_of_neural_tangents(name, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from _infinite_process import MISSING, Process

    case = {**CASES[name], "memory": 0}
    shape = (case["d"],) if name == "mlp" else (3, case["size"], case["size"])
    inputs = np.random.default_rng(0).standard_normal((case["n"], *shape), dtype=np.float32)
    values = {}
    for side in SIDES:
        with Process(side, case, inputs) as process:
            if process.failed == MISSING:
                pytest.skip(process.failed)
            values[side] = process.values()
            assert process.failed is None
    ours, theirs = values.values()
    # Off the diagonal: on it the other side takes the root of a cancelled difference in float32.
    apart = ~np.eye(case["n"], dtype=bool)
    np.testing.assert_allclose(ours[:, apart], theirs[:, apart], rtol=2e-5)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)
