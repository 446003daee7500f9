"""What files of adapters hold, and that they load to the same model elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

peft = pytest.importorskip("peft")

from mercer.convert import SNNKConfig  # noqa: E402
from mercer.convert.peft_layer import SNNKLayer  # noqa: E402
from tests.convert.models import same, snapshot  # noqa: E402
from tests.convert.peft_models import build, logits, stir, trained  # noqa: E402

SMALL = {"num_features": 12, "bottleneck": 4}
FILE = "adapter_model.safetensors"
PROJECTIONS = ["hadamard", "gaussian", "orthogonal", "sobol"]
WIDTH, M, RANK, MODULES = 16, 12, 4, 4
# Of each module: W', U, b; and the rows and offsets of the frozen features.
TRAINED = {"snnk.weight": M * RANK, "up.weight": WIDTH * RANK, "up.bias": WIDTH}
TARGETS = [
    f"bert.encoder.layer.{i}.{part}output.dense" for i in range(2) for part in ("attention.", "")
]


def adapted(kind: str = "bert", **options) -> peft.PeftModel:
    model = peft.get_peft_model(build(kind), SNNKConfig(**{**SMALL, **options}))
    stir(model)
    return model


def read(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def features(model: nn.Module, adapter: str = "default") -> list[Tensor]:
    found = [m.mercer_snnk_branch[adapter] for m in model.modules() if isinstance(m, SNNKLayer)]
    return [branch.snnk.features.weight for branch in found]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="An adapter's file holds the adapter's tensors alone: its keys and its bytes are those "
    "of what is trained, and of the frozen features where they are stored.",
)
def test_a_file_holds_the_adapter_alone(stored, tmp_path, evidence):
    model = adapted(save_projection=stored)
    model.add_adapter("other", SNNKConfig(**SMALL, seed=1))
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "adapter_config.json",
        FILE,
    ]
    parts = dict(TRAINED)
    if stored:
        parts |= {"snnk.features.weight": M * WIDTH, "snnk.features.bias": M}
    prefix = "base_model.model."
    expected = {
        f"{prefix}{target}.mercer_snnk_branch.{part}": numbers
        for target in TARGETS
        for part, numbers in parts.items()
    }
    saved = read(tmp_path)
    assert {name: tensor.numel() for name, tensor in saved.items()} == expected
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    # The format: the header's length in eight bytes, the header, the numbers.
    size = (tmp_path / FILE).stat().st_size
    with (tmp_path / FILE).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    wanted = 4 * MODULES * (sum(TRAINED.values()) + (M * WIDTH + M) * stored)
    what = f"bytes of numbers in the file, {'with' if stored else 'without'} stored features"
    evidence(required=f"== {wanted}", measured=size - header - 8, what=what)
    assert size - header - 8 == wanted


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", ["default", "renamed"])
@pytest.mark.parametrize("meta", [False, True])
def test_loading_gives_the_same_model(stored, name, meta, tmp_path):
    model = adapted(save_projection=stored)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(
        build("bert"), tmp_path, adapter_name=name, low_cpu_mem_usage=meta
    )
    assert torch.equal(logits(loaded), expected)
    assert not trained(loaded)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    result = loaded.load_adapter(tmp_path, "second", low_cpu_mem_usage=meta, is_trainable=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    loaded.set_adapter("second")
    assert torch.equal(logits(loaded), expected)
    assert trained(loaded)


LOAD = """
import json, sys, torch
import mercer.convert.peft
from peft import PeftModel
from tests.convert.peft_models import build, logits
from safetensors.torch import load_file, save_file

torch.manual_seed(99)
found = {}
for folder in sys.argv[2:]:
    found[folder] = logits(PeftModel.from_pretrained(build("bert"), folder))
