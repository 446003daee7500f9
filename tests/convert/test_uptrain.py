"""Uptraining: what it minimises, what it leaves alone, what it goes on with after a kill."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mercer
from mercer._core.saving import load_state
from mercer.convert import Distance, bundle, distil, load, uptrain
from mercer.convert.distil import Distiller, batches_of, divide
from mercer.convert.observe import observe
from mercer.convert.uptrained import uptrain_report_from_dict
from tests.convert.models import (
    GPT2,
    SIZES,
    chain,
    encoder,
    inputs,
    same,
    seen_by,
    snapshot,
    tokens,
    transformer,
)

PAPER = "core-scalable-neural-network-kernels"
QUICK = {"steps": 6, "learning_rate": 1e-3}


def two_blocks() -> nn.Sequential:
    """Two blocks that share no layer."""
    return nn.Sequential(chain(5, 24, 6), nn.LayerNorm(6, dtype=torch.float64), chain(6, 24, 3))


class Padded(nn.Module):
    """A block whose model takes token vectors and their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.block = chain(5, 24, 4)

    def forward(self, x, attention_mask):
        return {"last_hidden_state": self.block(x)}


def off(found, wanted, seen=None):
    """The distance of the docstring, written out for one output after the other."""
    seen = wanted if seen is None else seen
    variances = [float(column.var(unbiased=False)) for column in seen.mT]
    units = [v + sorted(variances)[(len(variances) - 1) // 2] / 10 for v in variances]
    parts = [
        float((p - q).square().mean()) / unit
        for p, q, unit in zip(found.mT, wanted.mT, units, strict=True)
    ]
    return sum(parts) / len(parts)


def padded(samples=40, length=6, garbage=0.0):
    x = inputs(samples, length, 5)
    mask = torch.ones(samples, length, dtype=torch.long)
    mask[::2, -2:] = 0
    x = torch.where(mask.bool().unsqueeze(-1), x, x.new_tensor(garbage))
    return [{"x": a, "attention_mask": m} for a, m in zip(x.split(4), mask.split(4), strict=True)]


class TestDistance:
    def test_is_the_formula_on_held_out_batches(self):
        net, x = two_blocks(), inputs(256, 5)
        before = uptrain(net, x, keep=0.25, steps=0, learning_rate=1e-3)
        held_out = x[7 * 32 :]  # the eighth batch of 32
        smaller = before.model
        terms = {}
        for name, second in (("0.0", "0.2"), ("2.0", "2.2")):
            _, y = seen_by(net, second, held_out)
            _, found = seen_by(smaller, second, held_out)
            terms[name] = off(found, y)
        assert before.report.before.blocks == pytest.approx(terms, rel=1e-5)
        with torch.no_grad():
            z, found = net(held_out), smaller(held_out)
        output = off(found, z)
        cosine = float(torch.cosine_similarity(found, z).mean())
        report = before.report.before
        assert report.output == pytest.approx(output, rel=1e-5) == terms["2.0"]
        assert report.cosine == pytest.approx(cosine, rel=1e-5)
        assert report.loss == pytest.approx(sum(terms.values()) / 2 + output, rel=1e-5)
        assert before.report.before == before.report.after

    def test_hidden_states_are_pooled_over_tokens(self):
        net, batches = Padded(), padded()
        report = uptrain(net, batches, keep=0.25, steps=0, learning_rate=1e-3).report
        smaller = bundle(net, batches[:7] + batches[8:], keep=0.25).model
        x, mask = batches[7]["x"], batches[7]["attention_mask"].double().unsqueeze(-1)
        with torch.no_grad():
            pooled = [(m.block(x) * mask).sum(1) / mask.sum(1) for m in (net, smaller)]
        cosine = float(torch.cosine_similarity(*pooled).mean())
        assert report.before.cosine == pytest.approx(cosine, rel=1e-6)
        parts = report.before.blocks["block.0"] + report.before.output + 1 - cosine
        assert report.before.loss == pytest.approx(parts, rel=1e-6)

    def test_padding_counts_for_nothing(self):
        net = Padded()
        clean, dirty = (
            uptrain(net, padded(garbage=garbage), keep=0.25, **QUICK) for garbage in (0.0, 50.0)
        )
        assert clean.report.losses == pytest.approx(dirty.report.losses, rel=1e-9)
        for a, b in zip(clean.model.parameters(), dirty.model.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_a_shared_layer_is_not_compared(self):
        report = uptrain(chain(5, 24, 20, 3), inputs(64, 5), **QUICK).report
        assert list(report.before.blocks) == ["2"]

    def test_with_every_neuron_there_is_nothing_to_learn(self):
        report = uptrain(two_blocks(), inputs(512, 5), keep=1.0, ridge=0.0, **QUICK).report
        assert report.before.loss < 1e-16
        assert report.before.cosine == pytest.approx(1.0, abs=1e-12)

    def test_the_output_may_be_any_function(self):
        seen = []

        def first_column(result, batch):
            seen.append(batch)
            return result[:, :1]

        net, x = two_blocks(), inputs(256, 5)
        report = uptrain(net, x, keep=0.25, steps=0, learning_rate=1.0, output=first_column).report
        assert all(isinstance(batch, tuple) and batch[0].shape == (32, 5) for batch in seen)
        with torch.no_grad():
            z = net(x[-32:])[:, :1]
        smaller = uptrain(net, x, keep=0.25, steps=0, learning_rate=1.0).model
        with torch.no_grad():
            found = smaller(x[-32:])[:, :1]
        assert report.before.output == pytest.approx(off(found, z), rel=1e-5)

    def test_what_is_not_understood(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = chain(5, 24, 4)

            def forward(self, x):
                return {"scores": self.block(x)}

        with pytest.raises(TypeError, match="output: the model returns a dict without logits"):
            uptrain(Odd(), inputs(64, 5), **QUICK)
        with pytest.raises(TypeError, match="output: expected to return a tensor"):
            uptrain(Odd(), inputs(64, 5), output=lambda result, batch: 3, **QUICK)
        found = uptrain(
            Odd(), inputs(64, 5), output=lambda result, batch: result["scores"], **QUICK
        )
        assert len(found.report.losses) == 6


class TestTraining:
    @pytest.mark.paper(
        PAPER, kind="behaviour", claim="Uptraining brings a bundled model closer to the dense one"
    )
    def test_comes_closer_on_held_out_data(self, evidence):
        net = two_blocks()
        uptrained = uptrain(net, inputs(1024, 5), keep=0.25, steps=200)
        report = uptrained.report
        ratio = report.after.loss / report.before.loss
        evidence(required="< 0.7", measured=ratio, what="held-out loss, after over before")
        assert ratio < 0.7
        assert report.after.cosine > report.before.cosine

    def test_is_gradient_descent_on_the_formula(self):
        # One step of Adam moves each trained number by the learning rate against its gradient.
        net, x = two_blocks(), inputs(64, 5)
        one = uptrain(net, x, keep=0.25, steps=1, learning_rate=1e-4)
        start = uptrain(net, x, keep=0.25, steps=0, learning_rate=1e-4).model
        batches = batches_of(x)
        distiller = Distiller(batches, observe(net, batches.batches[0])[0])
        fitted, held_out = divide(batches.batches)
        assert [len(part) for part in (fitted, held_out)] == [1, 1]
        distiller.scale(net, held_out)
        gap = distiller.gap(start, net, fitted[0])
        distiller.loss(gap).backward()
        for p, q in zip(start.parameters(), one.model.parameters(), strict=True):
            big = p.grad.abs() > 1e-4  # smaller ones vanish beside Adam's epsilon
            assert bool(big.any())
            moved = (q - p)[big] / (-1e-4 * p.grad.sign()[big])
            torch.testing.assert_close(moved, torch.ones_like(moved), rtol=1e-2, atol=0)

    @pytest.mark.parametrize("train", ["all", "blocks"])
    def test_what_trains(self, train):
        net = transformer("BertModel", SIZES)
        before = snapshot(net)
        smaller = uptrain(net, [tokens()] * 2, train=train, **QUICK).model
        moved = {
            name.rpartition(".")[0]
            for name, tensor in smaller.state_dict().items()
            if name in before
            and tensor.shape == before[name].shape
            and not torch.equal(tensor, before[name])
        }
        assert not any("embeddings" in name and "Norm" not in name for name in moved)
        assert any("attention" in name for name in moved) == (train == "all")
        assert any(name.endswith("output.dense") for name in moved)  # biases keep their shape

    def test_flags_and_modes_are_as_before(self):
        net = two_blocks().train()
        net[0][0].weight.requires_grad_(False)
        smaller = uptrain(net, inputs(64, 5), **QUICK).model
        assert not smaller[0][0].weight.requires_grad and smaller[2][0].weight.requires_grad
        assert smaller.training and smaller[0][0].training and net.training
        assert all(p.grad is None for p in (*net.parameters(), *smaller.parameters()))
        assert not any(m._forward_hooks for m in (*net.modules(), *smaller.modules()))

    def test_the_dense_model_and_the_random_state_are_as_before(self):
        net = two_blocks()
        before, state = snapshot(net), torch.get_rng_state()
        uptrain(net, inputs(64, 5), steps=40)
        assert same(before, snapshot(net))
        assert torch.equal(state, torch.get_rng_state())

    def test_dropout_is_off(self):
        plain = nn.Sequential(chain(5, 24, 6), nn.Identity(), chain(6, 24, 3))
        dropping = nn.Sequential(plain[0], nn.Dropout(0.5), plain[2]).train()
        a, b = (uptrain(net, inputs(64, 5), **QUICK) for net in (plain, dropping))
        assert a.report.losses == b.report.losses

    def test_repeats_and_follows_the_seed(self):
        net, x = two_blocks(), inputs(256, 5)
        one, two, other = (uptrain(net, x, seed=seed, **QUICK) for seed in (0, 0, 1))
        assert same(snapshot(one.model), snapshot(two.model))
        assert one.report.losses != other.report.losses

    def test_without_memory_the_teacher_runs_again_with_the_same_result(self, monkeypatch):
        net, x = two_blocks(), inputs(256, 5)
        calls = []
        hook = net.register_forward_hook(lambda *args: calls.append(1))
        kept = uptrain(net, x, steps=30, learning_rate=1e-3)
        few, calls[:] = len(calls), []
        monkeypatch.setattr(distil, "resident_memory", lambda: mercer.config.memory_budget)
        again = uptrain(net, x, steps=30, learning_rate=1e-3)
        hook.remove()
        assert len(calls) > few + 20
        assert kept.report.losses == again.report.losses
        assert same(snapshot(kept.model), snapshot(again.model))

    def test_the_closed_form_takes_no_more_rows_than_it_needs(self):
        net = chain(5, 24, 4)
        report = uptrain(net, inputs(2048, 5), **QUICK).report
        rows = report.bundle.blocks[0].rows
        assert 16 * 24 <= rows < 16 * 24 + 32
        assert (report.batches, report.held_out) == (56, 8)


class TestRates:
    def test_one_that_is_given_is_not_tried(self):
        report = uptrain(two_blocks(), inputs(64, 5), **QUICK).report
        assert report.trials == () and report.learning_rate == 1e-3

    def test_the_best_of_those_given(self):
        rates = [1e-6, 3e-3, 3.0]
        net, x = two_blocks(), inputs(512, 5)
        report = uptrain(net, x, keep=0.25, steps=400, learning_rate=rates).report
        assert [trial.learning_rate for trial in report.trials] == rates
        losses = [trial.loss for trial in report.trials]
        assert report.learning_rate == rates[losses.index(min(losses))] == 3e-3
        # A trial is an uptraining of a twentieth of the steps.
        for trial in report.trials:
            alone = uptrain(net, x, keep=0.25, steps=20, learning_rate=trial.learning_rate)
            assert alone.report.after.loss == trial.loss

    def test_one_that_diverges_is_not_taken(self, tmp_path):
        net, x = two_blocks(), inputs(64, 5)
        found = uptrain(net, x, steps=40, learning_rate=[1e200, 1e-3], checkpoint=tmp_path / "run")
        assert found.report.learning_rate == 1e-3
        assert found.report.trials[0].loss == float("inf")
        found.save_pretrained(tmp_path / "saved")
        config, _ = load_state(tmp_path / "saved")
        assert uptrain_report_from_dict(config["report"]) == found.report
        again = uptrain(net, x, steps=40, learning_rate=[1e200, 1e-3], checkpoint=tmp_path / "run")
        assert again.report.trials == found.report.trials

    def test_trials_leave_no_trace(self):
        net, x = two_blocks(), inputs(512, 5)
        found = uptrain(net, x, keep=0.25, steps=60)
        given = uptrain(net, x, keep=0.25, steps=60, learning_rate=found.report.learning_rate)
        assert same(snapshot(found.model), snapshot(given.model))
        assert found.report.losses == given.report.losses

    def test_climbing_ends_at_a_top(self):
        report = uptrain(two_blocks(), inputs(512, 5), keep=0.25, steps=200).report
        losses = {trial.learning_rate: trial.loss for trial in report.trials}
        rates = sorted(losses)
        place = rates.index(report.learning_rate)
        grid = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
        assert 1e-3 in rates and set(rates) <= set(grid)
        for neighbour in (place - 1, place + 1):
            if 0 <= neighbour < len(rates):
                assert losses[rates[neighbour]] >= losses[report.learning_rate]
        ends = {grid[0], grid[-1], rates[0], rates[-1]}
        assert report.learning_rate not in ends - {grid[0], grid[-1]}


class TestFolder:
    def test_reloads_with_the_same_bits(self, tmp_path):
        x = inputs(256, 5)
        uptrained = uptrain(two_blocks(), x, **QUICK)
        uptrained.save_pretrained(tmp_path / "saved")
        net = two_blocks().float()  # LayerNorm's dtype is not in its description
        again = load(tmp_path / "saved", net)
        with torch.no_grad():
            assert torch.equal(again(x), uptrained.model(x))
        config, _ = load_state(tmp_path / "saved")
        assert config["class"] == "convert.Uptrained"
        assert uptrain_report_from_dict(config["report"]) == uptrained.report

    def test_goes_on_from_its_checkpoint(self, tmp_path):
        net, x = two_blocks(), inputs(512, 5)
        options = {"keep": 0.25, "steps": 40, "every": 7}
        whole = uptrain(net, x, **options)
        calls = []

        def fails(module, args, output):
            calls.append(1)
            if len(calls) == 150:
                raise KeyboardInterrupt

        hook = net.register_forward_hook(fails)  # copied with the model: the student counts too
        for _ in range(3):
            calls.clear()
            try:
                again = uptrain(net, x, checkpoint=tmp_path / "run", **options)
            except KeyboardInterrupt:
                continue
        hook.remove()
        again = uptrain(net, x, checkpoint=tmp_path / "run", **options)
        assert same(snapshot(whole.model), snapshot(again.model))
        assert whole.report.losses == again.report.losses
        assert whole.report.trials == again.report.trials
        assert again.report.resumed > 0

    def test_a_checkpoint_of_another_is_refused(self, tmp_path):
        net, x = two_blocks(), inputs(64, 5)
        uptrain(net, x, checkpoint=tmp_path, **QUICK)
        for other in ({"keep": 0.4}, {"seed": 1}):
            with pytest.raises(ValueError, match=r"checkpoint: .* holds the uptraining of another"):
                uptrain(net, x, checkpoint=tmp_path, **QUICK, **other)
        with pytest.raises(ValueError, match=r"checkpoint: .* holds the uptraining of another"):
            uptrain(net, x + 1, checkpoint=tmp_path, **QUICK)
        with pytest.raises(ValueError, match=r"checkpoint: .* holds another training"):
            uptrain(net, x, checkpoint=tmp_path, steps=7, learning_rate=1e-3)

    @pytest.mark.paper(
        PAPER,
        kind="exact",
        claim="An uptraining killed by SIGKILL and resumed ends with the same bits",
    )
    def test_killed_by_the_system(self, tmp_path, evidence):
        def start() -> subprocess.Popen:
            command = [sys.executable, "-W", "error", "-c", _RUN, tmp_path / "killed"]
            return subprocess.Popen([*map(str, command), str(torch.get_num_threads())])

        with start() as process:  # killed once it trains
            end = time.monotonic() + 60
            while not (tmp_path / "killed" / "run" / "training").exists():
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
        assert not (tmp_path / "killed" / "result").exists()
        with start() as process:
            assert process.wait(60) == 0
        _long_run(tmp_path / "whole")
        a, b = (
            load_file(tmp_path / name / "result" / "model.safetensors")
            for name in ("whole", "killed")
        )
        gap = max(float((a[name] - b[name]).abs().max()) for name in a)
        evidence(required=0.0, measured=gap, what="largest gap between the weights")
        assert gap == 0.0 and a.keys() == b.keys()


def _long_run(folder):
    """Uptrain for a second or so; the test runs it here, and the text of it elsewhere."""
    from mercer.convert import uptrain

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    x = torch.randn(1024, 8)
    found = uptrain(net, x, keep=0.25, steps=600, every=10, checkpoint=folder / "run")
    found.save_pretrained(folder / "result")


_RUN = f"""
import sys
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(int(sys.argv[2]))
{inspect.getsource(_long_run)}
_long_run(Path(sys.argv[1]))
"""


# Kind of model, how it is made, one of its batches.
SUPPORTED = {
    "Sequential": (two_blocks, lambda: inputs(64, 5)),
    "nn.TransformerEncoder": (encoder, lambda: [inputs(4, 5, 8)] * 9),
    "BERT-like, hidden states": (lambda: transformer("BertModel", SIZES), lambda: [tokens()] * 2),
    "BERT-like, classes": (
        lambda: transformer("BertForSequenceClassification", SIZES, num_labels=5),
        lambda: [tokens()] * 2,
    ),
    "GPT-2-like": (lambda: transformer("GPT2LMHeadModel", GPT2), lambda: [tokens()] * 2),
    "T5-like": (
        lambda: transformer(
            "T5ForConditionalGeneration",
            {
                "d_model": 16, "d_ff": 48, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1,
                "num_heads": 2, "vocab_size": 40, "decoder_start_token_id": 0,
            },
        ),
        lambda: [{**tokens(), "decoder_input_ids": tokens(length=4, padding=False)["input_ids"]}]
        * 2,
    ),
}  # fmt: skip


@pytest.mark.paper(PAPER, kind="behaviour", claim="Uptraining works on models of many kinds")
@pytest.mark.parametrize("kind", SUPPORTED)
def test_supported(kind, evidence):
    make, batches = SUPPORTED[kind]
    report = uptrain(make(), batches(), keep=0.3, steps=60, learning_rate=3e-3).report
    ratio = report.after.loss / report.before.loss
    evidence(required="< 1", measured=ratio, what=f"{kind}, held-out loss after over before")
    assert ratio < 1


def test_as_text_and_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    report = uptrain(two_blocks(), inputs(64, 5), **QUICK).report
    text = str(report)
    assert text.startswith("6 steps at a learning rate of up to 0.001: output off by ")
    assert str(report.bundle) in text
    ax = report.plot()
    line, ends = ax.get_lines()
    assert list(line.get_ydata()) == list(report.losses)
    assert list(ends.get_ydata()) == [report.before.loss, report.after.loss]
    other = plt.figure().add_subplot()
    assert report.plot(other) is other
    plt.close("all")


def test_report_survives_json():
    report = uptrain(two_blocks(), inputs(64, 5), keep=0.3, steps=20).report
    from dataclasses import asdict

    assert uptrain_report_from_dict(json.loads(json.dumps(asdict(report)))) == report
    assert isinstance(report.before, Distance)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"steps": -1}, ValueError, "steps: expected an integer >= 0"),
        ({"train": "heads"}, ValueError, "train: expected one of"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate: expected a number"),
        ({"learning_rate": []}, ValueError, "learning_rate: expected at least one"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate: expected a number"),
        ({"keep": {"9": 0.5}}, ValueError, "keep: the model has no block '9'"),
        ({"keep": 1.5}, ValueError, "keep: expected a number"),
        ({"where": "nowhere"}, ValueError, "where: no block of the model matches"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0"),
    ],
)
def test_what_is_refused(options, error, text):
    with pytest.raises(error, match=text):
        uptrain(two_blocks(), inputs(64, 5), **{"steps": 2, **options})


def test_a_checkpoint_is_of_one_choice_of_blocks_and_one_output(tmp_path):
    options = {"keep": 0.5, "steps": 1, "learning_rate": 1e-3, "checkpoint": tmp_path / "run"}
    model, data = two_blocks(), inputs(64, 5)
    first = uptrain(model, data, where=lambda name: name.startswith("0"), **options)
    assert len(first.report.bundle.blocks) == 1
    again = uptrain(model, data, where=lambda name: name.startswith("0"), **options)
    assert again.report.losses == first.report.losses
    with pytest.raises(ValueError, match="checkpoint: "):
        uptrain(model, data, where=lambda name: True, **options)
    with pytest.raises(ValueError, match="checkpoint: "):
        uptrain(model, data, where=lambda n: n.startswith("0"), output=lambda y, b: y, **options)


def test_a_trial_that_diverged_is_kept_as_json(tmp_path):
    options = {"keep": 0.5, "steps": 2, "learning_rate": [1e300, 1e-3]}
    model, data = two_blocks(), inputs(64, 5)
    found = uptrain(model, data, checkpoint=tmp_path / "run", **options).report
    assert found.learning_rate == 1e-3
    text = (tmp_path / "run" / "trials.json").read_text(encoding="utf-8")
    assert "Infinity" not in text and "NaN" not in text
    again = uptrain(model, data, checkpoint=tmp_path / "run", **options).report
    assert again.trials == found.trials
