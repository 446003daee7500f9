"""Steps of a long command that are kept, so that it goes on where it was interrupted."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

_RESULT = "result.json"


def key_of(inputs: dict[str, Any]) -> str:
    """Digest of plain values: the same values give the same text on every machine."""
    text = json.dumps(inputs, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Steps:
    """Results of finished steps, one folder each, named after what they were made from.

    A step's folder appears in one rename when the step is finished; whatever kills the process
    before that leaves no trace that a later run would take for a result.

    Parameters
    ----------
    folder : Path
        Where the steps are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".*"):
            shutil.rmtree(unfinished)

    def scratch(self, name: str, inputs: dict[str, Any]) -> Path:
        """Return a folder for what an unfinished step needs to go on; it goes when it is done.

        Parameters
        ----------
        name : str
            Name of the step.
        inputs : dict
            All that the result depends on, as plain values.

        Returns
        -------
        Path
            The folder, which need not exist.
        """
        return self._folder / f"{name}-{key_of(inputs)}.unfinished"

    def run(
        self,
        name: str,
        inputs: dict[str, Any],
        compute: Callable[[Path], dict[str, Any]],
        files: Collection[str] = (),
    ) -> tuple[dict[str, Any], Path]:
        """Return a step's result, from an earlier run where there is one.

        Parameters
        ----------
        name : str
            Name of the step.
        inputs : dict
            All that the result depends on, as plain values.
        compute : callable
            Takes a folder to write files to and returns plain values.
        files : collection of str
            Files or folders that must still be there for an earlier result to count.

        Returns
        -------
        tuple of dict and Path
            The values and the folder of the files.
        """
        folder = self._folder / f"{name}-{key_of(inputs)}"
        if (folder / _RESULT).is_file() and all((folder / file).exists() for file in files):
            return json.loads((folder / _RESULT).read_text(encoding="utf-8")), folder
        shutil.rmtree(folder, ignore_errors=True)
        aside = self._folder / f".{folder.name}.{uuid.uuid4().hex}"
        aside.mkdir()
        text = json.dumps(compute(aside), allow_nan=False)
        (aside / _RESULT).write_text(text, encoding="utf-8")
        aside.rename(folder)
        shutil.rmtree(self.scratch(name, inputs), ignore_errors=True)
        # Through JSON also the first time, so that a resumed run sees the very same values.
        return json.loads(text), folder
