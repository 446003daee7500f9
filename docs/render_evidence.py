"""Turn the evidence that pytest wrote into the page of the documentation.

``python docs/render_evidence.py out/evidence.json`` copies the rows to ``docs/evidence.json`` and
writes ``docs/evidence.md`` from them; `make evidence` calls it. Both files are committed, so the
documentation builds without running the evidence again.
"""

import json
import re
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
INTRODUCTION = """\
# Evidence

Each method comes with a fact sheet: what its paper claims, and how to check it on a laptop. The
tests that carry those checks record what they require and what they measured. *Exact* checks are
identities, limits and answers of other libraries; *behaviour* checks are what a method does on
data. `make evidence` runs them all and writes this page; `docs/evidence.json` has the same rows
with the name of each test.
"""


def _number(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"


def _cell(text: str) -> str:
    """Escape what Markdown would read as markup, outside backticks."""
    pieces = re.split(r"(`[^`]*`)", text)
    escaped = [
        piece if piece.startswith("`") else re.sub(r"([\\*_<\[\]$~`])", r"\\\1", piece)
        for piece in pieces
    ]
    return "".join(escaped).replace("|", r"\|").replace("\n", " ")


def _measured(row: dict[str, Any]) -> str:
    measured = _cell(_number(row["measured"]))
    return measured if row["outcome"] == "passed" else f"**{row['outcome']}** {measured}"


def _row(row: dict[str, Any], first: bool, alike: int) -> str:
    # The case of a parametrised test says something only where the rest does not.
    case = f"[{row['case']}]" if row["case"] and (alike > 1 or not row["what"]) else ""
    cells = [
        _cell(row["claim"]) if first else "",
        row["kind"] if first else "",
        _cell(" ".join(part for part in (row["what"], case) if part)),
        _cell(_number(row["required"])),
        _measured(row),
        f"{row['seconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def render(evidence: dict[str, Any]) -> str:
    """Write the page's Markdown, one table for each fact sheet."""
    where = evidence["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    rows = sorted(
        evidence["rows"], key=lambda row: (row["sheet"], row["kind"] != "exact", row["claim"])
    )
    passed = sum(row["outcome"] == "passed" for row in rows)
    lines = [
        INTRODUCTION,
        f"Last run on {where['date']}: {passed} of {len(rows)} rows passed, with "
        f"Python {where['python']}, {versions}, on {where['system']}, {where['cores']} cores, "
        f"{where['threads']} threads, device {where['device']}.",
    ]
    alike = Counter((row["sheet"], row["claim"], row["what"]) for row in rows)
    for sheet, group in groupby(rows, key=lambda row: row["sheet"]):
        lines += [
            f"\n## {sheet}\n",
            "| Claim | Kind | What | Required | Measured | Seconds |",
            "|---|---|---|---|---|---|",
        ]
        before = None
        for row in group:
            first = row["claim"] != before
            lines.append(_row(row, first, alike[sheet, row["claim"], row["what"]]))
            before = row["claim"]
    return "\n".join(lines) + "\n"


def main(path: str) -> None:
    """Copy the rows and write the page."""
    evidence = json.loads(Path(path).read_text(encoding="utf-8"))
    text = json.dumps(evidence, indent=1) + "\n"
    (DOCS / "evidence.json").write_text(text, encoding="utf-8")
    (DOCS / "evidence.md").write_text(render(evidence), encoding="utf-8")
    print(f"{len(evidence['rows'])} rows in {DOCS / 'evidence.md'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
