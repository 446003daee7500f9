"""Exact distribution functions at all sample points: time against n log^(d-1) n, and brute force.

Divide and conquer over up to 200,000 points in 2, 3 and 4 dimensions, every count. Growth is the
slope of log time over log n, beside that of n log^(d-1) n over the same sizes; the same by
comparing all pairs (NumPy, point by point, for some of the points, and scaled up) is the peer; all
counts of those points must be equal. The bytes that are moved are counted, and set beside what a
copy of as many takes on this machine.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mercer.cli.environment import describe_environment
from mercer.linalg import dominance_sums
from mercer.linalg.dominance_sums import visits

SIZES = (12_500, 25_000, 50_000, 100_000, 200_000)
CHECKED = 500  # points that are compared with all others
BYTES = 190  # read and written for a point at one level, by counting the passes in sums_below


def data(n: int, d: int) -> torch.Tensor:
    """Draw correlated points, some of them with equal coordinates."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 1:] += 0.5 * x[:, :1]
    return (x * 10_000).round() / 10_000


def by_pairs(x: torch.Tensor, some: torch.Tensor) -> np.ndarray:
    """Count point by point."""
    points = x.numpy()
    return np.array([np.all(points <= points[i], 1).sum() for i in some.tolist()])


def copy_rate() -> float:
    """Measure bytes a second, read and written, of a copy in the caches."""
    a = torch.zeros(2**17, dtype=torch.float64)
    b = torch.empty_like(a)
    start = time.perf_counter()
    for _ in range(300):
        b.copy_(a)
    return 300 * 2 * 8 * len(a) / (time.perf_counter() - start)


def slope(sizes: list[int], values: list[float]) -> float:
    """Fit the exponent of a power law."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rate = copy_rate()
    print(f"{torch.get_num_threads()} threads, copies move {rate / 1e9:.1f} GB/s")
    rows: list[dict[str, Any]] = []
    growth: list[dict[str, Any]] = []
    for d in args.dimensions:
        dominance_sums(data(2000, d))
        medians = []
        for n in args.sizes:
            x = data(n, d)
            taken = []
            for _ in range(args.repeats):
                start = time.perf_counter()
                counts = dominance_sums(x)
                taken.append(time.perf_counter() - start)
            some = torch.linspace(0, n - 1, CHECKED).long()
            start = time.perf_counter()
            expected = by_pairs(x, some)
            pairs = (time.perf_counter() - start) * n / CHECKED
            wrong = int((counts[some].numpy() != expected).sum())
            medians.append(statistics.median(taken))
            limit = BYTES * n * visits(n, d) / rate
            row = {
                "d": d,
                "n": n,
                "seconds": medians[-1],
                "all_pairs_seconds": pairs,
                "ratio": pairs / medians[-1],
                "wrong_counts": wrong,
                "checked": CHECKED,
                "share_of_copy_rate": limit / medians[-1],
            }
            rows.append(row)
            print(
                f"d {d}  n {n:7,d}  {row['seconds']:7.3f} s  all pairs {pairs:8.1f} s "
                f"({row['ratio']:6.0f}x)  wrong {wrong} of {CHECKED}  "
                f"{100 * row['share_of_copy_rate']:.0f} % of the rate of copies",
                flush=True,
            )
        ideal = [n * math.log(n) ** (d - 1) for n in args.sizes]
        found = {
            "d": d,
            "exponent": slope(args.sizes, medians),
            "ideal": slope(args.sizes, ideal),
            "doubling": 2 ** slope(args.sizes, medians),
        }
        growth.append(found)
        print(
            f"d {d}  time grows as n^{found['exponent']:.2f}, "
            f"n log^{d - 1} n as n^{found['ideal']:.2f}; "
            f"twice the points take {found['doubling']:.2f}x"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"rows": rows, "growth": growth, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
