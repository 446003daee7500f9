"""Fine-tune one model by several methods under the same rules, and compare them on test data.

The rules: equal epochs, four learning rates a method, chosen with seed 0 on the development set;
the test set is read once for each seed at the chosen rate. Finished runs are kept as small files
named after everything they depend on, so a comparison that was killed goes on where it was, and
two processes can share the work.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _adapter_report import bootstrap, show, step_times
from _adapter_task import Task, over
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.cli.adapt_methods import METHODS, Prepared, prepare, stored_bytes
from mercer.cli.environment import describe_environment
from mercer.convert.training import batch_indices, train

OUT = Path(__file__).parents[1] / "out" / "benchmarks"
SEEDS = (0, 1, 2)
VERSION = 1  # raise it when the code changes what a run gives
_LIBRARIES = ("torch", "transformers", "peft")


def fit(task: Task, prepared: Prepared, learning_rate: float, seed: int) -> list[float]:
    """Train what the method trains; the probe's embeddings are computed once."""
    labels, model = task.labels("train"), prepared.model
    embedded = over(task, "train", model.eval().embed) if prepared.method == "probe" else None
    steps = len(batch_indices(task.lengths("train"), task.batch_size, seed, 0))
    batches: dict[int, list[Tensor]] = {}

    def loss(step: int) -> Tensor:
        epoch, turn = divmod(step, steps)
        if epoch not in batches:
            batches.clear()
            batches[epoch] = batch_indices(task.lengths("train"), task.batch_size, seed, epoch)
        index = batches[epoch][turn]
        if embedded is not None:
            scores = model.classifier(embedded[index])  # (b, classes)
        else:
            scores = model(**task.inputs("train", index))  # (b, classes)
        return F.cross_entropy(scores, labels[index])

    done = train(model, loss, steps * task.epochs, learning_rate=learning_rate, seed=seed)
    return list(done.losses)


def evaluate(task: Task, model: nn.Module, split: str) -> dict[str, Any]:
    """Accuracy, mean loss, and for each sample whether it is right, as a text of 0 and 1."""
    labels = task.labels(split)
    scores = over(task, split, model.eval())  # (n, classes)
    right = scores.argmax(-1) == labels
    return {
        "accuracy": 100 * right.double().mean().item(),
        "loss": F.cross_entropy(scores, labels).item(),
        "right": "".join("1" if r else "0" for r in right.tolist()),
    }


@dataclass(frozen=True)
class Run:
    """One training: a method, a learning rate, a seed."""

    method: str
    learning_rate: float
    seed: int


