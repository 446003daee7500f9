"""Adapters in models of many kinds; the table says which are known without an example."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from mercer.convert import adapt, load_adapters, trainable
from mercer.nn import SNNKAdapter
from tests.convert.models import (
    DISTILBERT,
    GPT2,
    IMAGES,
    OPT,
    SIZES,
    encoder,
    inputs,
    same,
    snapshot,
    tokens,
    transformer,
)

T5 = {
    **{"d_model": 16, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 2},
    **{"vocab_size": 40, "decoder_start_token_id": 0},
}


class Attention(nn.Module):
    """Attention as timm writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A block as timm's vision transformers have it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def timm_like() -> nn.Module:
    return nn.Sequential(Block(), Block(), nn.LayerNorm(16), nn.Linear(16, 3))


def numbered(pattern: str, count: int = 2) -> list[str]:
    return [pattern.replace("#", str(i)) for i in range(count)]


BERT = "encoder.layer.#"
# What is supported: the model, and where "ffn" and "attention" put adapters.
MODELS = {
    "BertForSequenceClassification": (
        SIZES,
        numbered(f"bert.{BERT}.output.dense"),
        numbered(f"bert.{BERT}.attention.output.dense"),
    ),
    "RobertaModel": (
        SIZES,
        numbered(f"{BERT}.output.dense"),
        numbered(f"{BERT}.attention.output.dense"),
    ),
    "DistilBertModel": (
        DISTILBERT,
        numbered("transformer.layer.#.ffn.lin2"),
        numbered("transformer.layer.#.attention.out_lin"),
    ),
    "AlbertModel": (  # both layers are one module
        {**SIZES, "embedding_size": 8},
        ["encoder.albert_layer_groups.0.albert_layers.0.ffn_output"],
        ["encoder.albert_layer_groups.0.albert_layers.0.attention.dense"],
    ),
    "GPT2LMHeadModel": (
        GPT2,
        numbered("transformer.h.#.mlp.c_proj"),
        numbered("transformer.h.#.attn.c_proj"),
    ),
    "GPTNeoXForCausalLM": (
        SIZES,
        numbered("gpt_neox.layers.#.mlp.dense_4h_to_h"),
        numbered("gpt_neox.layers.#.attention.dense"),
    ),
    "OPTForCausalLM": (
        OPT,
        numbered("model.decoder.layers.#.fc2"),
        numbered("model.decoder.layers.#.self_attn.out_proj"),
    ),
    "LlamaForCausalLM": (
        SIZES,
        numbered("model.layers.#.mlp.down_proj"),
        numbered("model.layers.#.self_attn.o_proj"),
    ),
    "ViTForImageClassification": ({**SIZES, **IMAGES}, None, None),  # names changed in version 5
    "T5Model": (
        T5,
        [
            *numbered("encoder.block.#.layer.1.DenseReluDense.wo"),
            *numbered("decoder.block.#.layer.2.DenseReluDense.wo"),
        ],
        [
            *numbered("encoder.block.#.layer.0.SelfAttention.o"),
            *(
                f"decoder.block.{i}.layer.{j}.{kind}.o"
                for i in range(2)
                for j, kind in enumerate(("SelfAttention", "EncDecAttention"))
            ),
        ],
    ),
    "nn.TransformerEncoder": (None, numbered("layers.#.linear2"), numbered("layers.#.self_attn")),
    "timm-like": (None, numbered("#.mlp.fc2"), numbered("#.attn.proj")),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def make(kind: str):
    """Build a model in evaluation mode and a batch."""
    if kind == "nn.TransformerEncoder":
        return encoder().eval(), {"src": inputs(3, 5, 8)}
    if kind == "timm-like":
        return timm_like().double().eval(), {"input": inputs(3, 5, 16)}
    model = transformer(kind, MODELS[kind][0]).double().eval()
    if kind.startswith("ViT"):
        return model, {"pixel_values": inputs(3, 3, 8, 8)}
    batch = tokens(4)
    return model, {**batch, "decoder_input_ids": batch["input_ids"]} if kind == "T5Model" else batch


def output(model: nn.Module, batch) -> torch.Tensor:
    with torch.no_grad():
        y = model(**batch)
    return y if isinstance(y, torch.Tensor) else y[0]


def names(adapted) -> list[str]:
    return [each.name for each in adapted.report.adapters]


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Move what trains, as training would."""
    source = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            step = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.add_(0.1 * step.to(parameter))


@every_model
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="Adapters go into common architectures without PEFT: after every feed-forward block and "
    "every attention, the identity at the start, saved and put back with the same outputs.",
)
def test_goes_into(kind, evidence, tmp_path, global_state_unchanged):
    with torch.random.fork_rng():
        model, batch = make(kind)
    before, expected = snapshot(model), output(model, batch)
    for where, known in zip(("ffn", "attention"), MODELS[kind][1:], strict=True):
        found = names(adapt(model, where, 8, generator=0))
        if known is not None:
            evidence(required=len(known), measured=len(set(known) & set(found)), what=where)
            assert found == known
        # Read off the computation instead of the names: an independent way to the same places.
        assert names(adapt(model, where, 8, example=batch, generator=0)) == found
    adapted = adapt(model, "both", 8, generator=0)
    assert len(names(adapted)) == len(set(names(adapted))) > len(found)
    start = float((output(adapted.model, batch) - expected).abs().max())
    evidence(required=0.0, measured=start, what="largest change at the start")
    assert start == 0.0
    stir(adapted.model)
    changed = output(adapted.model, batch)
    assert float((changed - expected).abs().max()) > 1e-3
    adapted.save_pretrained(tmp_path / "adapters")
    again = load_adapters(tmp_path / "adapters", model)
    reloaded = float((output(again.model, batch) - changed).abs().max())
    evidence(required=0.0, measured=reloaded, what="largest change by saving and loading")
    assert reloaded == 0.0
    assert again.report == adapted.report
    assert same(before, model.state_dict())  # copies were changed, not the model


@every_model
def test_gradients_reach_every_adapter_and_nothing_else(kind):
    model, batch = make(kind)
    adapted = adapt(model, "both", 8, generator=0)
    stir(adapted.model)
    y = adapted.model(**batch)
    (y if isinstance(y, torch.Tensor) else y[0]).square().sum().backward()
    for name, parameter in adapted.model.named_parameters():
        inside = "snnk_adapter" in name
        assert parameter.requires_grad == inside
        assert (parameter.grad is not None and bool(parameter.grad.any())) == inside, name
    width = 8 if kind == "nn.TransformerEncoder" else 16
    assert adapted.report.trainable == len(names(adapted)) * (8 * width + width)
    assert adapted.report.trainable == trainable(adapted.model).trained
    assert adapted.report.model_before == trainable(model).total


@every_model
def test_what_was_there_keeps_its_name_and_class(kind):
    model, _ = make(kind)
    adapted = adapt(model, "both", 8, generator=0).model
    before = dict(model.named_modules())
    after = dict(adapted.named_modules())
    assert {name: type(m) for name, m in before.items()}.items() <= {
        name: type(m) for name, m in after.items()
    }.items()
    left_over = adapted.load_state_dict(model.state_dict(), strict=False)
    assert not left_over.unexpected_keys
    assert all("snnk_adapter" in key for key in left_over.missing_keys)


class TestSurvives:
    """What is done to models."""

    @pytest.fixture
    def pair(self):
        model, batch = make("timm-like")
        adapted = adapt(model, "both", 8, generator=0)
        stir(adapted.model)
        return adapted, batch

    def test_deepcopy(self, pair):
        adapted, batch = pair
        clone = copy.deepcopy(adapted.model)
        assert torch.equal(output(clone, batch), output(adapted.model, batch))
        with torch.no_grad():
            for parameter in clone.parameters():
                parameter.zero_()
        assert float(output(adapted.model, batch).abs().max()) > 0  # nothing is shared

    def test_pickling_and_hooks_registered_afterwards(self, pair, monkeypatch):
        adapted, batch = pair
        expected = output(adapted.model, batch)
        text = pickle.dumps(adapted.model)
        monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in a new process
        loaded = pickle.loads(text)
        seen = []
        module = loaded.get_submodule("0.mlp.fc2")
        for _ in range(50):  # a hook with the adapter's number would take its place
            module.register_forward_hook(lambda *_: seen.append(1))
        assert torch.equal(output(loaded, batch), expected)
        assert len(seen) == 50

    def test_torch_save(self, pair):
        adapted, batch = pair
        file = io.BytesIO()
        torch.save(adapted.model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        assert torch.equal(output(loaded, batch), output(adapted.model, batch))

    def test_compilation_as_one_graph(self, pair):
        adapted, batch = pair
        torch._dynamo.reset()
        compiled = torch.compile(adapted.model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(output(compiled, batch), output(adapted.model, batch))

    def test_state_dict(self, pair):
        adapted, batch = pair
        model, _ = make("timm-like")
        other = adapt(model, "both", 8, generator=1).model
        other.load_state_dict(adapted.model.state_dict())
        assert torch.equal(output(other, batch), output(adapted.model, batch))

    def test_another_dtype(self, pair):
        adapted, batch = pair
        half = copy.deepcopy(adapted.model).float()
        y = output(half, {"input": batch["input"].float()})
        torch.testing.assert_close(y.double(), output(adapted.model, batch), rtol=0, atol=1e-4)


class TestTorchsFusedEncoder:
    @pytest.mark.parametrize("where", ["ffn", "attention", "both"])
    @pytest.mark.parametrize("padding", [False, True])
    def test_adapters_run_in_it(self, where, padding):
        layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True, dtype=torch.float64)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
        adapted = adapt(model, where, 8, generator=0).model
        stir(adapted)
        mask = torch.zeros(3, 5, dtype=torch.bool)
        mask[0, 3:] = padding
        given = {"src": inputs(3, 5, 8), "src_key_padding_mask": mask if padding else None}
        fused = output(adapted, given)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            expected, dense = output(adapted, given), output(model, given)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        torch.testing.assert_close(fused[~mask], expected[~mask], rtol=0, atol=1e-12)
        assert float((fused - dense)[~mask].abs().max()) > 1e-3

    def test_the_projection_that_is_only_read_is_refused(self):
        with pytest.raises(ValueError, match=r"where: 'layers.0.self_attn.out_proj' is never"):
            adapt(encoder(), ["layers.0.self_attn.out_proj"], 8)


class TestWhere:
    def test_names_a_pattern_and_a_function_say_the_same(self):
        model = timm_like()
        wanted = ["0.mlp.fc2", "1.mlp.fc2"]
        for where in (wanted[::-1], r"\d\.mlp\.fc2", lambda name: name.endswith("fc2")):
            assert names(adapt(model, where, 8)) == wanted

    def test_a_module_with_two_names_gets_one_adapter(self):
        shared = nn.Linear(4, 4)
        model = nn.Sequential(shared, nn.ReLU(), shared)
        adapted = adapt(model, ["0", "2"], 8, generator=0)
        assert names(adapted) == ["0"]
        assert adapted.model[0] is adapted.model[2]

    def test_whole_blocks_and_norms(self):
        model, batch = make("timm-like")
        adapted = adapt(model, ["0", "2"], 8, example=batch, generator=0)
        assert [each.width for each in adapted.report.adapters] == [16, 16]
        assert [each.width for each in adapt(model, ["2"], 8).report.adapters] == [16]
        with pytest.raises(ValueError, match=r"where: the width of what '0', a Block, .*example="):
            adapt(model, ["0"], 8)

    def test_modules_that_return_tuples_and_others(self):
        class Returns(nn.Module):
            def __init__(self, wrap):
                super().__init__()
                self.inner, self.wrap = nn.Linear(4, 4), wrap

            def forward(self, x):
                return self.wrap(self.inner(x))

        class Whole(nn.Module):
            def __init__(self, wrap):
                super().__init__()
                self.part = Returns(wrap)

            def forward(self, x):
                return self.part(x)

        x = inputs(3, 4, dtype=torch.float32)
        for wrap in (lambda y: (y, None), lambda y: [y, "more"]):
            adapted = adapt(Whole(wrap), ["part"], 8, example=x).model
            y, rest = adapted(x)
            plain = adapted.part.inner(x)
            assert torch.equal(y, plain)
            assert rest == wrap(plain)[1]
            stir(adapted)
            assert torch.equal(adapted(x)[0], adapted.part.snnk_adapter(adapted.part.inner(x)))
        with pytest.raises(ValueError, match="'part' did not run, or returned no tensor"):
            adapt(Whole(lambda y: {"y": y}), ["part"], 8, example=x)

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            (
                "ffn",
                r"where: 'ffn' looks for the last linear layer of a feed-forward block by name",
            ),
            ("attention", r"where: 'attention' looks for the output projection of an attention"),
            ("both", r"where: 'both' looks for .* or an attention's .*mlp\\.fc2|fc2"),
            ("nothing", r"where: no module's whole name matches 'nothing'; the names are like '0'"),
            (["9"], r"where: the model has no module '9'"),
            ([], r"where: expected at least one name"),
            (lambda name: False, r"where: the function chose none of the 3 modules"),
        ],
    )
    def test_nothing_found_says_what_was_looked_for(self, where, message):
        with pytest.raises(ValueError, match=message):
            adapt(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)), where, 8)

    @pytest.mark.parametrize("where", ["ffn", "attention", "both"])
    def test_nothing_found_with_an_example(self, where):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))  # not back to 4
        with pytest.raises(ValueError, match="no linear layer of Sequential was called on"):
            adapt(model, where, 8, example=torch.randn(3, 4))

    def test_names_that_no_architecture_has_are_found_by_example(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh())
        assert names(adapt(model, "ffn", 8, example=torch.randn(3, 4))) == ["2"]

    def test_twice_is_refused(self):
        adapted = adapt(timm_like(), "ffn", 8)
        with pytest.raises(ValueError, match=r"where: '0.mlp.fc2' has an adapter already"):
            adapt(adapted.model, "both", 8)


class TestDraws:
    def test_a_seed_says_them_and_each_adapter_has_its_own(self):
        model = timm_like()
        first, second, other = (adapt(model, "both", 8, generator=seed) for seed in (5, 5, 6))
        assert same(first.model.state_dict(), second.model.state_dict())
        maps = [first.model.get_submodule(f"{n}.snnk_adapter") for n in names(first)]
        weights = [next(m.snnk.features.buffers()).flatten() for m in maps]
        assert len(weights) == 4
        assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
        assert not same(first.model.state_dict(), other.model.state_dict())

    def test_none_draws_from_torchs_own_state(self):
        torch.manual_seed(1)
        first = adapt(timm_like(), "ffn", 8).model.state_dict()
        torch.manual_seed(1)
        assert same(first, adapt(timm_like(), "ffn", 8).model.state_dict())

    def test_options_reach_the_adapter(self):
        options = {"bottleneck": 3, "features": "universal", "projection": "gaussian"}
        adapted = adapt(timm_like(), "ffn", 8, "relu", norm_after=True, generator=0, **options)
        made = adapted.model.get_submodule("0.mlp.fc2.snnk_adapter")
        alone = SNNKAdapter(16, 8, "relu", norm_after=True, generator=0, **options)
        assert same(made.state_dict(), alone.state_dict())
        gated = adapt(timm_like(), "ffn", 8, up=False, norm_before=False)
        assert gated.report.adapters[0].trainable == 16 * 8 + 2 * 16


class TestTrain:
    def test_names_modules_and_patterns(self):
        model = timm_like()
        head = ("3.weight", "3.bias")
        for train in (["3"], "3", r"3\..*", ["3.weight", "3.bias"]):
            adapted = adapt(model, "ffn", 8, train=train)
            assert adapted.report.trained == head
            assert adapted.report.trainable == 2 * (16 * 8 + 16) + 16 * 3 + 3
        assert adapt(model, "ffn", 8, train=r".*\.norm1\.weight").report.trained == (
            *("0.norm1.weight", "1.norm1.weight"),
        )

    def test_a_tied_parameter_answers_to_all_its_names(self):
        model, _ = make("GPT2LMHeadModel")
        for train in (["lm_head"], "lm_head", ["transformer.wte"]):
            assert adapt(model, "ffn", 8, train=train).report.trained == ("transformer.wte.weight",)

    @pytest.mark.parametrize("train", ["head", ["3", "head"]])
    def test_unknown_names_are_refused(self, train):
        with pytest.raises(ValueError, match=r"train: no parameter, .* called 'head'"):
            adapt(timm_like(), "ffn", 8, train=train)
        with pytest.raises(TypeError, match="train: expected names, got int 3"):
            adapt(timm_like(), "ffn", 8, train=[3])  # pyright: ignore[reportArgumentType]

    def test_in_place(self):
        model = timm_like()
        assert adapt(model, "ffn", 8, inplace=True).model is model
        assert trainable(model).trained == 2 * (16 * 8 + 16)

    def test_an_error_leaves_the_model_as_it_was(self):
        model = timm_like()
        with pytest.raises(ValueError, match="activation"):
            adapt(model, "ffn", 8, "no such activation", inplace=True)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(isinstance(module, SNNKAdapter) for module in model.modules())

    def test_modes_stay(self):
        for mode in (False, True):
            adapted = adapt(timm_like().train(mode), "ffn", 8).model
            assert {module.training for module in adapted.modules()} == {mode}


class TestSaving:
    def test_holds_what_training_changes_and_nothing_else(self, tmp_path):
        from safetensors import safe_open

        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        adapted = adapt(model, ["0"], 8, train=["2"], generator=0)
        adapted.save_pretrained(tmp_path / "saved")
        assert {file.name for file in (tmp_path / "saved").iterdir()} == {
            *("config.json", "model.safetensors"),
        }
        with safe_open(tmp_path / "saved" / "model.safetensors", framework="pt") as file:
            keys = set(file.keys())
        inside = {f"0.snnk_adapter.{key}" for key in adapted.model[0].snnk_adapter.state_dict()}
        statistics = {f"1.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")}
        assert keys == inside | {"2.weight", "2.bias"} | statistics

    def test_statistics_that_moved_come_back(self, tmp_path):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
        adapted = adapt(model, ["0"], 8, generator=0)
        for _ in range(3):
            adapted.model(3 + inputs(7, 4))
        adapted.model.eval()
        adapted.save_pretrained(tmp_path / "saved")
        again = load_adapters(tmp_path / "saved", model.eval())
        assert torch.equal(again.model(inputs(7, 4)), adapted.model(inputs(7, 4)))

    def test_a_tied_parameter_is_saved_once(self, tmp_path):
        model, batch = make("GPT2LMHeadModel")
        adapted = adapt(model, "ffn", 8, train="transformer.wte", generator=0)
        stir(adapted.model)
        adapted.save_pretrained(tmp_path / "saved")
        again = load_adapters(tmp_path / "saved", model).model
        assert again.lm_head.weight is again.transformer.wte.weight
        assert torch.equal(output(again, batch), output(adapted.model, batch))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_in_the_models_dtype(self, dtype, tmp_path):
        model = timm_like().to(dtype)
        adapted = adapt(model, "both", 8, features="universal", generator=0)
        assert {p.dtype for p in adapted.model.parameters()} == {dtype}
        stir(adapted.model)
        adapted.save_pretrained(tmp_path / "saved")
        again = load_adapters(tmp_path / "saved", model)
        x = {"input": inputs(2, 5, 16, dtype=dtype)}
        assert torch.equal(output(again.model, x), output(adapted.model, x))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_into_a_model_of_another_dtype(self, dtype, tmp_path):
        model = timm_like()
        adapted = adapt(model, "both", 8, train=["3"], generator=0)
        stir(adapted.model)
        adapted.save_pretrained(tmp_path / "saved")
        again = load_adapters(tmp_path / "saved", model.to(dtype)).model
        assert {p.dtype for p in again.parameters()} == {dtype}
        x = inputs(2, 5, 16)
        found, expected = again(x.to(dtype)), adapted.model.to(dtype)(x.to(dtype))
        assert torch.equal(found, expected)

    def test_refuses_a_model_of_another_width(self, tmp_path):
        net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        wide = nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.Linear(9, 2))
        for name in ("0", "1"):
            adapt(net, [name], 8).save_pretrained(tmp_path / name)
            with pytest.raises(ValueError, match=rf"'{name}' returns vectors of length 9.* 8"):
                load_adapters(tmp_path / name, wide)

    def test_refuses_a_model_without_numbers(self, tmp_path):
        adapt(timm_like(), "ffn", 8).save_pretrained(tmp_path / "saved")
        with pytest.raises(ValueError, match=r"^model: it is on the meta device"):
            load_adapters(tmp_path / "saved", timm_like().to("meta"))

    def test_refuses_what_does_not_fit(self, tmp_path):
        model = timm_like()
        adapted = adapt(model, "ffn", 8, train=["3"])
        adapted.save_pretrained(tmp_path / "saved")
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"model: it does not fit .* no module '0.mlp.fc2'"):
            load_adapters(tmp_path / "saved", nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"'0.mlp.fc2' has an adapter already"):
            load_adapters(tmp_path / "saved", adapted.model)
        narrow = nn.Sequential(Block(), Block(), nn.LayerNorm(16), nn.Linear(16, 5))
        with pytest.raises(ValueError, match=r"3.bias has shape \(3,\) there, here \(5,\)"):
            load_adapters(tmp_path / "saved", narrow, inplace=True)
        assert not any(isinstance(module, SNNKAdapter) for module in narrow.modules())
        with pytest.raises(FileNotFoundError):
            load_adapters(tmp_path, model)
        SNNKAdapter(4, 8).save_pretrained(tmp_path / "other")
        with pytest.raises(ValueError, match=r"holds a nn.SNNKAdapter, not adapters of"):
            load_adapters(tmp_path / "other", model)
        assert same(before, model.state_dict())

    def test_goes_on_training_after_loading(self, tmp_path):
        adapted = adapt(timm_like(), "ffn", 8, train=["3"], generator=0)
        adapted.save_pretrained(tmp_path / "saved")
        again = load_adapters(tmp_path / "saved", timm_like())
        assert trainable(again.model).parameters == trainable(adapted.model).parameters


def test_the_report_reads_well():
    lines = str(adapt(timm_like(), "ffn", 8, train=["3"]).report).splitlines()
    total = trainable(timm_like()).total
    trained = 2 * (16 * 8 + 16) + 51
    assert lines[0] == (
        f"2 adapters, {trained:,} trained numbers, {trained / total:.2%} of the model's {total:,}"
    )
    # Stored besides: 8 directions of 16 and their 8 biases.
    assert lines[1] == "  0.mlp.fc2: width 16, 8 features, 144 trained of 280"
    assert lines[3:] == ["  also 3.weight", "  also 3.bias"]
