import json
import pathlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mercer._core.saving import load_state, save_state
from mercer.convert import bundle, load, solve
from mercer.nn import SNNK
from tests.convert.models import (
    GPT2,
    SIZES,
    WAYS,
    Functional,
    chain,
    encoder,
    inputs,
    same,
    tokens,
    transformer,
)

PAPER = "core-scalable-neural-network-kernels"

_RELOAD = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
torch.set_num_threads(int(sys.argv[1]))
from mercer.convert import load
for folder in map(Path, sys.argv[2:]):
    model = load(folder / "saved")
    batch = {name: x.clone() for name, x in load_file(folder / "batch.safetensors").items()}
    with torch.no_grad():
        y = model(batch["x"]) if "x" in batch else model(**batch).logits
    save_file({"y": y.contiguous()}, folder / "y.safetensors")
"""


@pytest.mark.paper(
    PAPER,
    kind="behaviour",
    claim="A bundled model that was saved gives the same bits in a new process",
)
def test_the_same_bits_in_a_new_process(tmp_path, evidence):
    x, text = inputs(64, 5).float(), tokens()
    models = {
        "Sequential": (chain(5, 24, 20, 3).float(), {"x": x}),
        "BERT": (transformer("BertForSequenceClassification", SIZES, num_labels=5), text),
        "GPT-2": (transformer("GPT2LMHeadModel", GPT2), text),
    }
    expected = {}
    for kind, (model, batch) in models.items():
        bundled = bundle(model, [tuple(batch.values())] if "x" in batch else [batch])
        bundled.save_pretrained(tmp_path / kind / "saved")
        save_file(batch, tmp_path / kind / "batch.safetensors")
        with torch.no_grad():
            smaller = bundled.model.eval()
            expected[kind] = smaller(x) if "x" in batch else smaller(**batch).logits
    command = [sys.executable, "-W", "error", "-c", _RELOAD, str(torch.get_num_threads())]
    subprocess.run([*command, *(str(tmp_path / kind) for kind in models)], check=True, timeout=120)
    for kind, y in expected.items():
        found = load_file(tmp_path / kind / "y.safetensors")["y"]
        evidence(required=0.0, measured=float((found - y).abs().max()), what=f"{kind}, largest gap")
        assert torch.equal(found, y)


def again(bundled, folder: pathlib.Path, model: nn.Module | None = None) -> nn.Module:
    bundled.save_pretrained(folder / "saved")
    return load(folder / "saved", model)


class TestSequential:
    @pytest.mark.parametrize(("features", "projection"), WAYS)
    @pytest.mark.parametrize("affine", [False, True])
    def test_every_way(self, features, projection, affine, tmp_path, global_state_unchanged):
        with torch.random.fork_rng():
            net, x = chain(5, 40, 30, 3), 0.1 * inputs(60, 5)
        bundled = bundle(
            net, x, 0.7, features=features, projection=projection, affine=affine, generator=0
        )
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(x), bundled.model(x))
        assert repr(loaded) == repr(bundled.model)
        assert same(loaded.state_dict(), bundled.model.state_dict())
        assert not any(module.training for module in loaded.modules())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("affine", [False, True])
    def test_dtype(self, dtype, affine, tmp_path):
        net, x = chain(5, 40, 3, dtype=dtype), inputs(60, 5).to(dtype)
        bundled = bundle(net, x, affine=affine)
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(x), bundled.model(x))

    def test_layers_of_every_kind(self, tmp_path):
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(6, 24, bias=False),
            nn.LeakyReLU(0.3, inplace=True),
            nn.Dropout(0.4),
            nn.Sequential(nn.Linear(24, 20), nn.GELU(approximate="tanh")),
            nn.Linear(20, 6),
            nn.LayerNorm(6, eps=1e-3, bias=False),
            nn.Identity(),
            nn.Unflatten(1, (2, 3)),
            nn.LayerNorm((2, 3), elementwise_affine=False),
        ).double()
        bundled = bundle(net, inputs(60, 2, 3))
        assert [block.name for block in bundled.report.blocks] == ["1", "4.0"]
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(inputs(4, 2, 3)), bundled.model.eval()(inputs(4, 2, 3)))

    def test_an_activation_in_several_places(self, tmp_path):
        act = nn.ReLU()
        net = nn.Sequential(
            nn.Linear(5, 24), act, nn.Sequential(nn.Linear(24, 20), act), nn.Linear(20, 3)
        ).double()
        bundled = bundle(net, inputs(60, 5))
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(inputs(4, 5)), bundled.model(inputs(4, 5)))
        assert loaded[1] is loaded[2][1]

    @pytest.mark.parametrize("projection", ["leverage", "gaussian"])
    def test_a_block_in_several_places(self, projection, tmp_path):
        net = nn.Sequential(*list(chain(5, 24, 5)) * 3)
        bundled = bundle(net, inputs(60, 5), projection=projection)
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(inputs(4, 5)), bundled.model(inputs(4, 5)))
        assert loaded[0] is loaded[6]

    def test_a_whole_block_in_several_places(self, tmp_path):
        inner = chain(5, 24, 5)
        bundled = bundle(nn.Sequential(inner, nn.Identity(), inner), inputs(60, 5))
        loaded = again(bundled, tmp_path)
        assert torch.equal(loaded(inputs(4, 5)), bundled.model(inputs(4, 5)))


class TestOtherModels:
    def test_need_one_of_the_same_sizes(self, tmp_path):
        bundled = bundle(Functional(torch.tanh), inputs(60, 5))
        with pytest.raises(ValueError, match=r"folder: .*Functional.*load\(folder, model=\.\.\.\)"):
            again(bundled, tmp_path)
        dense = Functional(torch.tanh)
        before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
        loaded = load(tmp_path / "saved", dense)
        assert loaded is not dense
        assert all(torch.equal(before[name], now) for name, now in dense.state_dict().items())
        assert torch.equal(loaded(inputs(4, 5)), bundled.model(inputs(4, 5)))

    @pytest.mark.parametrize("affine", [False, True])
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    def test_encoders(self, affine, tmp_path):
        bundled = bundle(encoder(), inputs(30, 5, 8), affine=affine)
        dense = nn.TransformerEncoder(encoder(1).layers[0], 2)  # with nested tensors
        loaded = again(bundled, tmp_path, dense)
        x, padding = inputs(4, 5, 8), torch.zeros(4, 5, dtype=torch.bool)
        assert torch.equal(loaded(x), bundled.model.eval()(x))
        padding[0, 3:] = True
        with torch.no_grad():
            found = loaded(x, src_key_padding_mask=padding)[~padding]
            plain = bundled.model(x, src_key_padding_mask=padding)[~padding]
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("wrong", [Functional(torch.tanh, width=40), chain(5, 24, 5)])
    def test_another_shape_does_not_fit(self, wrong, tmp_path):
        net = Functional(torch.tanh)
        net.more = nn.Linear(24 if isinstance(wrong, nn.Sequential) else 3, 2)
        bundled = bundle(net, inputs(60, 5))
        with pytest.raises(ValueError, match="model: it does not fit the folder"):
            again(bundled, tmp_path, wrong)

    def test_inner_parts_of_transformers_need_a_model_too(self, tmp_path):
        model = transformer("BertModel", SIZES)
        bundled = bundle(model.encoder, torch.randn(30, 5, 16))
        with pytest.raises(ValueError, match=r"folder: .*BertEncoder.*load\(folder, model"):
            again(bundled, tmp_path)
        loaded = load(tmp_path / "saved", transformer("BertModel", SIZES).encoder)
        assert same(loaded.state_dict(), bundled.model.state_dict())

    def test_solved(self, tmp_path):
        solved = solve(chain(5, 8, 6, 3), inputs(60, 5), inputs(60, 3), generator=0)
        loaded = again(solved, tmp_path)
        assert torch.equal(loaded(inputs(4, 5)), solved.model(inputs(4, 5)))


@pytest.fixture
def folder(tmp_path):
    """Where a bundled chain was saved."""
    bundle(chain(5, 24, 3), inputs(60, 5), affine=True).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def bert_folder(tmp_path):
    bundled = bundle(transformer("BertModel", SIZES), [tokens()])
    bundled.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: pathlib.Path, change) -> None:
    """Write the folder anew with another config, both files agreeing."""
    config, state = load_state(folder)
    change(config)
    del config["tied"]
    save_state(folder, config, state)


class TestRefuses:
    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"folder: .*config\.json"):
            load(tmp_path / "nothing")

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
    def test_half_a_folder(self, folder, missing):
        (folder / missing).unlink()
        with pytest.raises(FileNotFoundError, match=f"folder: .*{missing}"):
            load(folder)

    def test_a_folder_of_transformers(self, tmp_path):
        transformer("BertModel", SIZES).save_pretrained(tmp_path / "bert")
        with pytest.raises(ValueError, match=r"folder: .*was not written by Mercer"):
            load(tmp_path / "bert")

    def test_a_layer_of_mercer(self, tmp_path):
        SNNK(4, 4, num_features=4).save_pretrained(tmp_path / "layer")
        with pytest.raises(ValueError, match=r"folder: .*holds a nn\.SNNK, not a bundled"):
            load(tmp_path / "layer")

    def test_a_damaged_file(self, folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"folder: .*model\.safetensors is damaged"):
            load(folder)

    def test_a_newer_format(self, folder):
        config, state = load_state(folder)
        text = json.dumps({**config, "format_version": 99})
        (folder / "config.json").write_text(text)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt", "config": text})
        with pytest.raises(ValueError, match=r"folder: .*version 99"):
            load(folder)

    def test_an_edited_config_is_not_believed(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["model"]["layers"] = []
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.warns(UserWarning, match=r"config\.json"):
            loaded = load(folder)
        assert len(loaded) == 3

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "os.system",
                "mercer.cli.main",
                "system",
                "Nothing",
                "",
                "modeling_utils",
                "pipeline",
            ),
            *("PreTrainedModel", "AutoModel", "BertConfig", "Trainer", "__builtins__", "nn.Linear"),
        ],
    )
    def test_classes_that_are_no_models(self, bert_folder, name):
        rewrite(bert_folder, lambda config: config["model"].update({"class": name}))
        with pytest.raises(ValueError, match=r"folder: .*has no model"):
            load(bert_folder)

    @pytest.mark.parametrize(
        "change",
        [
            {"attention": "someone/attention"},
            {"config": {**SIZES, "attn_implementation": "someone/attention@main:run"}},
            {"config": {**SIZES, "text_config": {"_attn_implementation": "someone/attention"}}},
        ],
    )
    def test_code_from_a_hub(self, bert_folder, change):
        rewrite(bert_folder, lambda config: config["model"].update(change))
        with pytest.raises(ValueError, match="folder: its config asks for code from elsewhere"):
            load(bert_folder)

    @pytest.mark.parametrize(
        "layer",
        [
            {"class": "os.system", "arguments": {"command": "true"}},
            {"class": "Module", "arguments": {}},
            {"class": "activation", "text": "Linear(4, 4)"},
            {"class": "activation", "text": "__import__('os').system('true')"},
            {"class": "activation", "text": "ReLU(__import__('os'))"},
        ],
    )
    def test_layers_that_are_not_torchs(self, folder, layer):
        def change(config):
            config["model"]["layers"][1] = {"name": "1", **layer}

        rewrite(folder, change)
        with pytest.raises(ValueError, match="folder: unknown layer"):
            load(folder)

    @pytest.mark.parametrize("name", ["cli.main", "features.os", "features.make_projection", "x"])
    def test_features_that_are_no_map(self, folder, name):
        rewrite(folder, lambda config: config["placed"]["0"].update({"class": name}))
        with pytest.raises(ValueError, match=r"config: .* is not a FeatureMap"):
            load(folder)

    @pytest.mark.parametrize("library", ["os", "mercer.cli", None])
    def test_libraries(self, folder, library):
        rewrite(folder, lambda config: config.update(model={"library": library, "class": "x"}))
        with pytest.raises(ValueError, match="folder: it holds the numbers of a x"):
            load(folder)

    def test_a_model_that_is_none(self, folder):
        with pytest.raises(TypeError, match="model"):
            load(folder, model="bert")
