"""What ``mercer bundle`` prints at its end."""

from pathlib import Path
from typing import Any


def shown_score(value: float, percent: bool) -> str:
    """Return a score as people read it."""
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


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


def summary_rows(findings: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the summary: dense, every size, the closed form."""
    metric, curve = findings["metric"], findings["curve"]
    percent = metric["percent"]
    chosen = next(e for e in curve if e["keep"] == findings["settings"]["keep"])
    has_cosine = any("cosine" in e["extra"] for e in curve) and metric["name"] != "cosine to dense"
    header = ["model", "stored in blocks", "stored in all", metric["name"]]
    header.append("difference (95 %)" if percent else "95 % interval")
    header += ["cosine to dense"] if has_cosine else []
    header += ["time", "speed"]

    def milliseconds(seconds: float) -> str:
        return f"{1000 * seconds:.2f} ms"

    rows = [
        [
            "dense",
            f"{chosen['stored_before']:,}",
            f"{chosen['model_before']:,}",
            shown_score(findings["dense"]["score"], percent),
            "–",
            *(["1.000"] if has_cosine else []),
            milliseconds(chosen["timing"]["dense"]["median"]),
            "1.00×",
        ]
    ]
    for entry in curve:
        saved = " (saved)" if entry is chosen else ""
        rows.append(
            [
                f"keep {entry['keep']:g}{saved}",
                f"{entry['stored_after']:,}",
                f"{entry['model_after']:,}",
                shown_score(entry["score"], percent),
                shown_interval(entry, findings["dense"]["score"], percent),
                *([f"{entry['extra']['cosine']:.3f}"] if has_cosine else []),
                milliseconds(entry["timing"]["bundled"]["median"]),
                f"{speed_up(entry):.2f}×",
            ]
        )
    solved = findings["closed_form"]
    if solved is not None:
        rows.append(
            [
                "closed form",
                "–",
                f"{solved['stored']:,}",
                shown_score(solved["score"], percent),
                "–",
                *([""] if has_cosine else []),
                milliseconds(solved["timing"]["solved"]["median"]),
                f"{speed_up(solved, 'solved'):.2f}×",
            ]
        )
    return header, rows


def print_findings(findings: dict[str, Any], out: Path) -> None:
    """Print the summary as a table, and where the results are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, rows = summary_rows(findings)
    name = findings["model"]["name"].encode("utf-8", "replace").decode()
    # Text, not str: square brackets in a name are not markup.
    table = Table(title=Text(f"{name}, {findings['environment']['threads']} threads"))
    for i, column in enumerate(header):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row, style="bold" if "(saved)" in row[0] else None)
    console = Console()
    console.print(table)
    where = str(out).encode("utf-8", "replace").decode()
    console.print(Text(f"page   {where}/report.html\nmodel  {where}/model"), soft_wrap=True)
