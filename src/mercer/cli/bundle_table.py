"""What ``mercer bundle`` prints at its end."""

from pathlib import Path
from typing import Any

from .command import print_table


def shown_threads(findings: dict[str, Any]) -> str:
    """Return the number of threads in words."""
    count = findings["environment"]["threads"]
    return "1 thread" if count == 1 else f"{count} threads"


def shown_score(value: float, percent: bool) -> str:
    """Return a score as people read it."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if percent else f"{value:.3f}"


def shown_interval(entry: dict[str, Any], dense: float, percent: bool) -> str:
    """Return the difference to the dense model in points, or the interval of a similarity."""
    low, high = entry["interval"]
    if not percent:
        return f"{low:.3f} to {high:.3f}"
    points = (100 * (value - dense) for value in (entry["score"], low, high))
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*points)


def speed_up(entry: dict[str, Any], name: str = "bundled") -> float:
    """Return how many times as fast as the dense model an entry was, by medians."""
    return entry["timing"]["dense"]["median"] / entry["timing"][name]["median"]


def shown_times(entry: dict[str, Any], name: str = "bundled") -> str:
    """Return the medians of the dense model and of an entry in the same rounds."""
    dense, other = (1000 * entry["timing"][which]["median"] for which in ("dense", name))
    return f"{dense:.2f} → {other:.2f} ms"


def summary_rows(findings: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the summary: dense, every size, uptrained, the closed form."""
    metric, curve = findings["metric"], findings["curve"]
    percent, dense = metric["percent"], findings["dense"]["score"]
    chosen = next(e for e in curve if e["keep"] == findings["settings"]["keep"])
    solved, uptrained = findings["closed_form"], findings["uptrained"]
    has_cosine = "cosine" in chosen["extra"] and metric["name"] != "cosine to dense"
    header = ["model", "stored in blocks", "stored in all", metric["name"]]
    header.append("difference (95 %)" if percent else "95 % interval")
    header += ["cosine to dense"] if has_cosine else []
    header += ["time", "speed"]
    rows = [
        [
            "dense",
            f"{chosen['stored_before']:,}",
            f"{chosen['model_before']:,}",
            shown_score(dense, percent),
            "–",
            *(["1.000"] if has_cosine else []),
            "–",
            "1.00×",
        ]
    ]
    entries = [
        (f"keep {entry['keep']:g}", entry, "bundled", entry is chosen and uptrained is None)
        for entry in curve
    ]
    if uptrained is not None:
        name = f"keep {uptrained['keep']:g}, {uptrained['steps']:,} steps"
        entries.insert(curve.index(chosen) + 1, (name, uptrained, "uptrained", True))
    for name, entry, kind, saved in entries:
        rows.append(
            [
                name + (" (saved)" if saved else ""),
                f"{entry['stored_after']:,}",
                f"{entry['model_after']:,}",
                shown_score(entry["score"], percent),
                shown_interval(entry, dense, percent),
                *([f"{entry['extra']['cosine']:.3f}"] if has_cosine else []),
                shown_times(entry, kind),
                f"{speed_up(entry, kind):.2f}×",
            ]
        )
    if solved is not None:
        rows.append(
            [
                "closed form",
                "–",
                f"{solved['stored']:,}",
                shown_score(solved["score"], percent),
                "–",
                *(["–"] if has_cosine else []),
                shown_times(solved, "solved"),
                f"{speed_up(solved, 'solved'):.2f}×",
            ]
        )
    return header, rows


def print_findings(findings: dict[str, Any], out: Path) -> None:
    """Print the summary as a table, and where the results are."""
    header, rows = summary_rows(findings)
    # What fits 80 columns; the intervals and times are on the page.
    shown = [i for i, name in enumerate(header) if "95 %" not in name and name != "time"]
    print_table(
        f"{findings['model']['name']}, {shown_threads(findings)}",
        [header[i] for i in shown],
        [[row[i] for i in shown] for row in rows],
        out,
        bold=[i for i, row in enumerate(rows) if "(saved)" in row[0]],
    )
