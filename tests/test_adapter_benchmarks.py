"""The rules by which the benchmarks of fine-tuning compare methods, on a toy task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mercer.cli.adapt_methods import METHODS

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZES = {"train": 24, "dev": 16, "test": 20}


@pytest.fixture
def adapters(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _adapters

    return _adapters


class Classifier(nn.Module):
    def __init__(self, seed):
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=12,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = transformers.BertModel(config, add_pooling_layer=False)
            torch.manual_seed(seed)
            self.classifier = nn.Linear(16, 2)

    def embed(self, input_ids):
        return self.body(input_ids=input_ids).last_hidden_state.mean(1)

    def forward(self, input_ids):
        return self.classifier(self.embed(input_ids))


@pytest.fixture
def make(adapters, tmp_path):
    """Make a comparison of a task whose label is whether a sentence begins with a small word."""

    class Toy(adapters.Task):
        name, epochs, batch_size = "toy", 2, 8

        def __init__(self):
            source = torch.Generator().manual_seed(0)
            self.ids = {s: torch.randint(20, (n, 6), generator=source) for s, n in SIZES.items()}
            self.reads = []  # the split of each batch

        def spec(self):
            return {"data": "toy"}

        def model(self, seed):
            return Classifier(seed)

        def labels(self, split):
            return (self.ids[split][:, 0] < 10).long()

        def lengths(self, split):
            return [6] * SIZES[split]

        def inputs(self, split, index):
            self.reads.append(split)
            return {"input_ids": self.ids[split][index]}

    def build(methods=("lora", "probe"), seeds=(0, 1)):
        return adapters.Comparison(Toy(), methods, seeds, tmp_path)

    return build


def test_the_test_set_is_read_once_a_method_and_seed(make):
    comparison = make()
    comparison.work()
    assert comparison.task.reads.count("test") == 2 * 2  # one batch a read
    assert comparison.task.reads.count("dev") == 2 * (4 + 1)
    files = [json.loads(path.read_text()) for path in comparison.folder.glob("*.json")]
    assert len(files) == 2 * (4 + 1)
    assert sum("test" in result for result in files) == 2 * 2
    assert not list(comparison.folder.glob("*.safetensors"))  # only kept until the choice


def test_the_rate_is_the_best_on_the_development_set(make):
    comparison = make(["bitfit"])
    comparison.work()
    files = [json.loads(path.read_text()) for path in comparison.folder.glob("*-0-*.json")]
    best = max(files, key=lambda r: (r["dev"]["accuracy"], -r["dev"]["loss"]))
    (row,) = comparison.table(reference="bitfit")
    assert row["learning_rate"] == best["learning_rate"] == comparison.chosen("bitfit")
    assert row["dev"] == {f"{r['learning_rate']:g}": r["dev"]["accuracy"] for r in files}


def test_finished_runs_are_not_run_again(make):
    first = make()
    first.work()
    again = make()
    again.work()
    assert not again.task.reads
    assert again.table() == first.table()
    wider = make(seeds=(0, 1, 2))  # what is new is run, and only that
    wider.work()
    assert wider.task.reads.count("test") == 2


def test_what_was_killed_between_training_and_test_goes_on(make):
    whole = make(["lora"], [0])
    whole.work()
    for path in whole.folder.iterdir():
        path.unlink()
    begun = make(["lora"], [0])
    for run in begun.to_do():  # the four trainings, and then nothing more
        begun._do(run, tested=False)
    (left,) = begun.to_do()
    assert begun.result(left) is not None and "test" not in begun.result(left)
    resumed = make(["lora"], [0])
    resumed.work()
    assert resumed.task.reads == ["test"]
    assert [r["test"] for r in resumed.table()] == [r["test"] for r in whole.table()]


def test_two_at_once_share_the_work(adapters, make):
    comparison = make(["probe"], [0])
    first = comparison.path(comparison.to_do()[0])
    with adapters.claim(first.with_suffix(".lock")) as mine:
        assert mine
        with adapters.claim(first.with_suffix(".lock")) as other:
            assert not other


def test_a_table_by_hand(make):
    comparison = make(["lora", "probe"], [0, 1])
    comparison.work()
    lora, probe = comparison.table()
    assert "difference" not in lora
    tests = torch.tensor(probe["test"], dtype=torch.float64)
    assert probe["accuracy"] == pytest.approx(tests.mean().item())
    assert probe["sd"] == pytest.approx(abs(tests[0] - tests[1]).item() / 2**0.5)
    assert probe["difference"] == pytest.approx(probe["accuracy"] - lora["accuracy"])
    low, high = probe["interval"]
    assert low <= probe["difference"] <= high
    assert (probe["trainable"], probe["bytes"]) == (0, 0)
    assert 4 * (2 * 16 + 2) < probe["head_bytes"] < 4 * (2 * 16 + 2) + 200


def test_bootstrap_of_a_known_spread(adapters):
    # Columns of +-1: the mean of n has standard deviation n^-1/2, whatever the seeds do.
    values = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(200).expand(3, 400)
    low, high = adapters.bootstrap(values)
    assert low == pytest.approx(-1.96 / 20, abs=0.01)
    assert high == pytest.approx(1.96 / 20, abs=0.01)
    # And seeds that differ count too.
    values = torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64).expand(3, 400)
    assert adapters.bootstrap(values) == pytest.approx([-1, 1], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst2_adapters", "vit_adapters"])
def test_quick_runs_of_the_scripts(name, tmp_path, shared_data, monkeypatch):
    monkeypatch.setenv("MERCER_DATA", str(shared_data))
    script = [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--out", tmp_path / "runs"]
    methods = ["--methods", "snnk", "lora", "--time", "0.1", "--json", tmp_path / "result.json"]
    done = subprocess.run([*script, *methods], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {row["method"]: row for row in result["rows"]}
    assert set(rows) == {"snnk", "lora"} <= set(METHODS)
    assert 2 * rows["snnk"]["trainable"] <= rows["lora"]["trainable"]
    assert rows["snnk"]["step"]["median"] > 0
