"""Progress bars."""

import pytest

from mercer._core.progress import progress


@pytest.mark.parametrize("show", [True, False])
def test_items_pass_unchanged(show, capfd):
    assert list(progress(range(5), "counting", show=show)) == [0, 1, 2, 3, 4]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert ("counting" in captured.err) == show


def test_total_of_a_stream_is_shown(capfd):
    assert list(progress(iter("abc"), "reading", show=True, total=3)) == ["a", "b", "c"]
    assert "/3" in capfd.readouterr().err


def test_items_are_taken_one_by_one():
    taken = []

    def source():
        for i in range(3):
            taken.append(i)
            yield i

    bar = progress(source(), "lazily", show=False)
    assert taken == [] and next(bar) == 0 and taken == [0]
