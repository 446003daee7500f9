"""Where adapters go in models of transformers: by name, and by what is computed."""

import pytest
import torch
from torch import nn

from mercer.convert import adapt
from tests.convert.models import Packed, inputs

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
IDS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
# A model, its settings, and how its feed-forward blocks and its attentions end.
NAMED = {
    "ModernBertModel": ({**IDS, "cls_token_id": 0, "sep_token_id": 0}, "mlp.Wo", "attn.Wo"),
    "ElectraModel": ({"embedding_size": 16}, "output.dense", "attention.output.dense"),
    "MPNetModel": ({}, "output.dense", "attention.attn.o"),
    "GPTNeoForCausalLM": (
        {**IDS, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]},
        "mlp.c_proj",
        "attn.attention.out_proj",
    ),
    "GPTJForCausalLM": (
        {**IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4},
        "mlp.fc_out",
        "attn.out_proj",
    ),
    "BloomForCausalLM": (IDS, "mlp.dense_4h_to_h", "self_attention.dense"),
    "FalconForCausalLM": (IDS, "mlp.dense_4h_to_h", "self_attention.dense"),
    "PhiForCausalLM": (IDS, "mlp.fc2", "self_attn.dense"),
    "GemmaForCausalLM": (
        {**IDS, "num_key_value_heads": 2, "head_dim": 8},
        "mlp.down_proj",
        "self_attn.o_proj",
    ),
    "CLIPTextModel": (IDS, "mlp.fc2", "self_attn.out_proj"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_names_end_where_computations_do(kind):
    options, ffn, attention = NAMED[kind]
    made = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = made(made.config_class(**{**SIZES, **options})).eval()
    example = {"input_ids": torch.tensor([[2, 7, 9, 3], [4, 5, 6, 7]])}
    for where, end in (("ffn", ffn), ("attention", attention)):
        named, computed = (
            [each.name for each in adapt(model, where, 4, example=e, generator=0).report.adapters]
            for e in (None, example)
        )
        assert named == computed
        assert len(named) == 2
        assert all(name.endswith(f".{end}") for name in named)


def test_quantised_layers_are_found_too():
    block = nn.ModuleDict({"fc1": Packed(8, 32), "act": nn.GELU(), "fc2": Packed(32, 8)})
    model, x = nn.Sequential(*block.values()), inputs(5, 8).float()
    assert [each.name for each in adapt(block, "ffn", 4).report.adapters] == ["fc2"]
    adapted = adapt(model, "ffn", 4, example=x)
    assert [(each.name, each.width) for each in adapted.report.adapters] == [("2", 8)]
    assert torch.equal(adapted.model(x), model(x))
