"""Test errors and log-likelihoods on six UCI sets: Gaussian processes and ridges beside peers.

Ten splits of each set (as of ``infinite_uci.py``): 90 % of the rows to train on; inputs and targets
standardised by these. On the test rows: root mean squared error in the target's unit, and the mean
log-likelihood of one row.

==================== ==============================================================================
GP Matern, ARD       `GaussianProcessRegressor`, noise and one lengthscale a column fitted
GP RBF, ARD          the same
KRR RBF, Matern, NTK `KernelRidge`, the kernel out of a few and its penalty by leave-one-out errors
scikit-learn GP      the Matern kernel with the same hyperparameters to fit, by its own optimiser
scikit-learn trees   `HistGradientBoostingRegressor`, leaves and steps chosen by a tenth of the rows
==================== ==============================================================================

Hyperparameters of Mercer's Gaussian processes are fitted on at most ``--most`` rows, those of
scikit-learn's (a step of its optimiser on 2,000 rows in eight columns takes seconds) and of ridges
on at most 1,000; all are then conditioned on all training rows. Log-likelihoods of what has no
variance are those of a Gaussian with the variance of left-out errors: leave-one-out ones for
ridges, of a tenth of the training rows for trees.

Each split is written to ``--rows`` when it is done; what is there is not computed again. The data
lies in the folder ``uci`` of the folder that ``MERCER_DATA`` names.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor as PeerProcess
from sklearn.gaussian_process import kernels as peers
from torch import Tensor, nn

from mercer.cli.environment import describe_environment
from mercer.datasets import find
from mercer.infinite import NTK
from mercer.kernels import RBF, Kernel, Matern
from mercer.machines import GaussianProcessRegressor, KernelRidge

os.environ.setdefault("MERCER_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
SETS = ("yacht", "energy", "concrete", "wine-quality-red", "kin8nm", "power-plant")
FEW = 1000
TREES = 500

Answer = tuple[np.ndarray, np.ndarray]  # means and standard deviations of new observations


def split(table: Tensor, seed: int) -> tuple[np.ndarray, ...]:
    """Return training and test rows, standardised, and the unit of the target."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    rows = len(table) // 10
    test, train = table[order[:rows]], table[order[rows:]]
    mean, unit = train.mean(0), train.std(0)
    unit[unit == 0] = 1.0  # a column that is constant
    train, test = (train - mean) / unit, (test - mean) / unit
    parts = (train[:, :-1], train[:, -1], test[:, :-1], test[:, -1], unit[-1])
    return tuple(part.numpy() for part in parts)


def process(kernel: str) -> Callable[..., Answer]:
    """Make a Gaussian process of Mercer's with a lengthscale for each column."""

    def run(x: np.ndarray, y: np.ndarray, new: np.ndarray, most: int) -> Answer:
        model = GaussianProcessRegressor(kernel, ard=True).fit(x[:most], y[:most])
        if len(x) > most:
            model = GaussianProcessRegressor(
                model.kernel_.to_spec(), model.noise_, optimizer=None, method="exact"
            ).fit(x, y)
        return model.predict(new, return_std=True, include_noise=True)

    return run


def peer_process(x: np.ndarray, y: np.ndarray, new: np.ndarray, most: int) -> Answer:
    """Fit scikit-learn's Gaussian process with the same hyperparameters."""
    d = x.shape[1]
    kernel = peers.ConstantKernel(1.0) * peers.Matern([d**0.5] * d, nu=2.5)
    kernel = kernel + peers.WhiteKernel(0.1, (1e-8, 1e2))
    few = min(most, FEW)
    model = PeerProcess(kernel, normalize_y=True).fit(x[:few], y[:few])
    if len(x) > few:
        model = PeerProcess(model.kernel_, normalize_y=True, optimizer=None).fit(x, y)
    return model.predict(new, return_std=True)  # its White part is in the deviation


def network(activation: type[nn.Module], depth: int, d: int) -> nn.Sequential:
    """Make a network; its widths do not matter."""
    layers: list[nn.Module] = []
    for width in [d] + [8] * (depth - 1):
        layers += [nn.Linear(width, 8), activation()]
    return nn.Sequential(*layers, nn.Linear(8, 1))


def candidates(family: str, d: int) -> list[Kernel]:
    """List kernels to choose from."""
    scales = np.geomspace(0.2, 20, 10) * d**0.5
    if family == "RBF":
        return [RBF(float(s)) for s in scales]
    if family == "Matern":
        return [Matern(float(s), nu=2.5) for s in scales]
    found: list[Kernel] = [
        NTK(network(nn.ReLU, n, d), b_std=b) for n in (1, 2, 4) for b in (0.1, 1.0, 3.0)
    ]
    smooth = [(n, w) for n in (1, 2) for w in (1.0, 2**0.5, 8**0.5)]
    return found + [NTK(network(nn.GELU, n, d), w_std=w, b_std=1.0) for n, w in smooth]


