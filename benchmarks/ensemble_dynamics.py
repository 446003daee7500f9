"""Ensembles of finite networks in training, beside what `dynamics` predicts for infinite width.

64 images of the digits 0 and 1 (targets -1 and 1), 32 more to test on; two hidden layers of ReLU
in the NTK parametrisation (w_std sqrt 2, b_std 0.1); full-batch gradient descent on half the mean
square, with a step of 0.1 of the largest stable one. At three times, for each point, mean and
variance of the outputs over the networks of width 1,024 are compared with the prediction plus
c / width, where c is fitted to networks of width 256 and 512. Printed are how many of the numbers
lie within 4 standard errors (of the estimate and of the fit together), and the size of all parts.
The standard error of a variance is that which the predicted variance has, with the kurtosis of the
networks' outputs (pooled over points): one from the same networks is too small just where the
variance came out too small.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mercer.cli.environment import describe_environment
from mercer.infinite import NTK, Dynamics, dynamics

W_STD, B_STD = 2**0.5, 0.1
TIMES = (8, 40, 160)
SHARE = 0.1  # of the largest stable step
CHUNK = 2**25  # weights of a hidden layer that are trained together, over networks


class Points(NamedTuple):
    """Training images, then test images."""

    x: Tensor  # (n + m, 64)
    y: Tensor  # (n + m,)
    count: int  # n


class Moments(NamedTuple):
    """Mean and variance over networks, each (times, points), and what their errors follow from."""

    mean: Tensor
    variance: Tensor
    kurtosis: Tensor  # (times, 1)
    networks: int

    def errors(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standard errors of mean and variance where the true variance is known."""
        n = self.networks
        relative = (self.kurtosis - (n - 3) / (n - 1)) / n
        return (variance / n).sqrt(), variance * relative.sqrt()


