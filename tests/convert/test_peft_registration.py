"""What makes PEFT know the method, and what a process reads that did not import Mercer."""

import copy
import json
import pickle
import subprocess
import sys

import pytest

peft = pytest.importorskip("peft")

from peft.mapping import (  # noqa: E402
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.utils import PeftType  # noqa: E402

import mercer.convert  # noqa: E402
from mercer.convert import SNNKConfig  # noqa: E402
from mercer.convert.peft import SNNKModel, register  # noqa: E402
from mercer.convert.peft_registration import PEFT_TYPE, PREFIX, add_peft_type  # noqa: E402
from tests.convert.peft_models import build  # noqa: E402


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_the_type_is_a_member_like_any_other():
    member = PeftType[PEFT_TYPE]
    assert member is PeftType(PEFT_TYPE) is getattr(PeftType, PEFT_TYPE) is add_peft_type(PEFT_TYPE)
    assert member in list(PeftType)
    assert list(PeftType).count(member) == 1
    assert isinstance(member, PeftType)
    assert (member.name, member.value, member) == (PEFT_TYPE, PEFT_TYPE, PEFT_TYPE)
    assert repr(member) == f"<PeftType.{PEFT_TYPE}: '{PEFT_TYPE}'>"
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member
    assert json.dumps(member) == f'"{PEFT_TYPE}"'
    assert PeftType("LORA") is PeftType.LORA
    with pytest.raises(ValueError, match="NO_SUCH"):
        PeftType("NO_SUCH")


def test_registering_twice_changes_nothing():
    size = len(PeftType)
    register(SNNKConfig, SNNKModel)
    assert len(PeftType) == size
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] is SNNKConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[PEFT_TYPE] is SNNKModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] == PREFIX


def test_importing_the_room_does_not_import_peft():
    code = "import mercer.convert, sys; print('peft' in sys.modules, 'transformers' in sys.modules)"
    assert run(code).stdout.split() == ["False", "False"]
    assert "SNNKConfig" in dir(mercer.convert)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mercer.convert.nothing


def test_without_peft_the_error_says_what_to_install():
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "peft" else find(name, *rest)
from mercer.convert import SNNKConfig
"""
    last = run(code).stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError")
    assert last.endswith("pip install 'mercer[hf]'")


def test_an_old_peft_is_refused(tmp_path):
    package = tmp_path / "peft" / "tuners"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "tuners_utils.py").write_text("class BaseTuner:\n    pass\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import mercer.convert.peft"
    last = run(code, str(tmp_path)).stderr.splitlines()[-1]
    assert last.startswith("ImportError: SNNK adapters need PEFT 0.21 or newer, got ")


def test_a_process_without_mercer_is_told_to_import_it(tmp_path):
    config = SNNKConfig(target_modules=["mlp.fc2"], num_features=8)
    peft.get_peft_model(build("timm"), config).save_pretrained(tmp_path)
    code = """
import sys
from peft import PeftConfig, PeftModel
from peft.utils import PeftType
from torch import nn

before = list(PeftType)
try:
    PeftModel.from_pretrained(nn.Linear(2, 2), sys.argv[1])
except KeyError as error:
    print(error)

import mercer.convert.peft

new = PeftType.MERCER_SNNK__IMPORT_MERCER_CONVERT_PEFT_FIRST
assert list(PeftType) == [*before, new]
print(type(PeftConfig.from_pretrained(sys.argv[1])).__name__)
"""
    told = run(code, str(tmp_path))
    assert told.stdout.splitlines() == [
        "'MERCER_SNNK__IMPORT_MERCER_CONVERT_PEFT_FIRST'",
        "SNNKConfig",
    ], told.stderr


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features"),
        ({"bottleneck": 2.5}, TypeError, "bottleneck"),
        ({"activation": print}, TypeError, "activation"),
        ({"activation": "no such"}, ValueError, "no such"),
        ({"features": "wrong"}, ValueError, "features"),
        ({"projection": "wrong"}, ValueError, "projection"),
        ({"placement": "before"}, ValueError, "placement"),
        ({"rank": 4}, ValueError, "rank: the linear part belongs to placement='replacement'"),
        ({"rank": -1, "placement": "replacement"}, ValueError, "rank"),
        ({"up": False}, ValueError, "expected bottleneck=None"),
        ({"layers_pattern": "layer"}, ValueError, "layers_to_transform"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "zero"}, TypeError, "seed"),
        ({"algorithm_version": 99}, ValueError, "99; this one knows up to 1. Update Mercer"),
    ],
)
def test_wrong_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        SNNKConfig(**options)


def test_a_config_of_a_newer_algorithm_is_refused_on_loading(tmp_path):
    config = SNNKConfig(target_modules=["mlp.fc2"], num_features=8)
    peft.get_peft_model(build("timm"), config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "algorithm_version": 2}))
    with pytest.raises(ValueError, match="made by a newer Mercer, with draws of version 2"):
        peft.PeftModel.from_pretrained(build("timm"), tmp_path)


def test_settings_survive_a_file(tmp_path):
    config = SNNKConfig(
        num_features=9, bottleneck=None, up=False, target_modules=["a", "b"], seed=3, rank=0
    )
    config.save_pretrained(tmp_path)
    again = peft.PeftConfig.from_pretrained(tmp_path)
    assert isinstance(again, SNNKConfig)
    assert again == config
