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
_UPTRAINED = (
    "The bundled model was trained, without labels, to give what the dense model gives: the "
    "outputs of the blocks, and of the whole model. The loss is the squared distance of each, "
    "divided by its variance, and for hidden states also one minus the cosine of their means. "
    "Embedding tables stayed as they were. Every eighth batch of the calibration texts or rows "
    "was held out; the learning rate is the best of short trials on it. What is measured in the "
    "summary took part in neither."
)
_CLOSED_FORM = (
    "The fully bundled network: the same depth, widths and activation, but its hidden layers are "
    "random features that are never trained, and its last matrix is the solution of one ridge "
    "regression on one-hot classes, with the ridge chosen by generalised cross-validation. It "
    "was fitted to the same training images as the network above, without a gradient step."
)


def _chosen(findings: dict[str, Any]) -> dict[str, Any]:
    return next(e for e in findings["curve"] if e["keep"] == findings["settings"]["keep"])


def _saved(findings: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the entry of the saved model, and its name among the times."""
    if findings["uptrained"] is not None:
        return findings["uptrained"], "uptrained"
    return _chosen(findings), "bundled"


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
    uptrained, solved = findings["uptrained"], findings["closed_form"]
    if uptrained is not None:
        x, y = uptrained["model_after"] / scale, factor * uptrained["score"]
        bounds = [factor * bound for bound in uptrained["interval"]]
        ends = [[max(y - bounds[0], 0)], [max(bounds[1] - y, 0)]]
        ax.errorbar(
            [x], [y], yerr=ends, marker="*", markersize=11, capsize=3, color="C3",
            linestyle="none", label="uptrained", zorder=4,
        )  # fmt: skip
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
    if findings["uptrained"] is not None:
        entries.append(("uptrained", findings["uptrained"], "uptrained"))
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
        caption=f"The bundled blocks at keep {chosen['keep']:g}.",
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


def _draw_losses(ax: Any, findings: dict[str, Any]) -> None:
    uptrained = findings["uptrained"]
    ax.plot(*zip(*uptrained["losses"], strict=True), label="training batches")
    ends = [uptrained[when]["loss"] for when in ("before", "after")]
    ax.plot((0, uptrained["steps"]), ends, "s", color="C1", label="held-out batches", zorder=3)
    ax.set_ylim(bottom=0)
    ax.set_title("Distance to the dense model")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend()


def _add_uptraining(page: Page, findings: dict[str, Any]) -> None:
    uptrained, percent = findings["uptrained"], findings["metric"]["percent"]
    if uptrained is None:
        return
    page.heading("Uptraining")
    page.paragraph(_UPTRAINED)
    page.figure(
        lambda ax: _draw_losses(ax, findings),
        f"The loss over {uptrained['steps']:,} steps, one batch each, with a learning rate of up "
        f"to {uptrained['learning_rate']:g}, and on {uptrained['held_out']} held-out batches "
        "before and after.",
    )
    chosen, dense = _chosen(findings), findings["dense"]["score"]
    before, after = uptrained["before"], uptrained["after"]
    page.table(
        ["", "before", "after"],
        [
            [
                findings["metric"]["name"],
                *(shown_score(entry["score"], percent) for entry in (chosen, uptrained)),
            ],
            [
                "difference to dense (95 %)" if percent else "95 % interval",
                *(shown_interval(entry, dense, percent) for entry in (chosen, uptrained)),
            ],
            *(
                [
                    [name, *(f"{entry['extra'][name]:.4f}" for entry in (chosen, uptrained))]
                    for name in sorted(chosen["extra"])
                ]
            ),
            [
                "output off by, share of its variance, held out",
                *(f"{entry['output']:.4f}" for entry in (before, after)),
            ],
            [
                "cosine of outputs, held out",
                *(f"{entry['cosine']:.4f}" for entry in (before, after)),
            ],
        ],
        caption=f"The model of keep {uptrained['keep']:g} before and after; uptraining took "
        f"{uptrained['seconds']:.0f} s, the trials of learning rates included.",
    )
    if uptrained["trials"]:
        page.table(
            ["learning rate", "held-out loss of its trial"],
            [
                [f"{rate:g}", "–" if loss is None else f"{loss:.4f}"]
                for rate, loss in uptrained["trials"]
            ],
            caption="Each trial starts from the bundled model and runs a twentieth of the steps.",
        )


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
    reload = _saved(findings)[0]["reload"]
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
    saved, kind = _saved(findings)
    trained = (
        "No gradient step."
        if kind == "bundled"
        else f"Then {saved['steps']:,} steps of training to match the dense model, without labels."
    )
    page = Page(
        f"Bundled: {findings['model']['name']}",
        lead="Feed-forward blocks replaced by scalable neural network kernels: some of each "
        f"block's own neurons as features, and one matrix fitted by ridge regression. {trained}",
    )
    share = chosen["stored_after"] / chosen["stored_before"]
    page.tiles(
        {
            "of the numbers stored in the blocks": f"{100 * share:.0f} %",
            f"{metric['name']} (dense: {shown_score(dense, percent)})": shown_score(
                saved["score"], percent
            ),
            "as fast as the dense model": f"{speed_up(saved, kind):.2f}×",
            "blocks bundled": str(len(chosen["blocks"])),
        }
    )
    page.heading("Summary")
    header, rows = summary_rows(findings)
    page.table(
        header,
        rows,
        caption=f"Time, dense → other: {findings['timed']}, {shown_threads(findings)}.",
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
    _add_uptraining(page, findings)
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
        **({"uptraining": f"{settings['uptrain']:,} steps"} if settings["uptrain"] else {}),
        "seed": str(settings["seed"]),
        **{name: str(value) for name, value in environment.items()},
        "duration": f"{findings['seconds']:.0f} s",
    }
    page.facts(facts)
    page.heading("How it was measured")
    page.paragraph(f"{metric['name'][0].upper()}{metric['name'][1:]}: {metric['description']}")
    page.paragraph(_MEASURED)
    return page
