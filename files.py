"""Files that are written whole or not at all, and where this package's configs are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place to write ``path`` at: it gets its name, at once, when the block has ended well.

    Makes the folder. After an error nothing of the new file is left, and an old one is as it was.

    Raises:
        UserError: When the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def config_root() -> Path:
    """The folder ``configs`` of a checkout, or of the installed package."""
    package = Path(__file__).parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package / 'configs'
