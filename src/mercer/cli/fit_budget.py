"""How much of the time that a command was given is spent."""

import time
from typing import Any

# Seconds for the page and what stands between the steps: a share of the time, within bounds.
_RESERVE, _LEAST_RESERVE, _MOST_RESERVE = 0.1, 5.0, 12.0
_CAUTION = 1.4  # times what a fit is expected to take
_OVERHEAD = 0.3  # seconds of any fit
_LEAST_LANDMARKS = 200
_LEAST_GAIN = 1.2  # times the rows of the last fit, for fewer rows than planned
# Rows up to which machines factor the whole matrix: regression, classification.
_MOST_EXACT = {False: 20_000, True: 5_000}
_NEWTON = 10  # factorisations of a logistic regression
_PASSES = 300  # of a logistic regression over its features, on landmarks


class Budget:
    """Seconds that may be spent, and those that finished steps say they took.

    What is decided by time depends on the seconds that the steps report, which a resumed run
    reads where the first one measured them: so it decides alike.

    Parameters
    ----------
    minutes : float
        The time.
    """

    def __init__(self, minutes: float) -> None:
        self.limit = 60.0 * minutes
        self.spent = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left for steps."""
        reserve = min(max(_RESERVE * self.limit, _LEAST_RESERVE), _MOST_RESERVE)
        return self.limit - min(reserve, 0.4 * self.limit) - self.spent

    def add(self, seconds: float) -> None:
        """Count what a step took."""
        self.spent += seconds


class Stopwatch:
    """Measure seconds from its making."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Return how long it has been."""
        return time.perf_counter() - self._start


def _work(rows: int, landmarks: int | None, classes: bool) -> float:
    """Estimate multiplications of a fit, up to a factor."""
    if landmarks is None and rows <= _MOST_EXACT[classes]:
        return rows**3 / 3 * (_NEWTON if classes else 1) + 100.0 * rows**2
    if landmarks is None:
        landmarks = 1000 if classes else max(1000, int(5 * rows**0.5))
    passes = _PASSES * rows * landmarks if classes else 0
    return 2.0 * rows * landmarks**2 + landmarks**3 + 100.0 * rows * landmarks + passes


def affordable(
    last: dict[str, Any], rows: int, seconds: float, classes: bool
) -> tuple[int, int | None] | None:
    """Return with how many rows and landmarks the next fit takes no longer than some seconds.

    Parameters
    ----------
    last : dict
        The last fit, with its "rows", "landmarks" and "seconds".
    rows : int
        How many there should be.
    seconds : float
        How long it may take.
    classes : bool
        Whether it is a classification.

    Returns
    -------
    tuple of int and int or None
        Rows and landmarks (None as the machine has it); or None if nothing better than the last
        fit is left.
    """
    pace = max(last["seconds"] - _OVERHEAD, 0.1 * last["seconds"])
    pace *= _CAUTION / _work(last["rows"], last["landmarks"], classes)

    def fits(count: int, landmarks: int | None) -> bool:
        return _OVERHEAD + pace * _work(count, landmarks, classes) <= seconds

    if fits(rows, None):
        return rows, None
    # All rows on few landmarks are better than few rows.
    landmarks = max(int(5 * rows**0.5), 1000)
    while landmarks >= _LEAST_LANDMARKS:
        if landmarks < rows and fits(rows, landmarks):
            return rows, landmarks
        landmarks = int(0.7 * landmarks)
    fewer = rows
    while fewer > _LEAST_GAIN * last["rows"]:
        fewer = int(0.85 * fewer)
        if fits(fewer, None):
            return fewer, None
    return None
