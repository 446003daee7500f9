"""``import mercer`` and the rooms that are layers import torch and nothing heavier."""

import json
import subprocess
import sys

import pytest

import mercer
from docs.surface import rooms

HEAVY = (
    "scipy",
    "sklearn",
    "matplotlib",
    "transformers",
    "pandas",
    "pyarrow",
    "rich",
    "tqdm",
    "tyro",
    "safetensors",
    "peft",
    "accelerate",
    "huggingface_hub",
)


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a new process holds after running some code."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def by_torch():
    return loaded("import torch")


LIGHT = [f"mercer.{name}" for name in rooms() if name in ("linalg", "kernels", "features", "nn")]


@pytest.mark.parametrize("module", ["mercer", *LIGHT])
def test_nothing_heavy_is_imported(module, by_torch):
    assert (loaded(f"import {module}") - by_torch) & set(HEAVY) == set()


def test_rooms_are_not_imported_by_the_front_door():
    code = "import mercer, sys; print([m for m in sys.modules if m.startswith('mercer.')])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.count("mercer.") == result.stdout.count("mercer._core")


def test_every_room_is_reached_from_the_front_door():
    listed = set(dir(mercer))
    assert set(rooms()) <= listed
    for room in rooms():
        assert getattr(mercer, room).__name__ == f"mercer.{room}"
    with pytest.raises(AttributeError, match="'mercer' has no attribute 'cellar'"):
        _ = mercer.cellar


def test_no_room_is_promised_before_it_has_moved_in():
    promised = [name for name in dir(mercer) if name not in vars(mercer)]
    assert set(promised) <= set(rooms())
