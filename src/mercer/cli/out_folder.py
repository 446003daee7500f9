"""The folder that a command writes: as it was, or complete; never in between."""

import glob
import json
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._core.saving import write_folder, write_text
from .._core.version import __version__
from .errors import UserError, user_errors
from .steps import Steps

_MARKER = ".mercer.json"  # says that Mercer wrote the folder, and which files
_STEPS = ".steps"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, which must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class OutFolder:
    """A folder of results with the finished steps of a run that is under way.

    While a command runs, only the steps (in ``.steps``) change; results of an earlier run stay
    until `publish` puts the new ones in their place by renaming. A folder that holds anything
    which Mercer did not write is refused, because publishing would remove it.

    Parameters
    ----------
    path : Path
        The folder; made where it is missing.
    resume : bool
        Whether to keep the steps of an earlier run.

    Raises
    ------
    UserError
        If the folder holds other things, is no folder, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path.resolve()
        if self.path == Path.cwd() or self.path in Path.cwd().parents:
            raise UserError(f"--out: {path} is or holds the current folder; name one inside it")
        with user_errors(OSError, prefix="--out: "):
            self._restore()
            self._refuse_foreign()
            if not resume:
                shutil.rmtree(self.path / _STEPS, ignore_errors=True)
            if not self.path.exists():
                write_folder(self.path, {_MARKER: write_text(self._marker([], None))})
            self.steps = Steps(self.path / _STEPS)

    @staticmethod
    def _marker(files: list[str], key: str | None) -> str:
        return json.dumps({"mercer": __version__, "key": key, "files": files}, indent=2) + "\n"

    def _read_marker(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / _MARKER).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None

    def _aside(self, what: str) -> Path:
        return self.path.parent / f".{self.path.name}.mercer-{what}-{uuid.uuid4().hex}"

    def _restore(self) -> None:
        """Tidy up after a run that was killed while it published."""
        name = glob.escape(self.path.name)
        for old in self.path.parent.glob(f".{name}.mercer-old-*"):
            if self.path.exists():
                shutil.rmtree(old)
            else:
                old.rename(self.path)
        for new in self.path.parent.glob(f".{name}.mercer-new-*"):
            shutil.rmtree(new)

    def _refuse_foreign(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"--out: {self.path} exists and is not a folder")
        known = {_MARKER, *(self._read_marker() or {}).get("files", [])}
        for file in sorted(self.path.rglob("*")):
            name = file.relative_to(self.path).as_posix()
            if not file.is_dir() and name not in known and not name.startswith(f"{_STEPS}/"):
                raise UserError(
                    f"--out: {self.path} holds {name}, which Mercer did not write there; "
                    "choose another folder"
                )

    def published(self, key: str) -> bool:
        """Whether the folder holds the complete results of a run with this key."""
        marker = self._read_marker() or {}
        return marker.get("key") == key and all(
            (self.path / name).is_file() for name in marker["files"]
        )

    def publish(self, build: Callable[[Path], None], key: str) -> None:
        """Put new results in the place of whatever the folder holds.

        Parameters
        ----------
        build : callable
            Writes all files of the results into the empty folder it is given.
        key : str
            What `published` will ask for.
        """
        new, old = self._aside("new"), self._aside("old")
        try:
            new.mkdir()
            build(new)
            files = sorted(
                file.relative_to(new).as_posix() for file in new.rglob("*") if not file.is_dir()
            )
            (new / _MARKER).write_text(self._marker(files, key), encoding="utf-8")
            with _uninterrupted(), user_errors(OSError, prefix="--out: cannot be replaced: "):
                (self.path / _STEPS).rename(new / _STEPS)
                self.path.rename(old)
                new.rename(self.path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old)
