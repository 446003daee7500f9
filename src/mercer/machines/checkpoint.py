"""Checkpoints of a fit, so that one that was killed goes on to the same result."""

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from .._core.saving import CONFIG_FILE, WEIGHTS_FILE, load_state, save_state

_EVERY = 15.0  # seconds between two checkpoints, at least


def fingerprint(*parts: Any) -> str:
    """Return a text that tells apart fits of different data or parameters."""
    summary = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            bits = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            summary.update(f"{tuple(part.shape)} {part.dtype};".encode())
            summary.update(bits.numpy().tobytes())
        else:
            summary.update(f"{part!r};".encode())
    return summary.hexdigest()


@final
class Checkpoint:
    """A folder with the state of one fit; with None as the folder nothing is kept.

    Parameters
    ----------
    folder : str or path, optional
        The folder, which goes away when the fit is done.
    own : str
        The fingerprint of the fit.

    Raises
    ------
    ValueError
        If the folder holds the state of another fit, or something else.
    NotADirectoryError, PermissionError
        If it is a file, or may not be written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, own: str) -> None:
        self.folder, self.own = None if folder is None else Path(folder), own
        self.state: dict[str, Tensor] = {}
        self._last = time.monotonic()
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"checkpoint: {self.folder} exists and is not a directory")
        # Said now, not after hours when there is something to write.
        around = next(p for p in self.folder.absolute().parents if p.exists())
        if not os.access(around, os.W_OK):
            raise PermissionError(f"checkpoint: {around} cannot be written to")
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return
        try:
            config, state = load_state(self.folder)
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint: {self.folder} holds something else than the state of a fit, or a "
                f"damaged one; give another folder, or remove it ({error})"
            ) from None
        if config.get("class") != "checkpoint" or config.get("fit") != own:
            raise ValueError(
                f"checkpoint: {self.folder} holds the state of a fit with other data or "
                "parameters; give another folder, or remove it"
            )
        self.state = state

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors that were saved under a name; empty without any."""
        start = f"{name}/"
        found = self.state.items()
        return {key[len(start) :]: value for key, value in found if key.startswith(start)}

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors under a name, to be written with the next save; they must not change."""
        self.drop(name)
        self.state |= {f"{name}/{key}": value for key, value in tensors.items()}

    def drop(self, *names: str) -> None:
        """Forget what was kept under some names."""
        starts = tuple(f"{name}/" for name in names)
        self.state = {k: v for k, v in self.state.items() if not k.startswith(starts)}

    def save(self, name: str, tensors: dict[str, Tensor], *, now: bool = False) -> None:
        """Write tensors under a name beside what is kept, at most every 15 seconds.

        They are written before the call returns, so they may change afterwards.
        """
        if self.folder is None or not (now or time.monotonic() - self._last >= _EVERY):
            return
        self.put(name, tensors)
        save_state(self.folder, {"class": "checkpoint", "fit": self.own}, self.state)
        self.drop(name)
        self._last = time.monotonic()

    def done(self) -> None:
        """Remove the state, and what kills in the middle of writing left beside it.

        What others put into the folder, or called nearly like it, stays.
        """
        if self.folder is None:
            return
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        if self.folder.parent.exists():
            written = re.compile(rf"\.{re.escape(self.folder.name)}\.[0-9a-f]{{32}}")
            for aside in self.folder.parent.iterdir():
                if written.fullmatch(aside.name):
                    shutil.rmtree(aside, ignore_errors=True)
