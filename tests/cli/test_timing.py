"""Times taken turn by turn, against functions of known length."""

import time

import pytest

from mercer.cli.timing import interleaved


def test_medians_turns_and_quartiles():
    calls = []

    def pause(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    result = interleaved(
        {"a": lambda: pause("a", 0.004), "b": lambda: pause("b", 0.012)},
        seconds=0.0,
        least=6,
        most=9,
    )
    assert calls == [*"abab", *"abbaabbaabba"]  # two warm-up rounds, then turning order
    for name, least in (("a", 0.004), ("b", 0.012)):
        taken = result[name]
        assert taken["rounds"] == 6
        assert least <= taken["lower"] <= taken["median"] <= taken["upper"]
    assert result["a"]["median"] < result["b"]["median"]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 2), (60.0, 7)])
def test_rounds_are_bounded(seconds, rounds):
    assert interleaved({"a": int}, seconds, least=2, most=7)["a"]["rounds"] == rounds
