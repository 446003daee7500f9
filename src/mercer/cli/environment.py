"""What numbers depend on besides the settings: versions, threads, processor."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from .._core.version import __version__


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe_environment(also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return versions, the number of threads and the processor as plain values.

    Parameters
    ----------
    also : tuple of str
        Further packages whose versions count.
    """
    found = {"mercer": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scikit-learn", "transformers", *also):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {
        **found,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
