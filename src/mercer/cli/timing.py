"""Times of functions measured turn by turn, so that a change of the machine's pace hits all."""

import time
from collections.abc import Callable, Mapping
from statistics import quantiles
from typing import Any


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    seconds: float = 2.0,
    least: int = 5,
    most: int = 100,
) -> dict[str, dict[str, Any]]:
    """Measure the wall time of several functions, each once a round, in turning order.

    Two rounds warm up and are not counted; rounds go on until the time is spent.

    Parameters
    ----------
    functions : mapping of str to callable
        What to measure.
    seconds : float
        Time to spend after warming up.
    least, most : int
        Bounds on the number of rounds.

    Returns
    -------
    dict
        For each name ``{"median", "lower", "upper", "rounds"}``: the quartiles in seconds.
    """
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(2):
        for name in names:
            functions[name]()
    end = time.perf_counter() + seconds
    for turn in range(most):
        if turn >= least and time.perf_counter() > end:
            break
        for name in names if turn % 2 == 0 else reversed(names):
            start = time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - start)
    result = {}
    for name, taken in times.items():
        lower, median, upper = quantiles(taken, n=4, method="inclusive")
        result[name] = {"median": median, "lower": lower, "upper": upper, "rounds": len(taken)}
    return result
