"""``mercer bundle --uptrain``: measured, saved, and gone on with after an interruption."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mercer import convert
from mercer.convert import training
from tests.cli.test_bundle_command import FILES, report_of, run, without_times

OPTIONS = ("--curve", "--keep", "0.25", "--uptrain", "240", "--threads", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from tests.cli.conftest import make_rows

    file = tmp_path_factory.mktemp("films") / "films.txt"
    file.write_text("\n".join(text for text, _ in make_rows(240)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def uptrained(tiny_bert, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("uptrained") / "out"
    code, printed, errors = run("bundle", tiny_bert, "--data", data, "--out", out, *OPTIONS)
    assert (code, errors) == (0, "")
    return out, printed


def test_closer_to_the_dense_model_than_before(uptrained):
    out, printed = uptrained
    report = report_of(out)
    found, (before,) = report["uptrained"], report["curve"]
    assert found["score"] > before["score"]  # cosine on texts that took no part
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["stored_after"] == before["stored_after"]
    assert found["steps"] == found["losses"][-1][0] == report["settings"]["uptrain"] == 240
    best = min(found["trials"], key=lambda trial: trial[1])[0]
    assert found["learning_rate"] == best
    assert "keep 0.25, 240 steps (saved)" in printed
    assert f"{found['score']:.3f}" in printed


def test_the_saved_model_is_the_uptrained_one(uptrained):
    out, _ = uptrained
    found = report_of(out)["uptrained"]
    assert {path.name for path in out.iterdir()} == FILES
    assert found["reload"] == {"identical": True, "largest_difference": 0.0}
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["class"] == "convert.Uptrained"
    assert config["report"]["after"]["loss"] == found["after"]["loss"]
    model = convert.load(out / "model")
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == found["model_after"]


def test_the_page_shows_before_and_after(uptrained):
    page = uptrained[0] / "report.html"
    text = page.read_text(encoding="utf-8")
    found = report_of(uptrained[0])["uptrained"]
    assert "<h2" in text and "Uptraining" in text
    for when in ("before", "after"):
        assert f"{found[when]['output']:.4f}" in text
        assert f"{found[when]['cosine']:.4f}" in text
    assert "Then 240 steps of training" in text and "No gradient step" not in text


def test_an_interrupted_one_goes_on_with_the_same_result(
    uptrained, tiny_bert, data, tmp_path, monkeypatch
):
    out, save, saved = tmp_path / "out", training._save, []

    def interrupted(*args, **options):
        save(*args, **options)
        saved.append(1)
        raise KeyboardInterrupt

    args = ("bundle", tiny_bert, "--data", data, "--out", out, *OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", interrupted)
        assert run(*args)[0] == 130
    assert saved == [1]
    unfinished = list((out / ".steps").glob("uptrain-*.unfinished"))
    assert len(unfinished) == 1
    assert run(*args, "--resume")[0] == 0
    assert not list((out / ".steps").glob("*.unfinished"))
    assert without_times(report_of(out)) == without_times(report_of(uptrained[0]))
    a, b = (load_file(path / "model" / "model.safetensors") for path in (out, uptrained[0]))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_digits(tmp_path):
    out = tmp_path / "out"
    args = ("--curve", "--keep", "0.03", "--uptrain", "200", "--threads", "1", "--out", out)
    assert run("bundle", "digits", *args)[0] == 0
    found = report_of(out)["uptrained"]
    assert found["after"]["loss"] < 0.7 * found["before"]["loss"]


@pytest.mark.parametrize("steps", ["-1", "many"])
def test_steps_that_are_none(steps, tmp_path):
    code, _, errors = run("bundle", "digits", "--uptrain", steps, "--out", tmp_path / "out")
    assert code == 2 and "uptrain" in errors.lower()
