"""The README's snippets run, and its table names scripts that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# PEFT 0.21 asks transformers by an old name; pyproject.toml has the same exception.
STRICT = ("-W", "error", "-W", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_snippets_run_one_after_the_other(tmp_path):
    assert BLOCKS
    result = subprocess.run(
        [sys.executable, *STRICT, "-c", "\n".join(BLOCKS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)`", README))))
def test_targets_exist(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_scripts_and_figures_exist():
    shown = re.sub(r"<!--.*?-->", "", README, flags=re.DOTALL)
    named = set(re.findall(r"(?:benchmarks|examples|docs)/[\w/]+\.(?:py|png|md|svg)", shown))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
