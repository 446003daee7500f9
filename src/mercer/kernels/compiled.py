"""The inner loop of a tile compiled, where a compiler is present and it pays.

It pays for sums over dimensions that are no matrix product: absolute differences take half of the
time. Functions of single entries, exponentials above all, are no faster compiled than by eager
torch on scratch tiles that stay in cache: there calling the compiled function costs what one pass
instead of three saves. Compiling takes seconds, so that only work that takes longer is compiled.
"""

import functools
import logging
import os
import shutil
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from .._core.config import config

_log = logging.getLogger("mercer.kernels")
_LEAST_WORK = 1e11  # some ten seconds of eager work
_trying = threading.Lock()
_failed = False


@functools.cache
def compiler() -> str | None:
    """Return the C++ compiler that torch would use, or None; said once in the log."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found is None:
        _log.info("no C++ compiler found: Laplacian matrices are computed by eager torch")
    else:
        _log.info("the inner loops of large Laplacian matrices are compiled with %s", found)
    return found


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # One thread: the tiles themselves are shared out over threads.
    return torch.compile(function, dynamic=True, fullgraph=True, options={"cpp.threads": 1})


def inner_loop(
    function: Callable[..., Tensor], work: float, device: torch.device
) -> Callable[..., Tensor]:
    """Return a function of tiles, compiled where that pays.

    Parameters
    ----------
    function : callable
        A function of a module; writes to its first argument and returns it.
    work : float
        How many terms it will add, all in all.
    device : torch.device
        Where the tensors are.

    Returns
    -------
    callable
        The function itself, or one that computes the same in one loop.
    """
    if device.type != "cpu" or work < _LEAST_WORK or not config.compile or not compiler():
        return function

    def run(*tensors: Tensor) -> Tensor:
        global _failed
        if not _failed:
            try:
                return _compiled(function)(*tensors)
            except (RuntimeError, OSError) as error:  # dynamo's, inductor's and the compiler's own
                with _trying:
                    if not _failed:
                        _log.warning("compiling failed, eager torch is used instead: %s", error)
                    _failed = True
        return function(*tensors)

    return run
