"""Configuration, above all the memory budget that whatever is large asks first."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNITS = {
    **{"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40},
}


def _parse_bytes(value: int | float | str) -> int:
    """Read a number of bytes: ``2**30``, ``"512MiB"``, ``"2 GB"``."""
    if isinstance(value, str):
        text = value.strip().upper().replace(" ", "")
        digits = text.rstrip("BGIKMT")
        unit = text[len(digits) :] or "B"
        try:
            number = float(digits) * _UNITS[unit]
        except (KeyError, ValueError):
            raise ValueError(
                f"memory_budget: expected bytes or a text such as '512MiB' or '2 GB', got {value!r}"
            ) from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise TypeError(
            f"memory_budget: expected a number of bytes or a text, got {type(value).__name__}"
        )
    if not 1 <= number < float("inf"):
        raise ValueError(f"memory_budget: expected a positive finite size, got {value!r}")
    return int(number)


def _free_in_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory left under a container's limit (control groups, version 2), in bytes."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return float("inf")
    return max(int(limit.read_text()) - int(used.read_text()), 0)


def available_memory() -> int:
    """Memory that the system could still hand out, in bytes."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return int(min(free, _free_in_container()))


def resident_memory() -> int:
    """Resident memory of this process, in bytes (its peak where the system tells no more)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource  # not on every platform

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Config:
    """Settings of the process.

    Attributes
    ----------
    memory_budget : int
        Bytes of resident memory that the process may reach in Mercer's blockwise operations;
        by default a quarter of what was free at start, or the environment variable
        ``MERCER_MEMORY_BUDGET``. Set it with a number of bytes or a text such as ``"2 GiB"``.
    compile : bool
        Whether inner loops are compiled where there is a compiler and it pays: True, or what
        the environment variable ``MERCER_COMPILE`` (0 or 1) says.

    Examples
    --------
    >>> import mercer
    >>> with mercer.config.override(memory_budget="512 MiB"):
    ...     mercer.config.memory_budget
    536870912
    """

    __slots__ = ("_compile", "_memory_budget")  # so that a misspelt setting is an error

    def __init__(self) -> None:
        given = os.environ.get("MERCER_MEMORY_BUDGET")
        self._memory_budget = _parse_bytes(given) if given else available_memory() // 4
        self.compile = os.environ.get("MERCER_COMPILE", "1") not in ("0", "false", "no")

    @property
    def memory_budget(self) -> int:
        """Bytes of resident memory that blockwise operations may reach."""
        return self._memory_budget

    @memory_budget.setter
    def memory_budget(self, value: int | float | str) -> None:
        self._memory_budget = _parse_bytes(value)

    @property
    def compile(self) -> bool:
        """Whether inner loops are compiled where that pays."""
        return self._compile

    @compile.setter
    def compile(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"compile: expected True or False, got {value!r}")
        self._compile = value

    @contextmanager
    def override(
        self, *, memory_budget: int | float | str | None = None, compile: bool | None = None
    ) -> Iterator["Config"]:
        """Change settings inside a ``with`` block; what is None stays."""
        before = self._memory_budget, self._compile
        try:
            if memory_budget is not None:
                self.memory_budget = memory_budget
            if compile is not None:
                self.compile = compile
            yield self
        finally:
            self._memory_budget, self._compile = before

    def __repr__(self) -> str:
        return f"Config(memory_budget={self._memory_budget}, compile={self._compile})"


config = Config()


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**28 else f"{nbytes / 2**20:.1f} MiB"


def require_memory(nbytes: float, what: str, option: str) -> None:
    """Raise ``MemoryError`` when an allocation does not fit the budget.

    Parameters
    ----------
    nbytes : float
        Bytes that are about to be allocated.
    what : str
        What they are for, as the error will say it.
    option : str
        What the caller could do instead.
    """
    free = max(config.memory_budget - resident_memory(), 0)
    if nbytes > free:
        raise MemoryError(
            f"{what} needs {_gib(nbytes)}, but {_gib(free)} of the memory budget "
            f"({_gib(config.memory_budget)}) is left: {option}, "
            "or raise mercer.config.memory_budget"
        )


def block_rows(bytes_per_row: float, *, most: int, least: int = 1) -> int:
    """Rows of a block that fit half of what the budget leaves, between ``least`` and ``most``."""
    free = max(config.memory_budget - resident_memory(), 0)
    return max(least, min(most, int(free / 2 / max(bytes_per_row, 1.0))))
