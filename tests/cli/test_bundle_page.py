"""The page from made-up findings: complete, escaped, and drawn for any number of blocks."""

import base64
import copy
import re
from html import unescape

import pytest

from mercer.cli.bundle_page import bundle_page
from mercer.cli.bundle_table import print_findings, speed_up, summary_rows

QUARTILES = {"median": 0.02, "lower": 0.019, "upper": 0.022, "rounds": 20}
EVIL = "[bold]<script>alert(1)</script>\udcff"


def entry(keep, blocks=6):
    return {
        "keep": keep,
        "score": 0.9 + keep / 20,
        "interval": [0.88 + keep / 20, 0.915 + keep / 20],
        "extra": {"cosine": 0.9 + keep / 10},
        "stored_before": 7_090_000,
        "stored_after": int(7_090_000 * keep),
        "model_before": 22_713_216,
        "model_after": 22_713_216 - int(7_090_000 * (1 - keep)),
        "blocks": [
            {
                "name": f"encoder.layer.{i}.intermediate.dense",
                "activation": "gelu",
                "in_features": 384,
                "hidden_features": 1536,
                "out_features": 384,
                "num_features": int(1536 * keep),
                "stored_before": 1_181_568,
                "stored_after": int(1_181_568 * keep),
                "r2": None if i == 5 else 0.5 + keep / 2 - i / 50,
                "ridge": 0.0123,
                "seconds": 1.5,
            }
            for i in range(blocks)
        ],
        "skipped": [
            {"name": f"encoder.layer.{i}.attention.self.query", "reason": "no activation follows"}
            for i in range(6)
        ]
        + [{"name": "pooler.dense", "reason": "no linear layer follows"}],
        "timing": {"dense": {**QUARTILES, "median": 0.03}, "bundled": QUARTILES},
        "reload": {"identical": True, "largest_difference": 0.0},
    }


@pytest.fixture
def findings():
    return {
        "command": "bundle",
        "settings": {
            "model": "models/MiniLM",
            "keep": 0.5,
            "curve": [0.25, 0.5],
            "uptrain": 0,
            "seed": 3,
            "data": "a.tsv",
            "out": "out",
        },
        "environment": {"mercer": "0.1.0", "torch": "2.13.0", "threads": 2},
        "model": {"name": "MiniLM", "kind": "BertModel", "notes": ["A note."]},
        "data": {"description": "100 texts", "calibration": 50, "test": 50},
        "metric": {"name": "probe accuracy", "percent": True, "description": "Of a probe."},
        "timed": "one forward pass of 32 texts of 64 tokens",
        "dense": {"score": 0.93},
        "curve": [entry(0.25), entry(0.5)],
        "uptrained": None,
        "closed_form": None,
        "seconds": 12.3,
    }


def solved():
    return {
        "score": 0.91,
        "num_features": 256,
        "solved": 2_570,
        "stored": 5_000_000,
        "seconds": 0.25,
        "ridge": 0.1,
        "timing": {"dense": {**QUARTILES, "median": 0.03}, "solved": QUARTILES},
    }


def test_the_numbers_stand_on_the_page(findings):
    text = unescape(bundle_page(findings).to_html())
    plain = re.sub(r"data:image[^\"]+|<wbr>", "", text)  # without figures and line ends
    for shown in (
        "7,090,000",  # dense blocks
        "3,545,000",  # half of them
        "92.5\N{NO-BREAK SPACE}%",  # 0.9 + 0.5 / 20
        "-0.5 (-2.5 to +1.0)",  # against 0.93
        "30.00 → 20.00 ms",
        "1.50×",
        "encoder.layer.#.attention.self.query",
        "no activation follows",
        "encoder.layer.3.intermediate.dense",
        "mercer.convert.load('out/model')",
        "A note.",
        "Of a probe.",
        "2.13.0",
    ):
        assert shown in plain, shown
    assert text.count("<figure>") == 3


def test_closed_form_and_similarity(findings):
    without = bundle_page(findings).to_html()
    assert "closed form" not in without
    findings["closed_form"] = solved()
    text = bundle_page(findings).to_html()
    assert all(shown in text for shown in ("5,000,000", "2,570", "one solution, 0.25 s"))
    assert "91.0\N{NO-BREAK SPACE}%" in text
    assert speed_up(solved(), "solved") == pytest.approx(1.5)
    findings["metric"] |= {"name": "cosine to dense", "percent": False}
    header, rows = summary_rows(findings)
    assert header[3:5] == ["cosine to dense", "95 % interval"]
    assert rows[1][3:5] == ["0.912", "0.892 to 0.927"]


def test_whatever_the_user_named_is_escaped(findings, capsys):
    findings["model"]["name"] = findings["settings"]["data"] = EVIL
    findings["settings"]["out"] = f"out/{EVIL}"
    page = bundle_page(findings)
    text = page.to_html()
    assert "<script" not in text
    assert "[bold]&lt;script&gt;alert(1)&lt;/script&gt;?" in text
    text.encode()
    print_findings(findings, EVIL)
    assert "[bold]<script>" in capsys.readouterr().out  # no markup to the terminal either


@pytest.mark.parametrize("blocks", [1, 48])
def test_figures_are_drawn_for_any_number_of_blocks(findings, blocks):
    findings["curve"] = [entry(keep, blocks) for keep in (0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)]
    text = bundle_page(findings).to_html()
    sources = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    heights = [float(re.search(rb'height="([\d.]+)pt"', base64.b64decode(s))[1]) for s in sources]
    assert heights[2] > 72 * 0.2 * blocks  # room for each name


def test_the_page_is_a_function_of_the_findings(findings):
    before = copy.deepcopy(findings)
    assert bundle_page(findings).to_html() == bundle_page(findings).to_html()
    assert findings == before
