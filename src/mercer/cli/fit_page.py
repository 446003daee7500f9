"""The page that ``mercer fit`` writes, made from its findings alone, and what it prints."""

import os
from pathlib import Path
from typing import Any

from ..report import Page
from . import fit_figures as figures
from .bundle_table import shown_threads
from .command import print_table

_MEASURED = (
    "The rows held out were drawn before anything was learnt: medians, means and levels of columns "
    "come from the training rows, kernels and ridges were chosen on them, and the rows held out "
    "were scored once for each point of the learning curve, of which the last is the saved model. "
    "Only the kinds of columns were read off all rows. Intervals (95 %) are for other test rows of "
    "the same kind; they say nothing about other training rows. "
)
_CHOSEN = (
    "Each kernel was compared by its leave-one-out error: the mean squared error of predicting "
    "each row from all others by kernel ridge regression, in closed form from one "
    "eigendecomposition, with the ridge that makes it smallest; {unit}. All candidates were "
    "compared on few rows, the best of them, and lengthscales beside the best, on more."
)


def _name(findings: dict[str, Any]) -> str:
    return findings["chosen"]["title"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _score(findings: dict[str, Any], value: float) -> str:
    return _percent(value) if findings["classes"] else f"{value:.4g}"


def _interval(findings: dict[str, Any], bounds: list[float]) -> str:
    if findings["classes"]:
        return " to ".join(f"{100 * bound:.1f}" for bound in bounds)
    return " to ".join(f"{bound:.4g}" for bound in bounds)


def _to_peer(findings: dict[str, Any]) -> str:
    middle, low, high = findings["to_peer"]
    if findings["classes"]:
        return f"{100 * middle:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{middle:+.3g} ({low:+.3g} to {high:+.3g})"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _rows(findings: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the summary."""
    other = ["log-loss", "Brier score"] if findings["classes"] else ["R²", "mean absolute"]
    keys = ("log_loss", "brier") if findings["classes"] else ("r2", "mae")
    first = "accuracy" if findings["classes"] else "RMSE"
    header = ["model", "rows", first, "95 % interval", *other, "s to fit"]
    models = [
        (_name(findings) + " (saved)", findings["fits"][-1]),
        ("gradient boosting", findings["peer"]),
        (findings["baseline"]["title"], findings["baseline"]),
    ]
    rows = []
    for title, scores in models:
        shown = ["–" if scores[key] is None else f"{scores[key]:.4g}" for key in keys]
        rows.append(
            [
                title,
                f"{scores['rows']:,}" if "rows" in scores else "–",
                _score(findings, scores["score"]),
                _interval(findings, scores["interval"]),
                *shown,
                _seconds(scores["timing"]["fit"]) if "timing" in scores else "–",
            ]
        )
    return header, rows


def _lead(findings: dict[str, Any]) -> str:
    data = findings["data"]
    kind = f"one of {len(findings['classes'])} classes" if findings["classes"] else "a number"
    return (
        f"“{data['target']}”, {kind}, predicted from {len(_used(findings))} other columns "
        f"by a kernel machine."
    )


def _used(findings: dict[str, Any]) -> list[dict[str, Any]]:
    return [column for column in findings["data"]["columns"] if column["kind"] != "left out"]


def _fitted_to(findings: dict[str, Any]) -> str:
    rows, data = findings["fits"][-1]["rows"], findings["data"]
    if rows == data["train"]:
        return f"all {rows:,} training rows"
    return (
        f"{rows:,} of {data['train']:,} training rows: more would have taken longer than "
        f"{findings['settings']['budget']:g} minutes; a larger --budget fits to more"
    )


def _add_figures(page: Page, findings: dict[str, Any]) -> None:
    def add(draw: Any, caption: str, size: tuple[float, float] = (4.4, 3.2)) -> None:
        page.figure(lambda ax: draw(ax, findings), caption, size=size)

    test = findings["data"]["test"]
    if findings["classes"]:
        add(
            figures.draw_confusion,
            "Test rows by their class and the predicted one; the shade is the share of the row.",
            (4.4, 3.6),
        )
        add(
            figures.draw_calibration,
            f"How often the predicted class of {test:,} test rows is right, by how probable it was "
            "said to be; below the line is too sure. The error is the mean distance.",
            (4.4, 3.6),
        )
    else:
        points = len(findings["points"])
        shown = f"{points:,} of {test:,} test rows" if points < test else f"{test:,} test rows"
        add(figures.draw_predicted, f"Predictions of {shown} against the truth.")
        add(figures.draw_residuals, f"What predictions of {shown} are off by.")
        add(figures.draw_residual_counts, f"The same, counted; {shown}.")
    add(
        figures.draw_learning_curve,
        "Error on the test rows of the chosen kernel fitted to fewer rows; where it still falls, "
        "more rows would help.",
    )
    spectrum = findings["spectrum"]
    add(
        figures.draw_spectrum,
        f"Eigenvalues of the chosen kernel on {spectrum['rows']:,} training rows. Those above the "
        f"ridge are fitted: {spectrum['effective_dimension']:.0f} degrees of freedom in all."
        + (" The ridge is that of the comparison by squares." if findings["classes"] else ""),
    )
    add(
        figures.draw_candidates,
        "Leave-one-out errors in the first round, lower is better.",
        (4.4, 3.6),
    )


def _add_choice(page: Page, findings: dict[str, Any]) -> None:
    page.heading("Choice of the kernel")
    unit = (
        "classes count as 0 and 1, summed over classes"
        if findings["classes"]
        else "in units of the target's variance"
    )
    page.paragraph(_CHOSEN.format(unit=unit))
    chosen = findings["chosen"]
    accuracy = ["accuracy"] if findings["classes"] else []
    ordered = sorted(findings["candidates"], key=lambda e: (-e["rows"], e["score"]))
    page.table(
        ["kernel", "rows", "error", *accuracy, "ridge", "degrees of freedom", "seconds"],
        [
            [
                each["title"] + (" (chosen)" if i == 0 else ""),
                f"{each['rows']:,}",
                f"{each['score']:.4f}",
                *([_percent(each["accuracy"])] if accuracy else []),
                f"{each['ridge']:.2g}",
                f"{each['effective_dimension']:.0f}",
                f"{each['seconds']:.2f}",
            ]
            for i, each in enumerate(ordered)
        ],
        caption="Candidates, by the number of rows and the error when each row is left out.",
    )
    if chosen["penalties"]:
        page.table(
            ["ridge of the logistic regression", "log-loss on training rows held out"],
            [
                [
                    f"{each['ridge']:.2g}"
                    + (" (chosen)" if each["ridge"] == chosen["ridge"] else ""),
                    f"{each['log_loss']:.4f}",
                ]
                for each in chosen["penalties"]
            ],
            caption="The saved model is a logistic regression, whose ridge is another.",
        )


def _add_fits(page: Page, findings: dict[str, Any]) -> None:
    name = "test accuracy" if findings["classes"] else "test RMSE"
    page.table(
        ["rows", name, "95 % interval", "solver", "s to fit", "s to predict"],
        [
            [
                f"{fit['rows']:,}" + (" (saved)" if fit is findings["fits"][-1] else ""),
                _score(findings, fit["score"]),
                _interval(findings, fit["interval"]),
                fit["solver"].partition(":")[0]
                + (f", {fit['landmarks']:,} landmarks" if fit["landmarks"] else ""),
                _seconds(fit["timing"]["fit"]),
                _seconds(fit["timing"]["predict"]),
            ]
            for fit in findings["fits"]
        ],
        caption="Points of the learning curve; each is a fit of the chosen kernel.",
    )


def _add_use(page: Page, findings: dict[str, Any]) -> None:
    folder = os.path.join(findings["settings"]["out"], "model")  # noqa: PTH118  shown, not opened
    lines = [
        "from mercer.machines import TablePredictor",
        "",
        f"model = TablePredictor.from_pretrained({folder!r})",
        'print(model.predict("new.csv"))',
    ]
    if findings["classes"]:
        lines.append('print(model.classes, model.predict_proba("new.csv"))')
    page.heading("Use the result")
    page.code("\n".join(lines))
    page.paragraph("Or, from the command line, for files of any length:")
    page.code(f"mercer predict {folder} new.csv --out predictions.csv")
    reload = findings["fits"][-1]["reload"]
    page.paragraph(
        "Loading runs no code from the folder. The saved model was loaded again here and its "
        "predictions compared with those of the model in memory: "
        + (
            "they are identical, bit by bit."
            if reload["identical"]
            else f"the largest difference is {reload['largest_difference']:.2g}."
        )
    )


def _add_data(page: Page, findings: dict[str, Any]) -> None:
    data = findings["data"]
    page.heading("Columns")
    page.table(
        ["column", "kind", "inputs", "missing cells", "note"],
        [
            [
                column["name"],
                column["kind"],
                column["inputs"],
                "yes" if column["missing"] else "no",
                column["note"],
            ]
            for column in data["columns"]
        ],
        caption="What became of each column. Missing numbers are replaced by the median, with an "
        "input that says where; categories have one input for each level that is frequent.",
    )
    if findings["classes"]:
        page.table(
            ["class", "training rows"],
            [list(pair) for pair in zip(data["classes"], data["counts"], strict=True)],
            caption=f"Classes of “{data['target']}”.",
        )


def fit_page(findings: dict[str, Any]) -> Page:
    """Make the page from what report.json holds.

    Parameters
    ----------
    findings : dict
        All that the command found.

    Returns
    -------
    Page
        The page, not yet written.
    """
    settings, data, fit = findings["settings"], findings["data"], findings["fits"][-1]
    page = Page(f"Fitted: {data['name']}", lead=_lead(findings))
    second = (
        {"expected calibration error": _percent(findings["reliability"]["error"])}
        if findings["classes"]
        else {"R² on the test rows": "–" if fit["r2"] is None else f"{fit['r2']:.3f}"}
    )
    name = "accuracy on the test rows" if findings["classes"] else "RMSE on the test rows"
    page.tiles(
        {
            name: _score(findings, fit["score"]),
            **second,
            "kernel": _name(findings),
            "training rows": f"{fit['rows']:,}",
        }
    )
    page.heading("Summary")
    header, rows = _rows(findings)
    page.table(
        header,
        rows,
        caption=f"Measured on {data['test']:,} rows held out, {shown_threads(findings)}. "
        f"{'Accuracy' if findings['classes'] else 'RMSE'} of the saved model less that of "
        f"scikit-learn's gradient boosting with its defaults: {_to_peer(findings)}"
        + (" points." if findings["classes"] else "."),
    )
    if fit["rows"] < data["train"]:
        page.paragraph(f"Fitted to {_fitted_to(findings)}.")
    _add_figures(page, findings)
    _add_choice(page, findings)
    _add_fits(page, findings)
    _add_use(page, findings)
    _add_data(page, findings)
    page.heading("What was done")
    left_out = data["without_target"]
    page.facts(
        {
            "table": settings["table"],
            "target": data["target"],
            "task": f"{data['task']}: {data['reason']}",
            **({} if findings["classes"] else {"range": " to ".join(data["range"])}),
            "rows": f"{data['train']:,} to train on, {data['test']:,} to test on"
            + (f"; {left_out:,} left out because their target is missing" if left_out else ""),
            "inputs": data["inputs"],
            "fitted to": _fitted_to(findings),
            "kernel": _name(findings),
            "ridge": f"{findings['chosen']['ridge']:.3g}",
            "solver": fit["solver"],
            "kernels compared": ", ".join(settings["kernel"]),
            "seed": str(settings["seed"]),
            **{name: str(value) for name, value in findings["environment"].items()},
            "budget": f"{settings['budget']:g} min",
            "duration": f"{findings['seconds']:.0f} s",
        }
    )
    page.heading("How it was measured")
    page.paragraph(_MEASURED)
    return page


def print_fit(findings: dict[str, Any], out: Path) -> None:
    """Print the summary as a table, and where the results are."""
    header, rows = _rows(findings)
    title = f"{findings['data']['target']} of {findings['data']['name']}, {shown_threads(findings)}"
    # What fits 80 columns; the rest is on the page.
    shown = [i for i, name in enumerate(header) if name not in ("95 % interval", "Brier score")]
    print_table(
        title, [header[i] for i in shown], [[row[i] for i in shown] for row in rows], out, bold=(0,)
    )
