"""Processes that compute kernels when they are told to; `_infinite_worker.py` is what they run."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("MERCER_PEERS") or HERE.parent / ".venv-peers")
MISSING = "not installed: `make peers` makes its environment"


def interpreter(side: str) -> Path:
    """Return the Python that runs a side."""
    return PEERS / "bin" / "python" if side == "neural-tangents" else Path(sys.executable)


class Process:
    """One side on one case, warm.

    Parameters
    ----------
    side : str
        mercer, neural-tangents or bare-limit.
    case : dict
        What the worker computes.
    inputs : ndarray of shape (n, *event)
        Inputs, float32.
    script : Path, optional
        The worker.

    Attributes
    ----------
    failed : str or None
        Why it gives no more answers: what it raised, or how it ended. One that asks for more
        memory than there is may be killed by the system, which is said as that.
    first : float
        Seconds of the first evaluation, compilation included.
    """

    def __init__(
        self,
        side: str,
        case: dict[str, Any],
        inputs: np.ndarray,
        script: Path = HERE / "_infinite_worker.py",
    ) -> None:
        self.side, self.failed, self.first = side, None, float("nan")
        self._worker: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "array.npy"
        if not interpreter(side).exists():
            self.failed = MISSING
            return
        np.save(self._path, inputs)
        self._said = Path(self._folder.name) / "stderr.txt"
        with self._said.open("w", encoding="utf-8") as said:
            self._worker = subprocess.Popen(
                [interpreter(side), script, side],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self.first = self._ask(do="load", case=case, inputs=str(self._path)).get(
            "seconds", float("nan")
        )

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Send one request; an answer without numbers says in `failed` why."""
        if self.failed or self._worker is None:
            return {}
        assert self._worker.stdin is not None and self._worker.stdout is not None
        try:
            self._worker.stdin.write(json.dumps(request) + "\n")
            self._worker.stdin.flush()
            line = self._worker.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._end()}
        self.failed = answer.get("error")
        return answer

    def _end(self) -> str:
        assert self._worker is not None
        code = self._worker.wait()
        if code == -9:
            return "killed, as the system does when memory runs out"
        lines = self._said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"ended with the code {code}: {lines[-1] if lines else 'it said nothing'}"

    def run(self) -> float:
        """Evaluate once more; seconds, NaN where it failed."""
        return self._ask(do="run").get("seconds", float("nan"))

    def values(self) -> np.ndarray | None:
        """Return NNGP and NTK, (2, n, n)."""
        self._ask(do="save", path=str(self._path))
        return None if self.failed else np.load(self._path)

    def truth(self, points: int) -> np.ndarray | None:
        """Return NNGP and NTK of the first points in float64, (2, points, points)."""
        self._ask(do="truth", path=str(self._path), points=points)
        return None if self.failed else np.load(self._path)

    def peak(self) -> tuple[int, int]:
        """Return the largest resident memory in bytes, and that before the case was loaded."""
        answer = self._ask(do="peak")
        return answer.get("peak", 0), answer.get("before", 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            assert self._worker.stdin is not None and self._worker.stdout is not None
            self._worker.stdin.close()  # at its end the worker ends
            self._worker.wait()
            self._worker.stdout.close()
        self._folder.cleanup()
