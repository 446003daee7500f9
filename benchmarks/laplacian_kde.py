"""Laplacian densities, exact, against scikit-learn's tree at rtol 0 and KeOps.

The density of n points at the same points, bandwidth 0.1 for normal data: Mercer's
``KernelDensity(kernel="laplacian")``, scikit-learn's with ``kernel="exponential"`` and
``metric="manhattan"`` at ``rtol=0, atol=0`` (in one dimension the same density; in more its
normaliser is that of the Euclidean distance, which is divided out), and KeOps where it is
installed, turn by turn. The tree and KeOps are asked at some of the points where all would take
too long; their time is then scaled up, and marked.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KernelDensity as Tree

from mercer.cli.environment import describe_environment
from mercer.machines import KernelDensity

BANDWIDTH = 0.1
MOST_PAIRS = 2e8  # that the peers take in one round
# Volumes that scikit-learn divides by, over the right ones: the surface of the Euclidean ball
# times (d - 1)! in place of 2^d.
WRONG = {d: 2 * math.pi ** (d / 2) / math.gamma(d / 2) * math.gamma(d) / 2**d for d in range(1, 9)}


def data(n: int, d: int) -> np.ndarray:
    """Draw points."""
    return np.random.default_rng(0).normal(size=(n, d))


def with_mercer(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Sum over orthants."""
    return KernelDensity(kernel="laplacian", bandwidth=BANDWIDTH).fit(x).score_samples(z)


def with_scikit_learn(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Walk a tree, to the last pair."""
    tree = Tree(kernel="exponential", metric="manhattan", bandwidth=BANDWIDTH, rtol=0, atol=0)
    return tree.fit(x).score_samples(z) + math.log(WRONG[x.shape[1]])


def with_keops(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Reduce all pairs in compiled code."""
    from pykeops.torch import LazyTensor

    a = LazyTensor(torch.from_numpy(z)[:, None, :])
    b = LazyTensor(torch.from_numpy(x)[None, :, :])
    sums = (-(a - b).abs().sum(-1) / BANDWIDTH).exp().sum(1)[:, 0]
    norm = len(x) * (2 * BANDWIDTH) ** x.shape[1]
    return (sums / norm).log().numpy()


def available() -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Leave out what is not installed, or cannot compile here."""
    methods = {"mercer": with_mercer, "scikit-learn": with_scikit_learn}
    try:
        with_keops(data(10, 1), data(10, 1))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"KeOps does not run here: {type(error).__name__}")
        return methods
    return {**methods, "keops": with_keops}


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    methods = available()
    print(f"{torch.get_num_threads()} threads, float64, h = {BANDWIDTH}")
    rows: list[dict[str, Any]] = []
    for d in args.dimensions:
        for n in args.sizes:
            x = data(n, d)
            asked = dict.fromkeys(methods, n)
            for name in methods:
                if name != "mercer":
                    asked[name] = min(n, int(MOST_PAIRS / n))
            times: dict[str, list[float]] = {name: [] for name in methods}
            found: dict[str, np.ndarray] = {}
            for method in methods.values():
                method(x[:500] / 9, x[:500])  # what is compiled once is compiled here
            for _ in range(args.repeats):
                for name, method in methods.items():
                    start = time.perf_counter()
                    found[name] = method(x, x[: asked[name]])
                    times[name].append(time.perf_counter() - start)
            base = statistics.median(times["mercer"])
            for name in methods:
                count = asked[name]
                scaled = statistics.median(times[name]) * n / count
                error = float(np.abs(np.expm1(found[name] - found["mercer"][:count])).max())
                row = {
                    "d": d,
                    "n": n,
                    "method": name,
                    "seconds": scaled,
                    "queries": count,
                    "scaled": count < n,
                    "ratio": scaled / base,
                    "difference": error,
                }
                rows.append(row)
                print(
                    f"d {d}  n {n:7,d}  {name:12s} {scaled:9.3f} s{'*' if count < n else ' '} "
                    f"{row['ratio']:8.1f}x mercer's  difference {error:.1e}",
                    flush=True,
                )
    print("* scaled up from the queries that were asked")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"rows": rows, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
