"""How much of the time that a command was given is spent."""

import time
from typing import Any

# Seconds for the page and what stands between the steps: a share of the time, within bounds.
_RESERVE, _LEAST_RESERVE, _MOST_RESERVE = 0.1, 5.0, 12.0
_CAUTION = 1.4  # times what a fit is expected to take
_OVERHEAD = 0.3  # seconds of any fit
_LEAST_LANDMARKS = 200
_FINER = 1.4  # times the landmarks, for the same rows once more
_CHEAP = 0.08  # of the time that is left
_OF_ROWS, _OF_LANDMARKS = 0.15, 0.7  # of those of the last fit, at least as many landmarks
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


def _centres(rows: int, landmarks: int | None, classes: bool) -> int:
    """Return how many functions a fit adds up: of rows, or of landmarks."""
    if landmarks is not None:
        return landmarks
    if rows <= _MOST_EXACT[classes]:
        return rows
    return 1000 if classes else max(1000, int(5 * rows**0.5))


def _work(rows: int, landmarks: int | None, classes: bool) -> float:
    """Estimate multiplications of a fit, up to a factor."""
    if landmarks is None and rows <= _MOST_EXACT[classes]:
        return rows**3 / 3 * (_NEWTON if classes else 1) + 100.0 * rows**2
    m = _centres(rows, landmarks, classes)
    passes = _PASSES * rows * m if classes else 0
    return 2.0 * rows * m**2 + m**3 + 100.0 * rows * m + passes


def forecast(last: dict[str, Any], rows: int, landmarks: int | None, classes: bool) -> float:
    """Estimate the seconds of a fit from those of the last one, not too low."""
    pace = max(last["seconds"] - _OVERHEAD, 0.1 * last["seconds"])
    pace *= _CAUTION / _work(last["rows"], last["landmarks"], classes)
    return _OVERHEAD + pace * _work(rows, landmarks, classes)


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
    if forecast(last, rows, None, classes) <= seconds:
        return rows, None
    # All rows on some landmarks are better than few rows, but not on too few landmarks.
    before = _centres(last["rows"], last["landmarks"], classes)
    exact = last["landmarks"] is None and before == last["rows"]
    least = max(_LEAST_LANDMARKS, int(before * (_OF_ROWS if exact else _OF_LANDMARKS)))
    landmarks = max(int(5 * rows**0.5), 1000)
    while landmarks >= least:
        if landmarks < rows and forecast(last, rows, landmarks, classes) <= seconds:
            return rows, landmarks
        landmarks = int(0.85 * landmarks)
    fewer = rows
    while fewer > _LEAST_GAIN * last["rows"]:
        fewer = int(0.85 * fewer)
        if forecast(last, fewer, None, classes) <= seconds:
            return fewer, None
    return None


def next_fit(
    last: dict[str, Any], rows: int, whole: int, seconds: float, classes: bool
) -> tuple[int, int | None] | None:
    """Return the next point of a learning curve: more rows, or at once as many as there will be.

    Parameters
    ----------
    last : dict
        The last fit.
    rows, whole : int
        Rows of the next point, and all rows.
    seconds : float
        How long it may all take.
    classes : bool
        Whether it is a classification.

    Returns
    -------
    tuple of int and int or None
        As of `affordable`.
    """
    taken = forecast(last, rows, None, classes)
    if rows < whole and taken <= _CHEAP * seconds:
        return rows, None  # it tells how fast things are
    best = affordable(last, whole, seconds, classes)
    if best is None or rows == whole:
        return best
    rest = seconds - taken
    # The point in between must not cost the last one rows or landmarks.
    return (rows, None) if affordable(last, whole, rest, classes) == best else best


def finer_fit(last: dict[str, Any], seconds: float, classes: bool) -> tuple[int, int | None] | None:
    """Return the same rows on more landmarks, where the last fit had few for want of time.

    Parameters
    ----------
    last : dict
        The last fit.
    seconds : float
        How long it may take.
    classes : bool
        Whether it is a classification.

    Returns
    -------
    tuple of int and int or None
        As of `affordable`.
    """
    rows, before = last["rows"], last["landmarks"]
    if before is None:
        return None
    found = affordable(last, rows, seconds, classes)
    if found is None or found[0] < rows or _centres(*found, classes) < _FINER * before:
        return None
    return found
