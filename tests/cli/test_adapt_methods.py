"""Ways to fine-tune: what is added, what trains, how much of it there is."""

import pytest
import torch
from torch.nn import functional as F

from mercer.cli.adapt_methods import (
    METHODS,
    attention_inputs,
    head_of,
    layers_of,
    norms_of,
    prepare,
    stored_bytes,
)

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

WIDTH, INNER, LAYERS, WORDS = 32, 64, 2, 50
RANK, VERA_RANK = 8, 256


def bert(width=WIDTH):
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INNER,
        max_position_embeddings=16,
        num_labels=3,
    )
    return build(transformers.BertForSequenceClassification, config)


def build(kind, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).eval()


def vit():
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INNER,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return build(transformers.ViTForImageClassification, config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=2,
        n_positions=16,
        num_labels=3,
        pad_token_id=0,
    )
    return build(transformers.GPT2ForSequenceClassification, config)


def distilbert():
    config = transformers.DistilBertConfig(
        vocab_size=WORDS,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=2,
        hidden_dim=INNER,
        max_position_embeddings=16,
        num_labels=3,
    )
    return build(transformers.DistilBertForSequenceClassification, config)


MODELS = {"bert": bert, "vit": vit, "gpt2": gpt2, "distilbert": distilbert}


def inputs_of(model):
    source = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(4, 3, 8, 8, generator=source)}
    ids = torch.randint(1, WORDS, (4, 7), generator=source)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def snnk_numbers(width):
    s = METHODS["snnk"].settings
    m, r = round(s["features_per_width"] * width), s["bottleneck"]
    return r * m + width * r + width


def biases_of_bert():
    attention = 4 * WIDTH + WIDTH  # query, key, value, output; layer norm
    ffn = INNER + WIDTH + WIDTH
    return WIDTH + LAYERS * (attention + ffn) + WIDTH  # embeddings' norm; pooler


def body_of_bert():
    embeddings = (WORDS + 16 + 2) * WIDTH + 2 * WIDTH
    attention = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH
    ffn = 2 * WIDTH * INNER + INNER + WIDTH + 2 * WIDTH
    return embeddings + LAYERS * (attention + ffn) + WIDTH * WIDTH + WIDTH


NUMBERS = {  # of BERT, by hand
    "snnk": 2 * LAYERS * snnk_numbers(WIDTH),
    "lora": 2 * LAYERS * RANK * 2 * WIDTH,
    "vera": 2 * LAYERS * (WIDTH + VERA_RANK),
    "bottleneck": 2 * LAYERS * (2 * WIDTH * RANK + RANK + WIDTH),
    "bitfit": biases_of_bert(),
    "probe": 0,
    "full": body_of_bert(),
}


