"""Progress bars: off in library calls unless asked for, on in commands."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T], description: str, *, show: bool, total: int | None = None
) -> Iterator[T]:
    """Iterate with a progress bar on standard error when ``show`` is true."""
    if not show:
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=description, total=total, leave=False)
