"""The figures of the page that ``mercer fit`` writes."""

import math
from typing import Any

_MARKERS = "osD^vP"
_FEW_CLASSES = 5  # up to which a confusion shows its zeros


def draw_predicted(ax: Any, findings: dict[str, Any]) -> None:
    """Draw predictions against targets of test rows."""
    true, found = zip(*findings["points"], strict=True)
    low, high = min(*true, *found), max(*true, *found)
    ax.plot(true, found, "o", markersize=3, alpha=0.5, markeredgewidth=0, label="test rows")
    ax.plot([low, high], [low, high], color="C1", linestyle="--", label="perfect")
    ax.set_title("Predicted against true")
    ax.set_xlabel(f"true {_target(findings)}")
    ax.set_ylabel(f"predicted {_target(findings)}")
    _add_legend(ax)


def draw_residuals(ax: Any, findings: dict[str, Any]) -> None:
    """Draw residuals against predictions of test rows."""
    found = [p for _, p in findings["points"]]
    rest = [t - p for t, p in findings["points"]]
    ax.plot(found, rest, "o", markersize=3, alpha=0.5, markeredgewidth=0, label="test rows")
    ax.axhline(0, color="C1", linestyle="--", label="perfect")
    ax.set_title("Residuals")
    ax.set_xlabel(f"predicted {_target(findings)}")
    ax.set_ylabel("true less predicted")
    _add_legend(ax)


def draw_residual_counts(ax: Any, findings: dict[str, Any]) -> None:
    """Draw how residuals are distributed, beside a normal distribution of their spread."""
    rest = [t - p for t, p in findings["points"]]
    centre = sum(rest) / len(rest)
    spread = (sum((r - centre) ** 2 for r in rest) / len(rest)) ** 0.5 or 1.0
    ax.hist(rest, bins=30, density=True, alpha=0.6, label="test rows")
    places = [centre + spread * (i / 20 - 4) for i in range(161)]
    heights = [
        math.exp(-(((p - centre) / spread) ** 2) / 2) / (spread * (2 * math.pi) ** 0.5)
        for p in places
    ]
    ax.plot(places, heights, color="C1", label="normal, same spread")
    ax.set_title("Distribution of residuals")
    ax.set_xlabel("true less predicted")
    ax.set_ylabel("density")
    _add_legend(ax)


def draw_learning_curve(ax: Any, findings: dict[str, Any]) -> None:
    """Draw the test error against the number of rows fitted to."""
    factor, name = (100, "test error [%]") if findings["classes"] else (1, "test RMSE")

    def error(scores: dict[str, Any]) -> float:
        return factor * (1 - scores["score"]) if findings["classes"] else scores["score"]

    rows = [fit["rows"] for fit in findings["fits"]]
    ax.plot(rows, [error(fit) for fit in findings["fits"]], "o-", label="Mercer", zorder=3)
    peer, base = findings["peer"], findings["baseline"]
    ax.plot([peer["rows"]], [error(peer)], "s", color="C1", label="gradient boosting", zorder=3)
    ax.axhline(error(base), color="C2", linestyle="--", label=base["title"])
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ticks = rows if len(rows) < 4 else rows[:: -(-len(rows) // 3)]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set_title("Learning curve")
    ax.set_xlabel("rows fitted to")
    ax.set_ylabel(name)
    ax.legend(loc="best")


def draw_spectrum(ax: Any, findings: dict[str, Any]) -> None:
    """Draw the eigenvalues of the kernel matrix with the ridge."""
    spectrum = findings["spectrum"]
    ax.plot(spectrum["index"], spectrum["values"], "o-", markersize=3, label="eigenvalues")
    ax.axhline(spectrum["ridge"], color="C1", linestyle="--", label="ridge")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_title("Spectrum of the kernel")
    ax.set_xlabel("number of the eigenvalue")
    ax.set_ylabel("eigenvalue")
    ax.legend(loc="best")


def draw_candidates(ax: Any, findings: dict[str, Any]) -> None:
    """Draw leave-one-out errors of the first round, of those with a lengthscale against it."""
    from .fit_candidates import TITLES

    least = min(each["rows"] for each in findings["candidates"])
    first = [each for each in findings["candidates"] if each["rows"] == least]
    names = dict.fromkeys(each["candidate"]["kernel"] for each in first)
    for i, name in enumerate(names):
        own = [each for each in first if each["candidate"]["kernel"] == name]
        color = f"C{i}"
        if "multiple" in own[0]["candidate"]:
            pairs = sorted((each["candidate"]["multiple"], each["score"]) for each in own)
            mark = _MARKERS[i % len(_MARKERS)]
            ax.plot(*zip(*pairs, strict=True), f"{mark}-", color=color, label=TITLES[name])
        else:
            best = min(each["score"] for each in own)
            ax.axhline(best, color=color, linestyle="--", label=f"{TITLES[name]}, best")
    if any("multiple" in each["candidate"] for each in first):
        ax.set_xscale("log", base=2)
        ax.set_xlabel("lengthscale / median distance")
    ax.set_title(f"Candidates on {least:,} rows")
    ax.set_ylabel("leave-one-out error")
    _add_legend(ax, 3)


def draw_confusion(ax: Any, findings: dict[str, Any]) -> None:
    """Draw the confusion matrix, shares of each class with the counts."""
    from matplotlib import rcParams
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    counts, names = findings["confusion"], [_short(n, 12) for n in findings["classes"]]
    shares = [[c / max(sum(row), 1) for c in row] for row in counts]
    base = to_rgba(rcParams["axes.prop_cycle"].by_key()["color"][0])
    shades = LinearSegmentedColormap.from_list("share", [(*base[:3], 0.0), (*base[:3], 0.75)])
    ax.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
    size = max(4.0, 9 - len(names) / 3)
    if len(names) <= 20:
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count or len(names) <= _FEW_CLASSES:
                    ax.text(j, i, f"{count:,}", ha="center", va="center", fontsize=size)
    ax.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, fontsize=size)
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.grid(visible=False)
    ax.set_title("Confusion")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")


def draw_calibration(ax: Any, findings: dict[str, Any]) -> None:
    """Draw how often the predicted class is right against its probability."""
    for i, (name, key) in enumerate((("Mercer", "reliability"), ("gradient boosting", "peer"))):
        found = findings[key] if key == "reliability" else findings["peer"]["reliability"]
        places = [each["confidence"] for each in found["bins"]]
        ax.plot(
            places,
            [each["right"] for each in found["bins"]],
            f"{_MARKERS[i]}-",
            label=f"{name}, error {100 * found['error']:.1f} %",
        )
    ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="perfect")
    ax.set_xlim(max(0.0, 0.9 / len(findings["classes"]) - 0.05), 1.02)
    ax.set_title("Calibration")
    ax.set_xlabel("probability of the predicted class")
    ax.set_ylabel("share that is right")
    _add_legend(ax)


def _target(findings: dict[str, Any]) -> str:
    name = findings["data"]["target"]
    return f"column {name}" if name.isdecimal() else _short(name)  # of a file without a header


def _short(name: str, most: int = 24) -> str:
    # A dollar sign would start a formula.
    shown = name if len(name) <= most else f"{name[: most - 1]}…"
    return shown.replace("$", r"\$")


def _add_legend(ax: Any, columns: int = 2) -> None:
    """Name what is drawn below the axes, where no point is."""
    ax.figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.0)
