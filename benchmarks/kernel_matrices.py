"""Kernel matrices against scikit-learn's, at the same accuracy in float64.

10,000 points in 10 and in 100 dimensions, ``kernel(x)`` beside ``rbf_kernel(x)`` and the like,
turn by turn: median seconds, the ratio, and the largest error of both against the formula
evaluated from differences, on a sample of the entries.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.gaussian_process import kernels as gaussian_process
from sklearn.metrics import pairwise

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.kernels import RBF, Laplacian, Matern

SAMPLE = 200_000


def pairs(d: int) -> dict[str, tuple[Any, Any]]:
    """Each kernel of Mercer with its peer, at a lengthscale that fits the dimension."""
    scale = d**0.5
    return {
        "RBF": (RBF(scale), lambda x: pairwise.rbf_kernel(x, gamma=0.5 / d)),
        "Matern 1/2": (Matern(scale, nu=0.5), gaussian_process.Matern(scale, nu=0.5)),
        "Matern 3/2": (Matern(scale, nu=1.5), gaussian_process.Matern(scale, nu=1.5)),
        "Matern 5/2": (Matern(scale, nu=2.5), gaussian_process.Matern(scale, nu=2.5)),
        "Laplacian": (Laplacian(d), lambda x: pairwise.laplacian_kernel(x, gamma=1 / d)),
    }


def exact(kernel: Any, x: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Evaluate the formula between single pairs of rows."""
    difference = (x[i] - x[j]) / kernel.lengthscale
    if isinstance(kernel, Laplacian):
        return torch.exp(-difference.abs().sum(-1))
    return kernel.profile(difference.square().sum(-1))


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    source = torch.Generator().manual_seed(0)
    environment = describe_environment()
    print(f"{args.points:,} points, float64, {torch.get_num_threads()} threads")
    rows = []
    for d in (10, 100):
        x = torch.randn(args.points, d, generator=source, dtype=torch.float64)
        i, j = torch.randint(args.points, (2, SAMPLE), generator=source)
        for name, (kernel, peer) in pairs(d).items():
            truth = exact(kernel, x, i, j)
            numpy = x.numpy()
            errors = {
                "mercer": float((kernel(x)[i, j] - truth).abs().max()),
                "scikit-learn": float(np.abs(peer(numpy)[i, j] - truth.numpy()).max()),
            }
            times = interleaved(
                {"mercer": partial(kernel, x), "scikit-learn": partial(peer, numpy)},
                seconds=0,
                least=args.repeats,
            )
            ours, theirs = (times[who]["median"] for who in ("mercer", "scikit-learn"))
            row = {"kernel": name, "d": d, "mercer": ours, "scikit-learn": theirs}
            row |= {"ratio": theirs / ours, "error": errors}
            rows.append(row)
            print(
                f"d {d:3d}  {name:11s} mercer {ours:6.3f} s  scikit-learn {theirs:6.3f} s  "
                f"{row['ratio']:5.2f}x  errors {errors['mercer']:.1e} {errors['scikit-learn']:.1e}",
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"points": args.points, "rows": rows, "environment": environment}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