def zeros_and_ones(train: int, test: int, seed: int = 0) -> Points:
    """Draw images of scikit-learn's digits 0 and 1, scaled by the training part."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(n_class=2, return_X_y=True)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    chosen = order[: train + test]
    x, y = torch.from_numpy(pixels)[chosen], torch.from_numpy(classes)[chosen]
    x = (x - x[:train].mean()) / x[:train].std()
    return Points(x, 2.0 * y.double() - 1.0, train)


def predicted(points: Points, rate: float = 1.0, *, discrete: bool = True) -> Dynamics:
    """Follow the ensemble of infinite width, read from a module of any width."""
    module = nn.Sequential(
        nn.Linear(points.x.shape[1], 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    kernel = NTK(module, parametrization="ntk", w_std=W_STD, b_std=B_STD)
    x, y = points.x[: points.count], points.y[: points.count]
    return dynamics(kernel, x, y, learning_rate=rate, discrete=discrete)


def train_networks(
    points: Points, width: int, networks: int, rate: float, times: Sequence[int], seed: int
) -> Tensor:
    """Train networks side by side and return their outputs, (times, networks, points)."""
    source = torch.Generator().manual_seed(seed)
    together = max(1, CHUNK // width**2)
    parts = []
    for start in range(0, networks, together):
        size = min(together, networks - start)
        parts.append(_train_chunk(points, width, size, rate, times, source))
    return torch.cat(parts, 1)


def _train_chunk(
    points: Points,
    width: int,
    networks: int,
    rate: float,
    times: Sequence[int],
    source: torch.Generator,
) -> Tensor:
    """Train some networks; gradients by hand, so that each product runs over all of them."""
    n, features = points.count, points.x.shape[1]

    def draw(*shape: int) -> Tensor:
        return torch.randn(networks, *shape, generator=source)

    w0, w1, w2 = draw(features, width), draw(width, width), draw(width, 1)
    b0, b1, b2 = draw(1, width), draw(1, width), draw(1, 1)
    first, later = W_STD / features**0.5, W_STD / width**0.5
    x, y = points.x.float().expand(networks, -1, -1), points.y[:n].float().unsqueeze(-1)

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a0 = torch.baddbmm(b0, inputs, w0, beta=B_STD, alpha=first).relu_()  # (nets, n, width)
        a1 = torch.baddbmm(b1, a0, w1, beta=B_STD, alpha=later).relu_()
        return a0, a1, torch.baddbmm(b2, a1, w2, beta=B_STD, alpha=later)  # (nets, n, 1)

    seen = []
    for step in range(max(times) + 1):
        if step in times:
            seen.append(forward(x)[2].squeeze(-1).double())  # (nets, n + m)
        if step == max(times):
            break
        a0, a1, outputs = forward(x[:, :n])
        gap = (outputs - y) * (rate / n)  # (nets, n, 1), the gradient times the step
        g1 = (gap @ w2.mT).mul_(later).mul_(a1 > 0)  # (nets, n, width)
        g0 = torch.bmm(g1, w1.mT).mul_(later).mul_(a0 > 0)
        w2.baddbmm_(a1.mT, gap, alpha=-later)
        w1.baddbmm_(a0.mT, g1, alpha=-later)
        w0.baddbmm_(x[:, :n].mT, g0, alpha=-first)
        for bias, gradient in ((b2, gap), (b1, g1), (b0, g0)):
            bias.sub_(gradient.sum(1, keepdim=True), alpha=B_STD)
    return torch.stack(seen)


def moments(outputs: Tensor) -> Moments:
    """Estimate mean and variance over networks (axis 1)."""
    count = outputs.shape[1]
    mean = outputs.mean(1)
    gap = outputs - mean.unsqueeze(1)
    second, fourth = gap.square().mean(1), gap.pow(4).mean(1)
    kurtosis = (fourth / second.square()).mean(-1, keepdim=True)  # (times, 1)
    return Moments(mean, second * count / (count - 1), kurtosis, count)


def corrected(
    prediction: Tensor, fits: dict[int, tuple[Tensor, Tensor]], width: int
) -> tuple[Tensor, Tensor]:
    """Add c / width to a prediction, c by weighted least squares, and return its error too."""
    top = sum((value - prediction) / w / error**2 for w, (value, error) in fits.items())
    bottom = sum(1 / w**2 / error**2 for w, (_, error) in fits.items())
    return prediction + top / bottom / width, 1 / torch.as_tensor(bottom).sqrt() / width


def compare(
    model: Dynamics, points: Points, found: dict[int, Moments], times: Sequence[int]
) -> list[dict[str, Any]]:
    """Compare the widest networks with the prediction plus the bias of the others."""
    widths = sorted(found)
    covariance = model.covariance(list(times), points.x)
    expected = {
        "mean": model.mean(list(times), points.x),
        "variance": covariance.diagonal(dim1=-2, dim2=-1),
    }
    rows = []
    for which, (name, prediction) in enumerate(expected.items()):
        estimates = {
            w: (found[w][which], found[w].errors(expected["variance"])[which]) for w in widths
        }
        value, error = estimates.pop(widths[-1])
        wanted, wanted_error = corrected(prediction, estimates, widths[-1])
        total = (error**2 + wanted_error**2).sqrt()
        for i, step in enumerate(times):
            for part, rows_of in (
                ("training", slice(0, points.count)),
                ("test", slice(points.count, None)),
            ):
                z = ((value - wanted) / total)[i, rows_of]
                plain = ((value - prediction) / error)[i, rows_of]
                rows.append(
                    {
                        "steps": step,
                        "part": part,
                        "of": name,
                        "numbers": len(z),
                        "within": int((z.abs() <= 4).sum()),
                        "largest_z": float(z.abs().max()),
                        "rms_z": float(z.square().mean().sqrt()),
                        "within_uncorrected": int((plain.abs() <= 4).sum()),
                        "prediction": float(prediction[i, rows_of].square().mean().sqrt()),
                        "bias": float((wanted - prediction)[i, rows_of].square().mean().sqrt()),
                        "standard_error": float(total[i, rows_of].square().mean().sqrt()),
                    }
                )
    return rows


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--networks", type=int, default=100, help="of width 1,024")
    parser.add_argument("--more", type=int, default=400, help="of width 256 and 512 each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    points = zeros_and_ones(64, 32)
    edge = predicted(points).largest_learning_rate
    rate = SHARE * edge
    model = predicted(points, rate)
    flow = predicted(points, rate, discrete=False)
    print(f"step {rate:.4g}, {SHARE:g} of the largest stable one {edge:.4g}")
    found, seconds = {}, {}
    for width, networks in ((256, args.more), (512, args.more), (1024, args.networks)):
        start = time.perf_counter()
        outputs = train_networks(points, width, networks, rate, TIMES, args.seed + width)
        seconds[width] = time.perf_counter() - start
        found[width] = moments(outputs)
        print(f"width {width:5d}: {networks} networks in {seconds[width]:.0f} s", flush=True)
    rows = compare(model, points, found, TIMES)
    print("steps  points    of        within 4 s.e.  largest  rms z | rms of: value   bias    s.e.")
    for r in rows:
        print(
            f"{r['steps']:5d}  {r['part']:8s}  {r['of']:8s}  {r['within']:3d} of {r['numbers']:3d}"
            f"     {r['largest_z']:8.2f} {r['rms_z']:6.2f} | {r['prediction']:12.5f} "
            f"{r['bias']:8.5f} {r['standard_error']:8.5f}"
        )
    within, numbers = (sum(row[key] for row in rows) for key in ("within", "numbers"))
    plain = sum(row["within_uncorrected"] for row in rows)
    print(f"{within} of {numbers} within 4 standard errors; without the bias {plain}")
    apart = model.mean(list(TIMES), points.x) - flow.mean(list(TIMES), points.x)
    print(f"steps and gradient flow differ by at most {float(apart.abs().max()):.4f} in the mean")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "rows": rows,
            "within": within,
            "numbers": numbers,
            "within_uncorrected": plain,
            "step": rate,
            "largest_stable_step": edge,
            "networks": {"256": args.more, "512": args.more, "1024": args.networks},
            "seconds": seconds,
            "environment": describe_environment(),
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
