"""``mercer bundle`` from the command line to the files it leaves."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
import torch

import mercer
from mercer import convert
from mercer.cli import main
from mercer.cli.bundle_text import plan_texts
from mercer.datasets import digits, read_texts

THREADS = ["--threads", "1"]  # tests run side by side; threads would wait for each other
FILES = {".mercer.json", ".steps", "model", "report.html", "report.json"}


def run(*args):
    """Run the command here; return its exit code and what it wrote to both streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return code, out.getvalue(), err.getvalue()


def report_of(out):
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def without_times(value):
    """Leave out whatever was measured by a clock."""
    if isinstance(value, dict):
        clocks = {"seconds", "timing", "out"}
        return {k: without_times(v) for k, v in value.items() if k not in clocks}
    return [without_times(v) for v in value] if isinstance(value, list) else value


class References(HTMLParser):
    """Tags of a page, and where they point."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.targets += [v for k, v in attrs if k in {"src", "srcset", "href", "action"}]


def assert_stands_alone(page, figures=3):
    text = page.read_text(encoding="utf-8")
    found = References(text)
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert len(found.targets) == 2 * figures  # each light and dark
    assert all(target.startswith("data:image/svg+xml;base64,") for target in found.targets)
    assert "url(" not in re.sub(r"data:image[^\"]+", "", text)


@pytest.fixture(scope="module")
def digits_out(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "out"
    code, printed, errors = run("bundle", "digits", "--out", out, *THREADS)
    assert (code, errors) == (0, "")
    return out, printed


def test_digits_leave_a_model_a_page_and_the_numbers(digits_out):
    out, printed = digits_out
    assert {path.name for path in out.iterdir()} == FILES
    assert_stands_alone(out / "report.html")
    report = report_of(out)
    assert [entry["keep"] for entry in report["curve"]] == [0.125, 0.25, 0.5, 0.75]
    for entry in report["curve"]:
        assert 0.9 * entry["keep"] < entry["stored_after"] / entry["stored_before"] <= entry["keep"]
        assert entry["blocks"][0]["r2"] > 0.9
        assert f"{entry['stored_after']:,}" in printed
        assert f"{100 * entry['score']:.1f}" in printed
        low, high = entry["interval"]
        assert low <= entry["score"] <= high
    assert report["environment"]["threads"] == 1
    assert report["dense"]["score"] > 0.95
    assert report["curve"][2]["score"] > report["dense"]["score"] - 0.015


def test_the_saved_model_has_the_reported_score_and_size(digits_out):
    out, _ = digits_out
    entry = next(e for e in report_of(out)["curve"] if e["keep"] == 0.5)
    model, test = convert.load(out / "model"), digits().test
    with torch.no_grad():
        assert float((model(test.x).argmax(1) == test.y).double().mean()) == entry["score"]
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == entry["model_after"]
    assert entry["model_before"] == 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert entry["reload"] == {"identical": True, "largest_difference": 0.0}


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="behaviour",
    claim="mercer bundle digits: the fully bundled network, of the size of the MLP and solved "
    "without a gradient step, is within 1.5 points of its test accuracy",
)
def test_the_closed_form_keeps_up_with_the_trained_network(digits_out, evidence):
    report = report_of(digits_out[0])
    gap = 100 * (report["dense"]["score"] - report["closed_form"]["score"])
    evidence(required="<= 1.5 points below", measured=f"{gap:.2f} points below")
    assert gap <= 1.5
    assert report["closed_form"]["stored"] == report["curve"][0]["model_before"]


def test_a_complete_run_resumes_at_once(digits_out):
    out, printed = digits_out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run("bundle", "digits", "--out", out, "--resume", *THREADS) == (0, printed, "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_kill_9_then_resume_gives_the_same_numbers(digits_out, tmp_path):
    out = tmp_path / "out"
    args = ["bundle", "digits", "--out", str(out), *THREADS]
    code = "import sys; from mercer.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list((out / ".steps").glob("bundle-*")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "report.json").exists()
    assert not (out / "model").exists()
    done = {path: path.stat().st_mtime_ns for path in (out / ".steps").glob("[a-z]*")}
    assert 2 <= len(done) < 6  # training and a bundle at least, not all
    assert run(*args, "--resume")[0] == 0
    assert {path.name for path in out.iterdir()} == FILES
    for path, written in done.items():
        assert path.stat().st_mtime_ns == written or path.name.startswith("bundle-"), path
    assert without_times(report_of(out)) == without_times(report_of(digits_out[0]))
    ours, theirs = (convert.load(folder / "model").state_dict() for folder in (out, digits_out[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_ctrl_c_leaves_finished_steps_and_the_old_results(tiny_bert, films, tmp_path, monkeypatch):
    out = tmp_path / "out"
    args = ("bundle", tiny_bert, "--data", films, "--out", out, "--curve", *THREADS)
    bundle = convert.bundle

    def interrupted(*given, **options):
        if options.get("dry_run"):
            return bundle(*given, **options)
        return signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "bundle", interrupted)
        code, printed, errors = run(*args)
    assert (code, printed) == (130, "")
    assert errors.strip() == "mercer: interrupted; the same command with --resume continues"
    assert {path.name for path in out.iterdir()} == {".mercer.json", ".steps"}
    finished = [path for path in (out / ".steps").iterdir() if not path.name.startswith(".")]
    assert [path.name.split("-")[0] for path in finished] == ["dense"]
    json.loads((finished[0] / "result.json").read_text())

    assert run(*args, "--resume")[0] == 0
    first = report_of(out)
    with monkeypatch.context() as patch:
        patch.setattr(convert, "bundle", interrupted)
        assert run(*args, "--seed", 1)[0] == 130
    assert report_of(out) == first  # results of the earlier run stay whole
    convert.load(out / "model")


def test_a_text_model_is_measured_on_texts_it_was_not_calibrated_on(tiny_bert, tmp_path, films):
    transformers = pytest.importorskip("transformers")
    texts = tmp_path / "films.txt"
    texts.write_text("\n".join(read_texts(films).texts), encoding="utf-8")
    out = tmp_path / "out"
    args = ("--curve", "0.25", "--max-calibration", 90, "--out", out, *THREADS)
    code, _, errors = run("bundle", tiny_bert, "--data", texts, *args)
    assert (code, errors) == (0, "")
    assert_stands_alone(out / "report.html")
    report = report_of(out)
    assert report["metric"]["name"] == "cosine to dense"
    quarter, half = report["curve"]
    assert 0.5 < quarter["score"] < half["score"] < 1
    assert {item["name"] for item in half["skipped"]} >= {
        f"encoder.layer.{i}.attention.self.{part}" for i in (0, 1) for part in ("query", "key")
    }
    # The same number from the saved files, one text at a time.
    plan = plan_texts(read_texts(texts), False, 90, 2000, seed=0)
    assert not set(plan.calibration) & set(plan.test)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    dense, small = transformers.AutoModel.from_pretrained(tiny_bert), convert.load(out / "model")
    cosines = []
    with torch.no_grad():
        for text in plan.test:
            tokens = tokenizer(text, return_tensors="pt")
            a, b = (model(**tokens).last_hidden_state.mean(dim=1) for model in (dense, small))
            cosines.append(float(torch.cosine_similarity(a.double(), b.double())))
    assert sum(cosines) / len(cosines) == pytest.approx(half["score"], abs=1e-6)


def test_labels_make_a_probe(tiny_bert, films, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = run("bundle", tiny_bert, "--data", films, "--curve", "--out", out, *THREADS)
    assert code == 0
    report = report_of(out)
    assert report["metric"]["name"] == "probe accuracy"
    assert report["data"]["test"] == 48  # 240 texts: 120 to calibrate, 60 % of the rest to train
    assert [entry["keep"] for entry in report["curve"]] == [0.5]
    assert report["curve"][0]["score"] * 48 == pytest.approx(
        round(report["curve"][0]["score"] * 48)
    )
    assert f"{100 * report['curve'][0]['score']:.1f}" in printed


def test_a_head_is_measured_by_its_own_classes(tiny_classifier, films, tmp_path):
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "out"
    code, _, errors = run(
        "bundle", tiny_classifier, "--data", films, "--curve", "--out", out, *THREADS
    )
    assert (code, errors) == (0, "")
    report = report_of(out)
    assert report["metric"]["name"] == "accuracy"
    data = read_texts(films)
    plan = plan_texts(data, True, 1000, 2000, seed=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    small = convert.load(out / "model")
    with torch.no_grad():
        right = [
            str(int(small(**tokenizer(text, return_tensors="pt")).logits.argmax())) == label
            for text, label in zip(plan.test, plan.test_labels or (), strict=True)
        ]
    assert sum(right) / len(right) == pytest.approx(report["curve"][0]["score"])


def test_names_and_texts_with_markup_are_shown_as_they_are(tiny_bert, films, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "<b>&[red]'ü' model")
    evil = "<script>alert(1)</script>"
    data = tmp_path / f"{evil.replace('/', '')}.tsv"
    column = f"text {evil}"
    rows = [f"{evil} {row}" for row in films.read_text().splitlines()[1:]]
    data.write_text("\n".join([f"{column}\tlabel", *rows]), encoding="utf-8")
    out = tmp_path / "a & b"
    code, printed, errors = run(
        *("bundle", model, "--data", data, "--out", out, "--curve", *THREADS),
        *("--text-column", column, "--label-column", "label"),
    )
    assert (code, errors) == (0, "")
    assert "[red]" in printed.replace("\n", "")  # a long path is wrapped
    assert_stands_alone(out / "report.html")
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;[red]&#x27;ü&#x27; model" in text
    assert "<script" not in text


def test_a_decoder_without_padding_token(tiny_bert, films, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = shutil.copytree(tiny_bert, tmp_path / "gpt")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "[SEP]"}))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    out = tmp_path / "out"
    code, _, errors = run(
        "bundle", folder, "--data", films, "--curve", "--out", out, *THREADS, "--max-length", 16
    )
    assert (code, errors) == (0, "")
    report = report_of(out)
    assert len(report["curve"][0]["blocks"]) == 2
    assert report["curve"][0]["reload"]["identical"]
    assert report["model"]["kind"] == "GPT2LMHeadModel"  # its head is kept
    assert convert.load(out / "model").lm_head.weight.shape == (60, 32)
    assert ["padding token" in note for note in report["model"]["notes"]] == [True]


def test_gated_blocks_are_named(tiny_bert, films, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = shutil.copytree(tiny_bert, tmp_path / "llama")
    transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).save_pretrained(folder)
    out = tmp_path / "out"
    code, printed, errors = run("bundle", folder, "--data", films, "--out", out, *THREADS)
    assert (code, printed) == (2, "")
    assert "gated" in errors
    assert errors.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["digits", "--keep", "0"], "--keep: expected a share above 0 and at most 1, got 0.0"),
        (["digits", "--keep", "nan"], "--keep: expected a share above 0"),
        (["digits", "--keep", "0.0001"], "cannot bundle: keep"),
        (["digits", "--curve", "0.5", "1.5"], "--curve: expected a share above 0"),
        (["digits", "--threads", "0"], "--threads: expected at least 1, got 0"),
        (["digits", "--batch-size", "0"], "--batch-size: expected at least 1"),
        (["digits", "--seed", "-1"], "--seed: expected 0 to 4294967295"),
        (["digits", "--data", "{films}"], "--data: 'digits' brings its own data"),
        (["{bert}"], "needs texts to calibrate on"),
        (["{bert}", "--data", "{tmp}/none.tsv"], "--data: file: no file"),
        (["{bert}", "--data", "{tmp}/latin.txt"], "is not UTF-8: byte 0xe9 at offset 3, line 1"),
        (["{bert}", "--data", "{films}", "--text-column", "x"], "--data: text_column: no column"),
        (["{tmp}/none", "--data", "{films}"], "MODEL: no folder"),
        (["{bert}", "--data", "{films}", "--keep", "0.0001"], "cannot bundle: keep"),
        (["{bert}", "--data", "{tmp}/few.txt"], "--data: 1 different texts; at least 16"),
        (["{classifier}", "--data", "{tmp}/other.tsv"], "the model has no class 'c'"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    args, message, tiny_bert, tiny_classifier, films, tmp_path
):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "few.txt").write_text("one text")
    (tmp_path / "other.tsv").write_text(films.read_text().replace("\t1", "\tc"))
    places = {"bert": tiny_bert, "classifier": tiny_classifier, "films": films, "tmp": tmp_path}
    out = tmp_path / "out"
    code, printed, errors = run("bundle", *(a.format(**places) for a in args), "--out", out)
    assert (code, printed) == (2, "")
    assert errors.startswith("mercer: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not out.exists()


def test_foreign_results_folder_is_refused_before_any_work(films, tmp_path):
    code, _, errors = run("bundle", "digits", "--out", films.parent)
    assert code == 2
    assert "holds films.tsv, which Mercer did not write there" in errors


def test_version_help_and_mistyped_commands(capfd):
    assert run("--version") == (0, f"mercer {mercer.__version__}\n", "")
    assert main(["bundle", "--help"]) == 0
    shown = capfd.readouterr().out
    for option in ("--data", "--keep", "--out", "--resume", "--seed", "--threads"):
        assert option in shown
    assert main(["bundel"]) == 2
    assert main(["bundle", "--keep", "half"]) == 2
    assert main([]) == 2
    assert "Traceback" not in capfd.readouterr().err
