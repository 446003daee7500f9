"""Where a named data set lies on this machine."""

import os
from pathlib import Path


def find(name: str) -> Path:
    """Return the local folder of a data set.

    Parameters
    ----------
    name : str
        The folder's name inside the folder that the environment variable ``MERCER_DATA`` names.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If ``name`` is not a plain folder name.
    FileNotFoundError
        If there is no such folder; the message says where it was looked for.

    Examples
    --------
    >>> from mercer.datasets import find
    >>> find("sst2")  # doctest: +SKIP
    PosixPath('/data/sst2')
    """
    if not name or name in {".", ".."} or Path(name).name != name:
        raise ValueError(f"name: expected the plain name of a folder, got {name!r}")
    root = os.environ.get("MERCER_DATA")
    if not root:
        raise FileNotFoundError(
            f"name: no data set {name!r}: the environment variable MERCER_DATA is not set; "
            f"let it name the folder that holds {name}/"
        )
    folder = Path(root) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"name: no data set {name!r}: MERCER_DATA has no folder {folder}")
    return folder
