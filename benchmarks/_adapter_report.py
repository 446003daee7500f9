"""How certain a difference is, how long a step takes, and the table of a comparison."""

import time
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any

import torch
from _adapter_task import Task
from torch import Tensor
from torch.nn import functional as F

from mercer.cli.adapt_methods import prepare


def bootstrap(values: Tensor, draws: int = 4000, seed: int = 0) -> list[float]:
    """Central 95 % interval of the mean of (seeds, n), rows and columns resampled."""
    source = torch.Generator().manual_seed(seed)
    seeds, n = values.shape
    means = []
    for _ in range(draws):
        row = torch.randint(seeds, (seeds,), generator=source)
        column = torch.randint(n, (n,), generator=source)
        means.append(values[row].mean(0)[column].mean())
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return torch.quantile(torch.stack(means), ends).tolist()


def step_times(task: Task, methods: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
    """Processor time of one training step at the same batch, turn by turn: quartiles in seconds.

    Time of the processor and not of the clock, which other work on the machine lengthens; with
    one thread they are the same on a quiet machine.
    """
    lengths = torch.tensor(task.lengths("train"))
    middle = lengths.argsort(stable=True)[len(lengths) // 2 :][: task.batch_size]
    inputs, labels = task.inputs("train", middle), task.labels("train")[middle]

    def stepper(method: str) -> Callable[[], None]:
        ready = prepare(task.model(0), method, head=["classifier"])
        model = ready.model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(**inputs), labels).backward()
            optimizer.step()

        return step

    steppers = {method: stepper(method) for method in methods}
    taken: dict[str, list[float]] = {method: [] for method in methods}
    end = time.perf_counter() + seconds
    while len(taken[methods[0]]) < 7 or time.perf_counter() < end:
        for method, step in steppers.items():
            start = time.process_time()
            step()
            taken[method].append(time.process_time() - start)
    result = {}
    for method, times in taken.items():
        lower, median, upper = quantiles(times[2:], n=4, method="inclusive")  # two warm up
        result[method] = {"median": median, "lower": lower, "upper": upper, "rounds": len(times)}
    return result


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"\n{'method':24s}{'trained':>12s}{'bytes':>12s}  test accuracy    to LoRA [95 %]")
    for row in rows:
        text = f"{row['title']:24s}{row['trainable']:12,d}{row['bytes']:12,d}"
        text += f"  {row['accuracy']:.2f} +- {row['sd']:.2f}"
        if "difference" in row:
            low, high = row["interval"]
            text += f"   {row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        if "step" in row:
            text += f"   {1000 * row['step']['median']:.0f} ms a step"
        print(text)
