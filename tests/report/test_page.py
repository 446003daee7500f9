"""The page, read back with the standard library's parser."""

import base64
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from mercer.report import Page

EVIL = """<script>alert("1")</script> & 'two' </title></style><img src="http://host/z">"""
VOID = {"wbr", "meta", "img", "source", "link", "br"}


class Outline(HTMLParser):
    """Elements, attributes and text of a page; fails on elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def full_page(text):
    page = Page(text, lead=text)
    page.tiles({text: text})
    page.heading(text)
    page.paragraph(text)
    page.facts({text: text})
    page.table([text, "n"], [[text, 1]], caption=text)
    page.code(text)
    page.figure(lambda ax: ax.set_title("<b> & </svg>"), caption=text)
    page.figure(lambda ax: ax.plot([1, 2]), caption=text)
    page.paragraph(text)
    return page


def test_whatever_is_shown_is_escaped():
    outline = Outline(full_page(EVIL).to_html())
    assert not outline.of("script")
    assert sum(EVIL in text for text in outline.text) == 16  # each place shows it as it is
    assert [a["src"][:26] for a in outline.of("img")] == ["data:image/svg+xml;base64,"] * 2
    assert {a["alt"] for a in outline.of("img")} == {EVIL}


def test_the_page_refers_to_nothing_outside():
    outline = Outline(full_page("plain").to_html())
    for tag, attributes in outline.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "a", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "poster", "action"}:
                assert value.startswith("data:")
    style = "".join(outline.text)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for a in outline.of("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_figures_are_well_formed_and_stand_in_one_group():
    text = full_page("plain").to_html()
    outline = Outline(text)
    assert text.count('<div class="figures">') == 1
    for attributes in [*outline.of("img"), *outline.of("source")]:
        data = (attributes.get("src") or attributes["srcset"]).split(",", 1)[1]
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")


def test_numbers_are_flush_right_with_thousands():
    page = Page("t")
    page.table(
        ["name", "stored", "ratio", "time", "note"],
        [["a", 85002, 0.123456, "1.2 ms", "1 of 2 rows"], ["7b", 3, "0.5×", "–", "none"]],
    )
    text = page.to_html()
    assert '<td>a</td><td class="number">85,002</td><td class="number">0.1235</td>' in text
    assert '<td class="number">1.2 ms</td><td>1 of 2 rows</td>' in text
    with pytest.raises(ValueError, match="rows: expected 5 cells a row, got 1"):
        page.table(["a"] * 5, [["x"]])


def test_long_names_may_break_after_dots_only():
    page = Page("t")
    page.table(["name", "why"], [["encoder.layer.0.output.dense", "no"], ["1.5", "<a.b>" * 8]])
    text = page.to_html()
    assert '<td class="long">encoder.<wbr>layer.<wbr>0.<wbr>output.<wbr>dense</td>' in text
    assert "&lt;a.<wbr>b&gt;" in text


def test_without_matplotlib_the_page_says_so_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = full_page("plain").to_html()
    assert text.count("pip install &#x27;mercer[plot]&#x27;") == 1
    assert "<img" not in text
    assert "<table>" in text


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file = full_page("names with stray bytes: \udcff").save(tmp_path / "new" / "report.html")
    assert "stray bytes: ?" in file.read_text(encoding="utf-8")
    before = file.read_bytes()
    broken = Page("x")
    monkeypatch.setattr(Page, "to_html", lambda self: "half" + "\ud800")
    with pytest.raises(UnicodeEncodeError):
        broken.save(file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "report.html"]
