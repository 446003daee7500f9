"""Loading text models, and the texts that go through them."""

import json
import shutil
import sys

import pytest
import torch

from mercer.cli.errors import UserError
from mercer.cli.text_model import load_text_model


def load(folder, max_length=32, batch_size=4):
    return load_text_model(str(folder), max_length, batch_size)


TEXTS = ["the film", "a very very very warm story of it", "dull", "fine and lovely scene"] * 2


def test_embeddings_are_the_masked_mean_of_each_text_alone(tiny_bert):
    text_model = load(tiny_bert)
    got = text_model.outputs(text_model.model, TEXTS, classes=False, show=False)
    for text, row in zip(TEXTS, got, strict=True):
        tokens = text_model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            alone = text_model.model(**tokens).last_hidden_state.mean(dim=1)[0]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)
    assert not text_model.has_classes
    assert not text_model.model.training


def test_a_head_is_kept_and_its_embeddings_are_the_body_s(tiny_classifier):
    text_model = load(tiny_classifier)
    assert text_model.has_classes
    scores = text_model.outputs(text_model.model, TEXTS, classes=True, show=False)
    with torch.no_grad():
        alone = text_model.model(**text_model.tokenizer(TEXTS[1], return_tensors="pt")).logits[0]
    torch.testing.assert_close(scores[1], alone, rtol=1e-5, atol=1e-5)
    assert text_model.outputs(text_model.model, TEXTS, False, False).shape == (8, 32)


def test_long_texts_are_cut_and_the_example_is_full(tiny_bert):
    text_model = load(tiny_bert, max_length=6)
    assert text_model.batches(["the film and " * 9])[0]["input_ids"].shape == (1, 6)
    assert load(tiny_bert, max_length=10_000).max_length == 62
    batch = text_model.example(TEXTS, tokens=5)
    assert batch["input_ids"].shape == (4, 5)
    assert batch["attention_mask"].all()


def test_what_cannot_be_loaded_is_said_in_one_line(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")

    def broken(name, change):
        folder = shutil.copytree(tiny_bert, tmp_path / name)
        change(folder)
        return folder

    def edit(**values):
        def change(folder):
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, **values}))

        return change

    cases = [
        (tmp_path / "empty", r"holds no config\.json"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "missing", "no folder"),
        (broken("json", lambda f: (f / "config.json").write_text("{")), "cannot load"),
        (broken("none", lambda f: (f / "model.safetensors").unlink()), "cannot load"),
        (
            broken("cut", lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 30)),
            "cannot load",
        ),
        (broken("kind", edit(model_type="no-such-thing")), "cannot load"),
        (broken("seq2seq", edit(model_type="bart")), "is an encoder-decoder"),
        (broken("deeper", edit(num_hidden_layers=3)), "lacks the weights"),
    ]
    for folder, message in cases:
        with pytest.raises(UserError, match=f"MODEL: .*{message}") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_no_code_from_the_folder_runs(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code ran')\n")
    with pytest.raises(UserError, match="cannot load"):
        load(folder)


def test_without_transformers_the_extra_is_named(tiny_bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'mercer\[hf\]'"):
        load(tiny_bert)


def test_identity_follows_the_weights(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    first = load(folder).identity
    assert load(folder).identity == first
    shutil.copyfile(tiny_bert / "model.safetensors", folder / "model.safetensors")
    assert load(folder).identity != first
