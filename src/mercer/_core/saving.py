"""Saving without pickle: ``config.json`` and ``model.safetensors``, written aside, then renamed.

Two files cannot be replaced in one step, so the weights file carries the config too and is
renamed last: until then the folder loads as it was, from then on as it is meant to be.
``config.json`` is the same text for people and for other programs to read.
"""

import abc
import importlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

FORMAT = "mercer"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_ROOMS = ("features", "infinite", "kernels", "nn")  # where a class named in a config may come from


def write_folder(folder: str | os.PathLike[str], files: dict[str, Callable[[Path], None]]) -> Path:
    """Write files into a folder so that an interruption leaves none of them half written.

    Every file is first written aside, in a folder next to the target. A new target appears in
    one rename; in a folder that exists each file is replaced by one rename, in the order given,
    so the last file is the one whose arrival counts.

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
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    aside.mkdir()  # with the user's umask, which tempfile would not honour
    try:
        for name, write in files.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            write(aside / name)
            # Readable by whom the umask says; safetensors writes for the owner alone.
            (aside / name).chmod(aside.stat().st_mode & 0o666)
        if not target.exists():
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


def write_weights(state: dict[str, Tensor], config: str) -> Callable[[Path], None]:
    """Make a writer of a safetensors file that carries the text of its config."""
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        save_file(state, path, metadata={"format": "pt", "config": config})

    return write


def untie(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name for each stored tensor, and say which other names point to it.

    Returns
    -------
    tuple of dict
        The tensors, contiguous and on the CPU, and a map from each dropped name to the kept one.

    Raises
    ------
    ValueError
        If a tensor is on the meta device and so has no numbers.
    """
    kept: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.is_meta:
            raise ValueError(
                f"state: {name} is on the meta device and holds no numbers to save; "
                "move the module with to_empty() and load or reset it first"
            )
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
        CONFIG_FILE: write_text(text),
        WEIGHTS_FILE: write_weights(tensors, text),
    }
    return write_folder(folder, files)


def load_state(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_state` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If the files are not Mercer's, are damaged, or are of a newer format.

    Warns
    -----
    UserWarning
        If ``config.json`` is not the config that the weights were written with, as after a save
        that was cut short or an edit by hand; the one inside the weights file is used.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder: {folder} holds no {name}")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            text = (file.metadata() or {}).get("config", "")
            # Cloned: in the mapped file they are not aligned as torch aligns its own memory, and
            # matrix products of unaligned memory differ in the last bits.
            names = file.keys()
            state = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise ValueError(f"folder: {folder / WEIGHTS_FILE} is damaged: {error}") from None
    try:
        config = json.loads(text)
    except json.JSONDecodeError:
        config = None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"folder: {folder / WEIGHTS_FILE} was not written by Mercer")
    if config["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"folder: {folder} has format version {config['format_version']}, "
            f"this Mercer reads up to {FORMAT_VERSION}; update Mercer"
        )
    if (folder / CONFIG_FILE).read_text(encoding="utf-8") != text:
        warnings.warn(
            f"{CONFIG_FILE} in {folder} is not the one that {WEIGHTS_FILE} was written with "
            "(a save cut short, or an edit); the one inside the weights file is used",
            stacklevel=2,
        )
    for name, kept in config["tied"].items():
        state[name] = state[kept]
    return config, state


def class_in(config: dict[str, Any]) -> Any:
    """Find the class of Mercer's that a config names, or None."""
    room, _, name = str(config.get("class", "")).partition(".")
    if room not in _ROOMS:
        return None
    return getattr(importlib.import_module(f"mercer.{room}"), name, None)


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
            If the config names a class that is not one of Mercer's, or not of this kind, or no
        dtype of torch.
        """
        found = class_in(config)
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise ValueError(f"config: {config.get('class')!r} is not a {cls.__name__} of Mercer")
        dtype = getattr(torch, str(config["dtype"]), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"config: {config['dtype']!r} is not a dtype of torch")
        return found._from_config(config["config"]).to(dtype)

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
        # Assigned, not copied: a buffer that is finer than the module's dtype stays so.
        module.load_state_dict(state, assign=True)
        for name, kept in config["tied"].items():
            owner, _, leaf = name.rpartition(".")
            kept_owner, _, kept_leaf = kept.rpartition(".")
            tensor = getattr(module.get_submodule(kept_owner), kept_leaf)
            setattr(module.get_submodule(owner), leaf, tensor)
        return module.eval()
