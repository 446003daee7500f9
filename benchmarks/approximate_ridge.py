"""Ridge regression on explicit features of 100,000 rows, against scikit-learn's pipelines.

Friedman's first function of ten inputs with noise; a Gaussian kernel of the same lengthscale and
the same number of features for all. Mercer maps a batch of rows, adds its moments
(`StreamingRidge`), and forgets it; scikit-learn maps all rows, then fits `Ridge`. Time is that of
fitting and of predicting 20,000 further rows, turn by turn; the error is that of the prediction,
against the function without its noise.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from sklearn.kernel_approximation import Nystroem as TheirNystroem
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.features import Nystroem, RandomFourier
from mercer.kernels import RBF
from mercer.linalg import StreamingRidge

LENGTHSCALE, RIDGE, TEST, BATCH = 1.0, 1e-2, 20_000, 16_384
KERNEL = RBF(LENGTHSCALE).requires_grad_(False)


def regress(
    features: Callable[[torch.Tensor], torch.Tensor],
    solve: Callable[[StreamingRidge], tuple[torch.Tensor, torch.Tensor]],
    X: np.ndarray,
    y: np.ndarray,
    test: np.ndarray,
) -> np.ndarray:
    """Fit in one pass over batches, and predict."""
    targets = torch.from_numpy(y).unsqueeze(-1)
    ridge: StreamingRidge | None = None
    for rows, t in zip(torch.from_numpy(X).split(BATCH), targets.split(BATCH), strict=True):
        z = features(rows)
        ridge = StreamingRidge(z.shape[1], 1) if ridge is None else ridge
        ridge.update(z, t)
    assert ridge is not None
    weight, bias = solve(ridge)
    parts = [features(rows) @ weight.mT + bias for rows in torch.from_numpy(test).split(BATCH)]
    return torch.cat(parts).squeeze(-1).numpy()


def with_fourier(m: int, seed: int, X: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge regression on random Fourier features."""
    phi = RandomFourier(KERNEL, X.shape[1], m, draw="sobol", generator=seed, dtype=torch.float64)

    def solve(ridge: StreamingRidge) -> tuple[torch.Tensor, torch.Tensor]:
        found = ridge.solve(RIDGE)
        return found.weight, found.bias

    return regress(phi, solve, X, y, test)


def with_nystroem(m: int, seed: int, X: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge regression on Nystroem features, the root of the landmarks' matrix on the moments.

    The rows are never multiplied with the root: their moments are, once. Directions that carry
    less than the ridge are left out, as the moments' rounding would be blown up there.
    """
    x = torch.from_numpy(X)
    phi = Nystroem.from_data(
        KERNEL, x, m, landmarks="uniform", cutoff=RIDGE / len(x), generator=seed
    )

    def solve(ridge: StreamingRidge) -> tuple[torch.Tensor, torch.Tensor]:
        found = ridge.transformed(phi.whitening).solve(RIDGE)
        return found.weight @ phi.whitening.mT, found.bias

    return regress(lambda rows: KERNEL(rows, phi.landmarks), solve, X, y, test)


def with_scikit_learn(
    transformer: Any, X: np.ndarray, y: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit a pipeline, and predict."""
    return make_pipeline(transformer, Ridge(alpha=RIDGE)).fit(X, y).predict(test)


def methods(m: int, seed: int) -> dict[str, dict[str, Callable[..., np.ndarray]]]:
    """Each approximation, by Mercer and by scikit-learn."""
    gamma = 0.5 / LENGTHSCALE**2
    theirs = {"n_components": m, "random_state": seed}
    return {
        "Nystroem": {
            "mercer": partial(with_nystroem, m, seed),
            "scikit-learn": partial(with_scikit_learn, TheirNystroem(gamma=gamma, **theirs)),
        },
        "RandomFourier": {
            "mercer": partial(with_fourier, m, seed),
            "scikit-learn": partial(with_scikit_learn, RBFSampler(gamma=gamma, **theirs)),
        },
    }


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="draws that errors are a mean of")
    args = parser.parse_args()
    X, y = make_friedman1(args.rows + TEST, noise=1.0, random_state=0)
    clean = (
        10 * np.sin(np.pi * X[:, 0] * X[:, 1])
        + 20 * (X[:, 2] - 0.5) ** 2
        + 10 * X[:, 3]
        + 5 * X[:, 4]
    )
    train, test, truth = X[: args.rows], X[args.rows :], clean[args.rows :]
    targets = y[: args.rows]
    threads = torch.get_num_threads()
    print(f"{args.rows:,} rows, {args.features:,} features, float64, {threads} threads")
    rows = []
    for name in ("Nystroem", "RandomFourier"):
        errors: dict[str, list[float]] = {"mercer": [], "scikit-learn": []}
        for seed in range(args.seeds):
            for who, method in methods(args.features, seed)[name].items():
                error = method(train, targets, test) - truth
                errors[who].append(float(np.sqrt((error**2).mean())))
        made = methods(args.features, 0)[name]
        timed = {who: partial(method, train, targets, test) for who, method in made.items()}
        times = interleaved(timed, seconds=0, least=args.repeats)
        ours, theirs = (times[who]["median"] for who in ("mercer", "scikit-learn"))
        means = {who: float(np.mean(values)) for who, values in errors.items()}
        row = {"method": name, "mercer": ours, "scikit-learn": theirs, "ratio": theirs / ours}
        rows.append({**row, "error": means, "errors": errors})
        print(
            f"{name:14s} mercer {ours:6.2f} s  scikit-learn {theirs:6.2f} s  "
            f"{theirs / ours:5.2f}x  errors {means['mercer']:.4f} {means['scikit-learn']:.4f}",
            flush=True,
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"rows": rows, "features": args.features, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
