"""Exact kernel ridge regression of 10,000 rows, beside scikit-learn's.

The same Gaussian kernel, penalty and rows in float64: ``KernelRidge(solver="cholesky")`` of Mercer,
which factorises in float32 and refines in float64, and of scikit-learn, which factorises in
float64. Time is that of the whole fit, kernel matrix included, turn by turn. Accuracy is the
residual of (K + alpha I) a = y relative to y, each with its own library's K, at every twentieth
row, with products added up in extended precision so that the residual measured is that of a; and
how far the two predict apart at 1,000 further rows, relative to the spread of y.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.kernel_ridge import KernelRidge as Peer
from sklearn.metrics.pairwise import rbf_kernel

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.kernels import RBF
from mercer.machines import KernelRidge

CASES = {  # columns, lengthscale in units of their standard deviation, penalty
    "10 columns, alpha 1": (10, 10**0.5, 1.0),
    "10 columns, alpha 0.01": (10, 10**0.5, 1e-2),
    "20 columns, alpha 0.1": (20, 20**0.5, 1e-1),
    "20 columns, alpha 0.01": (20, 20**0.5, 1e-2),
}
EVERY, TEST = 20, 1_000


def data(n: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw rows, noisy targets of a smooth function, and rows to predict."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + TEST, columns))
    y = np.sin(x[:, 0]) * x[:, 1] + np.cos(x[:, 2]) + 0.3 * rng.normal(size=n + TEST)
    return x[:n], y[:n] - y[:n].mean(), x[n:]


def residual(matrix: np.ndarray, alpha: float, coef: np.ndarray, y: np.ndarray) -> float:
    """Return the relative residual at some rows, whose rounding is that of the solution alone."""
    some = slice(None, None, EVERY)
    a, extended = coef.astype(np.longdouble), matrix[some].astype(np.longdouble)
    left = y[some] - extended @ a - alpha * a[some]
    return float(np.linalg.norm(left.astype(float)) / np.linalg.norm(y[some]))


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    environment = describe_environment()
    print(f"{args.rows:,} rows, float64, {torch.get_num_threads()} threads")
    rows: list[dict[str, Any]] = []
    for name in args.cases:
        columns, lengthscale, alpha = CASES[name]
        x, y, test = data(args.rows, columns)
        kernel = RBF(lengthscale).requires_grad_(False)
        ours = KernelRidge(kernel, alpha, solver="cholesky")
        theirs: Any = Peer(alpha=alpha, kernel="rbf", gamma=0.5 / lengthscale**2)
        times = interleaved(
            {"mercer": partial(ours.fit, x, y), "scikit-learn": partial(theirs.fit, x, y)},
            seconds=0,
            least=args.repeats,
        )
        residuals = {
            "mercer": residual(kernel(torch.from_numpy(x)).numpy(), alpha, ours.dual_coef_, y),
            "scikit-learn": residual(
                rbf_kernel(x, gamma=0.5 / lengthscale**2), alpha, theirs.dual_coef_, y
            ),
        }
        apart = float(np.abs(ours.predict(test) - theirs.predict(test)).max() / y.std())
        seconds = {who: times[who]["median"] for who in times}
        ratio = seconds["scikit-learn"] / seconds["mercer"]
        rows.append(
            {"case": name, "seconds": seconds, "ratio": ratio, "residuals": residuals}
            | {"reported residual": ours.residual_, "predictions apart": apart}
        )
        print(
            f"{name:24s} mercer {seconds['mercer']:6.2f} s  scikit-learn "
            f"{seconds['scikit-learn']:6.2f} s  {ratio:5.2f}x  residuals "
            f"{residuals['mercer']:.1e} {residuals['scikit-learn']:.1e}  apart {apart:.0e}",
            flush=True,
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"points": args.rows, "rows": rows, "environment": environment}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
