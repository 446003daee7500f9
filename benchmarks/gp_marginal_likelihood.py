"""A Gaussian process' log marginal likelihood with its gradient, beside two peers.

4,000 points in eight dimensions, float64: ``log_marginal_likelihood(theta, eval_gradient=True)``
of Mercer and of scikit-learn, and GPyTorch's `ExactMarginalLogLikelihood` with its Cholesky
factorisation (its iterations answer another question: they estimate). The same kernel, noise and
targets, turn by turn: median seconds, ratios, and the largest relative differences of values and of
gradients by the logarithms of all hyperparameters.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessRegressor as Peer
from sklearn.gaussian_process import kernels as peers
from torch import Tensor

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.kernels import RBF, Matern, White, as_gpytorch
from mercer.machines import GaussianProcessRegressor

NOISE, SCALE, D = 0.05, 1.7, 8
LENGTHS = np.linspace(2.0, 4.0, D)


def cases() -> dict[str, tuple[Any, Any]]:
    """Each kernel of Mercer with scikit-learn's."""
    ard = LENGTHS.tolist()
    return {
        "RBF": (RBF(3.0), peers.RBF(3.0)),
        "RBF, ARD": (RBF(ard), peers.RBF(ard)),
        "Matern 3/2": (Matern(3.0, nu=1.5), peers.Matern(3.0, nu=1.5)),
        "Matern 5/2, ARD": (Matern(ard, nu=2.5), peers.Matern(ard, nu=2.5)),
    }


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points, and targets of a smooth function with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, D))
    y = np.sin(x[:, 0]) * x[:, 1] + np.cos(x[:, 2]) + NOISE**0.5 * rng.normal(size=n)
    return x, y - y.mean()


def gpytorch_side(kernel: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Return a function that computes their value and gradient, or None without GPyTorch."""
    try:
        import gpytorch
    except ImportError:
        return None

    points, targets = torch.from_numpy(x), torch.from_numpy(y)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = torch.tensor(NOISE, dtype=torch.float64)  # a float would be rounded

    class Model(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(points, targets, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = as_gpytorch(SCALE * kernel)

        def forward(self, z: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(z), self.covar_module(z)
            )

    model = Model().double().train()
    target = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)

    def run() -> tuple[float, np.ndarray]:
        model.zero_grad()
        with gpytorch.settings.max_cholesky_size(len(x) + 1):
            value = target(model(points), targets) * len(x)
            value.backward()
        # Theirs are softplus of raw numbers: turned into derivatives by logarithms.
        covariance: Any = model.covar_module
        slopes = []
        for owner, name in (
            (covariance, "outputscale"),
            (covariance.base_kernel, "lengthscale"),
            (likelihood.noise_covar, "noise"),
        ):
            raw, now = getattr(owner, f"raw_{name}"), getattr(owner, name)
            floor = 1e-4 if name == "noise" else 0.0  # their noise starts there
            inner = now.detach() - floor
            chain = now.detach() / (1 - torch.exp(-inner))
            slopes.append((raw.grad * chain).reshape(-1))
        return float(value.detach()), torch.cat(slopes).numpy()

    return run


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kernels", nargs="+", default=list(cases()), choices=list(cases()))
    args = parser.parse_args()
    environment = describe_environment()
    x, y = data(args.points)
    print(f"{args.points:,} points, {D} columns, float64, {torch.get_num_threads()} threads")
    rows = []
    for name in args.kernels:
        ours, theirs = cases()[name]
        # Noise in the kernel, so that both differentiate by it; 1e-10 on both diagonals.
        model = GaussianProcessRegressor(
            SCALE * ours + White(NOISE), 1e-10, optimizer=None, normalize_y=False, method="exact"
        ).fit(x, y)
        peer = Peer(
            peers.ConstantKernel(SCALE) * theirs + peers.WhiteKernel(NOISE),
            alpha=1e-10,
            optimizer=None,
        ).fit(x, y)
        sides = {
            "mercer": partial(model.log_marginal_likelihood, model.theta_, True),
            "scikit-learn": partial(peer.log_marginal_likelihood, peer.kernel_.theta, True),
        }
        third = gpytorch_side(ours, x, y)
        if third is not None:
            sides["gpytorch"] = third
        value, gradient = sides["mercer"]()
        gaps = {}
        for who, side in sides.items():
            other, slope = side()
            gaps[who] = {
                "value": abs(other - value) / abs(value),
                "gradient": float(np.abs(slope - gradient).max() / np.abs(gradient).max()),
            }
        times = interleaved(sides, seconds=0, least=args.repeats)
        seconds = {who: times[who]["median"] for who in sides}
        ratios = {who: seconds[who] / seconds["mercer"] for who in sides if who != "mercer"}
        rows.append(
            {"kernel": name, "seconds": seconds, "ratios": ratios, "differences": gaps}
            | {"value": value, "gradient": gradient.tolist()}
        )
        shown = "  ".join(
            f"{who} {seconds[who]:6.2f} s {ratio:5.2f}x (differs by {gaps[who]['value']:.0e}, "
            f"{gaps[who]['gradient']:.0e})"
            for who, ratio in ratios.items()
        )
        print(f"{name:16s} mercer {seconds['mercer']:6.2f} s  {shown}", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"points": args.points, "rows": rows, "environment": environment}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
