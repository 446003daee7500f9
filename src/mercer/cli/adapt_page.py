"""The page that ``mercer adapt`` writes, made from its findings alone, and what it prints."""

from pathlib import Path
from typing import Any

from ..report import Page
from .bundle_table import shown_score, shown_threads
from .command import print_table

_MARKERS = "osD^vPX"
_COLORS = (*(f"C{i}" for i in range(6)), "0.5")
_MEASURED = (
    "Every method trains for the same number of epochs with AdamW, a warm-up over 6 % of the steps "
    "and a straight line down to zero. Its learning rate is the best of four candidates by "
    "accuracy, ties going to the lower loss; the test texts take no part in that. What a method "
    "trains is counted without the classification head, which all of them train. Frozen bytes are "
    "random projections that a seed could make again. Intervals are bootstraps over the test texts "
    "(95 %), paired where two methods are compared; with several seeds each text counts with its "
    "mean over the seeds. They say nothing about other training data."
)


def _points(difference: list[float] | None) -> str:
    if difference is None:
        return "–"
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in difference))


def _bytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _seconds(entry: dict[str, Any]) -> str:
    return f"{entry['timing']['median']:.3f}"


def _accuracy(entry: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in entry["interval"])
    return f"{shown_score(entry['accuracy'], True)} ({low:.1f} to {high:.1f})"


def _add_legend(ax: Any) -> None:
    """Name the methods below the axes, where no point is."""
    ax.figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)


def _draw_accuracies(ax: Any, findings: dict[str, Any]) -> None:
    for i, entry in enumerate(findings["methods"]):
        x, y = entry["trainable"] + entry["head"], 100 * entry["accuracy"]
        low, high = (100 * bound for bound in entry["interval"])
        ax.errorbar(
            [x],
            [y],
            yerr=[[max(y - low, 0)], [max(high - y, 0)]],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=6,
            capsize=3,
            linestyle="none",
            color=_COLORS[i % len(_COLORS)],
            label=entry["title"],
            zorder=3,
        )
    ax.set_xscale("log")
    ax.margins(x=0.12, y=0.12)
    ax.set_title("Accuracy against trained numbers")
    ax.set_xlabel("trained numbers, the head's included")
    ax.set_ylabel("test accuracy [%]")
    _add_legend(ax)


