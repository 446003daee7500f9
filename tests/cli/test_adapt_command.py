"""``mercer adapt`` from the command line to the files it leaves."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from mercer.cli import adapt_classifier, adapt_text
from mercer.cli.adapt_methods import METHODS, stored_bytes
from mercer.cli.timing import interleaved
from mercer.convert.training import Diverged
from mercer.datasets import read_texts
from mercer.report import Page
from tests.cli.conftest import make_rows
from tests.cli.test_bundle_command import (
    FILES,
    THREADS,
    assert_stands_alone,
    report_of,
    run,
    without_times,
)

pytest.importorskip("transformers")
pytest.importorskip("peft")
load_file = pytest.importorskip("safetensors.torch").load_file


def write_rows(path, rows):
    lines = ["sentence\tlabel", *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Three files: 120 labelled texts to train on, 60 to test on, 40 to choose on."""
    folder = tmp_path_factory.mktemp("texts")
    rows = list(dict.fromkeys(make_rows(260)))[:220]
    for name, part in (("train", rows[:120]), ("test", rows[120:180]), ("dev", rows[180:])):
        write_rows(folder / f"{name}.tsv", part)
    return folder


def options(texts, out, *more):
    files = ("--train", texts / "train.tsv", "--test", texts / "test.tsv")
    return (*files, "--out", out, *THREADS, *more)


def scores_of(load, texts, base):
    """Run the lines of the page; score texts one at a time."""
    names: dict = {}
    exec("\n".join(load), names)
    model, tokenizer = names["model"].eval(), names["tokenizer"]
    with torch.no_grad():
        return torch.cat([model(**tokenizer(t, return_tensors="pt")).logits for t in texts])


