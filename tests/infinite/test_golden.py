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

DENSE = [f"dense{depth}_{name}" for depth in (1, 3) for name in ACTIVATIONS]
OTHERS = sorted(networks())


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
        names = {"layers.0.key": 1.3, "layers.0.value": 1.2, "layers.0.out": 1.05, "head": 1.5}
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
                count += 1
                difference = (found.double() - expected).abs().max() / expected.abs().max()
                worst = max(worst, float(difference))
    assert count, f"no golden values for {key}"
    evidence(required=required, measured=worst, what=f"{key} ({dtype}), relative to the largest")
    assert worst <= required


def test_every_key_is_compared(golden):
    names = {key.split("/")[0] for key in golden if "/" in key} - {"mse_ensemble"}
    assert names == {*DENSE, "dense2_relu_standard", *OTHERS} & names
    assert names <= {*DENSE, "dense2_relu_standard", *OTHERS}
