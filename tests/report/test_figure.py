"""Figures: the colours, and text that depends on nothing but the drawing."""

import sys
import xml.etree.ElementTree as ET

import pytest

from mercer.report import PALETTE, draw_svg


def lines(ax):
    for i in range(3):
        ax.plot([0, 1], [i, 2 * i], label=f"line {i}")
    ax.legend()
    ax.set(title="Three lines", xlabel="time [s]", ylabel="length [m]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_take_the_palette_in_order(scheme):
    text = draw_svg(lines, scheme=scheme)
    ET.fromstring(text)  # well-formed
    places = [text.lower().index(colour.lower()) for colour in PALETTE[scheme][:3]]
    assert places == sorted(places)


def test_the_same_drawing_gives_the_same_text_and_leaves_the_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert draw_svg(lines) == draw_svg(lines)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(("scheme", "paper"), [("light", "#ffffff"), ("dark", "#14171c")])
def test_colours_stand_out_from_the_page(scheme, paper):
    """WCAG 2.1 asks for a contrast of 3 for graphics; the first two colours carry the figures."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in PALETTE[scheme][:2]:
        low, high = sorted([luminance(colour), luminance(paper)])
        assert (high + 0.05) / (low + 0.05) >= 3


def test_bad_scheme_and_missing_matplotlib(monkeypatch):
    with pytest.raises(ValueError, match="scheme: expected one of"):
        draw_svg(lines, scheme="sepia")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"mercer\[plot\]"):
        draw_svg(lines)
