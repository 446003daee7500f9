"""What the commands do alike: where results go, threads, what is published and printed."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from tyro.conf import arg

from ..report import Page
from .errors import UserError
from .out_folder import OutFolder
from .sweep import MODEL_FOLDER

# Options that several commands have, with what their help says.
BatchSize = Annotated[int, arg(metavar="N", help="Texts a batch.")]
MaxLength = Annotated[int, arg(metavar="N", help="Tokens after which a text is cut off.")]
TextColumn = Annotated[
    str | None,
    arg(
        metavar="NAME",
        help="Column of the texts, by name or by number from 0; guessed where it is clear.",
    ),
]
Threads = Annotated[
    int | None,
    arg(metavar="N", help="Threads of PyTorch; by default as many as PyTorch takes."),
]
OutPath = Annotated[
    Path | None,
    arg(metavar="DIR", help="Folder of the results; by default out/ and the name of the model."),
]


def out_of(out: Path | None, model: str, suffix: str = "") -> Path:
    """Return the folder of the results: the one given, or one named after the model."""
    if out is not None:
        return out
    name = re.sub(r"[^\w.-]+", "-", Path(model).name or "model").strip(".-")
    return Path("out") / ((name or "model") + suffix)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads, or as many as it takes."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_counts(command: Any, *names: str) -> None:
    """Raise unless these options of a command are None or at least 1.

    Raises
    ------
    UserError
        If one is not.
    """
    for name in names:
        value = getattr(command, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")


def check_seed(seed: int) -> None:
    """Raise unless a seed fits 32 bits.

    Raises
    ------
    UserError
        If it does not.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: expected 0 to {2**32 - 1}, got {seed}")


def publish(out: OutFolder, findings: dict[str, Any], page: Page, saved: Path, key: str) -> None:
    """Put the numbers, the page and the model in the place of earlier results.

    Parameters
    ----------
    out : OutFolder
        The folder.
    findings : dict
        What report.json will hold.
    page : Page
        What report.html will hold.
    saved : Path
        The model's folder, which is moved.
    key : str
        Of the command's settings.
    """

    def build(folder: Path) -> None:
        text = json.dumps(findings, indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        page.save(folder / "report.html")
        saved.rename(folder / MODEL_FOLDER)

    out.publish(build, key)


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    out: Path,
    *,
    bold: Sequence[int] = (),
) -> None:
    """Print a table, and where the results are.

    Parameters
    ----------
    title : str
        What stands above.
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        The cells.
    out : Path
        Folder of the results.
    bold : sequence of int
        Rows that stand out.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Text, not str: square brackets in a name are not markup.
    shown = Text(title.encode("utf-8", "replace").decode())
    table = Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for i, row in enumerate(rows):
        table.add_row(*row, style="bold" if i in bold else None)
    console = Console()
    console.print(table)
    where = str(out).encode("utf-8", "replace").decode()
    console.print(Text(f"page   {where}/report.html\nmodel  {where}/model"), soft_wrap=True)
