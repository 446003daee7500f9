"""One HTML page in one file: no network, no script, light and dark, wide and narrow."""

import base64
import html
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._core.saving import write_folder, write_text
from .._core.version import __version__
from .figure import draw_svg, has_matplotlib
from .stylesheet import STYLESHEET

_NO_FIGURES = (
    "The figures are missing because matplotlib is not installed: pip install 'mercer[plot]'."
)
# Belt and braces: even if markup slipped through, a browser would load and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NUMBER = re.compile(r"[-+−±<>≤≥~]?\s?\d[\d.,]*(e[-+]?\d+)?\s?(%|×|[a-zµ/]{1,4})?|–?")
_LONG = 24  # characters, from which on a cell is broken into lines


def _escape(text: object) -> str:
    """Escape for HTML; what UTF-8 cannot hold (names with stray bytes) becomes ``?``."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column_class(cells: Sequence[str], index: int) -> str:
    if index and all(_NUMBER.fullmatch(cell) for cell in cells):
        return ' class="number"'
    return ' class="long"' if any(len(cell) > _LONG for cell in cells) else ""


def _breakable(text: str) -> str:
    """Escape, and allow a line to end after the dots of a long name."""
    return re.sub(r"\.(?=\w)", ".<wbr>", _escape(text))


class Page:
    r"""A page that is filled from top to bottom and then written as one file.

    Everything that is shown is escaped. The page asks for nothing from the network and runs no
    script, so it opens from disk and travels by mail.

    Parameters
    ----------
    title : str
        The heading of the page and the name of its tab.
    lead : str
        A sentence or two below the title.

    Examples
    --------
    >>> from mercer.report import Page
    >>> page = Page("Bundled", lead="What it cost and what it gave.")
    >>> page.heading("Summary")
    >>> page.table(["", "stored"], [["dense", 85002], ["bundled", 42501]])
    >>> "<td class=\"number\">85,002</td>" in page.to_html()
    True
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._lead = lead
        self._blocks: list[tuple[str, str]] = []  # (kind, HTML)

    def _add(self, kind: str, text: str) -> None:
        self._blocks.append((kind, text))

    def heading(self, text: str) -> None:
        """Start a section."""
        self._add("heading", f"<h2>{_escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._add("paragraph", f"<p>{_escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add lines of code."""
        self._add("code", f'<pre tabindex="0"><code>{_escape(text.strip())}</code></pre>')

    def tiles(self, tiles: Mapping[str, str]) -> None:
        """Add the few numbers that matter most, large: a mapping from label to value."""
        items = (
            f"<li><strong>{_escape(value)}</strong><span>{_escape(label)}</span></li>"
            for label, value in tiles.items()
        )
        self._add("tiles", f'<ul class="tiles">{"".join(items)}</ul>')

    def facts(self, facts: Mapping[str, object]) -> None:
        """Add names with their values, one a line."""
        items = (
            f"<dt>{_escape(name)}</dt><dd>{_escape(_cell(value))}</dd>"
            for name, value in facts.items()
        )
        self._add("facts", f"<dl>{''.join(items)}</dl>")

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = ""
    ) -> None:
        """Add a table; columns of numbers are set flush right, wide tables scroll on their own.

        Parameters
        ----------
        columns : sequence of str
            The header.
        rows : sequence of sequences
            The cells: texts, integers (shown with thousands separators) or floats.
        caption : str
            What the table shows.

        Raises
        ------
        ValueError
            If a row has another number of cells than the header.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"rows: expected {len(columns)} cells a row, got {len(row)}")
        cells = [[_cell(value) for value in row] for row in rows]
        # The first column names the rows, flush left also where the names are numbers.
        kinds = [_column_class([row[i] for row in cells], i) for i in range(len(columns))]
        head = "".join(
            f'<th scope="col"{kind}>{_escape(name)}</th>'
            for name, kind in zip(columns, kinds, strict=True)
        )
        body = "\n".join(
            "<tr>"
            + "".join(
                f"<td{kind}>{_breakable(cell) if 'long' in kind else _escape(cell)}</td>"
                for cell, kind in zip(row, kinds, strict=True)
            )
            + "</tr>"
            for row in cells
        )
        label = _escape(caption or ", ".join(columns))
        # The caption stands outside what scrolls, so that it is never cut off.
        self._add(
            "table",
            (f'<p class="caption">{_escape(caption)}</p>\n' if caption else "")
            + f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
            f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>",
        )

    def figure(
        self,
        draw: Callable[[Any], object],
        caption: str,
        size: tuple[float, float] = (4.4, 3.2),
    ) -> None:
        """Add a figure, drawn once for a light and once for a dark screen.

        Figures that follow each other stand side by side where there is room. Where matplotlib
        is missing the page says, once, how to get them.

        Parameters
        ----------
        draw : callable
            Takes matplotlib axes and draws on them.
        caption : str
            What the figure shows; also its text for those who do not see it.
        size : tuple of float
            Width and height in inches.
        """
        if not has_matplotlib():
            if not any(kind == "no figures" for kind, _ in self._blocks):
                self._add("no figures", f'<p class="lead">{_escape(_NO_FIGURES)}</p>')
            return
        light, dark = (
            base64.b64encode(draw_svg(draw, size, scheme).encode()).decode()
            for scheme in ("light", "dark")
        )
        kind = "data:image/svg+xml;base64,"
        self._add(
            "figure",
            f'<figure><picture><source media="screen and (prefers-color-scheme: dark)" '
            f'srcset="{kind}{dark}"><img src="{kind}{light}" alt="{_escape(caption)}">'
            f"</picture><figcaption>{_escape(caption)}</figcaption></figure>",
        )

    def to_html(self) -> str:
        """Return the page as text."""
        body: list[str] = []
        open_figures = False
        for kind, text in self._blocks:
            if (kind == "figure") != open_figures:
                body.append("</div>" if open_figures else '<div class="figures">')
                open_figures = not open_figures
            body.append(text)
        if open_figures:
            body.append("</div>")
        lead = f'<p class="lead">{_escape(self._lead)}</p>\n' if self._lead else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_escape(self.title)}</title>\n<style>{STYLESHEET}</style>\n</head>\n<body>\n"
            f"<main>\n<h1>{_escape(self.title)}</h1>\n{lead}"
            + "\n".join(body)
            + f"\n</main>\n<footer>Made by Mercer {_escape(__version__)}.</footer>\n"
            "</body>\n</html>\n"
        )

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the page to a file, which is complete or not there.

        Parameters
        ----------
        file : str or path
            The file; its folder is made where it is missing.

        Returns
        -------
        Path
            The file.
        """
        path = Path(file)
        write_folder(path.parent, {path.name: write_text(self.to_html())})
        return path
