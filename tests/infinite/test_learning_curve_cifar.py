"""Learning curves on photographs, with training and test points that the prediction never saw."""

import io

import numpy as np
import pytest
import torch

from mercer.infinite import NTK, KernelRisk


def images(path, count):
    """The first images as rows of pixels from 0 to 1, and their classes."""
    pq = pytest.importorskip("pyarrow.parquet")
    image = pytest.importorskip("PIL.Image")
    table = pq.read_table(path).slice(0, count)
    stored = [row["bytes"] for row in table["image"].to_pylist()]
    pixels = np.stack([np.asarray(image.open(io.BytesIO(each)).convert("RGB")) for each in stored])
    return torch.tensor(pixels).double().flatten(1) / 255, torch.tensor(table["label"].to_pylist())


@pytest.mark.slow
@pytest.mark.paper(
    "infinite-more-is-better",
    kind="behaviour",
    claim="Kernel ridge regression on CIFAR-10 (animals against vehicles, pixels, NTK of three "
    "hidden layers, spectrum of 2,000 points): within 10 % of the mean of 20 draws of other "
    "points at n = 30 .. 400.",
)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_cifar(shared_data, evidence, ridge):
    folder = shared_data / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    x, classes = (
        torch.cat(parts)
        for parts in zip(
            images(folder / "train.parquet", 5000),
            images(folder / "test.parquet", 1000),
            strict=True,
        )
    )
    known, others, fresh = torch.arange(6000).split([2000, 3000, 1000])
    x = torch.nn.functional.normalize(x - x[known].mean(0))
    y = torch.where(torch.isin(classes, torch.tensor([0, 1, 8, 9])), 1.0, -1.0).double()
    layers = [torch.nn.Linear(3072, 8), torch.nn.ReLU()]
    for _ in range(2):
        layers += [torch.nn.Linear(8, 8), torch.nn.ReLU()]
    kernel = NTK(torch.nn.Sequential(*layers, torch.nn.Linear(8, 1))).requires_grad_(False)
    sizes = [30, 50, 100, 200, 400]
    found = KernelRisk.from_gram(kernel(x[known]), y[known]).predict(sizes, ridge=ridge)
    source = torch.Generator().manual_seed(0)
    for i, n in enumerate(sizes):
        errors = []
        for _ in range(20):
            a = others[torch.randperm(len(others), generator=source)[:n]]
            inside = kernel(x[a]) + ridge * torch.eye(n, dtype=torch.float64)
            fit = kernel(x[fresh], x[a]) @ torch.linalg.solve(inside, y[a])
            errors.append((fit - y[fresh]).square().mean())
        ratio = float(found.test[i] / torch.stack(errors).mean())
        evidence(required="0.9 .. 1.1", measured=ratio, what=f"n = {n}, predicted / measured")
        assert 0.9 <= ratio <= 1.1
