"""The version, in one place and told by the command."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import mercer

ROOT = Path(__file__).parents[1]


def test_version_is_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", mercer.__version__)
    assert importlib.metadata.version("mercer") == mercer.__version__


def test_command_tells_the_version():
    command = Path(sys.executable).with_name("mercer")
    result = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == mercer.__version__
    assert result.stderr == ""


def test_changelog_has_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert headings[0] == "Unreleased" and mercer.__version__ in headings
