"""The page that ``mercer bundle`` writes, made from its findings alone."""

import os
import re
from typing import Any

from ..report import Page
from .bundle_table import shown_interval, shown_score, shown_threads, speed_up, summary_rows

_NUMBER = re.compile(r"(?<![^.\W])\d+(?![^.\W])")  # a whole part of a dotted name
_MEASURED = (
    "Stored numbers are parameters and buffers; the stored numbers of a block are those of its "
    "two linear maps before, and of the features and the one matrix that took their place after. "
    "Times are medians over rounds in which the dense and the bundled model take turns after two "
    "rounds of warming up, so that a change of the machine's pace hits both; the ratio is of the "
    "two medians of the same rounds. R² is the share of the variance of a block's outputs that "
    "its replacement explains, on calibration rows that were held out of the fit. Where blocks "
    "follow each other, the linear layer that they share counts once in the sum."
)
_CLOSED_FORM = (
    "The fully bundled network: the same depth, widths and activation, but its hidden layers are "
    "random features that are never trained, and its last matrix is the solution of one ridge "
    "regression on one-hot classes, with the ridge chosen by generalised cross-validation. It "
    "was fitted to the same training images as the network above, without a gradient step."
)


def _chosen(findings: dict[str, Any]) -> dict[str, Any]:
    return next(e for e in findings["curve"] if e["keep"] == findings["settings"]["keep"])


def _unit(largest: float) -> tuple[float, str]:
    return (1e6, "millions") if largest >= 2e6 else (1e3, "thousands")


def _short(names: list[str]) -> list[str]:
    """Leave out the leading parts, between dots, that all names share."""
    parts = [name.split(".") for name in names]
    while len(names) > 1 and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return [".".join(p) for p in parts]


def _grouped(skipped: list[dict[str, str]]) -> list[list[Any]]:
    """Put layers together that differ in a number only: name, how many, why."""
    alike: dict[tuple[str, str], list[dict[str, str]]] = {}
    for item in skipped:
        key = (_NUMBER.sub("#", item["name"]), _NUMBER.sub("#", item["reason"]))
        alike.setdefault(key, []).append(item)
    return [
        [group[0]["name"], 1, group[0]["reason"]] if len(group) == 1 else [name, len(group), why]
        for (name, why), group in alike.items()
    ]


def _draw_scores(ax: Any, findings: dict[str, Any]) -> None:
    curve, percent = findings["curve"], findings["metric"]["percent"]
    factor = 100 if percent else 1
    scale, unit = _unit(curve[0]["model_before"])
    stored = [entry["model_after"] / scale for entry in curve]
    scores = [factor * entry["score"] for entry in curve]
    low, high = zip(*(entry["interval"] for entry in curve), strict=True)
    bars = [
        [max(s - factor * bound, 0) for s, bound in zip(scores, low, strict=True)],
        [max(factor * bound - s, 0) for s, bound in zip(scores, high, strict=True)],
    ]
    ax.errorbar(stored, scores, yerr=bars, marker="o", capsize=3, label="bundled", zorder=3)
    for entry, x, y in zip(curve, stored, scores, strict=True):
        ax.annotate(
            f"{entry['keep']:g}", (x, y), xytext=(5, -10), textcoords="offset points", fontsize=8
        )
    dense = (curve[0]["model_before"] / scale, factor * findings["dense"]["score"])
    ax.plot(*dense, "s", color="C1", label="dense", zorder=3)
    ax.axhline(dense[1], color="C1", linewidth=0.8, linestyle="--")
    solved = findings["closed_form"]
    if solved is not None:
        place = (solved["stored"] / scale, factor * solved["score"])
        ax.plot(*place, "D", color="C2", label="closed form", zorder=3)
    name = findings["metric"]["name"]
    ax.set_title(f"{name[0].upper()}{name[1:]} against stored numbers")
    ax.set_xlabel(f"stored numbers [{unit}]")
    ax.set_ylabel(f"{name} [%]" if percent else name)
    ax.margins(x=0.08, y=0.12)
    ax.legend(loc="best")


def _draw_speed(ax: Any, findings: dict[str, Any]) -> None:
    entries = [(f"keep {e['keep']:g}", e, "bundled") for e in findings["curve"]]
    if findings["closed_form"] is not None:
        entries.append(("closed form", findings["closed_form"], "solved"))
    names = [name for name, _, _ in entries]
    ratios = [speed_up(entry, kind) for _, entry, kind in entries]
    bars = ax.barh(names, ratios, height=0.6)
    ax.bar_label(bars, [f"{ratio:.2f}×" for ratio in ratios], padding=3, fontsize=8.5)
    ax.axvline(1, color="C1", linestyle="--", linewidth=1.2)
    ax.text(1, 1.01, "dense", color="C1", ha="center", transform=ax.get_xaxis_transform())
    ax.set_title("Speed", pad=16)
    ax.set_xlabel("time of the dense model / time")
    ax.set_xlim(0, 1.18 * max(1, *ratios))
    ax.grid(visible=False, axis="y")
    ax.invert_yaxis()


