"""What the picture files are: whole or not, their sizes, and which of them are alike."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ..engine.picture_files import find_fault

THREADS = 8
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue
ORIENTATION = 0x0112  # of EXIF
DEEP = ('I', 'F')  # modes of grey levels of more than 8 bits, with I;16
THUMBNAIL = 32  # pixels of a side
HASH_SIDE = 8
STEP = 2  # grey levels by which a pixel must exceed its neighbour to count
MAX_BITS = 8  # of the hash's 64 that may differ between pictures that look alike
MAX_LEVELS = 24  # of 255 by which a pixel of their grey thumbnails may differ
MAX_MEAN = 8  # of 255, over all pixels and colours
CANDIDATES = 50  # pictures of near hashes that each is compared with at most
MAX_COMPARED = 20000  # pictures; beyond, only those with equal hashes are compared


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture file.

    Args:
        fault: The kind of its fault, or None.
        text: What is wrong with it.
        size: (width, height), turned as loaders do.
        stored: (width, height) of the pixels in the file.
        turned: Whether EXIF data turn or mirror it.
        digest: Of the file's content.
        bits: The difference hash: which pixels of a 9 x 8 thumbnail are darker than the next.
        thumbnail: (32, 32, 3), red, green and blue.
    """

    fault: str | None = None
    text: str = ''
    size: tuple[int, int] | None = None
    stored: tuple[int, int] | None = None
    turned: bool = False
    digest: str = ''
    bits: int = 0
    thumbnail: np.ndarray | None = None


def look(paths: Sequence[Path]) -> dict[Path, Picture]:
    """Read all of these pictures."""
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(THREADS) as pool:
        found = tqdm(pool.map(look_at, paths), 'pictures', len(paths), disable=None)
        return dict(zip(paths, found))


def look_at(path: Path) -> Picture:
    """Decode one picture, at a smaller scale where its format can do that."""
    if not path.exists():
        return Picture('missing picture', 'it is not there')
    fault = find_fault(str(path))
    if fault:
        kind = 'truncated picture' if fault == 'cut short' else 'unreadable picture'
        return Picture(kind, f'it is {fault}')
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            turned = is_turned(image)
            stored = image.size
            image.draft('RGB', (4 * THUMBNAIL, 4 * THUMBNAIL))
            upright = ImageOps.exif_transpose(image) if turned else image
            thumbnail = to_colours(upright).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            swapped = turned and image.getexif()[ORIENTATION] >= 5
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except Image.DecompressionBombError as error:
        return Picture('unreadable picture', str(error))
    except (OSError, SyntaxError, ValueError) as error:
        return Picture('truncated picture', f'it cannot be decoded: {error}')
    return Picture(
        size=stored[::-1] if swapped else stored,
        stored=stored,
        turned=turned,
        digest=digest,
        bits=get_hash(thumbnail),
        thumbnail=np.asarray(thumbnail),
    )


def to_colours(image: Image.Image) -> Image.Image:
    """Red, green and blue of 8 bits; grey levels of more are spread from the least to the most."""
    if not image.mode.startswith(DEEP):
        return image.convert('RGB')
    levels = np.nan_to_num(np.asarray(image).astype(np.float64))
    levels -= levels.min()
    return Image.fromarray((levels / (levels.max() or 1) * 255).astype(np.uint8)).convert('RGB')


def is_turned(image: Image.Image) -> bool:
    """Whether loaders turn or mirror it; they look at these formats alone."""
    return image.format in ('JPEG', 'MPO') and 2 <= image.getexif().get(ORIENTATION, 1) <= 8


def get_hash(thumbnail: Image.Image) -> int:
    """64 bits of a picture: where it gets darker from left to right."""
    small = thumbnail.convert('L').resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small).astype(np.int16)
    darker = grey[:, :-1] > grey[:, 1:] + STEP
    return int.from_bytes(np.packbits(darker).tobytes(), 'big')


def find_alike(pictures: dict[Path, Picture]) -> list[tuple[Path, Path]]:
    """Pairs of files of other content that look the same: saved again, or in another size.

    Of equal files the first stands for all.
    """
    contents: dict[str, Path] = {}
    for path, picture in pictures.items():
        if picture.thumbnail is not None:
            contents.setdefault(picture.digest, path)
    paths = [*contents.values()]
    hashes = np.array([pictures[path].bits for path in paths], dtype=np.uint64)
    order = np.argsort(hashes, kind='stable').tolist() if len(paths) > MAX_COMPARED else None
    pairs = pair_equal(hashes, order) if order else pair_near(hashes)
    return [
        (paths[first], paths[other])
        for first, others in pairs
        for other in others[:CANDIDATES]
        if are_alike(pictures[paths[first]], pictures[paths[other]])
    ]


def pair_near(hashes: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each picture with those behind it whose hashes differ by few bits."""
    for first in range(len(hashes)):
        near = np.bitwise_count(hashes[first + 1 :] ^ hashes[first]) <= MAX_BITS
        yield first, (np.flatnonzero(near) + first + 1).tolist()


def pair_equal(hashes: np.ndarray, order: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Each picture with the next of the same hash, in the order of the hashes."""
    for first, second in zip(order, order[1:]):
        yield first, [second] if hashes[first] == hashes[second] else []


def are_alike(a: Picture, b: Picture) -> bool:
    """Whether two thumbnails differ in no pixel by much."""
    difference = a.thumbnail.astype(np.float32) - b.thumbnail
    grey = np.abs(difference @ GREY).max()
    return bool(grey <= MAX_LEVELS and np.abs(difference).mean() <= MAX_MEAN)