save_file(found, sys.argv[1])
"""


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="An adapter saved in one process and loaded in another gives identical logits, with "
    "stored features and with features drawn again from seed and module names.",
)
def test_another_process_computes_the_same(tmp_path, evidence):
    expected = {}
    for projection in PROJECTIONS:
        for stored in (True, False):
            model = adapted(projection=projection, save_projection=stored, seed=5)
            folder = str(tmp_path / f"{projection}-{stored}")
            model.save_pretrained(folder)
            expected[folder] = logits(model)
    result = tmp_path / "logits.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(result), *expected],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    with safe_open(result, framework="pt") as file:
        for folder, answer in expected.items():
            difference = float((file.get_tensor(folder) - answer).abs().max())
            what = f"logits, {Path(folder).name.replace('-', ' draws, stored ')}"
            evidence(required="== 0", measured=difference, what=what)
            assert difference == 0


@pytest.mark.parametrize(
    ("kind", "projection"),
    [("neuron", p) for p in PROJECTIONS] + [("arc_cosine", "hadamard"), ("universal", "gaussian")],
)
@pytest.mark.parametrize("placement", ["adapter", "replacement"])
def test_drawn_again_is_as_stored(kind, projection, placement, tmp_path):
    options = {"features": kind, "projection": projection, "placement": placement, "seed": 3}
    if placement == "replacement":
        options["rank"] = 2
    stored = adapted(**options)
    drawn = adapted(**options, save_projection=False)
    assert torch.equal(logits(stored), logits(drawn))
    for model, folder in ((stored, tmp_path / "stored"), (drawn, tmp_path / "drawn")):
        model.save_pretrained(folder)
        loaded = peft.PeftModel.from_pretrained(build("bert"), folder)
        assert torch.equal(logits(loaded), logits(stored))
    assert (tmp_path / "drawn" / FILE).stat().st_size < (tmp_path / "stored" / FILE).stat().st_size


def test_stored_features_count_and_not_the_seed(tmp_path):
    """A file with features is right whatever the draws of the version that loads it."""
    model = adapted()
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 17}))
    loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


def test_features_are_not_drawn_for_modules_of_other_names(tmp_path):
    """Such a draw would be another one, and the answers wrong without a word."""
    for stored in (True, False):
        options = {"target_modules": ["mlp.fc2"], "save_projection": stored}
        adapted("timm", **options).save_pretrained(tmp_path / str(stored))
    config = json.loads((tmp_path / "False" / "adapter_config.json").read_text())
    assert config["drawn_for"] == ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]
    assert json.loads((tmp_path / "True" / "adapter_config.json").read_text())["drawn_for"] is None
    peft.PeftModel.from_pretrained(build("timm"), tmp_path / "False")
    renamed = nn.ModuleDict({"stages": build("timm").blocks})
    with pytest.raises(ValueError, match=r"such as 'blocks.0.mlp.fc2'; this model has 'stages.0"):
        peft.PeftModel.from_pretrained(renamed, tmp_path / "False")
    # A config that was not loaded serves one model after the other.
    config = SNNKConfig(**SMALL, target_modules=["mlp.fc2"], save_projection=False)
    for model in (build("timm"), nn.ModuleDict({"stages": build("timm").blocks})):
        peft.get_peft_model(model, config)
    assert config.to_dict()["drawn_for"] == ["stages.0.mlp.fc2", "stages.1.mlp.fc2"]


def test_every_module_has_its_own_draw():
    first, again, other = adapted(), adapted(), adapted(seed=1)
    assert len({tuple(rows.flatten().tolist()) for rows in features(first)}) == MODULES
    assert all(map(torch.equal, features(first), features(again)))
    assert not any(map(torch.equal, features(first), features(other)))
    # The same name has the same draw, whatever else is adapted.
    alone = adapted(layers_to_transform=[1])
    assert all(map(torch.equal, features(alone), features(first)[2:]))


def test_making_adapters_leaves_the_random_state():
    model = build("bert")
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    peft.get_peft_model(model, SNNKConfig(**SMALL))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stored", [True, False])
def test_a_state_dict_of_the_whole_model(stored):
    model = adapted(save_projection=stored)
    state, expected = snapshot(model), logits(model)
    stir(model, seed=9)
    assert not torch.equal(logits(model), expected)
    model.load_state_dict(state)
    assert torch.equal(logits(model), expected)
    keys = [name for name in state if "mercer_snnk_branch" in name]
    assert len(keys) == MODULES * (5 if stored else 3)
    with pytest.raises(RuntimeError, match="mercer_snnk_branch"):
        model.load_state_dict({name: state[name] for name in state if name != keys[0]})


@pytest.mark.parametrize("kind", ["gpt2", "t5", "vit", "torch"])
def test_other_models_come_back_too(kind, tmp_path):
    options = {"target_modules": ["linear2", "self_attn"]} if kind == "torch" else {}
    model = adapted(kind, save_projection=False, **options)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build(kind), tmp_path)
    assert torch.equal(logits(loaded, kind), logits(model, kind))


def test_modules_that_are_saved_as_a_whole(tmp_path):
    model = adapted(modules_to_save=["classifier"])
    classifier = [name for name in trained(model) if "classifier" in name]
    assert len(classifier) == 2
    for name in classifier:
        trained(model)[name].data.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path)
    assert len([name for name in read(tmp_path) if "classifier" in name]) == 2
    loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(adapted()))


def test_a_task_brings_its_head(tmp_path):
    model = adapted(task_type="SEQ_CLS")
    assert any("classifier" in name for name in trained(model))
    base = build("bert")
    base.save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(loaded.eval()), logits(model))


def test_in_a_model_of_transformers_without_a_peft_model(tmp_path):
    model = build("bert")
    base = logits(model)
    model.add_adapter(SNNKConfig(**SMALL), adapter_name="default")
    assert torch.equal(logits(model), base)
    stir(model)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert all("mercer_snnk_branch." in name for name in read(tmp_path))
    fresh = build("bert")
    fresh.load_adapter(str(tmp_path), adapter_name="b")
    assert torch.equal(logits(fresh), expected)
    fresh.disable_adapters()
    assert torch.equal(logits(fresh), base)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("meta", [False, True])
def test_adapters_in_bfloat16_models(autocast, meta, tmp_path):
    base = build("bert", dtype=torch.bfloat16)
    expected = logits(base)
    model = peft.get_peft_model(base, SNNKConfig(**SMALL), autocast_adapter_dtype=autocast)
    dtype = torch.float32 if autocast else torch.bfloat16
    branch = [t for n, t in model.state_dict().items() if "mercer_snnk" in n]
    assert {tensor.dtype for tensor in branch} == {dtype}
    assert torch.equal(logits(model), expected)
    assert logits(model).dtype == torch.bfloat16
    stir(model)
    if autocast:  # features as fine as in a model of single precision, not rounded on the way
        assert all(map(torch.equal, features(model), features(adapted())))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(
        build("bert", dtype=torch.bfloat16),
        tmp_path,
        autocast_adapter_dtype=autocast,
        low_cpu_mem_usage=meta,
    )
    assert torch.equal(logits(loaded), logits(model))
    assert same(read(tmp_path), peft.get_peft_model_state_dict(loaded))
