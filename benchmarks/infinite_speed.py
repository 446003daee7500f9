"""NNGP and NTK of Mercer beside neural-tangents 0.6.5, which `make peers` installs.

Three networks in float32, both kernels of x with itself, on all cores: a ReLU network with three
hidden layers, and a convolutional one of five layers (3x3, stride 1, zero padding, ReLU), with
global average pooling and with its pixels flattened. Each side has a process of its own that has
compiled and run the case before; then they are asked in turns. Printed: median seconds, the
ratio, peak memory of the process, and the largest error against Mercer's values in float64 for the
first points, relative to the largest entry, NNGP and NTK.

For the first network stands beside them what no method can leave out: one product of the inputs
with themselves, and one fused pass over the entries a layer, compiled, on all cores.

neural-tangents goes by the batch that was fastest for it: none for the dense network (whole 0.6 s,
in batches of 1,000 or 2,000 above 1 s), 8 with pooling (0.44 s a pair of images; 1: 0.69, 2: 0.52),
100 when flattened (20.0 s; 50: 21.0, 250: 20.1, whole 21.2). Mercer's memory budget is the same as
what that takes, and more.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _infinite_process import Process

from mercer.cli.environment import describe_environment

CASES: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "depth": 3, "n": 4000, "d": 784, "batch": 0, "memory": 0},
    "pooled": {"kind": "cnn", "depth": 5, "n": 16, "pool": True, "batch": 8, "memory": 3 * 2**30},
    "flat": {"kind": "cnn", "depth": 5, "n": 500, "pool": False, "batch": 100, "memory": 3 * 2**30},
}
TITLES = {
    "mlp": "3 hidden layers, n = {n:,}, d = 784",
    "pooled": "5 convolutions, global pooling, 32 x 32 x 3, n = {n}",
    "flat": "5 convolutions, flattened, 32 x 32 x 3, n = {n}",
}
ROUNDS = {"mlp": 15, "pooled": 3, "flat": 5}
POINTS = {"mlp": 1000, "pooled": 4, "flat": 40}  # whose values are compared with float64
SIDES = ("mercer", "neural-tangents", "bare-limit")


def errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """Largest error of NNGP and of NTK, relative to the largest entry."""
    n = truth.shape[-1]
    gap = np.abs(found[:, :n, :n] - truth).max((1, 2))  # (2,)
    return (gap / np.abs(truth).max((1, 2))).tolist()


def measure(name: str, case: dict[str, Any], sides: list[str], rounds: int) -> dict[str, Any]:
    """Run a case by all sides in turns, then read memory and values."""
    shape = (case["n"], case["d"]) if case["kind"] == "mlp" else (case["n"], 3, 32, 32)
    inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    processes = {side: Process(side, {**case, "size": 32}, inputs) for side in sides}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            times[side].append(processes[side].run())
    found: dict[str, Any] = {"case": {**case, "name": name}, "rounds": rounds}
    values = {}
    truth = None
    for side, process in processes.items():
        with process:
            peak, before = process.peak()  # of the evaluations, not of the copy for the file
            values[side] = process.values()
            if side == "mercer":
                truth = process.truth(min(POINTS[name], case["n"]))
            found[side] = {"failed": process.failed}
            if not process.failed:
                found[side] |= {
                    "median": median(times[side]),
                    "times": times[side],
                    "first": process.first,
                    "peak": peak,
                    "before": before,
                }
    for side in sides:
        row = found[side]
        if not row["failed"] and truth is not None:
            row["ratio"] = row["median"] / found["mercer"]["median"]
            row["errors"] = errors(values[side], truth)
    return found


def show(found: dict[str, Any], sides: list[str]) -> None:
    """Print one case."""
    case = found["case"]
    print(f"\n{TITLES[case['name']].format(n=case['n'])}; {found['rounds']} rounds")
    for side in sides:
        row = found[side]
        if row["failed"]:
            print(f"  {side:16s} {row['failed'][:90]}")
            continue
        line = f"  {side:16s} {row['median']:8.3f} s   {row['peak'] / 2**30:5.2f} GiB"
        if "ratio" in row:
            nngp, ntk = row["errors"]
            line += f"   {row['ratio']:5.2f} times Mercer's   errors {nngp:.1e} {ntk:.1e}"
        print(line, flush=True)


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--rounds", type=int, help="of each case, else as the script says")
    parser.add_argument("--inputs", type=int, help="n of each case, else as the script says")
    args = parser.parse_args()
    environment = describe_environment()
    print(f"float32, {environment['threads']} threads, {environment['processor']}")
    rows = []
    for name in args.cases:
        case = CASES[name] | ({"n": args.inputs} if args.inputs else {})
        sides = [s for s in SIDES if s in args.sides and (s != "bare-limit" or name == "mlp")]
        rows.append(measure(name, case, sides, args.rounds or ROUNDS[name]))
        show(rows[-1], sides)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"rows": rows, "environment": environment}, indent=2) + "\n"
        args.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
