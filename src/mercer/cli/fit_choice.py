"""Choose a kernel and its ridge by closed-form leave-one-out errors, in rounds of more rows."""

from collections.abc import Sequence
from typing import Any

import torch

from .._core.config import config
from ..linalg import RidgePath
from .fit_budget import Budget, Stopwatch
from .fit_candidates import Candidate, make_kernel, neighbours, title
from .fit_plan import FitPlan
from .step_bar import StepBar
from .steps import Steps

ROUNDS = (500, 1500, 4000)  # rows; a decomposition grows with their third power
_MATRICES = 5  # of so many rows and columns, in a decomposition
_KEPT = (8, 3)  # candidates that go on to the second and the third round
_SHARE = 0.45  # of the time that is left for steps


def round_sizes(rows: int) -> list[int]:
    """Return how many rows each round looks at, as many as memory allows."""
    half = config.memory_budget / 2
    fitting = [r for r in ROUNDS if r == ROUNDS[0] or 8 * _MATRICES * r**2 <= half]
    sizes = sorted({min(size, rows) for size in fitting})
    return sizes * 2 if len(sizes) == 1 else sizes  # twice, so that the best is refined


def _measure(
    plan: FitPlan, candidate: Candidate, rows: int, inputs: dict[str, Any], steps: Steps
) -> dict[str, Any]:
    """Return the leave-one-out error of one candidate on so many rows, at its best ridge."""

    def compute(folder: Any) -> dict[str, Any]:
        watch = Stopwatch()
        matrix = make_kernel(candidate, plan.x)(plan.x[:rows])  # (rows, rows)
        path = RidgePath(matrix, plan.outputs()[:rows], intercept=True)
        choice = path.minimise("loo")
        found = {
            "ridge": choice.ridge,
            "score": choice.score,
            "effective_dimension": path.effective_dimension(choice.ridge),
        }
        if plan.classes:
            left_out = plan.outputs()[:rows] - path.leave_one_out(choice.ridge)
            found["accuracy"] = float((left_out.argmax(1) == plan.y[:rows]).double().mean())
        return {**found, "seconds": watch.seconds()}

    made_from = {**inputs, "candidate": candidate, "rows": rows}
    found, _ = steps.run("candidate", made_from, compute)
    return {**found, "candidate": candidate, "title": title(candidate), "rows": rows}


@torch.no_grad()
def choose(
    plan: FitPlan,
    first: Sequence[Candidate],
    inputs: dict[str, Any],
    steps: Steps,
    bar: StepBar,
    budget: Budget,
) -> list[dict[str, Any]]:
    """Compare candidates: all on few rows, the best on more, and what lies next to the best.

    Parameters
    ----------
    plan : FitPlan
        The rows.
    first : sequence of Candidate
        The candidates of the first round, the likelier first.
    inputs : dict
        Plain values on which every result depends.
    steps : Steps
        Where finished steps are kept.
    bar : StepBar
        Where the steps are shown.
    budget : Budget
        Of which less than a half is spent here.

    Returns
    -------
    list of dict
        The measurements in their order. The best of those on the most rows is chosen.

    References
    ----------
    Jamieson, Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
    AISTATS 2016 (successive halving).
    """
    until = budget.spent + _SHARE * budget.left
    sizes = round_sizes(len(plan.x))
    found: list[dict[str, Any]] = []
    round_, pace = list(first), 0.0
    for i, rows in enumerate(sizes):
        for candidate in round_:
            if found and budget.spent + pace > until:
                break
            bar.begin(f"{title(candidate)} on {rows:,} rows")
            each = _measure(plan, candidate, rows, inputs, steps)
            if not any(_same(each, other) for other in found):
                found.append(each)
                budget.add(each["seconds"])
            pace = each["seconds"]
        ranked = best_first([each for each in found if each["rows"] == rows])
        if i + 1 == len(sizes) or not ranked:
            break
        round_ = [each["candidate"] for each in ranked[: _KEPT[min(i, len(_KEPT) - 1)]]]
        known = [each["candidate"] for each in found]
        round_[1:1] = [near for near in neighbours(round_[0]) if near not in known]
        pace *= (sizes[i + 1] / rows) ** 3
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["candidate"] == other["candidate"] and one["rows"] == other["rows"]


def best_first(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order measurements on the same rows by their score."""
    return sorted(found, key=lambda each: each["score"])


def chosen(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the best measurement among those on the most rows."""
    most = max(each["rows"] for each in found)
    return best_first([each for each in found if each["rows"] == most])[0]
