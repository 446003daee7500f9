"""Which tokens count: masks that multiply, masks that are added, and those of a decoder."""

import pytest
import torch
from torch import nn

from mercer.convert import bundle, load, solve


class Masked(nn.Module):
    """A block that takes a mask and does not use it."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x, attention_mask=None):
        return self.down(torch.relu(self.up(x)))


@pytest.mark.parametrize("padding", [-torch.inf, -1e9])
def test_masks_that_are_added_are_zero_for_tokens(padding):
    x, mask = torch.randn(64, 10, 8), torch.zeros(64, 10)
    batch = {"x": x, "attention_mask": mask}
    assert bundle(Masked(), [batch]).report.blocks[0].rows == 640
    mask[:, 8:] = padding
    assert bundle(Masked(), [batch]).report.blocks[0].rows == 512


@pytest.mark.parametrize("length", [12, 11])
def test_a_decoder_has_a_mask_of_its_own(length):
    transformers = pytest.importorskip("transformers")
    config = transformers.BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=32,
    )
    model = transformers.BartModel(config).eval()
    ids, mask = torch.randint(3, 50, (64, 12)), torch.ones(64, 12).long()
    mask[:, 3:] = 0
    decoded = torch.ones(64, length).long()
    decoded[:, -1] = 0
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": ids[:, :length],
        "decoder_attention_mask": decoded,
    }
    encoder, decoder = bundle(model, [batch]).report.blocks
    assert encoder.rows == 64 * 3
    assert decoder.rows == 64 * (length - 1)
    del batch["decoder_attention_mask"]
    assert bundle(model, [batch]).report.blocks[1].rows == 64 * length


def test_a_solution_that_the_dtype_cannot_hold_is_refused():
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1)).half()
    x = torch.randn(300, 8).half()
    y = x.sum(1, keepdim=True) * 3000
    with pytest.raises(ValueError, match=r"^ridge: .*float16"):
        solve(net, x * 1e-3, y, projection="own", ridge=0.0)


def test_a_language_model_keeps_its_generation_settings(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=60, n_positions=64, bos_token_id=0,
        eos_token_id=5,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.max_new_tokens = 7
    bundled = bundle(model, [{"input_ids": torch.randint(0, 60, (32, 16))}])
    bundled.save_pretrained(tmp_path / "m")
    again = load(tmp_path / "m").generation_config
    assert (again.max_new_tokens, again.eos_token_id) == (7, 5)


def test_solve_names_a_shared_activation():
    act = nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"model: .*activation is a function call, is shared"):
        solve(net, torch.randn(20, 4), torch.zeros(20).long())
