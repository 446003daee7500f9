"""Axes to draw on: those that a caller gives, or new ones."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(ax: "Axes | None", size: tuple[float, float] = (6.4, 3.6)) -> "Axes":
    """Return the axes given, or those of a new figure of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained").add_subplot()
