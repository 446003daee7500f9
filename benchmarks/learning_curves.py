"""Test error of kernel ridge regression, predicted from a spectrum and measured.

Predictions are those of `mercer.infinite.KernelRisk`, from the kernel matrix of N labelled points,
for n of at most N/5 training points. Beside them stands the plain law, which takes the spectrum of
the N points for that of a distribution. Measured is the mean test error of 20 draws of the training
points, and its standard error; ratios are predicted over measured.

digits, within: scikit-learn's 1,797 digits of unit length, the arc-cosine kernel of order 1. The
    spectrum is that of all; n are drawn among them, and the test points are all the others.
digits, apart: the spectrum of 1,500 digits, of which the training points are drawn; the test points
    are the 297 others, which the prediction never saw. Each draw has other 1,500, and what is
    predicted is the mean over them.
CIFAR-10, pixels: the subset of 10,000 images in the folder ``cifar10`` of ``MERCER_DATA``, pixels
    centred and each image scaled to unit length; the NTK of three hidden layers of ReLU. The
    spectrum is that of 2,000 images, training points are drawn among the 8,000 others, and the test
    points are the 2,000 images of the test file.
CIFAR-10, patches: the same on fixed features: 256 whitened patches of the 2,000 images as filters
    of 5 x 5 with stride 2, ReLU at their mean, means over four quadrants; 1,024 numbers an image,
    centred and scaled likewise.

Targets: digits below five against the others, and animals against vehicles, as 1 and -1; and the
classes, one-hot less a tenth, errors summed over the ten outputs. Ridges: none, a small one, and
for each n the one that is predicted to be best. A mean of 20 draws of 30 points is uncertain by
four per cent itself; the last lines also count what is within 10 % and two standard errors.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, normalize, one_hot

from mercer.cli.environment import describe_environment
from mercer.infinite import NTK, KernelRisk
from mercer.kernels import ArcCosine, Kernel

DIGITS = (30, 50, 100, 200, 300)
CIFAR = (30, 50, 100, 200, 400)
SPECTRUM, FILTERS = 2_000, 256
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def targets_of(classes: Tensor, group: Tensor) -> dict[str, Tensor]:
    """Two groups of the classes as 1 and -1, and the classes themselves."""
    signs = torch.where(torch.isin(classes, group), 1.0, -1.0).double()[:, None]
    return {"two groups": signs, "ten classes": one_hot(classes, 10).double() - 0.1}


def measure(
    gram: Callable[[Tensor, Tensor], Tensor],
    targets: Tensor,
    draw: Draw,
    sizes: tuple[int, ...],
    ridges: dict[str, Tensor],
    draws: int,
    seed: int,
) -> dict[str, Tensor]:
    """Test errors (draws, sizes) for each kind of ridge."""
    found = {name: torch.empty(draws, len(sizes), dtype=torch.float64) for name in ridges}
    source = torch.Generator().manual_seed(seed)
    for j in range(draws):
        for i, n in enumerate(sizes):
            train, test = draw(n, source)
            inside, across = gram(train, train), gram(test, train)
            values, vectors = torch.linalg.eigh(inside)
            for name, ridge in ridges.items():
                solved = vectors.mT @ targets[train] / (values + ridge[i])[:, None]
                residual = across @ (vectors @ solved) - targets[test]
                found[name][j, i] = residual.square().sum(-1).mean()
    return found


def compare(
    title: str,
    splits: list[tuple[Tensor, Draw]],
    gram: Callable[[Tensor, Tensor], Tensor],
    targets: dict[str, Tensor],
    sizes: tuple[int, ...],
    small: float,
    draws: int,
) -> list[dict[str, Any]]:
    """Predict from the points of each split, measure, print one table."""
    start = time.perf_counter()
    n = torch.tensor(sizes, dtype=torch.float64)
    made: dict[tuple[str, str], list[tuple[Tensor, ...]]] = {}
    for seed, (known, draw) in enumerate(splits):
        matrix = gram(known, known)
        for target, y in targets.items():
            risk = KernelRisk.from_gram(matrix, y[known])
            plain = KernelRisk(risk.eigenvalues, risk.power, risk.noise_variance, float("inf"))
            none = torch.zeros_like(n)
            best = risk.predict(n, ridge="optimal").ridge
            ridges = {"none": none, "small": none + small, "best": best}
            found = measure(gram, y, draw, sizes, ridges, draws // len(splits), seed)
            for name, ridge in ridges.items():
                ours, biased = (law.predict(n, ridge=ridge).test for law in (risk, plain))
                made.setdefault((target, name), []).append((ridge, ours, biased, found[name]))
    print(f"\n{title}: spectrum of {len(splits[0][0]):,} points, {draws} draws", flush=True)
    print(
        f"{'target':12s} {'ridge':>16s} {'n':>4s} {'predicted':>10s} {'measured':>18s} "
        f"{'ratio':>6s} {'plain law':>10s}"
    )
    rows = []
    for (target, name), parts in made.items():
        ridge, ours, biased = (
            torch.stack(each).mean(0) for each in list(zip(*parts, strict=True))[:3]
        )
        measured = torch.cat([part[3] for part in parts])  # (draws, sizes)
        mean, error = measured.mean(0), measured.std(0) / len(measured) ** 0.5
        for i, size in enumerate(sizes):
            row = {
                "data": title,
                "target": target,
                "ridge": name,
                "delta": float(ridge[i]),
                "n": size,
                "predicted": float(ours[i]),
                "measured": float(mean[i]),
                "standard_error": float(error[i]),
                "ratio": float(ours[i] / mean[i]),
                "plain_ratio": float(biased[i] / mean[i]),
                "learnt": 1 - float(mean[i] / targets[target].square().sum(-1).mean()),
            }
            rows.append(row)
            print(
                f"{target:12s} {name:>6s} {row['delta']:9.3g} {size:4d} "
                f"{row['predicted']:10.4f} {row['measured']:9.4f} ± {row['standard_error']:.4f}"
                f" {row['ratio']:6.3f} {row['plain_ratio']:10.3f}",
                flush=True,
            )
    print(f"ours: {summary(rows, 'ratio')}")
    print(f"plain law: {summary(rows, 'plain_ratio')}; {time.perf_counter() - start:.0f} s")
    return rows


def summary(rows: list[dict[str, Any]], key: str) -> str:
    """Count the ratios within 10 %, and those that are for what 20 draws can tell."""
    ratios = [row[key] for row in rows]
    within = sum(abs(ratio - 1) <= 0.1 for ratio in ratios)
    allowed = [0.1 + 2 * row["standard_error"] / row["measured"] for row in rows]
    likely = sum(abs(ratio - 1) <= most for ratio, most in zip(ratios, allowed, strict=True))
    return (
        f"{within} of {len(rows)} within 10 %, {likely} within 10 % and two standard errors; "
        f"{min(ratios):.3f} to {max(ratios):.3f}"
    )


def digits(draws: int) -> list[dict[str, Any]]:
    """Both tables of the digits."""
    pixels, classes = load_digits(return_X_y=True)
    x = normalize(torch.tensor(pixels))
    whole = ArcCosine(1)(x)
    labels = targets_of(torch.tensor(classes), torch.arange(5))

    def gram(a: Tensor, b: Tensor) -> Tensor:
        return whole[a][:, b]

    def within(n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        shuffled = torch.randperm(len(x), generator=source)
        return shuffled[:n], shuffled[n:]

    def apart(seed: int) -> tuple[Tensor, Draw]:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + seed))
        known, fresh = order[:1500], order[1500:]
        return known, lambda n, source: (known[torch.randperm(1500, generator=source)[:n]], fresh)

    every = [(torch.arange(len(x)), within)]
    rows = compare("digits, within", every, gram, labels, DIGITS, 0.01, draws)
    splits = [apart(seed) for seed in range(draws)]
    return rows + compare("digits, apart", splits, gram, labels, DIGITS, 0.01, draws)


def read_images(path: Path) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) from 0 to 1, and classes (n,)."""
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path)
    stored = table["image"].to_pylist()
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in stored]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return pixels, torch.tensor(table["label"].to_pylist())