@pytest.fixture(scope="module", autouse=True)
def short_timing():
    """Time five rounds, not two seconds of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt_text, "interleaved", partial(interleaved, seconds=0.0))
        yield


@pytest.fixture(scope="module")
def adapted(texts, tiny_bert, tmp_path_factory):
    """Two methods, learning rates chosen on held-out texts, two seeds."""
    out = tmp_path_factory.mktemp("adapted") / "out"
    given = options(texts, out, "--seeds", 2, "--epochs", 3, "--method", "snnk", "probe")
    code, printed, errors = run("adapt", tiny_bert, *given)
    assert (code, errors) == (0, "")
    return out, printed, given


def resumed_steps(patch):
    """Collect how many steps each training takes from a checkpoint."""
    train, seen = adapt_classifier.train, []

    def spy(*args, **options):
        done = train(*args, **options)
        seen.append(done.resumed)
        return done

    patch.setattr(adapt_classifier, "train", spy)
    return seen


@pytest.fixture
def without_figures(monkeypatch):
    """Leave the figures out of pages, which take longer than the small trainings here."""
    monkeypatch.setattr(Page, "figure", lambda self, *args, **options: None)


class TestResults:
    def test_leaves_a_model_a_page_and_the_numbers(self, adapted):
        out, printed, _ = adapted
        assert {path.name for path in out.iterdir()} == FILES
        assert_stands_alone(out / "report.html", figures=2)
        report = report_of(out)
        assert [entry["method"] for entry in report["methods"]] == ["snnk", "probe"]
        for entry in report["methods"]:
            assert f"{entry['trainable']:,}" in printed
            assert f"{100 * entry['accuracy']:.1f}" in printed
            low, high = entry["interval"]
            assert low <= entry["accuracy"] <= high
            assert len(entry["accuracies"]) == 2
            assert entry["accuracy"] == pytest.approx(sum(entry["accuracies"]) / 2)
            assert len(entry["losses"]) == 3 * 4  # epochs, batches of 32 among 120
        assert report["data"]["train"] == 120
        assert report["data"]["test"] == 60

    def test_counts_what_trains(self, adapted):
        snnk, probe = report_of(adapted[0])["methods"]
        state = load_file(adapted[0] / "model" / "model.safetensors")
        own = [t for name, t in state.items() if "classifier" not in name]
        frozen = snnk["frozen_bytes"] // 4
        # What is saved is what trains, the frozen features, and nothing else.
        stored = sum(t.numel() for t in own)
        assert snnk["trainable"] < stored <= snnk["trainable"] + frozen
        assert snnk["bytes"] - 4 * snnk["trainable"] < 4096  # names and sizes
        assert snnk["frozen_bytes"] - 4 * (stored - snnk["trainable"]) < 4096
        assert (probe["trainable"], probe["bytes"], probe["frozen_bytes"]) == (0, 0, 0)
        assert snnk["head"] == probe["head"] == 2 * 32 + 2

    def test_chooses_the_best_candidate_and_compares_with_the_first(self, adapted):
        for entry in report_of(adapted[0])["methods"]:
            rates = METHODS[entry["method"]].learning_rates
            assert tuple(each["learning_rate"] for each in entry["tried"]) == rates
            best = max(entry["tried"], key=lambda each: (each["accuracy"], -each["loss"]))
            assert entry["learning_rate"] == best["learning_rate"]
        first, second = report_of(adapted[0])["methods"]
        assert first["difference"] is None
        middle, low, high = second["difference"]
        assert middle == pytest.approx(second["accuracy"] - first["accuracy"])
        assert low <= middle <= high

    def test_the_page_shows_the_numbers(self, adapted):
        text = (adapted[0] / "report.html").read_text(encoding="utf-8")
        for entry in report_of(adapted[0])["methods"]:
            assert entry["title"] in text
            assert f'<td class="number">{entry["trainable"]:,}</td>' in text
            assert f"{100 * entry['accuracy']:.1f}\N{NO-BREAK SPACE}%" in text
            for each in entry["tried"]:
                assert f"{each['learning_rate']:g}: {100 * each['accuracy']:.1f}" in text
            low, high = (100 * bound for bound in entry["interval"])
            assert f"({low:.1f} to {high:.1f})" in text
        assert "load_adapters(" in text
        assert "identical, bit by bit" in text

    def test_a_complete_run_resumes_at_once(self, adapted, tiny_bert):
        out, printed, given = adapted
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert run("adapt", tiny_bert, *given, "--resume") == (0, printed, "")
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    @pytest.mark.slow
    def test_learns(self, tiny_bert, tmp_path):
        """One word tells the label; all of a small network can learn to find it."""
        import transformers

        rows = list(dict.fromkeys(make_rows(700, seed=5)))
        write_rows(tmp_path / "train.tsv", rows[:500])
        write_rows(tmp_path / "test.tsv", rows[500:])
        folder = shutil.copytree(tiny_bert, tmp_path / "bert")
        config = transformers.BertConfig.from_pretrained(folder)
        config.initializer_range = 0.05  # at first its attention looks at every word
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
        given = ("--learning-rate", 0.003, "--epochs", 12, "--method", "full")
        assert run("adapt", folder, *options(tmp_path, tmp_path / "out", *given))[0] == 0
        (entry,) = report_of(tmp_path / "out")["methods"]
        assert entry["tried"] == []
        assert entry["accuracy"] > 0.95
        assert sum(entry["losses"][-16:]) / 16 < 0.1 < 0.6 < entry["losses"][0]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "method",
    [name if name == "snnk" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_each_methods_model_loads_by_the_lines_of_the_page(method, texts, tiny_bert, tmp_path):
    out = tmp_path / "out"
    given = options(texts, out, "--learning-rate", 0.002, "--epochs", 1, "--method", method)
    code, _, _ = run("adapt", tiny_bert, *given)
    assert code == 0
    report = report_of(out)
    (entry,) = report["methods"]
    assert entry["reload"] == {"identical": True, "largest_difference": 0.0}
    data = read_texts(texts / "test.tsv")
    with torch.random.fork_rng():
        torch.manual_seed(99)  # of the new head, which loading replaces
        scores = scores_of(report["load"], data.texts, tiny_bert)
    right = [str(int(row.argmax())) == y for row, y in zip(scores, data.labels or (), strict=True)]
    assert sum(right) / len(right) == pytest.approx(entry["accuracy"])
    kept = {path.name for path in (out / "model").iterdir()}
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in kept)


class TestResuming:
    @pytest.mark.slow
    @pytest.mark.paper(
        "core-scalable-neural-network-kernels",
        kind="exact",
        claim="mercer adapt, killed with SIGKILL within a training and resumed, ends with bitwise "
        "the same weights as one that was not.",
    )
    def test_kill_9_then_resume_gives_the_same_bits(self, texts, tiny_bert, tmp_path, evidence):
        given = ("--method", "snnk", "--learning-rate", 0.002, "--epochs", 80)  # 320 steps
        out, whole = tmp_path / "out", tmp_path / "whole"
        code = "import sys; from mercer.cli import main; sys.exit(main(sys.argv[1:]))"
        args = [str(arg) for arg in ("adapt", tiny_bert, *options(texts, out, *given))]
        process = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not list((out / ".steps").glob("*.unfinished/config.json")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (out / "report.json").exists()
        (checkpoint,) = (out / ".steps").glob("*.unfinished")
        reached = len(load_file(checkpoint / "model.safetensors")["losses"])
        assert 0 < reached < 320
        with pytest.MonkeyPatch.context() as patch:
            seen = resumed_steps(patch)
            assert run(*args, "--resume")[0] == 0
        assert seen == [reached]  # from where it was, not from the start
        assert run("adapt", tiny_bert, *options(texts, whole, *given))[0] == 0
        ours, theirs = (load_file(o / "model" / "model.safetensors") for o in (out, whole))
        assert ours.keys() == theirs.keys()
        different = sum(int((ours[name] != theirs[name]).sum()) for name in theirs)
        evidence(required=0, measured=different, what="numbers that differ after kill and resume")
        assert different == 0
        changed = without_times(report_of(out)), without_times(report_of(whole))
        for each in changed:
            del each["load"]  # names the folder
        assert changed[0] == changed[1]
        assert {path.name for path in out.iterdir()} == FILES
        assert not list((out / ".steps").glob("*.unfinished"))

    @pytest.mark.usefixtures("without_figures")
    def test_ctrl_c_says_how_to_go_on(self, texts, tiny_bert, tmp_path, monkeypatch):
        given = ("--learning-rate", 0.002, "--method", "snnk", "--epochs", 16)  # 64 steps
        out = tmp_path / "out"
        loss, steps = adapt_classifier.Encoded.loss, []

        def interrupted(*args):
            steps.append(None)
            if len(steps) == 57:  # after the checkpoint of step 50
                signal.raise_signal(signal.SIGINT)
            return loss(*args)

        with monkeypatch.context() as patch:
            patch.setattr(adapt_classifier.Encoded, "loss", interrupted)
            code, printed, errors = run("adapt", tiny_bert, *options(texts, out, *given))
        assert (code, printed) == (130, "")
        assert errors.strip() == "mercer: interrupted; the same command with --resume continues"
        seen = resumed_steps(monkeypatch)
        assert run("adapt", tiny_bert, *options(texts, out, *given), "--resume")[0] == 0
        whole = tmp_path / "whole"
        assert run("adapt", tiny_bert, *options(texts, whole, *given))[0] == 0
        assert seen == [50, 0]
        ours, theirs = (load_file(o / "model" / "model.safetensors") for o in (out, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
class TestModels:
    def test_a_head_of_its_own_is_kept(self, tiny_classifier, texts, tmp_path):
        out = tmp_path / "out"
        given = options(texts, out, "--method", "bitfit", "--learning-rate", 1e-6, "--epochs", 1)
        assert run("adapt", tiny_classifier, *given)[0] == 0
        report = report_of(out)
        assert report["model"]["new_head"] is False
        assert report["data"]["classes"] == ["no", "yes"]
        data = read_texts(texts / "test.tsv")
        # At this learning rate next to nothing moves: the head's own answers come back.
        own = [
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            f"model = AutoModelForSequenceClassification.from_pretrained({str(tiny_classifier)!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({str(tiny_classifier)!r})",
        ]
        expected, got = (scores_of(lines, data.texts, None) for lines in (own, report["load"]))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)

    def test_a_decoder_without_padding_token(self, tiny_bert, texts, tmp_path):
        import transformers

        folder = shutil.copytree(tiny_bert, tmp_path / "gpt")
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["pad_token"]
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**settings, "eos_token": "[SEP]"})
        )
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5
        )
        transformers.GPT2Model(config).save_pretrained(folder)
        out = tmp_path / "out"
        given = options(texts, out, "--method", "snnk", "--learning-rate", 0.002, "--epochs", 1)
        assert run("adapt", folder, *given)[0] == 0
        report = report_of(out)
        assert report["model"]["kind"] == "GPT2ForSequenceClassification"
        assert report["methods"][0]["reload"]["identical"]

    def test_what_the_folder_lacks_trains_with_the_head(self, texts, tmp_path):
        """A pooler that was never trained is as new as the classifier behind it."""
        import transformers

        from tests.cli.conftest import save_bert

        folder = save_bert(tmp_path / "bert")
        model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
        model.save_pretrained(folder)
        out = tmp_path / "out"
        given = options(texts, out, "--method", "snnk", "--learning-rate", 0.002, "--epochs", 1)
        assert run("adapt", folder, *given)[0] == 0
        (entry,) = report_of(out)["methods"]
        assert entry["head"] == 32 * 32 + 32 + 2 * 32 + 2
        assert entry["reload"]["identical"]


@pytest.mark.usefixtures("without_figures")
def test_own_texts_to_choose_on(texts, tiny_bert, tmp_path):
    out = tmp_path / "out"
    given = options(texts, out, "--dev", texts / "dev.tsv", "--method", "probe", "--epochs", 1)
    assert run("adapt", tiny_bert, *given)[0] == 0
    report = report_of(out)
    assert report["data"]["description"] == (
        "120 to train on, 40 to choose learning rates on, 60 to test on"
    )
    for each in report["methods"][0]["tried"]:
        assert 40 * each["accuracy"] == pytest.approx(round(40 * each["accuracy"]))


@pytest.mark.usefixtures("without_figures")
class TestDivergence:
    def test_a_candidate_that_diverges_is_passed_over(
        self, texts, tiny_bert, tmp_path, monkeypatch
    ):
        train = adapt_classifier.train

        def sometimes(*args, **options):
            if options["learning_rate"] > 0.005:
                raise Diverged("learning_rate: the loss of step 3 is nan")
            return train(*args, **options)

        monkeypatch.setattr(adapt_classifier, "train", sometimes)
        out = tmp_path / "out"
        given = options(texts, out, "--method", "probe", "--epochs", 1)
        assert run("adapt", tiny_bert, *given)[0] == 0
        (entry,) = report_of(out)["methods"]
        assert entry["learning_rate"] == 0.003
        assert [each["accuracy"] is None for each in entry["tried"]] == [False, True, True, True]
        assert "0.01: diverged" in (out / "report.html").read_text(encoding="utf-8")

    def test_all_of_them_is_an_error(self, texts, tiny_bert, tmp_path, monkeypatch):
        def never(*args, **options):
            raise Diverged("learning_rate: the loss of step 3 is nan")

        monkeypatch.setattr(adapt_classifier, "train", never)
        given = options(texts, tmp_path / "out", "--method", "probe")
        code, _, errors = run("adapt", tiny_bert, *given)
        assert (code, errors.count("\n")) == (2, 1)
        assert "--method probe: training diverged at every learning rate" in errors
        code, _, errors = run("adapt", tiny_bert, *given, "--learning-rate", 0.5)
        assert (code, errors) == (
            2,
            "mercer: --learning-rate: probe: the loss of step 3 is nan\n",
        )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "magic"], "--method: expected some of snnk, lora"),
        (["--method", "snnk", "snnk"], "--method: expected each name once"),
        (["--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["--seeds", "0"], "--seeds: expected at least 1, got 0"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--seed", "-1"], "--seed: expected 0 to 4294967295"),
        (["--learning-rate", "0"], "--learning-rate: expected a number between 0 and 1, got 0.0"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number between 0 and 1"),
        (["--dev", "{tmp}/none.tsv"], "--dev: file: no file"),
        (["--test", "{tmp}/plain.txt"], "--test: no labels found"),
        (["--test", "{tmp}/other.tsv"], "--test: no text of --train has its label 'c'"),
        (["--train", "{tmp}/one.tsv"], "--train: 1 different labels; expected 2 to 200"),
        (["--test", "{texts}/train.tsv"], "--train: 0 texts that are not among those of --test"),
        (["--out", "{tmp}/foreign"], "--out: {tmp}/foreign holds mine.txt"),
    ],
)
def test_bad_input_is_one_line_and_code_2(args, message, texts, tiny_bert, tmp_path):
    (tmp_path / "plain.txt").write_text("\n".join(f"text {i}" for i in range(30)), "utf-8")
    write_rows(tmp_path / "other.tsv", [(f"text number {i}", "01c"[i % 3]) for i in range(30)])
    write_rows(tmp_path / "one.tsv", [(f"text number {i}", "a") for i in range(30)])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    places = {"tmp": tmp_path, "texts": texts}
    out = tmp_path / "out"
    given = [str(arg).format(**places) for arg in args]
    code, printed, errors = run("adapt", tiny_bert, *options(texts, out), *given)
    assert (code, printed) == (2, "")
    assert message.format(**places) in errors
    assert errors.count("\n") == 1
    assert not out.exists()


def test_a_model_that_a_method_does_not_fit(texts, tiny_bert, tmp_path):
    import transformers

    folder = shutil.copytree(tiny_bert, tmp_path / "fnet")  # mixes tokens without attention
    config = transformers.FNetConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.FNetModel(config).save_pretrained(folder)
    given = options(texts, tmp_path / "out", "--method", "lora")
    code, printed, errors = run("adapt", folder, *given)
    assert (code, printed) == (2, "")
    assert "--method lora: model: no linear layers of FNetForSequenceClassification" in errors
    assert errors.count("\n") == 1


def test_stored_bytes_are_those_of_a_file(tmp_path):
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(3, 4), "b": torch.ones(5, dtype=torch.float64)}
    save_file(tensors, tmp_path / "file.safetensors")
    assert stored_bytes(tensors) == (tmp_path / "file.safetensors").stat().st_size