def ridge(family: str) -> Callable[..., Answer]:
    """Make kernel ridge regression with a kernel of a family, chosen by leave-one-out errors."""

    def run(x: np.ndarray, y: np.ndarray, new: np.ndarray, most: int) -> Answer:
        most = min(most, FEW)
        few, targets = x[:most], y[:most]
        fits = []
        for kernel in candidates(family, x.shape[1]):
            model = KernelRidge(kernel, "loo", solver="cholesky", fit_intercept=True)
            model.fit(few, targets)
            fits.append((model.choice_.score, model))
        error, model = min(fits, key=lambda fit: fit[0])
        if len(x) > most:
            model = KernelRidge(model.kernel, model.alpha_, solver="cholesky", fit_intercept=True)
            model.fit(x, y)
        return model.predict(new), np.full(len(new), math.sqrt(error))

    return run


def trees(x: np.ndarray, y: np.ndarray, new: np.ndarray, most: int) -> Answer:
    """Fit scikit-learn's gradient boosting; a tenth of the rows chooses leaves and steps."""
    tenth = len(x) // 10
    best: tuple[float, dict[str, Any]] | None = None
    for leaf in (5, 20):
        settings = {"learning_rate": 0.05, "min_samples_leaf": leaf, "random_state": 0}
        model = HistGradientBoostingRegressor(max_iter=TREES, early_stopping=False, **settings)
        model.fit(x[tenth:], y[tenth:])
        errors = [np.mean((p - y[:tenth]) ** 2) for p in model.staged_predict(x[:tenth])]
        steps = int(np.argmin(errors))
        if best is None or errors[steps] < best[0]:
            best = float(errors[steps]), {"max_iter": steps + 1, **settings}
    assert best is not None
    model = HistGradientBoostingRegressor(early_stopping=False, **best[1]).fit(x, y)
    return model.predict(new), np.full(len(new), math.sqrt(best[0]))


METHODS: dict[str, Callable[..., Answer]] = {
    "GP Matern, ARD": process("matern52"),
    "GP RBF, ARD": process("rbf"),
    "KRR RBF": ridge("RBF"),
    "KRR Matern": ridge("Matern"),
    "KRR NTK": ridge("NTK"),
    "scikit-learn GP": peer_process,
    "scikit-learn trees": trees,
}


def measure(table: Tensor, seed: int, method: str, most: int) -> dict[str, float]:
    """Fit one method to one split."""
    x, y, new, truth, unit = split(table, seed)
    start = time.perf_counter()
    mean, std = METHODS[method](x, y, new, most)
    seconds = time.perf_counter() - start
    gap, scale = unit * (mean - truth), unit * std
    density = -0.5 * (gap / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)
    return {
        "rmse": float(np.sqrt(np.mean(gap**2))),
        "log_likelihood": float(density.mean()),
        "seconds": round(seconds, 2),
    }


def table_of(done: dict[str, dict[str, float]], sets: list[str], splits: int, key: str) -> str:
    """Write means with their standard errors over the splits as a Markdown table."""
    lines = [f"| set | {' | '.join(METHODS)} |", f"|---|{'---:|' * len(METHODS)}"]
    for name in sets:
        cells = []
        for method in METHODS:
            values = [done.get(f"{name}/{seed}/{method}", {}).get(key) for seed in range(splits)]
            known = np.array([v for v in values if v is not None])
            error = known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else math.nan
            cells.append(f"{known.mean():.3f} ± {error:.3f}" if len(known) else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rows", type=Path, help="where to write and find single splits")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--most", type=int, default=2000, help="rows to fit hyperparameters on")
    args = parser.parse_args()
    folder = find("uci")
    done: dict[str, dict[str, float]] = {}
    if args.rows and args.rows.exists():
        done = json.loads(args.rows.read_text(encoding="utf-8"))
    for name in args.sets:
        table = torch.from_numpy(np.loadtxt(folder / f"{name}.csv", delimiter=","))
        for seed in range(args.splits):
            for method in METHODS:
                key = f"{name}/{seed}/{method}"
                if key in done:
                    continue
                done[key] = measure(table, seed, method, args.most)
                print(f"{key}: {done[key]}", flush=True)
                if args.rows:
                    aside = args.rows.with_suffix(".part")
                    aside.parent.mkdir(parents=True, exist_ok=True)
                    aside.write_text(json.dumps(done, indent=1), encoding="utf-8")
                    aside.replace(args.rows)
    for key, title in (
        ("rmse", "Test error (root mean square)"),
        ("log_likelihood", "Test log-likelihood of a row"),
        ("seconds", "Seconds to fit and predict"),
    ):
        print(f"\n{title}\n\n{table_of(done, args.sets, args.splits, key)}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {"splits": done, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