def _draw_losses(ax: Any, findings: dict[str, Any]) -> None:
    for i, entry in enumerate(findings["methods"]):
        losses = entry["losses"]
        width = max(len(losses) // 40, 1)  # means over stretches: single steps are noise
        starts = range(0, len(losses) - width + 1, width)
        means = [sum(losses[s : s + width]) / width for s in starts]
        places = [s + width / 2 for s in starts]
        ax.plot(places, means, color=_COLORS[i % len(_COLORS)], label=entry["title"])
    ax.set_ylim(bottom=0)
    ax.set_title("Loss while training")
    ax.set_xlabel("step")
    ax.set_ylabel("cross-entropy")
    _add_legend(ax)


def _shown_trial(entry: dict[str, Any], each: dict[str, Any]) -> str:
    accuracy = each["accuracy"]
    score = "diverged" if accuracy is None else shown_score(accuracy, True)
    chosen = " (chosen)" if each["learning_rate"] == entry["learning_rate"] else ""
    return f"{each['learning_rate']:g}: {score}{chosen}"


def _add_rates(page: Page, findings: dict[str, Any]) -> None:
    tried = [entry for entry in findings["methods"] if entry["tried"]]
    if not tried:
        return
    count = max(len(entry["tried"]) for entry in tried)
    page.table(
        ["method", *(f"candidate {i + 1}" for i in range(count))],
        [
            [entry["title"], *(_shown_trial(entry, each) for each in entry["tried"])]
            for entry in tried
        ],
        caption="Learning rates, and the accuracy that each gave on the texts for choosing.",
    )


def _add_use(page: Page, findings: dict[str, Any]) -> None:
    first = findings["methods"][0]
    page.heading("Use the result")
    page.code("\n".join(findings["load"]))
    page.paragraph(
        f"The saved model is that of {first['title']}, seed {findings['settings']['seeds'][0]}. It "
        "was loaded again here and its scores compared with those of the model in memory: "
        + (
            "they are identical, bit by bit."
            if first["reload"]["identical"]
            else f"the largest difference is {first['reload']['largest_difference']:.2g}."
        )
    )


def adapt_page(findings: dict[str, Any]) -> Page:
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
    settings, entries, model = findings["settings"], findings["methods"], findings["model"]
    first = entries[0]
    page = Page(
        f"Adapted: {model['name']}",
        lead="A pretrained model, fine-tuned to classify texts by "
        + ("one method." if len(entries) == 1 else f"{len(entries)} methods under equal rules."),
    )
    share = first["trainable"] / model["parameters"]
    page.tiles(
        {
            f"test accuracy, {first['title']}": shown_score(first["accuracy"], True),
            "numbers trained besides the head": f"{first['trainable']:,}",
            "of the model's parameters": f"{100 * share:.2f} %",
            "seconds a step": _seconds(first),
        }
    )
    page.heading("Summary")
    page.table(
        ["method", "trained", "head", "bytes", "frozen bytes", "accuracy", "to first", "s a step"],
        [
            [
                entry["title"] + (" (saved)" if entry is first else ""),
                entry["trainable"],
                entry["head"],
                _bytes(entry["bytes"]) if entry["bytes"] else "–",
                _bytes(entry["frozen_bytes"]) if entry["frozen_bytes"] else "–",
                _accuracy(entry),
                _points(entry["difference"]),
                _seconds(entry),
            ]
            for entry in entries
        ],
        caption="Trained: numbers that train, without the head; bytes: a file of them. To first: "
        "difference of accuracy to the first method in points. Time: "
        f"{findings['timed']}, {shown_threads(findings)}, median of interleaved rounds.",
    )
    height = 3.3 + 0.2 * (len(entries) // 2)
    page.figure(
        lambda ax: _draw_accuracies(ax, findings),
        "Accuracy on the test texts against how many numbers train; the bars are 95 % intervals.",
        size=(4.4, height),
    )
    page.figure(
        lambda ax: _draw_losses(ax, findings),
        f"The loss over the training with seed {settings['seeds'][0]}.",
        size=(4.4, height),
    )
    if len(settings["seeds"]) > 1:
        page.table(
            ["method", *(f"seed {seed}" for seed in settings["seeds"])],
            [
                [entry["title"], *(shown_score(a, True) for a in entry["accuracies"])]
                for entry in entries
            ],
            caption="Test accuracy of each training.",
        )
    _add_rates(page, findings)
    _add_use(page, findings)
    page.heading("What was done")
    page.facts(
        {
            "model": f"{settings['model']} ({model['kind']}, {model['parameters']:,} parameters)",
            **({"head": "new"} if model["new_head"] else {"head": "the model's own"}),
            **({"notes": " ".join(model["notes"])} if model["notes"] else {}),
            "classes": ", ".join(findings["data"]["classes"]),
            **{name: settings[name] for name in ("train", "test", "dev") if settings[name]},
            "texts": findings["data"]["description"],
            "epochs": settings["epochs"],
            "seeds": ", ".join(map(str, settings["seeds"])),
            **{
                entry["title"]: ", ".join(
                    [
                        f"learning rate {entry['learning_rate']:g}",
                        *(f"{name} {value}" for name, value in entry["settings"].items()),
                    ]
                )
                for entry in entries
            },
            **{name: str(value) for name, value in findings["environment"].items()},
            "duration": f"{findings['seconds']:.0f} s",
        }
    )
    page.heading("How it was measured")
    page.paragraph(_MEASURED)
    return page


def print_adapted(findings: dict[str, Any], out: Path) -> None:
    """Print the summary as a table, and where the results are."""
    rows = [
        [
            entry["title"] + (" (saved)" if i == 0 else ""),
            f"{entry['trainable']:,}",
            shown_score(entry["accuracy"], True),
            "–" if entry["difference"] is None else f"{100 * entry['difference'][0]:+.1f}",
            _seconds(entry),
        ]
        for i, entry in enumerate(findings["methods"])
    ]
    title = f"{findings['model']['name']}, {shown_threads(findings)}"
    header = ["method", "trained", "accuracy", "to first", "s a step"]
    print_table(title, header, rows, out, bold=(0,))
