"""What a user can put right: one clear line instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

_MOST = 800  # characters: a model with many layers has as many reasons


class UserError(Exception):
    """An error of the user's making, shown as one line; the command exits with code 2."""


@contextmanager
def user_errors(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """Turn errors of the given kinds into a `UserError` with their first paragraph.

    It stands around calls whose errors speak of what the user gave, and nowhere else: an error
    inside Mercer keeps its traceback.
    """
    try:
        yield
    except kinds as error:
        paragraph = (str(error).strip() or type(error).__name__).split("\n\n")[0]
        text = prefix + " ".join(paragraph.split())
        raise UserError(text if len(text) <= _MOST else f"{text[:_MOST]} ...") from error
