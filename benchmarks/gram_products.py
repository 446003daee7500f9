"""Products of a kernel matrix with 16 vectors, never built, against scikit-learn and KeOps.

50,000 points in 3, 50 and 500 dimensions, RBF in float64, in 2 GiB of memory (the matrix would
take 20 GB): ``kernel.gram(x) @ v`` beside scikit-learn's matrix in pieces of rows, and KeOps where
it is installed (``pip install pykeops``), turn by turn. Each runs in a process of its own for its
peak memory first; the budget of Mercer is 2 GiB there.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics.pairwise import rbf_kernel

import mercer
from mercer.cli.environment import describe_environment
from mercer.kernels import RBF

VECTORS = 16
LONG = 30.0  # seconds beyond which one round is enough
PIECE = 2_000  # rows at a time for scikit-learn: 0.8 GB, and as much again for its exponential


def data(points: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw points and vectors."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(points, d, generator=source, dtype=torch.float64)
    return x, torch.randn(points, VECTORS, generator=source, dtype=torch.float64)


def with_mercer(x: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Multiply lazily."""
    kernel = RBF(x.shape[1] ** 0.5).requires_grad_(False)
    return (kernel.gram(x) @ v).numpy()


def with_scikit_learn(x: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Multiply by dense pieces."""
    X, V = x.numpy(), v.numpy()
    out = np.empty((len(X), V.shape[1]))
    for i in range(0, len(X), PIECE):
        out[i : i + PIECE] = rbf_kernel(X[i : i + PIECE], X, gamma=0.5 / X.shape[1]) @ V
    return out


def with_keops(x: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Multiply lazily, by a compiled reduction."""
    from pykeops.torch import LazyTensor

    a, b = LazyTensor(x[:, None, :]), LazyTensor(x[None, :, :])
    return ((-((a - b) ** 2).sum(-1) * (0.5 / x.shape[1])).exp() @ v).numpy()


METHODS: dict[str, Callable[[torch.Tensor, torch.Tensor], np.ndarray]] = {
    "mercer": with_mercer,
    "scikit-learn": with_scikit_learn,
    "keops": with_keops,
}


def available() -> dict[str, Callable[[torch.Tensor, torch.Tensor], np.ndarray]]:
    """Leave out what is not installed."""
    try:
        import pykeops  # noqa: F401
    except ImportError:
        print("KeOps is not installed")
        return {name: method for name, method in METHODS.items() if name != "keops"}
    return METHODS


def peak(name: str, points: int, d: int) -> float:
    """Peak resident memory of one method in a process of its own, in GiB."""
    command = [sys.executable, __file__, "--peak", name, "--points", str(points), "--d", str(d)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[3, 50, 500])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--peak", choices=list(METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--d", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    mercer.config.memory_budget = "2 GiB"
    if args.peak:
        METHODS[args.peak](*data(args.points, args.d))
        # Not ru_maxrss, which a new process inherits from the one that started it.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        print(int(status.split("VmHWM:")[1].split()[0]) / 2**20)
        return
    methods = {name: m for name, m in available().items() if name in {"mercer", *args.methods}}
    print(f"{args.points:,} points, {VECTORS} vectors, float64, {torch.get_num_threads()} threads")
    rows: list[dict[str, Any]] = []
    for d in args.dimensions:
        x, v = data(args.points, d)
        times: dict[str, list[float]] = {name: [] for name in methods}
        products = {}
        for method in methods.values():
            method(x[:100], v[:100])  # what is compiled once is compiled here
        for _ in range(args.repeats):
            for name, method in methods.items():
                if times[name] and times[name][0] > LONG:
                    continue
                start = time.perf_counter()
                products[name] = method(x, v)
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        reference = products.get("scikit-learn", products["mercer"])
        scale = np.abs(reference).max()
        for name in methods:
            row = {
                "d": d,
                "method": name,
                "seconds": medians[name],
                "rounds": len(times[name]),
                "ratio": medians[name] / medians["mercer"],
                "difference": float(np.abs(products[name] - reference).max() / scale),
                "peak_gib": peak(name, args.points, d),
            }
            rows.append(row)
            print(
                f"d {d:3d}  {name:12s} {row['seconds']:7.2f} s  {row['ratio']:5.2f}x mercer's  "
                f"peak {row['peak_gib']:.2f} GiB  difference {row['difference']:.1e}",
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"points": args.points, "rows": rows, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
