"""NNGP and NTK against the values of the reference library."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mercer.infinite import NTK
from tests.infinite.golden_networks import ACTIVATIONS, dense, networks

GOLDEN = Path(os.environ.get("MERCER_DATA", Path(__file__).parents[3] / "shared" / "data")).parent
FILE = GOLDEN / "golden" / "ntk.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no golden values {FILE}")

# Left out in the file: the reference returns NaN or infinity there.
ABSENT = {"dense3_exp", "dense3_monomial3", "dense3_polynomial", "dense3_rectified_monomial2"}
ABSENT |= {"conv_layernorm_gap"}
DENSE = [f"dense{depth}_{name}" for depth in (1, 3) for name in ACTIVATIONS]
DENSE = [key for key in DENSE if key not in ABSENT]
OTHERS = sorted(networks().keys() - ABSENT)


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def inputs(golden, key):
    if key.startswith("dense"):
        return golden["X1"], golden["X2"]
    if key.startswith("attention"):
        return golden["S1"], golden["S2"]
    return golden["I1"].movedim(-1, 1), golden["I2"].movedim(-1, 1)


def kernel(key, x):
    if key == "dense2_relu_standard":
        return NTK(
            torch.nn.Sequential(
                torch.nn.Linear(5, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 32),
                torch.nn.ReLU(),
                torch.nn.Linear(32, 1),
            ),
            parametrization="standard",
            w_std=1.5,
            b_std=0.1,
        )
    if key in DENSE:
        depth, name = int(key[5]), key[7:]
        module = dense(depth, ACTIVATIONS[name])
    else:
        module = networks()[key]
    if key.startswith("dense"):
        return NTK(module, w_std=1.5, b_std=0.1)
    if key.startswith("attention"):
        # Keys and queries are one layer here. The file's network has a softmax, and the product of
        # both factors is 1.43: with these numbers a naive model agrees to 3e-16, with none other.
        names = {
            "layers.0.key": 1.43**0.5,
            "layers.0.value": 1.2,
            "layers.0.out": 1.05,
            "head": 1.5,
        }
        return NTK(module, w_std=names, b_std={"layers": 0.2, "head": 0.1}, example=x)
    return NTK(module, w_std=1.4, b_std=0.2, example=x)


@pytest.mark.paper(
    "infinite-neural-tangent-kernel", kind="exact", claim="values of the reference library"
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("key", [*DENSE, "dense2_relu_standard", *OTHERS])
def test_values(golden, key, dtype, evidence):
    x, y = inputs(golden, key)
    k = kernel(key, x).requires_grad_(False)
    x, y = x.to(dtype), y.to(dtype)
    required = 1e-10 if dtype == torch.float64 else 1e-5
    worst, count = 0.0, 0
    for kind, which in (("ntk", k), ("nngp", k.nngp.requires_grad_(False))):
        for block, found in (("11", which(x)), ("12", which(x, y))):
            name = f"{key}/{kind}/{block}"
            if name in golden:
                expected = golden[name]
                if key.endswith("flatten") and name.endswith("ntk/11"):
                    # The reference takes the angle of an image with itself from a root that
                    # cancels: 4e-10 to 5e-9 off there. See `test_diagonal_of_flat_networks`.
                    expected = expected.clone()
                    expected.diagonal().copy_(found.diagonal())
                count += 1
                difference = (found.double() - expected).abs().max() / expected.abs().max()
                worst = max(worst, float(difference))
    assert count, f"no golden values for {key}"
    evidence(required=required, measured=worst, what=f"{key} ({dtype}), relative to the largest")
    assert worst <= required


def windows(q, size, step, padding):
    """Means over windows, in loops."""
    n = q.shape[-1]
    out = (n - size) // step + 1 if padding == "valid" else -(-n // step)
    low = 0 if padding == "valid" else max((out - 1) * step + size - n, 0) // 2
    total = np.zeros((len(q), out, out))
    for i, j, a, b in np.ndindex(out, out, size, size):
        row, column = i * step + a - low, j * step + b - low
        if padding == "circular":
            row, column = row % n, column % n
        if 0 <= row < n and 0 <= column < n:
            total[:, i, j] += q[:, row, column] / size**2
    return total


@pytest.mark.parametrize("key", [k for k in OTHERS if k.endswith("flatten")])
def test_diagonal_of_flat_networks(golden, key):
    """On the diagonal a ReLU halves S and T, so that plain loops give them."""
    x = golden["I1"].movedim(-1, 1)
    s, t = (x**2).mean(1).numpy(), 0.0
    for size, step in ((3, int(key.split("_")[2][-1])), (2, 1)):
        s, t = (windows(q, size, step, key.split("_")[1]) if np.ndim(q) else 0.0 for q in (s, t))
        s = 1.96 * s + 0.04
        t = 1.96 * t + s
        s, t = s / 2, t / 2
    s = 1.96 * s.mean((1, 2)) + 0.04
    t = 1.96 * t.mean((1, 2)) + s
    k = kernel(key, x).requires_grad_(False)
    np.testing.assert_allclose(k.diag(x), t, rtol=1e-13)
    np.testing.assert_allclose(k.nngp.diag(x).detach(), s, rtol=1e-13)
    np.testing.assert_allclose(golden[f"{key}/ntk/11"].diagonal(), t, rtol=1e-8)


def test_every_key_is_compared(golden):
    names = {key.split("/")[0] for key in golden if "/" in key} - {"mse_ensemble"}
    assert names == {*DENSE, "dense2_relu_standard", *OTHERS}
