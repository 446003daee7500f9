"""Kernel ridge regression shared by processes: the answer of one process, and the speed-up.

The cores are shared out: one process with one thread and with all of them, two and four processes
(of `torch.distributed`, gloo, started as torchrun does) with as many threads together. Conjugate
gradients on all rows run to a residual of 1e-13; on landmarks to 1e-11, under which lies the
rounding of the landmarks' matrix. The differences are those of predictions to one process with one
thread, relative to the largest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mercer.cli.environment import describe_environment
from mercer.kernels import Matern
from mercer.machines import KernelRidge, ridge_landmarks


def rows(n: int, d: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and targets."""
    source = np.random.default_rng(0)
    x = source.normal(size=(n, d))
    return x, np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * source.normal(size=n)


def work(folder: Path, all_rows: int, many_rows: int, landmarks: int) -> None:
    """Fit in this process, one of a group where there is one, and write time and predictions."""
    group = None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
        group = dist.group.WORLD
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # So that one process iterates as several do.
    ridge_landmarks._MOST_SUMMED = 0
    kernel = Matern(4.0, nu=1.5)
    fits = {
        "cg": (all_rows, {"tol": 1e-13}),
        "falkon": (many_rows, {"tol": 1e-11, "landmarks": landmarks, "selection": "uniform"}),
    }
    for solver, (n, more) in fits.items():
        x, y = rows(n)
        model = KernelRidge(kernel, 1.0, solver=solver, random_state=0, **more)
        KernelRidge(kernel, 1.0, solver=solver, random_state=0).fit(x[:500], y[:500], group=group)
        start = time.perf_counter()
        model.fit(x, y, group=group)
        taken = time.perf_counter() - start
        if group is None or dist.get_rank() == 0:
            found = {"seconds": taken, "iterations": model.n_iter_, "residual": model.residual_}
            (folder / f"{solver}.json").write_text(json.dumps(found))
            np.save(folder / f"{solver}.npy", model.predict(x[:1000]))
    if group is not None:
        dist.barrier()  # a process that leaves first can take gloo's threads down in another
        dist.destroy_process_group()


def run(folder: Path, processes: int, threads: int, args: argparse.Namespace) -> None:
    """Start the processes and wait."""
    folder.mkdir()
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [__file__, "--worker", str(folder), "--all-rows", str(args.all_rows)]
    command += ["--many-rows", str(args.many_rows), "--landmarks", str(args.landmarks)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--all-rows", type=int, default=10_000, help="rows of the exact fit")
    parser.add_argument("--many-rows", type=int, default=100_000, help="rows of that on landmarks")
    parser.add_argument("--landmarks", type=int, default=1_000)
    parser.add_argument("--cores", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.all_rows, args.many_rows, args.landmarks)
        return
    ways = [(1, 1), (1, args.cores), (2, max(args.cores // 2, 1)), (args.cores, 1)]
    result: dict[str, object] = {"environment": describe_environment(), "runs": []}
    with tempfile.TemporaryDirectory() as root:
        for processes, threads in dict.fromkeys(ways):
            run(Path(root) / f"{processes}-{threads}", processes, threads, args)
        for solver in ("cg", "falkon"):
            print(f"{solver}: {args.all_rows if solver == 'cg' else args.many_rows:,} rows")
            base = Path(root) / "1-1"
            expected = np.load(base / f"{solver}.npy")
            slowest = json.loads((base / f"{solver}.json").read_text())["seconds"]
            for processes, threads in dict.fromkeys(ways):
                folder = Path(root) / f"{processes}-{threads}"
                found = json.loads((folder / f"{solver}.json").read_text())
                gap = np.abs(np.load(folder / f"{solver}.npy") - expected).max()
                found |= {
                    "solver": solver,
                    "processes": processes,
                    "threads": threads,
                    "difference": float(gap / np.abs(expected).max()),
                    "speed_up": slowest / found["seconds"],
                }
                result["runs"].append(found)  # type: ignore[attr-defined]
                print(
                    f"  {processes} processes of {threads} threads: {found['seconds']:7.2f} s, "
                    f"{found['speed_up']:.2f}x, {found['iterations']} iterations, residual "
                    f"{found['residual']:.1e}, difference {found['difference']:.1e}"
                )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
