"""One side of `infinite_speed.py` in a process of its own, driven by lines of JSON.

``python _infinite_worker.py SIDE`` where SIDE is mercer, neural-tangents or bare-limit; the second
one runs in the environment of `make peers`, which has no torch. Requests come on the standard
input, one answer to each goes to the standard output:

| request | answer |
|---|---|
| ``{"do": "load", "case": ..., "inputs": "x.npy"}`` | seconds until the first result was there |
| ``{"do": "run"}`` | seconds of one more evaluation |
| ``{"do": "save", "path": "k.npy"}`` | writes NNGP and NTK, (2, n, n) |
| ``{"do": "truth", "path": "k.npy", "points": 8}`` | writes those of the first points in float64 |
| ``{"do": "peak"}`` | largest resident memory so far, and that before the case, in bytes |
"""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

W_STD, B_STD = math.sqrt(2.0), 0.1
Result = tuple[np.ndarray, np.ndarray]


def neural_tangents(case: dict[str, Any], inputs: np.ndarray) -> Callable[[], Any]:
    """Both kernels by neural-tangents, jitted."""
    import jax
    import neural_tangents as nt
    from neural_tangents import stax

    def affine(**options: Any) -> Any:
        if "filter_shape" in options:
            return stax.Conv(1, W_std=W_STD, b_std=B_STD, **options)
        return stax.Dense(1, W_std=W_STD, b_std=B_STD)

    layers = []
    for _ in range(case["depth"]):
        convolution = {"filter_shape": (3, 3), "padding": "SAME"} if case["kind"] == "cnn" else {}
        layers += [affine(**convolution), stax.Relu()]
    if case["kind"] == "cnn":
        layers.append(stax.GlobalAvgPool() if case["pool"] else stax.Flatten())
        inputs = inputs.transpose(0, 2, 3, 1)  # channels last
    kernel = stax.serial(*layers, affine())[2]
    x = jax.device_put(inputs)

    if case["batch"]:  # nt.batch jits what it calls
        batched = nt.batch(kernel, batch_size=case["batch"], store_on_device=True)
        return lambda: jax.block_until_ready(batched(x, None, ("nngp", "ntk")))
    jitted = jax.jit(lambda points: kernel(points, None, ("nngp", "ntk")))
    return lambda: jax.block_until_ready(jitted(x))


def mercer(case: dict[str, Any], inputs: np.ndarray) -> Callable[[], Any]:
    """Both kernels by Mercer."""
    import torch
    from torch import nn

    import mercer
    from mercer.infinite import NTK

    layers: list[nn.Module] = []
    if case["kind"] == "mlp":
        width = case["d"]
        for _ in range(case["depth"]):
            layers += [nn.Linear(width, 8), nn.ReLU()]
            width = 8
        layers.append(nn.Linear(8, 1))
    else:
        channels = 3
        for _ in range(case["depth"]):
            layers += [nn.Conv2d(channels, 8, 3, padding="same"), nn.ReLU()]
            channels = 8
        layers += [nn.AdaptiveAvgPool2d(1)] if case["pool"] else []
        pixels = 1 if case["pool"] else case["size"] ** 2
        layers += [nn.Flatten(), nn.Linear(8 * pixels, 1)]
    if case["memory"]:
        mercer.config.memory_budget = case["memory"]
    x = torch.from_numpy(inputs)
    kernel = NTK(nn.Sequential(*layers), w_std=W_STD, b_std=B_STD, example=torch.zeros_like(x[:1]))

    def run() -> Any:
        with torch.no_grad():
            return kernel.both(x)

    return run


def bare_limit(case: dict[str, Any], inputs: np.ndarray) -> Callable[[], Any]:
    """One matrix product, and one fused pass over the entries a layer: what an MLP must do.

    The arithmetic of the kernels without symmetry, checks, exact diagonals or a budget.
    """
    import torch
    from torch import Tensor

    w2, b2 = W_STD**2, B_STD**2

    def layer(s: Tensor, t: Tensor, q: Tensor) -> None:
        """One layer of ReLU and the affine map after it, in place; q is the diagonal, (n,)."""
        product = q[:, None] * q
        sine = (product - s * s).clamp_min(0).sqrt()
        slope = (math.pi - torch.atan2(sine, s)) / (2 * math.pi)
        value = w2 * (sine / (2 * math.pi) + slope * s) + b2
        t.copy_(value + w2 * slope * t)
        s.copy_(value)

    step = torch.compile(layer)

    def run() -> Any:
        with torch.no_grad():
            s = torch.addmm(torch.full((1, 1), b2), x, x.mT, alpha=w2 / x.shape[1])  # (n, n)
            t, q = s.clone(), s.diagonal().clone()
            for _ in range(case["depth"]):
                step(s, t, q)
                q = w2 * q / 2 + b2
            return s, t

    x = torch.from_numpy(inputs)
    return run


SIDES = {"mercer": mercer, "neural-tangents": neural_tangents, "bare-limit": bare_limit}
NEEDS = {"mercer": "mercer.infinite", "neural-tangents": "neural_tangents", "bare-limit": "torch"}


def memory(what: str) -> int:
    """Return a field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(what)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Evaluate once."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def save(path: str, kernels: Any) -> None:
    """Write NNGP and NTK as one array."""
    nngp, ntk = kernels
    np.save(path, np.stack([np.asarray(nngp), np.asarray(ntk)]))


def main() -> None:
    """Answer requests until the input ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side = SIDES[sys.argv[1]]
    importlib.import_module(NEEDS[sys.argv[1]])
    run: Callable[[], Any] | None = None
    before = 0
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "load":
                before = memory("VmRSS")
                case, inputs = request["case"], np.load(request["inputs"])
                run = side(case, inputs)
                answer["seconds"] = timed(run)[0]
            elif request["do"] == "peak":
                answer = {"peak": memory("VmHWM"), "before": before}
            elif run is None:
                raise RuntimeError("load a case first")
            elif request["do"] == "truth":
                few = inputs[: request["points"]].astype(np.float64)
                save(request["path"], side(case, few)())
            elif request["do"] == "run":
                answer["seconds"] = timed(run)[0]
            else:
                save(request["path"], run())
        except (MemoryError, RuntimeError) as error:  # XLA's own errors are RuntimeErrors
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
