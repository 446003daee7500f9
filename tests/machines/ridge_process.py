"""What each process of `test_kernel_ridge_scale.py` runs."""

import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist
from safetensors.numpy import save_file

from mercer.machines import KernelRidge, ridge_landmarks


def rows(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(0)
    x = source.normal(size=(n, d))
    return x, np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * source.normal(size=n)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    world, rank = dist.group.WORLD, dist.get_rank()
    x, y = rows(3000, 5)
    y = np.stack([y, np.cos(x[:, 3])], 1)
    errors = {}
    # So that one process iterates too, and not from the solution.
    ridge_landmarks._MOST_SUMMED = ridge_landmarks._SAMPLE = 0
    ridge_landmarks._POOL = 500
    ways = {
        "cg": {"tol": 1e-13},
        # Rounding of the landmarks' matrix leaves a residual of 1e-12.
        "falkon": {"tol": 1e-11, "landmarks": 200, "selection": "uniform"},
    }
    for solver, more in ways.items():
        model = KernelRidge(
            "matern32", 1.0, solver=solver, fit_intercept=True, random_state=0, **more
        )
        weights = 1.0 + (np.arange(len(x)) % 3)
        together = model.fit(x, y, weights, group=world).predict(x[:500])
        coef = model.dual_coef_
        assert model.converged_
        assert model.n_iter_ > 5
        alone = model.fit(x, y, weights).predict(x[:500])
        errors[f"{solver}, predictions"] = np.abs(together - alone).max()
        errors[f"{solver}, coefficients"] = np.abs(coef - model.dual_coef_).max()
    try:
        KernelRidge(solver="falkon", landmarks=20).fit(x + rank, y, group=world)
    except ValueError as error:
        assert "must hold the same" in str(error)
    else:
        raise AssertionError("different rows were not refused")
    save_file({k: np.asarray(v) for k, v in errors.items()}, folder / f"errors.{rank}")
    dist.barrier()  # a process that leaves first can take gloo's threads down in another
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
