"""Errors that the user can mend, told in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input; the message is one line that says what is wrong and what to do."""


def last_line(error: Exception) -> str:
    """The message alone, also when a data-loading worker sent it with its traceback around it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r'^[\w.]*UserError: ', '', lines[-1])


def first_line(error: Exception) -> str:
    """The message up to its first line's end; PyTorch's go on with where it was raised."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message: what was meant, when something is like it."""
    close = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean {close[0]}?' if close else ''