def _draw_fits(ax: Any, findings: dict[str, Any]) -> None:
    blocks = _chosen(findings)["blocks"]
    names = _short([block["name"] for block in blocks])
    places = range(len(names))
    markers = "osD^vPX"
    for i, entry in enumerate(findings["curve"]):
        fits = [float("nan") if b["r2"] is None else b["r2"] for b in entry["blocks"]]
        mark = markers[i % len(markers)]
        ax.plot(fits, places, mark, label=f"keep {entry['keep']:g}", clip_on=False, zorder=3)
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(right=1)
    ax.set_title("Fit of each block")
    ax.set_xlabel("R² on held-out calibration rows")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _add_blocks(page: Page, findings: dict[str, Any]) -> None:
    chosen = _chosen(findings)
    page.heading("Blocks")
    blocks = chosen["blocks"]
    page.figure(
        lambda ax: _draw_fits(ax, findings),
        "R² of each block's output on held-out calibration rows; 1 is perfect.",
        size=(4.4, 1.5 + 0.24 * max(len(blocks), 3)),
    )
    columns = ["block", "activation", "in→hidden→out", "features kept"]
    columns += ["stored before", "stored after", "R²", "ridge", "seconds"]
    page.table(
        columns,
        [
            [
                block["name"],
                block["activation"],
                f"{block['in_features']}→{block['hidden_features']}→{block['out_features']}",
                block["num_features"],
                block["stored_before"],
                block["stored_after"],
                "–" if block["r2"] is None else f"{block['r2']:.4f}",
                "–" if block["ridge"] is None else f"{block['ridge']:.2g}",
                f"{block['seconds']:.2f}",
            ]
            for block in blocks
        ],
        caption=f"The blocks of the saved model (keep {chosen['keep']:g}).",
    )
    rows = _grouped(chosen["skipped"])
    if rows:
        page.table(
            ["layer", "count", "why left as it is"],
            rows,
            caption="Linear layers that start no block; # stands for the numbers of layers that "
            "are alike.",
        )
    else:
        page.paragraph("No linear layer was left out.")


def _add_closed_form(page: Page, findings: dict[str, Any]) -> None:
    solved, percent = findings["closed_form"], findings["metric"]["percent"]
    if solved is None:
        return
    page.heading("Solved in closed form")
    page.paragraph(_CLOSED_FORM)
    dense = _chosen(findings)["model_before"]
    page.table(
        ["model", "numbers stored", "of them fitted", "by", findings["metric"]["name"]],
        [
            [
                "trained",
                dense,
                dense,
                "gradient steps (Adam)",
                shown_score(findings["dense"]["score"], percent),
            ],
            [
                "closed form",
                solved["stored"],
                solved["solved"],
                f"one solution, {solved['seconds']:.2f} s",
                shown_score(solved["score"], percent),
            ],
        ],
    )


def _add_use(page: Page, findings: dict[str, Any]) -> None:
    folder = os.path.join(findings["settings"]["out"], "model")  # noqa: PTH118  shown, not opened
    lines = ["import mercer", "", f"model = mercer.convert.load({folder!r})"]
    if findings["settings"]["data"] is not None:
        lines[0] = "import mercer\nfrom transformers import AutoTokenizer"
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({folder!r})")
    page.heading("Use the result")
    page.code("\n".join(lines))
    reload = _chosen(findings)["reload"]
    page.paragraph(
        "Loading runs no code from the folder. The saved model was loaded again here and its "
        "outputs compared with those of the model in memory: "
        + (
            "they are identical, bit by bit."
            if reload["identical"]
            else f"the largest difference is {reload['largest_difference']:.2g}."
        )
    )


def bundle_page(findings: dict[str, Any]) -> Page:
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
    chosen, metric, settings = _chosen(findings), findings["metric"], findings["settings"]
    environment, percent = findings["environment"], metric["percent"]
    dense = findings["dense"]["score"]
    page = Page(
        f"Bundled: {findings['model']['name']}",
        lead="Feed-forward blocks replaced by scalable neural network kernels: some of each "
        "block's own neurons as features, and one matrix fitted by ridge regression. No gradient "
        "step.",
    )
    share = chosen["stored_after"] / chosen["stored_before"]
    page.tiles(
        {
            "of the numbers stored in the blocks": f"{100 * share:.0f} %",
            f"{metric['name']} (dense: {shown_score(dense, percent)})": shown_score(
                chosen["score"], percent
            ),
            "as fast as the dense model": f"{speed_up(chosen):.2f}×",
            "blocks bundled": str(len(chosen["blocks"])),
        }
    )
    page.heading("Summary")
    header, rows = summary_rows(findings)
    page.table(
        header,
        rows,
        caption=f"Time, dense → bundled: {findings['timed']}, {shown_threads(findings)}.",
    )
    page.figure(
        lambda ax: _draw_scores(ax, findings),
        f"{metric['name'][0].upper()}{metric['name'][1:]} against the numbers stored in the whole "
        f"model; the labels are the shares kept, the bars 95 % intervals. At keep "
        f"{chosen['keep']:g}: {shown_interval(chosen, dense, percent)}.",
    )
    page.figure(
        lambda ax: _draw_speed(ax, findings),
        f"Speed against the dense model: {findings['timed']}, {shown_threads(findings)}, "
        "median of interleaved rounds.",
    )
    _add_blocks(page, findings)
    _add_closed_form(page, findings)
    _add_use(page, findings)
    page.heading("What was done")
    facts = {
        "model": f"{settings['model']} ({findings['model']['kind']})",
        **({"notes": " ".join(findings["model"]["notes"])} if findings["model"]["notes"] else {}),
        "data": settings["data"] or findings["data"]["name"],
        "division": findings["data"]["description"],
        "keep": f"{settings['keep']:g}; measured at "
        + ", ".join(f"{share:g}" for share in settings["curve"]),
        "seed": str(settings["seed"]),
        **{name: str(value) for name, value in environment.items()},
        "duration": f"{findings['seconds']:.0f} s",
    }
    page.facts(facts)
    page.heading("How it was measured")
    page.paragraph(f"{metric['name'][0].upper()}{metric['name'][1:]}: {metric['description']}")
    page.paragraph(_MEASURED)
    return page
