"""Kernel ridge regression with neural tangent kernels beside the RBF kernel, on six UCI sets.

Ten splits of each set, 90 % of the rows to train on; inputs and targets standardised by these.
Both kernels get the same: 24 candidates (RBF: lengthscales; NTK: depth, activation and standard
deviations) and 41 ridges for each, chosen by leave-one-out errors, in closed form from one
eigendecomposition, on at most 1,000 of the training rows. The chosen one is then solved once on all
training rows, in float64. Printed: root mean squared errors on the test rows, in the target's unit,
and the difference with its standard error over the splits, which share rows and are no independent
draws.

The data lies in the folder ``uci`` of the folder that ``MERCER_DATA`` names.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mercer.cli.environment import describe_environment
from mercer.datasets import find
from mercer.infinite import NTK
from mercer.kernels import RBF, Kernel

os.environ.setdefault("MERCER_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
SETS = ("yacht", "energy", "concrete", "wine-quality-red", "kin8nm", "power-plant")
MOST = 1000  # rows to choose by
RIDGES = torch.logspace(-10, 2, 41, dtype=torch.float64)  # of the mean diagonal


def network(activation: type[nn.Module], depth: int, d: int) -> nn.Sequential:
    """Make a network; its widths do not matter."""
    layers: list[nn.Module] = []
    for width in [d] + [8] * (depth - 1):
        layers += [nn.Linear(width, 8), activation()]
    return nn.Sequential(*layers, nn.Linear(8, 1))


def tangent_kernels(d: int) -> dict[str, Kernel]:
    """24 neural tangent kernels: of ReLU the ratio of the deviations counts, of GELU both."""
    choices = [(nn.ReLU, n, 2**0.5, b) for n in (1, 2, 4) for b in (0.1, 0.3, 1.0, 3.0)]
    choices += [
        (nn.GELU, n, w, b) for n in (1, 2) for w in (1.0, 2**0.5, 2 * 2**0.5) for b in (0.3, 1.0)
    ]
    return {
        f"{a.__name__} depth {n} w {w:.2f} b {b:g}": NTK(network(a, n, d), w_std=w, b_std=b)
        for a, n, w, b in choices
    }


def rbf_kernels(d: int) -> dict[str, Kernel]:
    """24 lengthscales, from a fifth of the typical distance to twenty times of it."""
    scales = np.geomspace(0.2, 20, 24) * d**0.5
    return {f"lengthscale {scale:.2f}": RBF(float(scale)) for scale in scales}


KERNELS: dict[str, Callable[[int], dict[str, Kernel]]] = {
    "NTK": tangent_kernels,
    "RBF": rbf_kernels,
}


def leave_one_out(matrix: Tensor, y: Tensor) -> tuple[float, float]:
    """Smallest mean squared error of points left out, and the ridge that gives it."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    ridges = RIDGES * matrix.diagonal().mean()  # (r,)
    inverse = 1 / (eigenvalues.clamp_min(0)[:, None] + ridges)  # (n, r)
    solved = vectors @ (inverse * (vectors.mT @ y)[:, None])  # (n, r)
    # The error at a point left out is its coefficient over the inverse's diagonal there.
    errors = (solved / (vectors.square() @ inverse)).square().mean(0)  # (r,)
    best = int(errors.argmin())
    return float(errors[best]), float(ridges[best])


def choose(kernels: Mapping[str, Kernel], x: Tensor, y: Tensor) -> tuple[str, float]:
    """Choose a kernel and its ridge on the training rows."""
    found = {name: leave_one_out(kernel(x), y) for name, kernel in kernels.items()}
    name = min(found, key=lambda name: found[name][0])
    return name, found[name][1]


def split(table: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Training and test rows, standardised, and the unit of the target."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    rows = len(table) // 10
    test, train = table[order[:rows]], table[order[rows:]]
    mean, unit = train.mean(0), train.std(0)
    unit[unit == 0] = 1.0  # a column that is constant
    (x, y), (x_test, y_test) = (
        (part[:, :-1], part[:, -1]) for part in ((train - mean) / unit, (test - mean) / unit)
    )
    return x, y, x_test, y_test, float(unit[-1])


def regress(table: Tensor, seed: int) -> dict[str, dict[str, Any]]:
    """Error of both kernels on one split, and what was chosen."""
    x, y, x_test, y_test, unit = split(table, seed)
    found = {}
    for title, make in KERNELS.items():
        kernels = make(x.shape[1])
        chosen, ridge = choose(kernels, x[:MOST], y[:MOST])
        kernel = kernels[chosen]
        solved = kernel.gram(x).solve(y, ridge=ridge)
        error = (kernel.gram(x_test, x) @ solved.solution - y_test).square().mean().sqrt()
        found[title] = {
            "error": unit * float(error),
            "chosen": chosen,
            "ridge": ridge,
            "residual": float(solved.residual.max()),
        }
    return found


def summary(splits: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Means, and the paired difference with its standard error."""
    errors = {t: torch.tensor([s[t]["error"] for s in splits]).double() for t in KERNELS}
    difference = errors["NTK"] - errors["RBF"]
    count = len(splits)
    return {
        **{title: float(e.mean()) for title, e in errors.items()},
        "difference": float(difference.mean()),
        "standard_error": float(difference.std() / count**0.5) if count > 1 else float("nan"),
        "splits_won": int((difference < 0).sum()),
        "chosen": {t: sorted({s[t]["chosen"] for s in splits}) for t in KERNELS},
        "splits": splits,
    }


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--splits", type=int, default=10)
    args = parser.parse_args()
    folder = find("uci")
    print(f"{'set':18s}{'rows':>6s}{'RBF':>10s}{'NTK':>10s}   difference +- its error   splits won")
    rows = {}
    for name in args.sets:
        start = time.process_time()
        table = torch.from_numpy(np.loadtxt(folder / f"{name}.csv", delimiter=","))
        row = summary([regress(table, seed) for seed in range(args.splits)])
        row |= {"rows": len(table), "core_seconds": round(time.process_time() - start, 1)}
        rows[name] = row
        print(
            f"{name:18s}{len(table):6d}{row['RBF']:10.4f}{row['NTK']:10.4f}   "
            f"{row['difference']:+.4f} +- {row['standard_error']:.4f}   "
            f"{row['splits_won']:6d} of {args.splits}   {row['core_seconds']:.0f} core-seconds",
            flush=True,
        )
    won = sum(row["difference"] < 0 for row in rows.values())
    print(f"NTK has the smaller mean error on {won} of {len(rows)} sets")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"sets": rows, "won": won, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
