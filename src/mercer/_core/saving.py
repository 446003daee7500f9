"""Saving without pickle: ``config.json`` and ``model.safetensors``, written aside, then renamed."""

import abc
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

FORMAT = "mercer"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_ROOMS = ("features", "nn")  # where a class named in a config may come from


def write_folder(folder: str | os.PathLike[str], files: dict[str, Callable[[Path], None]]) -> Path:
    """Write files into a folder so that an interruption leaves none of them half written.

    Every file is first written aside, in a folder next to the target. A new target appears in
    one rename; in a folder that exists each file is replaced by one rename, in the order given.

    Parameters
    ----------
    folder : str or path
        The target; made with its parents where it is missing.
    files : dict of str to callable
        For each file name, a function that writes that file at the path it is given.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    NotADirectoryError
        If ``folder`` is a file.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"folder: {target} exists and is not a directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, write in files.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            write(aside / name)
        if not target.exists():
            aside.chmod(0o755)
            aside.rename(target)
        else:
            for name in files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).replace(target / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def write_text(text: str) -> Callable[[Path], None]:
    """Make a writer of UTF-8 text for `write_folder`."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def write_weights(state: dict[str, Tensor], digest: str) -> Callable[[Path], None]:
    """Make a writer of a safetensors file that remembers which config it belongs to."""
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        save_file(state, path, metadata={"format": "pt", "config_digest": digest})

    return write


def digest_of(config: dict[str, Any]) -> str:
    """Digest that ties a weights file to its config."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def untie(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name for each stored tensor, and say which other names point to it.

    Returns
    -------
    tuple of dict
        The tensors, contiguous and on the CPU, and a map from each dropped name to the kept one.
    """
    kept: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in kept:
            tied[name] = kept[key]
            continue
        kept[key] = name
        # A clone, because safetensors refuses views that share storage.
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors, tied


def save_state(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    state: dict[str, Tensor],
    extra: dict[str, Callable[[Path], None]] | None = None,
) -> Path:
    """Write a config, a state dict and other files as one atomic step."""
    tensors, tied = untie(state)
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **config, "tied": tied}
    text = json.dumps(config, indent=2) + "\n"
    files = {
        **(extra or {}),
        WEIGHTS_FILE: write_weights(tensors, digest_of(config)),
        CONFIG_FILE: write_text(text),
    }
    return write_folder(folder, files)


def load_state(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_state` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If the config is not Mercer's, is of a newer format, or does not belong to the weights.
    """
    from safetensors import safe_open

    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder: {folder} holds no {name}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"folder: {folder / CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"folder: {folder / CONFIG_FILE} was not written by Mercer")
    if config["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"folder: {folder} has format version {config['format_version']}, "
            f"this Mercer reads up to {FORMAT_VERSION}; update Mercer"
        )
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        if (file.metadata() or {}).get("config_digest") != digest_of(config):
            raise ValueError(
                f"folder: {CONFIG_FILE} and {WEIGHTS_FILE} in {folder} do not belong together "
                "(an interrupted copy?)"
            )
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, kept in config["tied"].items():
        state[name] = state[kept]
    return config, state


class Saveable(nn.Module, abc.ABC):
    """A module that writes itself to a folder and comes back from it.

    A subclass says in `_config` with which plain values it is built, and builds an instance
    of the right shapes from them in `_from_config`; the numbers come from the state dict.
    """

    @abc.abstractmethod
    def _config(self) -> dict[str, Any]:
        """Values, JSON-able, from which `_from_config` rebuilds the module's shapes."""

    @classmethod
    @abc.abstractmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        """Build a module of the right shapes, whatever its numbers."""

    def to_config(self) -> dict[str, Any]:
        """Return the module's class and shapes as a dictionary that JSON can hold."""
        room = type(self).__module__.split(".")[1]
        dtype = next((t.dtype for t in self.state_dict().values() if t.is_floating_point()), None)
        return {
            "class": f"{room}.{type(self).__name__}",
            "dtype": str(dtype or torch.get_default_dtype()).removeprefix("torch."),
            "config": self._config(),
        }

    @classmethod
    def build(cls, config: dict[str, Any]) -> Self:
        """Make a module from what `to_config` returned, with numbers yet to be loaded.

        Raises
        ------
        ValueError
            If the config names a class that is not one of Mercer's, or not of this kind.
        """
        room, _, name = str(config.get("class", "")).partition(".")
        found = (
            getattr(importlib.import_module(f"mercer.{room}"), name, None)
            if room in _ROOMS
            else None
        )
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise ValueError(f"config: {config.get('class')!r} is not a {cls.__name__} of Mercer")
        module = found._from_config(config["config"])
        return module.to(getattr(torch, config["dtype"]))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` to a folder, atomically.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing.
        """
        save_state(folder, self.to_config(), self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a module that `save_pretrained` wrote.

        Parameters
        ----------
        folder : str or path
            The folder.

        Returns
        -------
        Saveable
            The module, in evaluation mode, on the CPU.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved module.
        ValueError
            If it holds something else than a module of this class.
        """
        config, state = load_state(folder)
        module = cls.build(config)
        module.load_state_dict(state)
        return module.eval()
