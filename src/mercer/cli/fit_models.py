"""The models that ``mercer fit`` measures: its own, the mean or majority, and a peer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..machines import TablePredictor
from .fit_budget import Stopwatch
from .fit_candidates import Candidate, make_kernel
from .fit_plan import FitPlan
from .fit_scores import classification_scores, regression_scores, reliability
from .steps import Steps
from .sweep import MODEL_FOLDER

PREDICTIONS = "predictions.safetensors"
# Of the mean of the kernel's diagonal, from strong to weak until the log-loss rises.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_PENALTY_SHARE = 0.3  # of the time that is left, after which no weaker one is tried
_CHECKED = 256  # test rows whose predictions are compared after loading
_PEER_ROWS = 2000  # on which the peer is timed before it gets all
_PEER_STEP = 10  # times the rows, at most, from one timing to the next
_PEER_SHARE = 0.15  # of the budget


def scores_of(plan: FitPlan, found: Tensor) -> dict[str, Any]:
    """Score predictions of the test rows: numbers (t,), or probabilities (t, classes)."""
    return (classification_scores if plan.classes else regression_scores)(plan.y_test, found)


def make_machine(
    plan: FitPlan, candidate: Candidate, ridge: float, landmarks: int | None = None
) -> Any:
    """Make the machine of a candidate, not yet fitted; without landmarks it sees to them itself."""
    from ..machines import KernelLogisticRegression, KernelRidge

    kernel = make_kernel(candidate, plan.x)
    if plan.classes:
        options: dict[str, Any] = (
            {} if landmarks is None else {"solver": "nystroem", "landmarks": landmarks}
        )
        return KernelLogisticRegression(kernel, C=1 / ridge, random_state=0, **options)
    options = {} if landmarks is None else {"solver": "falkon", "landmarks": landmarks}
    return KernelRidge(kernel, alpha=ridge, fit_intercept=True, random_state=0, **options)


def choose_penalty(
    plan: FitPlan,
    candidate: Candidate,
    rows: int,
    left: float,
    inputs: dict[str, Any],
    steps: Steps,
) -> dict[str, Any]:
    """Choose the ridge of a logistic regression on training rows held out.

    The squared error, by which kernels are compared in closed form, and the log-loss want
    different ones.
    """
    held = held_out(plan.y[:rows])
    x, y = plan.x[:rows], plan.y[:rows]

    def compute(folder: Path) -> dict[str, Any]:
        watch, tried = Stopwatch(), list[dict[str, float]]()
        size = float(make_kernel(candidate, plan.x).diag(plan.x[:rows]).mean())
        for penalty in PENALTIES:
            machine = make_machine(plan, candidate, penalty * size)
            machine.fit(x[~held], y[~held])
            found = _spread(machine, machine.predict_proba(x[held]), plan)
            scores = classification_scores(y[held], found)
            tried.append({"ridge": penalty * size, "log_loss": scores["log_loss"]})
            rises = len(tried) > 1 and tried[-1]["log_loss"] > tried[-2]["log_loss"]
            if rises or watch.seconds() > _PENALTY_SHARE * left:
                break
        best = min(tried, key=lambda each: each["log_loss"])
        return {"ridge": best["ridge"], "tried": tried, "seconds": watch.seconds()}

    return steps.run("penalty", {**inputs, "candidate": candidate, "rows": rows}, compute)[0]


def held_out(classes: Tensor) -> Tensor:
    """Choose the last quarter of the rows of each class, at least one: booleans (n,)."""
    held = torch.zeros(len(classes), dtype=torch.bool)
    for c in classes.unique():
        own = (classes == c).nonzero().squeeze(1)
        if len(own) > 1:
            held[own[-max(len(own) // 4, 1) :]] = True
    return held


def _spread(machine: Any, found: Tensor, plan: FitPlan) -> Tensor:
    """Put the probabilities of the classes that were there into (n, classes)."""
    whole = found.new_zeros(len(found), len(plan.classes), dtype=torch.float64)
    whole[:, torch.as_tensor(machine.classes_, dtype=torch.long)] = found.double()
    return whole


def fit_rows(
    plan: FitPlan,
    candidate: Candidate,
    ridge: float,
    rows: int,
    landmarks: int | None,
    inputs: dict[str, Any],
    steps: Steps,
    show: bool,
) -> tuple[dict[str, Any], Path]:
    """Fit the chosen machine to the first training rows, measure it on the test rows, save it."""
    made_from = {
        **inputs,
        "candidate": candidate,
        "ridge": ridge,
        "rows": rows,
        "landmarks": landmarks,
    }

    def compute(folder: Path) -> dict[str, Any]:
        watch = Stopwatch()
        machine = make_machine(plan, candidate, ridge, landmarks)
        if plan.classes:
            machine.fit(plan.x[:rows], plan.y[:rows])
        else:
            machine.set_params(show_progress=show)
            state = steps.scratch("fit", made_from)  # from which a killed fit goes on
            machine.fit(plan.x[:rows], plan.outputs()[:rows], checkpoint=state)
            machine.set_params(show_progress=False)
        fitted = watch.seconds()
        options: dict[str, Any] = (
            {"classes": plan.classes} if plan.classes else {"mean": plan.mean, "scale": plan.scale}
        )
        predictor = TablePredictor(plan.encoder, machine, plan.target, **options)
        found = _predict(predictor, machine, plan.x_test)
        predicted = watch.seconds() - fitted
        _save(folder, found)
        predictor.save_pretrained(folder / MODEL_FOLDER)
        again = TablePredictor.from_pretrained(folder / MODEL_FOLDER)
        part = plan.x_test[:_CHECKED]
        pair = [_predict(predictor, m, part) for m in (machine, again.machine)]
        return {
            "rows": rows,
            **scores_of(plan, found),
            "solver": f"{machine.solver_}: {machine.solver_reason_}",
            "landmarks": landmarks,
            "timing": {"fit": fitted, "predict": predicted},
            "reload": {
                "identical": torch.equal(*pair),
                "largest_difference": float((pair[0] - pair[1]).abs().max()),
            },
            "seconds": watch.seconds(),
        }

    return steps.run("fit", made_from, compute, files=(PREDICTIONS, MODEL_FOLDER))


def _predict(predictor: TablePredictor, machine: Any, x: Tensor) -> Tensor:
    """Predict rows that are encoded already: numbers (n,), or probabilities (n, classes)."""
    if predictor.classes:
        return machine.predict_proba(x).double()
    return machine.predict(x).double() * predictor.scale + predictor.mean


def _save(folder: Path, found: Tensor) -> None:
    from safetensors.torch import save_file

    save_file({"predictions": found.contiguous()}, folder / PREDICTIONS)


def load_predictions(folder: Path) -> Tensor:
    """Read the predictions of test rows that a step wrote."""
    from safetensors.torch import load_file

    return load_file(folder / PREDICTIONS)["predictions"].clone()


def baseline(plan: FitPlan) -> dict[str, Any]:
    """Score what knows no inputs: the mean, or the shares of the classes."""
    if plan.classes:
        shares = torch.bincount(plan.y, minlength=len(plan.classes)).double() / len(plan.y)
        found = shares.expand(len(plan.y_test), -1)
        return {"title": "most frequent class", **scores_of(plan, found)}
    found = torch.full_like(plan.y_test, plan.mean)
    return {"title": "mean", **scores_of(plan, found)}


def peer(
    plan: FitPlan, seed: int, limit: float, inputs: dict[str, Any], steps: Steps
) -> tuple[dict[str, Any], Path]:
    """Fit scikit-learn's gradient boosting with its defaults, and measure it alike.

    Where all rows would take more than its share of the budget, it gets fewer.
    """

    def compute(folder: Path) -> dict[str, Any]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        watch = Stopwatch()
        kind = HistGradientBoostingClassifier if plan.classes else HistGradientBoostingRegressor
        x, y = plan.x.numpy(), plan.y.numpy()

        def fit(rows: int) -> tuple[Any, float]:
            clock = Stopwatch()
            with threadpool_limits(limits=torch.get_num_threads()):  # as many as PyTorch's
                model = kind(random_state=seed).fit(x[:rows], y[:rows])
            return model, clock.seconds()

        rows = min(_PEER_ROWS, len(x))
        model, seconds = fit(rows)
        while rows < len(x):
            # Its time grows with the rows, a little more slowly; far steps are not foreseen.
            left = max(_PEER_SHARE * limit - watch.seconds(), 0.0)
            more = min(len(x), int(rows * min(left / seconds, _PEER_STEP)))
            if more <= rows:
                break
            rows = more
            model, seconds = fit(rows)
        predict: Callable[..., Any] = model.predict_proba if plan.classes else model.predict
        found = torch.from_numpy(predict(plan.x_test.numpy())).double()
        if plan.classes:
            found = _spread(model, found, plan)
        _save(folder, found)
        calibration = {"reliability": reliability(plan.y_test, found)} if plan.classes else {}
        return {
            "rows": rows,
            **scores_of(plan, found),
            **calibration,
            "timing": {"fit": seconds},
            "seconds": watch.seconds(),
        }

    return steps.run("peer", inputs, compute, files=(PREDICTIONS,))
