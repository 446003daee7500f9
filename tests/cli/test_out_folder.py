"""The folder of results is as it was, or complete."""

import shutil
from pathlib import Path

import pytest

from mercer.cli.errors import UserError
from mercer.cli.out_folder import OutFolder


def build(text):
    def write(folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "report.html").write_text(text)

    return write


def tree(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


RESULTS = {".mercer.json", "model/weights", "report.html"}


@pytest.mark.parametrize("name", ["out", "a/b", "odd [x]* 'name'"])
def test_results_replace_results(tmp_path, name):
    out = tmp_path / name
    for text in ("old", "new"):
        folder = OutFolder(out, resume=False)
        assert not folder.published("key" + text)
        folder.publish(build(text), "key" + text)
        assert tree(out) == RESULTS
        assert (out / "model" / "weights").read_text() == text
        assert folder.published("key" + text)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    (out / "report.html").unlink()
    assert not OutFolder(out, resume=True).published("keynew")


def test_steps_stay_with_resume_only(tmp_path):
    first = OutFolder(tmp_path / "out", resume=False)
    first.steps.run("a", {}, lambda folder: {"x": 1})
    first.publish(build("x"), "k")
    step = next((tmp_path / "out" / ".steps").glob("a-*"))
    OutFolder(tmp_path / "out", resume=True)
    assert step.is_dir()
    OutFolder(tmp_path / "out", resume=False)
    assert not step.exists()
    assert tree(tmp_path / "out") == RESULTS  # what was published stays meanwhile


@pytest.mark.parametrize("where", ["notes.txt", "model/mine.bin"])
def test_what_mercer_did_not_write_is_never_removed(tmp_path, where):
    out = tmp_path / "out"
    OutFolder(out, resume=False).publish(build("x"), "k")
    (out / where).write_text("mine")
    for resume in (True, False):
        with pytest.raises(UserError, match=f"holds {where}, which Mercer did not write"):
            OutFolder(out, resume=resume)
    assert (out / where).read_text() == "mine"


def test_other_folders_files_and_the_current_folder_are_refused(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        OutFolder(tmp_path / "home", resume=False)
    with pytest.raises(UserError, match="is not a folder"):
        OutFolder(tmp_path / "file", resume=False)
    with pytest.raises(UserError, match="--out: "):
        OutFolder(tmp_path / "file" / "below", resume=False)
    OutFolder(tmp_path / "empty", resume=False).publish(build("x"), "k")
    monkeypatch.chdir(tmp_path / "empty")
    for inside in (".", ".."):
        with pytest.raises(UserError, match="the current folder"):
            OutFolder(tmp_path / "empty" / inside, resume=False)


def test_a_failed_build_changes_nothing(tmp_path):
    folder = OutFolder(tmp_path / "out", resume=False)
    folder.publish(build("old"), "k")

    def broken(new):
        build("new")(new)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OutFolder(tmp_path / "out", resume=False).publish(broken, "k2")
    assert tree(tmp_path / "out") == RESULTS
    assert (tmp_path / "out" / "report.html").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_killed_between_the_renames(tmp_path, monkeypatch, calls):
    """After any of the renames that publish, the next run finds old or new results."""
    out = tmp_path / "out"
    OutFolder(out, resume=False).publish(build("old"), "k")
    folder = OutFolder(out, resume=False)
    left, rename = [calls], Path.rename

    def counted(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "rename", counted)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # the dead tidy nothing
        folder.publish(build("new"), "k2")
    OutFolder(out, resume=True)
    assert tree(out) == RESULTS
    assert (out / "report.html").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    OutFolder(out, resume=True).publish(build("new"), "k2")
    assert (out / "report.html").read_text() == "new"