def test_every_method_is_counted():
    assert set(NUMBERS) == set(METHODS)
    for name, method in METHODS.items():
        assert method.name == name
        rates = method.learning_rates
        assert len(set(rates)) == 4 and sorted(rates) == list(rates)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_numbers_train_as_counted_by_hand(method):
    prepared = prepare(bert(), method)
    assert prepared.num_trainable == NUMBERS[method]
    assert sum(p.numel() for p in prepared.head.values()) == 3 * WIDTH + 3
    training = {id(p) for p in prepared.model.parameters() if p.requires_grad}
    named = {**prepared.trained, **prepared.head}
    assert training == {id(p) for p in named.values()}
    own = dict(prepared.model.named_parameters())
    assert all(own[name] is p for name, p in named.items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_every_method_starts_at_the_model(model, method):
    plain = MODELS[model]()
    inputs = inputs_of(plain)
    expected = plain(**inputs).logits
    state = torch.get_rng_state()
    prepared = prepare(MODELS[model](), method, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    prepared.model.eval()
    torch.testing.assert_close(prepared.model(**inputs).logits, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_changes_what_trains_and_nothing_else(model, method):
    prepared = prepare(MODELS[model](), method)
    tensors = dict(prepared.model.named_parameters()) | dict(prepared.model.named_buffers())
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    named = {**prepared.trained, **prepared.head}
    # Adam's steps are of one size, however small a gradient is.
    optimizer = torch.optim.Adam(named.values(), lr=0.01)
    inputs = inputs_of(prepared.model)
    for _ in range(2):  # what stands before a zero matrix has no gradient in the first
        optimizer.zero_grad()
        logits = prepared.model(**inputs).logits
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, before[name])}
    assert changed <= set(named)
    assert set(prepared.head) <= changed
    if method not in ("full", "bitfit"):  # with them keys' biases and unused words stay
        assert changed == set(named)


def test_the_same_seed_draws_the_same():
    for method in ("snnk", "lora", "vera", "bottleneck"):
        first, same, other = (prepare(bert(), method, seed=seed) for seed in (5, 5, 6))
        tensors = {**first.trained, **first.frozen}
        for name, tensor in {**same.trained, **same.frozen}.items():
            assert torch.equal(tensors[name], tensor), name
        drawn = {**other.trained, **other.frozen}
        assert any(not torch.equal(tensors[name], tensor) for name, tensor in drawn.items())


def test_what_a_task_stores():
    numbers = {method: prepare(bert(), method) for method in METHODS}
    assert set(numbers["vera"].frozen) and set(numbers["snnk"].frozen)
    for method in ("lora", "bottleneck", "bitfit", "probe", "full"):
        assert not numbers[method].frozen
    # One pair of factors for all layers, not one each.
    assert sum(t.numel() for t in numbers["vera"].frozen.values()) == 2 * VERA_RANK * WIDTH
    features = 2 * LAYERS * round(2 * WIDTH / 3) * (WIDTH + 1)  # directions and offsets
    assert sum(t.numel() for t in numbers["snnk"].frozen.values()) == features
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(2, dtype=torch.float64)}
    assert 3 * 5 * 4 + 2 * 8 < stored_bytes(tensors) < 3 * 5 * 4 + 2 * 8 + 200


@pytest.mark.parametrize("width", [32, 64, 128])
def test_snnk_has_at_most_half_of_loras_numbers(width):
    snnk, lora = (prepare(bert(width), method).num_trainable for method in ("snnk", "lora"))
    assert snnk == 2 * LAYERS * snnk_numbers(width)
    assert 2 * snnk <= lora == LAYERS * 2 * RANK * 2 * width


def test_settings_replace_those_of_the_table():
    prepared = prepare(bert(), "lora", settings={"r": 2})
    assert prepared.num_trainable == NUMBERS["lora"] * 2 // RANK
    assert METHODS["lora"].settings["r"] == RANK


def test_head_by_name():
    body = bert().base_model
    with pytest.raises(ValueError, match="head="):
        prepare(torch.nn.Sequential(body, torch.nn.Linear(WIDTH, 3)), "probe")
    model = torch.nn.Sequential(body, torch.nn.Linear(WIDTH, 3))
    prepared = prepare(model, "lora", head=["1"])
    assert set(prepared.head) == {"1.weight", "1.bias"}
    assert head_of(bert()) == ["classifier.weight", "classifier.bias"]


def test_models_without_a_place_are_refused():
    with pytest.raises(ValueError, match="expected one of snnk, lora"):
        prepare(bert(), "lorra")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="query and value, q_proj and v_proj"):
        prepare(model, "lora", head=["1"])
    attention = torch.nn.ModuleDict({"query": model[0], "value": model[1]})
    with pytest.raises(ValueError, match="no ModuleList"):
        prepare(attention, "snnk", head=[])


def test_places():
    assert attention_inputs(gpt2()) == ["c_attn"]
    assert layers_of(gpt2()) == ["transformer.h.0", "transformer.h.1"]
    assert layers_of(vit()) == ["vit.layers.0", "vit.layers.1"]
    assert layers_of(bert()) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert norms_of(gpt2())[:2] == [
        ("transformer.h.0.ln_1", WIDTH),
        ("transformer.h.0.ln_2", WIDTH),
    ]
    ends = ("attention.output.LayerNorm", "output.LayerNorm")
    layers = [f"bert.encoder.layer.{i}." for i in range(LAYERS)]
    assert norms_of(bert()) == [(layer + end, WIDTH) for layer in layers for end in ends]
    assert len(norms_of(vit())) == len(norms_of(distilbert())) == 2 * LAYERS