def patch_features(images: Tensor, among: Tensor, source: torch.Generator) -> Tensor:
    """Rectified responses to whitened patches of some of the images, means over quadrants."""
    patches = images[among].unfold(2, 5, 2).unfold(3, 5, 2)  # (m, 3, 14, 14, 5, 5)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 75)
    patches = patches[torch.randperm(len(patches), generator=source)[:20_000]].double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).mT @ (patches - mean) / len(patches))
    whiten = (vectors / (values + 1e-3).sqrt()) @ vectors.mT  # (75, 75)
    filters = normalize((patches[:FILTERS] - mean) @ whiten) @ whiten  # (filters, 75)
    offset = -(filters @ mean)
    weight, bias = filters.float().reshape(-1, 3, 5, 5), offset.float()
    found = []
    for batch in images.split(500):
        response = conv2d(batch, weight, bias, stride=2).relu()  # (b, filters, 14, 14)
        found.append(avg_pool2d(response, 7).flatten(1))
    return torch.cat(found)


def centred(x: Tensor, known: Tensor) -> Tensor:
    """Subtract the mean of the points known, and scale each row to unit length."""
    x = x.double()
    return normalize(x - x[known].mean(0))


def cifar(folder: Path, draws: int) -> list[dict[str, Any]]:
    """Both tables of CIFAR-10."""
    train, test = read_images(folder / "train.parquet"), read_images(folder / "test.parquet")
    images, classes = torch.cat([train[0], test[0]]), torch.cat([train[1], test[1]])
    source = torch.Generator().manual_seed(2)
    order = torch.randperm(len(train[0]), generator=source)
    known, others = order[:SPECTRUM], order[SPECTRUM:]
    fresh = torch.arange(len(train[0]), len(images))
    labels = targets_of(classes, torch.tensor([0, 1, 8, 9]))  # vehicles, the others are animals

    def draw(n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        return others[torch.randperm(len(others), generator=source)[:n]], fresh

    rows = []
    for name, features in (
        ("pixels", images.flatten(1)),
        ("patches", patch_features(images, known, source)),
    ):
        x = centred(features, known)
        kernel = deep_kernel(x.shape[1])

        def gram(a: Tensor, b: Tensor, x: Tensor = x, kernel: Kernel = kernel) -> Tensor:
            return kernel(x[a], x[b])

        rows += compare(f"CIFAR-10, {name}", [(known, draw)], gram, labels, CIFAR, 0.1, draws)
    return rows


def deep_kernel(inputs: int) -> Kernel:
    """Make the NTK of three hidden layers of ReLU."""
    layers: list[nn.Module] = []
    for before in (inputs, 16, 16):
        layers += [nn.Linear(before, 16), nn.ReLU()]
    return NTK(nn.Sequential(*layers, nn.Linear(16, 1))).requires_grad_(False)


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    rows = digits(args.draws)
    folder = Path(os.environ.get("MERCER_DATA", "")) / "cifar10"
    if (folder / "train.parquet").is_file():
        rows += cifar(folder, args.draws)
    else:
        print("\nCIFAR-10: skipped, MERCER_DATA names no folder that holds cifar10/")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"rows": rows, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
