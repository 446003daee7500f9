"""How exact feature maps are: draws of directions against each other, and against quadrature.

Root-mean-square error of the estimate of a kernel, over pairs of points at a fixed distance (or
of a fixed norm) in random directions, and over draws. Random Fourier features of the Gaussian
kernel, positive features of the exponential one; and, for kernels of the dot product, blind maps
against landmarks.
"""

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any

import torch

from mercer.features import PositiveFeatures, QuadratureFeatures, RandomFourier
from mercer.kernels import RBF, Exponential, Kernel, Polynomial

DRAWS = ("gaussian", "orthogonal", "sobol", "hadamard", "fastfood")
PAIRS = 100


def directions(in_features: int, source: torch.Generator) -> torch.Tensor:
    """Draw unit vectors, shape (PAIRS, in_features)."""
    x = torch.randn(PAIRS, in_features, generator=source, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def error(phi: Any, x: torch.Tensor, y: torch.Tensor, truth: torch.Tensor, seeds: int) -> float:
    """Return the root-mean-square error over pairs and draws."""
    squares = []
    for seed in range(seeds):
        phi.reset_parameters(seed)
        squares.append(((phi(x) * phi(y)).sum(-1) - truth).square().mean())
    return math.sqrt(float(torch.stack(squares).mean()))


def fourier(seeds: int) -> list[dict[str, Any]]:
    """Return a row for each size and distance: errors for the Gaussian kernel."""
    rows = []
    for d, m in ((1, 64), (2, 64), (2, 512), (4, 512), (16, 64), (16, 512), (64, 512)):
        for distance in (0.5, 1.0, 2.0):
            source = torch.Generator().manual_seed(10**9)
            x = torch.randn(PAIRS, d, generator=source, dtype=torch.float64)
            y = x + distance * directions(d, source)
            truth = torch.full((PAIRS,), math.exp(-(distance**2) / 2), dtype=torch.float64)
            row: dict[str, Any] = {"d": d, "m": m, "distance": distance, "k": float(truth[0])}
            for draw in DRAWS:
                phi = RandomFourier(RBF(), d, m, draw=draw, dtype=torch.float64)
                row[draw] = error(phi, x, y, truth, seeds)
            fixed = QuadratureFeatures(RBF(), d, m, dtype=torch.float64)
            row["quadrature"] = error(fixed, x, y, truth, 1)
            rows.append(row)
    return rows


def positive(seeds: int) -> list[dict[str, Any]]:
    """Return a row for each size and norm: relative errors for the exponential kernel."""
    rows = []
    for d, m in ((16, 64), (16, 512), (64, 512)):
        for norm in (0.5, 1.0, 1.5):
            source = torch.Generator().manual_seed(10**9)
            x, y = norm * directions(d, source), norm * directions(d, source)
            truth = torch.exp((x * y).sum(-1))
            scale = truth.sqrt().unsqueeze(-1)
            row: dict[str, Any] = {"d": d, "m": m, "norm": norm}
            options: dict[str, dict[str, Any]] = {
                "FAVOR+": {"draw": "gaussian", "damping": 0.0, "paired": False},
                "damped": {"draw": "gaussian", "paired": False},
                **{draw: {"draw": draw} for draw in DRAWS},
            }
            for name, option in options.items():
                phi = PositiveFeatures(
                    Exponential(), d, m, norms=(norm, norm), dtype=torch.float64, **option
                )
                squares = []
                for seed in range(seeds):
                    phi.reset_parameters(seed)
                    found = ((phi(x) / scale) * (phi(y) / scale)).sum(-1)
                    squares.append((found - 1).square().mean())
                row[name] = math.sqrt(float(torch.stack(squares).mean()))
            rows.append(row)
    return rows


def blind_and_informed() -> list[dict[str, Any]]:
    """Return a row for each kernel and size: a map that knows the data against one that does not.

    Relative error of the kernel matrix of 500 points in Frobenius norm; the 2,000 points that
    the landmarks are chosen from are others.
    """
    kernels: tuple[tuple[Kernel, str], ...] = (
        (Polynomial(3), "polynomial_sketch"),
        (Exponential(), "positive"),
        (RBF(), "random_fourier"),
    )
    rows = []
    for kernel, method in kernels:
        for d in (10, 50):
            source = torch.Generator().manual_seed(10**9)
            x = torch.randn(2500, d, generator=source, dtype=torch.float64) / math.sqrt(d)
            truth = kernel(x[2000:]).detach()
            for m in (100, 400):
                row: dict[str, Any] = {"kernel": repr(kernel), "d": d, "m": m, "blind": method}
                for name, how in (("blind_error", method), ("nystroem_error", "nystroem")):
                    phi = kernel.features(m, like=x[:2000], method=how, generator=0)
                    z = phi(x[2000:])
                    row[name] = float((z @ z.mT - truth).norm() / truth.norm())
                rows.append(row)
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    print(title)
    print(*(f"{name:>12}" for name in rows[0]))
    for row in rows:
        cells = [f"{v:.2g}" if isinstance(v, float) else str(v) for v in row.values()]
        print(*(f"{cell:>12}" for cell in cells))
    print()


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "random_fourier": fourier(args.seeds),
        "positive": positive(args.seeds),
        "blind_and_informed": blind_and_informed(),
    }
    show("RandomFourier and QuadratureFeatures, RBF(): RMS error", result["random_fourier"])
    show("PositiveFeatures, Exponential(): RMS error relative to the kernel", result["positive"])
    show("Blind maps and landmarks: relative error of a matrix", result["blind_and_informed"])
    if args.json:
        result |= {
            "seeds": args.seeds,
            "pairs": PAIRS,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "system": platform.platform(),
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
