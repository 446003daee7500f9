"""A machine that takes tables as they are: encoder, machine and target in one."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .._core.saving import CONFIG_FILE, WEIGHTS_FILE, write_folder, write_text
from ..datasets import DataTable, TableEncoder, TableFile
from .base import Machine

TABLE_FILE = "table.json"
_FORMAT = 1


@final
@dataclass(frozen=True, eq=False)
class TablePredictor:
    r"""Predict a column of a table from its other columns, as ``mercer fit`` saves it.

    It holds the encoder that turns rows into numbers, and a machine fitted to these: of numbers
    :math:`(y - m) / s` for regression, of the numbers of classes for classification.

    Parameters
    ----------
    encoder : TableEncoder
        From a table to the machine's inputs.
    machine : Machine
        Fitted; for classification with ``predict_proba``.
    target : str
        The column that is predicted.
    classes : tuple of str
        Names of the classes by number, for classification; empty for regression.
    mean, scale : float, default 0.0 and 1.0
        m and s of the target, for regression.

    Examples
    --------
    >>> import torch
    >>> from mercer.datasets import DataTable, TableEncoder
    >>> from mercer.machines import KernelRidge, TablePredictor
    >>> boats = DataTable.of({"length": [4, 8, 12, 16, 20], "price": [1.0, 2.0, 3.0, 4.0, 5.0]})
    >>> encoder = TableEncoder.fit(boats, target="price")
    >>> prices = torch.from_numpy(boats.column("price"))
    >>> machine = KernelRidge("rbf", alpha=1e-6).fit(encoder.encode(boats), prices)
    >>> predictor = TablePredictor(encoder, machine, "price")
    >>> predictor.predict({"length": [10], "colour": ["red"]}).round(1)
    array([2.5])
    """

    encoder: TableEncoder
    machine: Any
    target: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def task(self) -> str:
        """Which task it is: ``"classification"`` or ``"regression"``."""
        return "classification" if self.classes else "regression"

    def predict(self, table: Any) -> np.ndarray:
        """Predict the target of each row.

        Parameters
        ----------
        table : DataTable, TableFile, path, mapping of str to sequence, or data frame
            The rows, with the columns of the fit; others are ignored.

        Returns
        -------
        ndarray of shape (n,)
            Numbers, or texts: the names of classes.

        Raises
        ------
        ValueError
            If a column is missing or holds something else than in the fit; the text names it.
        """
        found = [self._predicted(part) for part in _parts(table)]
        return np.concatenate(found) if found else np.empty(0)

    def predict_proba(self, table: Any) -> np.ndarray:
        """Predict the probability of each class, in the order of ``classes``.

        Parameters
        ----------
        table : DataTable, TableFile, path, mapping of str to sequence, or data frame
            The rows.

        Returns
        -------
        ndarray of shape (n, classes)
            Probabilities.

        Raises
        ------
        ValueError
            If the target is a number, or as of `predict`.
        """
        if not self.classes:
            raise ValueError(f"predict_proba: {self.target!r} is a number and has no classes")
        found = [self.probabilities(part).numpy() for part in _parts(table)]
        return np.concatenate(found) if found else np.empty((0, len(self.classes)))

    def _predicted(self, table: DataTable) -> np.ndarray:
        if self.classes:
            return np.array(self.classes)[self.probabilities(table).argmax(1).numpy()]
        return self.numbers(table).numpy()

    def numbers(self, table: DataTable) -> Tensor:
        """Predict numbers (n,) in the target's unit, for regression."""
        if not len(table):
            return torch.empty(0, dtype=torch.float64)
        found = self.machine.predict(self.encoder.encode(table))
        return found.double() * self.scale + self.mean

    def probabilities(self, table: DataTable) -> Tensor:
        """Predict probabilities (n, classes), for classification."""
        if not len(table):
            return torch.empty(0, len(self.classes), dtype=torch.float64)
        return self.machine.predict_proba(self.encoder.encode(table)).double()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the machine's two files and ``table.json`` to a folder, atomically, no pickle.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing.
        """
        config = {
            "format": "mercer-table",
            "format_version": _FORMAT,
            "target": self.target,
            "classes": list(self.classes),
            "mean": self.mean,
            "scale": self.scale,
            "encoder": self.encoder.to_config(),
        }
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with tempfile.TemporaryDirectory() as aside:
            self.machine.save_pretrained(aside)

            def copy(name: str) -> Callable[[Path], None]:
                return lambda path: shutil.copyfile(Path(aside, name), path) and None

            files = {TABLE_FILE: write_text(text)}
            files |= {name: copy(name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
            write_folder(folder, files)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> "TablePredictor":
        """Read what `save_pretrained` wrote.

        Parameters
        ----------
        folder : str or path
            The folder.

        Returns
        -------
        TablePredictor
            The predictor, on the CPU.

        Raises
        ------
        FileNotFoundError
            If the folder or a file of it is missing.
        ValueError
            If a file is damaged, or is not of this kind.
        """
        path = Path(folder) / TABLE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"folder: {Path(folder)} holds no {TABLE_FILE}")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"folder: {path} is damaged: {error}") from None
        if not isinstance(config, dict) or config.get("format") != "mercer-table":
            raise ValueError(f"folder: {path} was not written by Mercer")
        if config["format_version"] > _FORMAT:
            raise ValueError(f"folder: {path} is of a newer version of Mercer; update Mercer")
        try:
            encoder = TableEncoder.from_config(config["encoder"])
            classes, target = tuple(config["classes"]), config["target"]
            mean, scale = float(config["mean"]), float(config["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"folder: {path} is damaged: {error!r}") from None
        machine: Any = Machine.from_pretrained(folder)
        if machine.n_features_in_ != len(encoder.titles):
            raise ValueError(
                f"folder: {folder} holds a machine of {machine.n_features_in_} inputs beside an "
                f"encoder of {len(encoder.titles)}: its files are not of one model"
            )
        return cls(encoder, machine, target, classes, mean, scale)


def _parts(table: Any) -> Iterator[DataTable]:
    """Return rows of any kind as tables."""
    if isinstance(table, str | os.PathLike):
        table = TableFile(table)
    if isinstance(table, TableFile):
        yield from table.chunks()
    else:
        yield table if isinstance(table, DataTable) else DataTable.of(table)
