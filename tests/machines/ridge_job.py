"""Fits that `test_kernel_ridge_scale.py` runs in processes: killed, or short of memory."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import mercer
from mercer.machines import KernelRidge, checkpoint, ridge_landmarks


def rows(n: int, d: int = 20) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(0)
    x = source.normal(size=(n, d))
    return x, np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * source.normal(size=n)


def main(folder: Path, n: int, way: str, budget: str, keep: bool) -> None:
    torch.set_num_threads(2)
    mercer.config.memory_budget = budget
    checkpoint._EVERY = 0.05  # seconds
    given = {"landmarks": 300, "alpha": 0.1, "solver": "falkon"}
    if way == "iterated":  # as for many landmarks
        ridge_landmarks._MOST_SUMMED = ridge_landmarks._SAMPLE = 0
        ridge_landmarks._POOL = 1000
        given |= {"alpha": 1e-3, "tol": 1e-12}
    elif way == "cg":
        given = {"solver": "cg", "tol": 1e-11, "alpha": 0.01}
    elif way == "auto":
        given = {}
    x, y = rows(n)
    (folder / "started").touch()
    model = KernelRidge(random_state=0, **given)
    model.fit(x, y, checkpoint=folder / "state" if keep else None)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    np.save(folder / "coef.npy", model.dual_coef_)
    found = {"peak": int(peak.split()[1]) * 1024, "iterations": model.n_iter_}
    (folder / "done.json").write_text(json.dumps(found | {"solver": model.solver_reason_}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "keep")
