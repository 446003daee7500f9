"""One bar over the steps of a command, on standard error, where somebody looks."""

import sys
from types import TracebackType
from typing import Self


class StepBar:
    """A progress bar that names the step under way; silent where nobody looks.

    Parameters
    ----------
    total : int
        Number of steps.
    """

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self.shown = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            disable=not self.shown,
            leave=False,
            bar_format="{desc} [{n_fmt}/{total_fmt}] {bar} {elapsed}",
        )
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.close()

    def begin(self, name: str) -> None:
        """Count the last step as done and name the next."""
        self._bar.update(self._begun)
        self._begun = True
        self._bar.set_description_str(name)
