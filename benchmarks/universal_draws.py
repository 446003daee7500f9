"""Orthogonal, Hadamard and Sobol draws against independent ones, for universal features.

Root-mean-square error of the estimate about the map's own expansion, over 50 pairs of an input
and a neuron and over many draws, at m <= d and at m = 8 d real features. A ratio below 1 means
that the draw is better than independent Gaussian directions; its standard error is over draws.
"""

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any

import torch

from mercer.features import UniversalFeatures

ACTIVATIONS = ("sin", "gaussian", "tanh", "gelu", "relu")
DRAWS = ("gaussian", "orthogonal", "hadamard", "sobol")


def pairs(count: int, in_features: int, norm: float) -> tuple[torch.Tensor, ...]:
    """Draw inputs and weights of one norm, directions uniform, and biases in [-1, 1]."""
    source = torch.Generator().manual_seed(10**9)
    x, weight = torch.randn(2, count, in_features, generator=source, dtype=torch.float64)
    bias = 2 * torch.rand(count, generator=source, dtype=torch.float64) - 1
    return (
        norm * x / x.norm(dim=1, keepdim=True),
        norm * weight / weight.norm(dim=1, keepdim=True),
        bias,
    )


def squared_errors(
    activation: str, draw: str, size: int, in_features: int, norm: float, seeds: int, count: int
) -> torch.Tensor:
    """Return the mean squared error over the pairs for each draw, shape (seeds,)."""
    x, weight, bias = pairs(count, in_features, norm)
    phi = UniversalFeatures(
        activation,
        in_features,
        size,
        draw=draw,
        norms=(norm, norm),
        generator=0,
        dtype=torch.float64,
    )
    expected = phi.expand((x * weight).sum(-1) + bias)
    errors = []
    for seed in range(seeds):
        phi.reset_parameters(seed)
        errors.append((phi.estimate(x, weight, bias).diagonal() - expected).square().mean())
    return torch.stack(errors)


def compare(
    in_features: int = 16, norms: tuple[float, ...] = (0.5, 1.0), seeds: int = 200, count: int = 50
) -> list[dict[str, Any]]:
    """Return a row for each activation, norm and size: errors, and ratios to independent draws."""
    rows = []
    for activation in ACTIVATIONS:
        for norm in norms:
            for size in (in_features // 2, in_features, 8 * in_features):
                square = {
                    draw: squared_errors(activation, draw, size, in_features, norm, seeds, count)
                    for draw in DRAWS
                }
                row: dict[str, Any] = {
                    "activation": activation,
                    "norm": norm,
                    "d": in_features,
                    "m": size,
                }
                relative = {
                    d: float(s.std() / s.mean()) / math.sqrt(seeds) for d, s in square.items()
                }
                for draw, values in square.items():
                    ratio = math.sqrt(float(values.mean() / square["gaussian"].mean()))
                    row[draw] = math.sqrt(float(values.mean()))
                    row[f"{draw}_ratio"] = ratio
                    # Of a root of a quotient of means, to first order.
                    row[f"{draw}_se"] = ratio / 2 * math.hypot(relative[draw], relative["gaussian"])
                rows.append(row)
    return rows


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--in-features", type=int, default=16)
    args = parser.parse_args()
    rows = compare(args.in_features, seeds=args.seeds)
    print("RMS error about the expansion; in brackets the ratio to gaussian and its standard error")
    print(
        f"{'activation':>10} {'norm':>4} {'m':>5} {'gaussian':>9}", *(f"{d:>22}" for d in DRAWS[1:])
    )
    for row in rows:
        cells = (
            f"{row[d]:.4f} ({row[f'{d}_ratio']:.3f} ± {row[f'{d}_se']:.3f})" for d in DRAWS[1:]
        )
        start = f"{row['activation']:>10} {row['norm']:>4} {row['m']:>5} {row['gaussian']:>9.4f}"
        print(start, *(f"{cell:>22}" for cell in cells))
    if args.json:
        result = {
            "rows": rows,
            "seeds": args.seeds,
            "pairs": 50,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "system": platform.platform(),
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
