"""The order of what ``mercer fit`` does, within the time that it was given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .fit_budget import Budget, Stopwatch, finer_fit, next_fit
from .fit_candidates import Candidate, candidates, make_kernel
from .fit_choice import choose, chosen
from .fit_models import (
    baseline,
    choose_penalty,
    fit_rows,
    load_predictions,
    peer,
)
from .fit_plan import FitPlan
from .fit_scores import confusion, difference, reliability
from .step_bar import StepBar
from .steps import Steps
from .sweep import MODEL_FOLDER

_LEAST = 50  # rows, the first point of the learning curve
_POINTS = 6  # of it, or more where they are needed
_QUICK = 2000  # rows that are fitted to whatever the budget
_SHOWN = 1000  # test rows in a figure
_SPECTRUM_ROWS = 1500
_PENALTY_ROWS = 1500


class FitJob:
    """Choose, fit and measure.

    Parameters
    ----------
    plan : FitPlan
        The rows.
    kernels : sequence of str
        Families of candidates.
    budget : Budget
        The time.
    seed : int
        Of the peer; the rows are divided already.
    """

    def __init__(self, plan: FitPlan, kernels: Sequence[str], budget: Budget, seed: int) -> None:
        self._plan, self._budget, self._seed = plan, budget, seed
        self._candidates = candidates(kernels)
        # The first rows are of all classes, see `plan_fit`.
        self._sizes = _ladder(len(plan.x), max(_LEAST, 4 * len(plan.classes)))
        self.total_steps = len(self._candidates) + 14 + len(self._sizes)

    def run(
        self, inputs: dict[str, Any], started: Stopwatch, steps: Steps, bar: StepBar
    ) -> tuple[dict[str, Any], Path]:
        """Return the findings and the folder of the saved model.

        Parameters
        ----------
        inputs : dict
            Plain values on which every result depends.
        started : Stopwatch
            Running since the command began.
        steps : Steps
            Where finished steps are kept.
        bar : StepBar
            Where the steps are shown.
        """
        plan, budget = self._plan, self._budget
        # Of the first run, so that a resumed one has spent the same.
        begun, _ = steps.run("begin", inputs, lambda _: {"seconds": started.seconds()})
        budget.add(begun["seconds"])
        bar.begin("gradient boosting")
        other, other_folder = peer(plan, self._seed, max(budget.left, 0.0), inputs, steps)
        budget.add(other["seconds"])
        tried = choose(plan, self._candidates, inputs, steps, bar, budget)
        best = chosen(tried)
        penalty: dict[str, Any] = {"ridge": best["ridge"], "tried": []}
        if plan.classes:
            bar.begin("ridge of the logistic regression")
            rows = min(_PENALTY_ROWS, best["rows"])
            penalty = choose_penalty(plan, best["candidate"], rows, budget.left, inputs, steps)
            budget.add(penalty["seconds"])
        fits, folder = self._fit(best["candidate"], penalty["ridge"], inputs, steps, bar)
        bar.begin("spectrum")
        spectrum, _ = steps.run(
            "spectrum",
            {**inputs, "candidate": best["candidate"], "ridge": best["ridge"]},
            lambda _: self._spectrum(best),
        )
        budget.add(spectrum["seconds"])
        found, theirs = load_predictions(folder), load_predictions(other_folder)
        findings = {
            "classes": list(plan.classes),
            "candidates": tried,
            "chosen": {**best, "ridge": penalty["ridge"], "penalties": penalty["tried"]},
            "fits": fits,
            "baseline": baseline(plan),
            "peer": other,
            "to_peer": difference(plan.y_test, found, theirs),
            "spectrum": spectrum,
            **self._for_figures(found),
        }
        return findings, folder / MODEL_FOLDER

    def _fit(
        self,
        candidate: Candidate,
        ridge: float,
        inputs: dict[str, Any],
        steps: Steps,
        bar: StepBar,
    ) -> tuple[list[dict[str, Any]], Path]:
        """Fit to ever more rows, to all of them if the time suffices: the learning curve."""
        fits: list[dict[str, Any]] = []
        folder, whole, classes = Path(), self._sizes[-1], bool(self._plan.classes)

        def fit(rows: int, landmarks: int | None) -> tuple[dict[str, Any], Path]:
            bar.begin(f"fit to {rows:,} rows")
            plan, show = self._plan, bar.shown
            done = fit_rows(plan, candidate, ridge, rows, landmarks, inputs, steps, show)
            self._budget.add(done[0]["seconds"])
            return done

        for rows in self._sizes:
            following: tuple[int, int | None] | None = (rows, None)
            if fits and rows <= fits[-1]["rows"]:
                continue
            if fits:
                following = next_fit(fits[-1], rows, whole, self._budget.left, classes)
            if following is None:
                break
            done, folder = fit(*following)
            fits.append(done)
        while (finer := finer_fit(fits[-1], self._budget.left, classes)) is not None:
            fits[-1], folder = fit(*finer)
        return fits, folder

    @torch.no_grad()
    def _spectrum(self, best: dict[str, Any]) -> dict[str, Any]:
        """Return the eigenvalues of the chosen kernel, few on a logarithmic scale."""
        watch = Stopwatch()
        rows = min(_SPECTRUM_ROWS, len(self._plan.x))
        matrix = make_kernel(best["candidate"], self._plan.x)(self._plan.x[:rows])
        values = torch.linalg.eigvalsh(matrix).flip(0)  # (rows,), descending
        # What is below rounding has no value.
        known = int((values > 1e-15 * values[0] * rows).sum())
        places = torch.logspace(0, 1, 60, base=float(known)).round().long().unique()
        return {
            "rows": rows,
            "index": places.tolist(),
            "values": values[places - 1].tolist(),
            "ridge": best["ridge"],
            "effective_dimension": float((values.clamp_min(0) / (values + best["ridge"])).sum()),
            "seconds": watch.seconds(),
        }

    def _for_figures(self, found: torch.Tensor) -> dict[str, Any]:
        y = self._plan.y_test
        if self._plan.classes:
            return {"confusion": confusion(y, found), "reliability": reliability(y, found)}
        # From the whole file, whose rows may be in an order.
        some = torch.linspace(0, len(y) - 1, min(_SHOWN, len(y))).round().long()
        return {"points": torch.stack([y[some], found[some]], 1).tolist()}


def _ladder(rows: int, least: int) -> list[int]:
    """Sizes that double up to all rows, from one whose fit is over at once."""
    sizes = [rows]
    while (len(sizes) < _POINTS or sizes[-1] > _QUICK) and sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]