class Comparison:
    """The runs of a task, finished and to do.

    Parameters
    ----------
    task : Task
        What to fine-tune on.
    methods : sequence of str
        Names of `METHODS`.
    seeds : sequence of int
        The first one chooses the learning rate.
    folder : Path
        Where finished runs are kept.
    """

    def __init__(
        self, task: Task, methods: Sequence[str], seeds: Sequence[int], folder: Path
    ) -> None:
        self.task, self.methods, self.seeds = task, list(methods), list(seeds)
        self.folder = folder / task.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._starts: dict[tuple[str, int], str] = {}

    def prepared(self, run: Run) -> Prepared:
        """Return a fresh model, ready for a run."""
        return prepare(self.task.model(run.seed), run.method, head=["classifier"], seed=run.seed)

    def path(self, run: Run) -> Path:
        """Return where a run's result is kept: its name holds a digest of all it depends on."""
        known = (run.method, run.seed)
        if known not in self._starts:  # what was drawn counts, not how
            self._starts[known] = _digest(self.prepared(run).model.state_dict())
        made_from = {
            "version": VERSION,
            "task": self.task.spec(),
            "epochs": self.task.epochs,
            "batch_size": self.task.batch_size,
            "method": run.method,
            "settings": dict(METHODS[run.method].settings),
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            "start": self._starts[known],
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        }
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{run.method}-{run.learning_rate:g}-{run.seed}-{key}.json"

    def result(self, run: Run) -> dict[str, Any] | None:
        """Return a finished run's result."""
        path = self.path(run)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def rates(self, method: str) -> list[float]:
        """Return the learning rates to choose among."""
        return [self.task.rate_factor * rate for rate in METHODS[method].learning_rates]

    def chosen(self, method: str) -> float | None:
        """Return the learning rate with the best development set, once all four are known."""
        tried = {rate: self.result(Run(method, rate, self.seeds[0])) for rate in self.rates(method)}
        if any(result is None for result in tried.values()):
            return None
        # Ties go to the lower loss.
        return max(tried, key=lambda r: (tried[r]["dev"]["accuracy"], -tried[r]["dev"]["loss"]))

    def to_do(self) -> list[Run]:
        """Return the runs whose turn it is and that are not finished."""
        runs = []
        for method in self.methods:
            rate = self.chosen(method)
            if rate is None:
                found = [Run(method, r, self.seeds[0]) for r in self.rates(method)]
            else:
                found = [Run(method, rate, seed) for seed in self.seeds]
            runs += [run for run in found if not self._finished(run, tested=rate is not None)]
        return runs

    def _finished(self, run: Run, tested: bool) -> bool:
        result = self.result(run)
        return result is not None and (not tested or "test" in result)

    def work(self) -> None:
        """Do what is to do, leaving to other processes what they have begun."""
        while runs := self.to_do():
            for run in runs:
                with claim(self.path(run).with_suffix(".lock")) as mine:
                    tested = self.chosen(run.method) is not None
                    if mine and not self._finished(run, tested):
                        self._do(run, tested)
                        break
            else:
                time.sleep(5)  # others are at all of them

    def _do(self, run: Run, tested: bool) -> None:
        """Train a run, or read the test set with what an earlier training left."""
        path, result = self.path(run), self.result(run)
        weights = path.with_suffix(".safetensors")
        prepared = self.prepared(run)
        tensors = {**prepared.trained, **prepared.head}
        start = time.process_time()
        if result is None or not weights.exists():
            losses = fit(self.task, prepared, run.learning_rate, run.seed)
            result = {
                "method": run.method,
                "learning_rate": run.learning_rate,
                "seed": run.seed,
                "trainable": prepared.num_trainable,
                "bytes": stored_bytes(prepared.trained) if prepared.trained else 0,
                "head_bytes": stored_bytes(prepared.head),
                "frozen_bytes": stored_bytes(prepared.frozen) if prepared.frozen else 0,
                "train_loss": sum(losses[-50:]) / len(losses[-50:]),
                "dev": evaluate(self.task, prepared.model, "dev"),
                "core_seconds": round(time.process_time() - start, 1),
            }
            if not tested:
                write_aside(weights, lambda file: _save(tensors, file))
        else:
            _load(tensors, weights)
        if tested:
            result["test"] = evaluate(self.task, prepared.model, "test")
            for rate in self.rates(run.method):  # no longer needed
                other = self.path(Run(run.method, rate, self.seeds[0]))
                if rate != run.learning_rate or run.seed == self.seeds[0]:
                    other.with_suffix(".safetensors").unlink(missing_ok=True)
        text = json.dumps(result) + "\n"
        write_aside(path, lambda file: file.write_text(text, encoding="utf-8"))
        shown = f"  test {result['test']['accuracy']:.2f}" if tested else ""
        print(
            f"{run.method:12s} rate {run.learning_rate:g}  seed {run.seed}  "
            f"loss {result['train_loss']:.3f}  dev {result['dev']['accuracy']:.2f}{shown}  "
            f"{result['core_seconds']:.0f} core-seconds",
            flush=True,
        )

    def table(self, reference: str = "lora") -> list[dict[str, Any]]:
        """Return one row a method; differences are to ``reference``, paired."""
        right = {method: self._right(method) for method in self.methods}
        rows = []
        for method in self.methods:
            rate = self.chosen(method)
            results = [self.result(Run(method, rate, seed)) for seed in self.seeds]
            tests = torch.tensor([r["test"]["accuracy"] for r in results], dtype=torch.float64)
            row = {
                "method": method,
                "title": METHODS[method].title,
                "learning_rate": rate,
                "dev": {
                    f"{r:g}": self.result(Run(method, r, self.seeds[0]))["dev"]["accuracy"]
                    for r in self.rates(method)
                },
                **{k: results[0][k] for k in ("trainable", "bytes", "head_bytes", "frozen_bytes")},
                "test": tests.tolist(),
                "accuracy": tests.mean().item(),
                "sd": tests.std().item() if len(tests) > 1 else 0.0,
                "core_seconds": [r["core_seconds"] for r in results],
            }
            if method != reference and reference in right:
                gain = 100 * (right[method] - right[reference])  # (seeds, n)
                row["difference"] = gain.mean().item()
                row["interval"] = bootstrap(gain)
            rows.append(row)
        return rows

    def _right(self, method: str) -> Tensor:
        rate = self.chosen(method)
        texts = [self.result(Run(method, rate, seed))["test"]["right"] for seed in self.seeds]
        return torch.tensor([[int(c) for c in text] for text in texts], dtype=torch.float64)


def main(full: Callable[[Path], Task], quick: Callable[[Path], Task], description: str) -> None:
    """Run a comparison from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=OUT, help="where finished runs are kept")
    parser.add_argument("--time", type=float, default=60, help="seconds to spend on step times")
    parser.add_argument("--work-only", action="store_true", help="help another process")
    parser.add_argument("--quick", action="store_true", help="few samples and one seed")
    args = parser.parse_args()
    # One core a run: two processes then do not disturb each other.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    task = quick(args.out) if args.quick else full(args.out)
    comparison = Comparison(task, args.methods, SEEDS[:1] if args.quick else SEEDS, args.out)
    comparison.work()
    if args.work_only:
        return
    rows = comparison.table()
    times = step_times(task, args.methods, args.time) if args.time > 0 else {}
    for row in rows:
        row |= {"step": times[row["method"]]} if times else {}
    show(rows)
    if args.json:
        result = {
            "task": task.spec(),
            "epochs": task.epochs,
            "rows": rows,
            "threads": torch.get_num_threads(),
            "environment": describe_environment(),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def digest_of(values: Sequence[Any]) -> str:
    """Digest of plain values."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()[:16]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@contextmanager
def claim(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a file's lock if nobody else does; the system frees it when a process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that an interruption leaves none half written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    write(aside)
    aside.replace(path)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, path)


@torch.no_grad()
def _load(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import load_file

    for name, tensor in load_file(path).items():
        tensors[name].copy_(tensor)
