"""Whether a checkpoint file is whole: cut off, or with a bit that is not as it was written."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

ZIP_START = b'PK\x03\x04'


def find_damage(path: str | Path) -> str | None:
    """What is wrong with the bytes of a checkpoint file; None when nothing is.

    PyTorch writes zip archives, with a CRC-32 of each record that ``torch.load`` does not look at.
    Files of other formats hold no checksums: of those an empty one is noticed, and no more.

    ``torch.serialization.set_crc32_options(False)`` makes it write zeros in their place.

    Args:
        path: The file.
    """
    try:
        with open(path, 'rb') as file:
            start = file.read(len(ZIP_START))
    except OSError as error:
        return f'it cannot be read ({error.strerror})'
    if not start:
        return 'it is empty'
    if start != ZIP_START:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip() if any(i.CRC for i in archive.infolist()) else None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
    ) as error:
        return f'it is cut off or damaged ({error})'
    return f"its record '{record}' does not fit its checksum: it is damaged" if record else None


def has_checksums(path: str | Path) -> bool:
    """Whether a whole checkpoint file has something to compare its bytes with.

    Args:
        path: A file in which :func:`find_damage` finds none.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(record.CRC for record in archive.infolist())
