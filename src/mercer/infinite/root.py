"""The root of a function between two ends, by SciPy."""

from collections.abc import Callable
from typing import Any


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find it to rounding, by Brent's method; the function must differ in sign at the ends."""
    from scipy.optimize import brentq

    find: Any = brentq
    return float(find(function, low, high, xtol=1e-14, rtol=1e-14))
