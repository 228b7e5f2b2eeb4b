"""Picture files, by their first and last bytes: nothing is decoded but what looks damaged."""

from __future__ import annotations

import os
import random
import stat
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from .findings import Report, count, names_of, spread

SAMPLE = 200  # pictures whose header is read, evenly spread
SECONDS = 10.0  # for the ends of a data set's picture files; beyond that, a sample has been seen
CHUNK = 250  # files that a thread looks at before the time is asked for
TAIL = 1024  # bytes in which a whole file has its end marker


def find_whole_pictures(report: Report, paths: list[str]) -> set[str]:
    """Files that are missing, cut short or no pictures; returns those that are whole."""
    missing = find_missing(paths)
    count(report.errors, names_of(missing), 'pictures are missing')
    whole = set(paths) - set(missing)
    damage: dict[str, list[str]] = {}
    for path, fault in look_at(sorted(whole)):
        damage.setdefault(fault, []).append(path)
        whole.discard(path)
    for fault, found in sorted(damage.items()):
        count(report.errors, names_of(found), f'pictures are {fault}')
    return whole


def find_missing(paths: Sequence[str]) -> list[str]:
    """The files that are not there; to list a folder is quicker than to ask for each."""
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in there:
            try:
                there[folder] = set(os.listdir(folder or '.'))
            except OSError:
                there[folder] = set()
        if name not in there[folder]:
            missing.append(path)
    return missing


def look_at(paths: list[str]) -> list[tuple[str, str]]:
    """Damaged files with what they are, of as many as the time allows, evenly spread."""
    paths = random.Random(0).sample(paths, len(paths))
    end = time.monotonic() + SECONDS
    found = []
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(paths), 8 * CHUNK):
            parts = [paths[i : i + CHUNK] for i in range(start, start + 8 * CHUNK, CHUNK)]
            for faults in pool.map(find_faults, parts):
                found += faults
            if time.monotonic() > end:
                break
    return sorted(found)


def find_faults(paths: list[str]) -> list[tuple[str, str]]:
    return [(path, fault) for path in paths if (fault := find_fault(path))]


def find_fault(path: str) -> str | None:
    """What a picture file is instead of whole, by its first and last bytes."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            return 'no regular files'
        with open(path, 'rb') as file:
            head = file.read(16)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - TAIL, 0))
            tail = file.read()
    except OSError:
        return 'not readable'
    if not size:
        return 'empty'
    if head.startswith(b'\xff\xd8') and b'\xff\xd9' in tail:
        return None
    if head.startswith(b'\x89PNG') and b'IEND' in tail:
        return None
    try:  # another format, or one with more behind its end: the decoder knows
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            if image.format in ('JPEG', 'MPO', 'PNG'):
                image.load()
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError, ValueError) as error:
        known = head.startswith((b'\xff\xd8', b'\x89PNG'))
        return (
            'cut short'
            if known and not isinstance(error, Image.UnidentifiedImageError)
            else 'no pictures'
        )
    return None


def read_size(path: str) -> tuple[int, int] | None:
    """(width, height) from a picture's header, turned as its EXIF data says and loaders do."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            turned = image.format in ('JPEG', 'MPO') and image.getexif().get(0x0112, 1) >= 5
            return image.size[::-1] if turned else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def check_sizes(report: Report, pictures: list[tuple[str, tuple[int, int]]]) -> None:
    """Widths and heights that a json gives, against the headers of a sample of files."""
    sample = spread(pictures, SAMPLE)
    different = []
    for path, said in sample:
        size = read_size(path)
        if size is not None and size != said:
            different.append(f'{Path(path).name} {size} and {said}')
    count(
        report.errors, different, f'pictures of {len(sample)} have another size than the json says'
    )
