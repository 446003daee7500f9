"""Figures of one style, in light and in dark, as SVG text."""

import importlib.util
import io
from collections.abc import Callable
from typing import Any

# Okabe and Ito (2008), Color Universal Design: told apart by colour-blind readers. Two orders,
# because the dark blue fades on a dark page and the sky blue on a white one.
PALETTE = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    "dark": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2"),
}
_INK = {"light": "#24292f", "dark": "#d8dee6"}
_GRID = {"light": "#d9dde2", "dark": "#3a414b"}


def has_matplotlib() -> bool:
    """Whether figures can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def _style(scheme: str) -> Any:  # a dictionary; its key type exists in new matplotlib only
    from cycler import cycler

    ink, grid = _INK[scheme], _GRID[scheme]
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": ink,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": ink,
        "axes.prop_cycle": cycler(color=PALETTE[scheme]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "figure.facecolor": "none",
        "font.size": 9,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "savefig.facecolor": "none",
        "svg.fonttype": "path",  # letters as shapes: the same width on every machine
        "svg.hashsalt": "mercer",  # the same figure gives the same text
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }


def draw_svg(
    draw: Callable[[Any], object], size: tuple[float, float] = (4.4, 3.2), scheme: str = "light"
) -> str:
    """Draw one pair of axes in Mercer's style and return it as SVG text.

    The figure is small on purpose: on a phone 360 pixels wide its letters stay readable, and on
    a large screen it grows without loss.

    Parameters
    ----------
    draw : callable
        Takes matplotlib axes and draws on them; colours ``"C0"`` to ``"C5"`` are `PALETTE`.
    size : tuple of float
        Width and height in inches.
    scheme : str
        ``"light"`` or ``"dark"``; the background is transparent in both.

    Returns
    -------
    str
        The SVG document.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing.
    ValueError
        If ``scheme`` is neither.

    Examples
    --------
    >>> from mercer.report import draw_svg
    >>> draw_svg(lambda ax: ax.plot([0, 1], [1, 0])).count("<svg")
    1
    """
    if scheme not in PALETTE:
        raise ValueError(f"scheme: expected one of {sorted(PALETTE)}, got {scheme!r}")
    if not has_matplotlib():
        raise ModuleNotFoundError("figures need matplotlib: pip install 'mercer[plot]'")
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot: no window, no global figure

    with mpl.rc_context(_style(scheme)):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
