"""Bundling of Hugging Face models, tiny and random."""

import pytest
import torch
from torch import nn

from mercer.convert import bundle, load
from tests.convert.models import (
    DISTILBERT,
    GPT2,
    IMAGES,
    OPT,
    SIZES,
    inputs,
    numbers,
    same,
    snapshot,
    tokens,
    transformer,
)

# Class, config, blocks, times that each runs, and whether padding is known.
MODELS = {
    "BertForMaskedLM": (SIZES, 2, 1, True),
    "RobertaModel": ({**SIZES, "pad_token_id": 0}, 3, 1, True),
    "DistilBertModel": (DISTILBERT, 2, 1, True),
    "AlbertModel": ({**SIZES, "embedding_size": 8}, 1, 2, True),
    "GPT2LMHeadModel": (GPT2, 2, 1, True),
    "OPTForCausalLM": (OPT, 2, 1, True),
    "GPTNeoXForCausalLM": (SIZES, 2, 1, True),
    "ViTForImageClassification": ({**SIZES, **IMAGES}, 2, 1, False),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def make(kind: str, dtype: torch.dtype = torch.float64, samples: int = 30):
    """Build a model in evaluation mode and its batch."""
    model = transformer(kind, MODELS[kind][0]).to(dtype).eval()
    if kind.startswith("ViT"):
        return model, {"pixel_values": inputs(samples, 3, 8, 8).to(dtype)}
    return model, tokens(samples)


def output(model: nn.Module, batch) -> torch.Tensor:
    """What the model says of the tokens that count."""
    with torch.no_grad():
        y = model(**batch)[0]
    mask = batch.get("attention_mask")
    return y if mask is None else y[mask.bool()]


@every_model
def test_all_neurons_give_the_dense_outputs(kind):
    _, blocks, calls, masked = MODELS[kind]
    if kind == "RobertaModel":
        blocks = 2  # its pooler is an output, and starts no block
    model, batch = make(kind)
    before = snapshot(model)
    bundled = bundle(model, [batch], keep=1.0, ridge=0.0)
    assert len(bundled.report.blocks) == blocks
    rows = int(batch["attention_mask"].sum()) if masked else 30 * 5  # 4 patches and a class
    assert [block.rows for block in bundled.report.blocks] == [rows * calls] * blocks
    assert [block.num_features for block in bundled.report.blocks] == [48] * blocks
    torch.testing.assert_close(
        output(bundled.model, batch), output(model, batch), rtol=0, atol=1e-9
    )
    assert same(before, model.state_dict())


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_the_numbers_reload(kind, dtype, tmp_path, global_state_unchanged):
    with torch.random.fork_rng():
        model, batch = make(kind, dtype)
    model.train()
    bundled = bundle(model, [batch])
    assert all(module.training for module in bundled.model.modules())
    report = bundled.report
    assert numbers(bundled.model) == report.model_after < numbers(model) == report.model_before
    assert report.stored_after <= 0.5 * report.stored_before
    assert all(block.r2 is not None and block.r2 > 0 for block in report.blocks)
    bundled.save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert type(loaded) is type(model)
    assert loaded.config.to_dict() == model.config.to_dict()
    assert torch.equal(output(loaded, batch), output(bundled.model.eval(), batch))


@pytest.mark.parametrize(
    ("kind", "positional"),
    [
        *(("BertForMaskedLM", False), ("GPT2LMHeadModel", False), ("OPTForCausalLM", False)),
        *(("BertForMaskedLM", True), ("OPTForCausalLM", True)),
    ],
)
def test_what_stands_in_padding_changes_nothing(kind, positional):
    model, batch = make(kind)
    mask = batch["attention_mask"]
    other = torch.where(mask.bool(), batch["input_ids"], 7)
    found = []
    for ids in (batch["input_ids"], other):
        given = (ids, mask) if positional else {"input_ids": ids, "attention_mask": mask}
        found.append(bundle(model, [given]))
    assert same(found[0].model.state_dict(), found[1].model.state_dict())
    assert [b.rows for b in found[0].report.blocks] == [int(mask.sum())] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"features": features, "projection": projection, "affine": affine}
        for features, projection in [
            *(("neuron", "greedy"), ("neuron", "dpp"), ("neuron", "orthogonal")),
            *(("neuron", "hadamard"), ("universal", "orthogonal"), ("arc_cosine", "sobol")),
        ]
        for affine in (False, True)
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "GPT2LMHeadModel"])
def test_every_way_reloads(kind, options, tmp_path):
    model, batch = make(kind, torch.float32)
    bundled = bundle(model, [batch], 0.7, generator=0, **options)
    bundled.save_pretrained(tmp_path / "saved")
    assert torch.equal(output(load(tmp_path / "saved"), batch), output(bundled.model, batch))


class TestGPT2:
    def test_its_tied_head_stays_tied(self, tmp_path):
        model, batch = make("GPT2LMHeadModel")
        bundled = bundle(model, [batch])
        bundled.save_pretrained(tmp_path / "saved")
        for each in (bundled.model, load(tmp_path / "saved")):
            assert each.lm_head.weight is each.transformer.wte.weight
            assert type(each.transformer.h[0].mlp.c_fc) is nn.Linear
        assert bundled.model.lm_head.weight is not model.lm_head.weight

    def test_generates(self):
        model, batch = make("GPT2LMHeadModel")
        bundled = bundle(model, [batch], keep=1.0, ridge=0.0)
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        ids = batch["input_ids"][1::2]
        cached, plain = (
            bundled.model.generate(ids, use_cache=use_cache, **options)
            for use_cache in (True, False)
        )
        assert torch.equal(cached, plain)
        assert torch.equal(cached, model.generate(ids, **options))

    def test_trains(self):
        model, batch = make("GPT2LMHeadModel", torch.float32)
        smaller = bundle(model, [batch]).model.train()
        smaller(**batch, labels=batch["input_ids"]).loss.backward()
        assert smaller.transformer.h[0].mlp.c_fc.weight.grad is not None


def test_labels_may_be_among_the_inputs():
    model = transformer("BertForSequenceClassification", SIZES).double()
    batch = {**tokens(), "labels": torch.arange(24) % 2}
    names = [block.name for block in bundle(model, [batch]).report.blocks]
    assert names[-1] == "bert.pooler.dense"


def test_what_tokenizers_return():
    transformers = pytest.importorskip("transformers")
    model, batch = make("BertForMaskedLM")
    expected = bundle(model, [batch])
    found = bundle(model, transformers.BatchEncoding(batch))
    assert same(found.model.state_dict(), expected.model.state_dict())


def test_a_gated_model_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no block .*gate_proj: gated: its output") as caught:
        bundle(transformer("LlamaModel", SIZES), [tokens()])
    first = str(caught.value).partition("(")[2]
    assert first.startswith("layers.0.mlp.gate_proj: gated: its output multiplies that of")


def test_encoder_and_decoder():
    config = {"d_model": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    config["vocab_size"] = SIZES["vocab_size"]
    model = transformer("T5Model", config).eval()
    batch = {**tokens(), "decoder_input_ids": tokens(24, 4)["input_ids"]}
    report = bundle(model, [batch]).report
    assert [block.rows for block in report.blocks] == [24 * 5, 24 * 4]
