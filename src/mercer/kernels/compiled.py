"""The elementwise part of a tile in one compiled loop, where a compiler is present.

Eager torch passes over a tile once for each operation; a compiled loop passes once for all of
them. Compiling takes seconds, so that only work that takes longer is compiled.
"""

import functools
import logging
import os
import shutil
import threading
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .._core.config import config

InPlace = partial[Tensor]
"""``function(tile, spare, **hyperparameters)``: writes to the tile, with one of the same shape to
spare, and returns it; a function of a module and plain numbers or tensors, so that it compiles."""

_log = logging.getLogger("mercer.kernels")
_LEAST_ENTRIES = 5e8  # some seconds of eager work
_trying = threading.Lock()
_failed = False


@functools.cache
def compiler() -> str | None:
    """Return the C++ compiler that torch would use, or None; said once in the log."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found is None:
        _log.info("no C++ compiler found: kernel matrices are computed by eager torch")
    else:
        _log.info("the inner loops of large kernel matrices are compiled with %s", found)
    return found


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # One thread: the tiles themselves are shared out over threads.
    return torch.compile(function, dynamic=True, fullgraph=True, options={"cpp.threads": 1})


def inner_loop(function: InPlace, entries: float, device: torch.device) -> Callable[..., Tensor]:
    """Return a function of tiles, compiled where that pays.

    Parameters
    ----------
    function : partial
        Writes to its first argument and returns it; tensor operations only.
    entries : float
        How many entries of a kernel matrix it will be called for, all in all.
    device : torch.device
        Where the tensors are.

    Returns
    -------
    callable
        The function itself, or one that computes the same in one loop.
    """
    if device.type != "cpu" or entries < _LEAST_ENTRIES or not config.compile or not compiler():
        return function

    def run(*tensors: Tensor) -> Tensor:
        global _failed
        if not _failed:
            try:
                return _compiled(function.func)(*tensors, **function.keywords)
            except (RuntimeError, OSError) as error:  # dynamo's, inductor's and the compiler's own
                with _trying:
                    if not _failed:
                        _log.warning("compiling failed, eager torch is used instead: %s", error)
                    _failed = True
        return function(*tensors)

    return run
