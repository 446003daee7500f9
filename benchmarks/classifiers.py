"""Kernel logistic regression and support vectors on many rows, against scikit-learn.

Two classes in ten dimensions, half of whose log odds a smooth function sets. Kernel logistic
regression on landmarks runs beside scikit-learn's Nystroem + LogisticRegression with as many, and
the support vector classifier on landmarks beside scikit-learn's SVC and beside its Nystroem +
LinearSVC. The kernel is the same Gaussian for all. Time is that of fitting and of predicting
10,000 further rows, turn by turn; accuracy is that on these rows, and so is the mean log loss.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import svm
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.kernels import RBF
from mercer.machines import SVC, KernelLogisticRegression

LENGTHSCALE, C, TEST = 3.0, 1.0, 10_000
GAMMA = 0.5 / LENGTHSCALE**2


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows (n, 10) and their labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    odds = 3 * np.sin(x[:, 0] + x[:, 1]) + 2 * x[:, 2] * x[:, 3] + x[:, 4] ** 2 - 1
    return x, (rng.random(n) < 1 / (1 + np.exp(-2 * odds))).astype(int)


def methods(m: int, seed: int) -> dict[str, dict[str, Any]]:
    """Mercer's estimator and the peers of each comparison."""
    ours = {"solver": "nystroem", "landmarks": m, "selection": "uniform", "random_state": seed}
    features = partial(Nystroem, gamma=GAMMA, n_components=m, random_state=seed)
    return {
        "logistic": {
            "mercer": KernelLogisticRegression(RBF(LENGTHSCALE), C, **ours),
            "scikit-learn": make_pipeline(features(), LogisticRegression(C=C, max_iter=1000)),
        },
        "support vectors": {
            "mercer": SVC(RBF(LENGTHSCALE), C, **ours),
            "scikit-learn": svm.SVC(C=C, gamma=GAMMA, cache_size=1000),
            "scikit-learn, linear": make_pipeline(
                features(), svm.LinearSVC(C=C, loss="hinge", max_iter=10_000, random_state=seed)
            ),
        },
    }


def fit_and_predict(model: Any, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Fit, and return probabilities where the model has them, else labels."""
    model.fit(x, y)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(q)
    return model.predict(q)


def score(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the accuracy, and the log loss of probabilities."""
    if found.ndim == 1:
        return {"accuracy": float((found == truth).mean())}
    right = float((found.argmax(1) == truth).mean())
    return {"accuracy": right, "log loss": float(log_loss(truth, found))}


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--landmarks", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    x, y = draw(args.rows + TEST, 0)
    train, labels, q, truth = x[: args.rows], y[: args.rows], x[args.rows :], y[args.rows :]
    threads = torch.get_num_threads()
    print(f"{args.rows:,} rows, {args.landmarks} landmarks, float64, {threads} threads")
    rows = []
    for name, models in methods(args.landmarks, 0).items():
        runs: dict[str, Callable[[], np.ndarray]] = {
            who: partial(fit_and_predict, model, train, labels, q) for who, model in models.items()
        }
        scores = {who: score(run(), truth) for who, run in runs.items()}
        times = interleaved(runs, seconds=0, least=args.repeats)
        ours = times["mercer"]["median"]
        for who in models:
            seconds = times[who]["median"]
            row = {"method": name, "who": who, "seconds": seconds, "ratio": seconds / ours}
            rows.append(row | scores[who])
            shown = ", ".join(f"{key} {value:.4f}" for key, value in scores[who].items())
            print(f"{name:>16} {who:>21}: {seconds:7.2f} s ({seconds / ours:5.2f}x), {shown}")
    if args.json:
        result = {"rows": rows, "environment": describe_environment()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
