"""Steps that are kept: computed once, and only ever whole."""

import math

import pytest

from mercer.cli.steps import Steps, key_of


def test_a_step_is_computed_once_for_the_same_inputs(tmp_path):
    calls = []

    def compute(folder):
        calls.append(folder.name)
        (folder / "weights").write_text("w")
        return {"third": 1 / 3, "pair": (1, 2)}

    for _ in range(2):
        result, folder = Steps(tmp_path).run("train", {"seed": 0}, compute, files=("weights",))
        assert result == {"third": 1 / 3, "pair": [1, 2]}  # as JSON brings it back, always
        assert (folder / "weights").read_text() == "w"
    assert len(calls) == 1
    Steps(tmp_path).run("train", {"seed": 1}, compute)
    assert len(calls) == 2
    (folder / "weights").unlink()
    Steps(tmp_path).run("train", {"seed": 0}, compute, files=("weights",))
    assert len(calls) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_an_interrupted_step_leaves_no_result(tmp_path, end):
    def compute(folder):
        (folder / "half").write_text("h")
        raise end

    with pytest.raises(end):
        Steps(tmp_path).run("train", {}, compute)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    Steps(tmp_path)  # the next run sweeps
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Steps(tmp_path).run("train", {}, lambda folder: {"r2": math.nan})


def test_keys_follow_the_values_not_their_order():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 1.5})
