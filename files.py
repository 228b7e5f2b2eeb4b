"""Files that are written whole or not at all, and where this package's configs are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances

from .errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place to write ``path`` at: it gets its name, at once, when the block has ended well.

    Makes the folder. After an error nothing of the new file is left, and an old one is as it was.
    When it has its name the whole file is on the disk, whatever then happens to the machine.

    Raises:
        UserError: When the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"'{path}' cannot be written: it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        sync(part)
        os.replace(part, path)
        with suppress(OSError):  # of a folder, not every file system can
            sync(path.parent)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # no such folder, or one that may only be read
            part.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WholeFileBackend(LocalBackend):
    """mmengine's storage on local disks: files are written whole, and nothing but files is read."""

    def get(self, filepath: str | Path) -> bytes:
        refuse_devices(filepath)
        return super().get(filepath)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        refuse_devices(filepath)
        return super().get_text(filepath, encoding)

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with replacing(filepath) as part:
            part.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        with replacing(filepath) as part:
            part.write_text(obj, encoding=encoding)


def refuse_devices(path: str | Path) -> None:
    """Raise :class:`UserError` for what has no end, or waits for a writer."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"'{path}' is no regular file")


def replace_local_backend() -> None:
    """Let mmengine read and write files by :class:`WholeFileBackend`."""
    register_backend('local', WholeFileBackend, force=True, prefixes='')
    for key, backend in list(backend_instances.items()):
        if type(backend) is LocalBackend:
            del backend_instances[key]


def config_root() -> Path:
    """The folder ``configs`` of a checkout, or of the installed package."""
    package = Path(__file__).parent
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package / 'configs'
