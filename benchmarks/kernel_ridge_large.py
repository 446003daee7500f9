"""Kernel ridge regression on 100,000 and 1,000,000 rows, beside scikit-learn's Nystroem + Ridge.

Friedman's first function of ten inputs among twenty, with noise 1; a Gaussian kernel of the same
lengthscale and penalty for both. scikit-learn takes uniform landmarks, maps all rows, and fits
`Ridge` to them; Mercer's `KernelRidge` takes as many k-means landmarks as leave the same error,
fewer, and the same number, and sums normal equations block by block. Time is that of fitting and
of predicting 20,000 further rows, turn by turn; the error is that of the prediction against the
function without its noise. A million rows are fitted by Mercer alone, within the budget given.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import mercer
from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.kernels import RBF
from mercer.machines import KernelRidge

LENGTHSCALE, ALPHA, TEST, COLUMNS = 1.5, 1e-1, 20_000, 20


def friedman(X: np.ndarray) -> np.ndarray:
    """Evaluate the function without noise."""
    wave = 10 * np.sin(np.pi * X[:, 0] * X[:, 1])
    return wave + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw rows, noisy targets, and rows to predict."""
    source = np.random.default_rng(seed)
    X = source.uniform(size=(n + TEST, COLUMNS))
    return X[:n], friedman(X[:n]) + source.normal(size=n), X[n:]


def with_mercer(
    m: int, selection: str, seed: int, X: np.ndarray, y: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit and predict."""
    model = KernelRidge(
        RBF(LENGTHSCALE),
        ALPHA,
        solver="falkon",
        landmarks=m,
        selection=selection,
        fit_intercept=True,
        random_state=seed,
    )
    return model.fit(X, y).predict(test)


def with_scikit_learn(
    m: int, seed: int, X: np.ndarray, y: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit a pipeline, and predict."""
    phi = Nystroem(gamma=0.5 / LENGTHSCALE**2, n_components=m, random_state=seed)
    return make_pipeline(phi, Ridge(alpha=ALPHA)).fit(X, y).predict(test)


def error(predict: Callable[..., np.ndarray], n: int, seed: int) -> float:
    """Return the error of a method on fresh data."""
    X, y, test = rows(n, seed)
    return float(np.sqrt(np.square(predict(seed, X, y, test) - friedman(test)).mean()))


def peak() -> float:
    """Return the peak of the process's resident memory, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("VmHWM"))
    return int(found.split()[1]) / 2**20


def compare(args: argparse.Namespace) -> dict[str, object]:
    """Time both on the same rows, and take errors over several draws."""
    methods = {
        "scikit-learn": partial(with_scikit_learn, args.features),
        "mercer": partial(with_mercer, args.landmarks, "kmeans"),
        "mercer, as many": partial(with_mercer, args.features, "kmeans"),
        "mercer, as many, uniform": partial(with_mercer, args.features, "uniform"),
    }
    X, y, test = rows(args.rows, 0)
    calls = {name: partial(method, 0, X, y, test) for name, method in methods.items()}
    times = interleaved(calls, seconds=0.0, least=args.repeats, most=args.repeats)
    medians = {name: found["median"] for name, found in times.items()}
    found = {}
    print(f"n = {args.rows:,}, d = {COLUMNS}")
    for name, method in methods.items():
        errors = [error(method, args.rows, seed) for seed in range(args.seeds)]
        ratio = medians["scikit-learn"] / medians[name]
        found[name] = {"seconds": medians[name], "ratio": ratio, "rmse": errors}
        print(
            f"  {name:26s} {medians[name]:7.2f} s  {ratio:5.2f}x  "
            f"RMSE {np.mean(errors):.4f} +- {np.std(errors, ddof=1) / len(errors) ** 0.5:.4f}"
        )
    return found


def million(args: argparse.Namespace) -> dict[str, object]:
    """Fit many rows, and say what it took."""
    X, y, test = rows(args.many, 0)
    found = []
    for m in args.many_landmarks:
        model = KernelRidge(
            RBF(LENGTHSCALE),
            ALPHA,
            solver="falkon",
            landmarks=m,
            fit_intercept=True,
            random_state=0,
            show_progress=True,
        )
        start = time.perf_counter()
        model.fit(X, y)
        fit = time.perf_counter() - start
        start = time.perf_counter()
        rest = model.predict(test) - friedman(test)
        predict = time.perf_counter() - start
        rmse = float(np.sqrt(np.square(rest).mean()))
        print(
            f"n = {args.many:,}, {m} landmarks: fit {fit:.1f} s, {len(test):,} predictions "
            f"{predict:.2f} s, RMSE {rmse:.4f} (noise 1), residual {model.residual_:.1e} after "
            f"{model.n_iter_} iterations, peak {peak():.2f} GiB; {model.solver_reason_}"
        )
        found.append({"landmarks": m, "fit": fit, "predict": predict, "rmse": rmse, "peak": peak()})
    return {"rows": args.many, "runs": found}


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1_000)
    parser.add_argument("--landmarks", type=int, default=700)
    parser.add_argument("--many", type=int, default=1_000_000, help="0 leaves this part out")
    parser.add_argument("--many-landmarks", type=int, nargs="*", default=[1_000, 5_000])
    parser.add_argument("--budget", default="16 GiB", help="memory that Mercer may take")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="draws that errors are a mean of")
    args = parser.parse_args()
    mercer.config.memory_budget = args.budget
    found: dict[str, object] = {"environment": describe_environment()}
    if args.rows:
        found["compared"] = compare(args)
    if args.many:
        found["many"] = million(args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
