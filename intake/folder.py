"""A data set as it lies in a folder: one plain form for every layout.

Coordinates are in pixels of the picture as loaders see it, which is turned as its EXIF data say.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.pictures import SUFFIXES, is_below
from ..errors import UserError

SPLIT_WORDS = {  # as people write them
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'test': 'test',
    'testing': 'test',
}
WHOLE = 'all'  # the split of a folder that has none
IGNORED = 255  # the value of pixels that are of no class
MAX_TEXT = 16 * 2**20  # bytes of a text, xml or yaml file
MAX_JSON = 2**30
MAX_NAME = 255  # bytes of a file's name
MAX_PATH = 4000  # and of all of its path
STRANGE = ('Cc', 'Cs', 'Zl', 'Zp')  # Unicode's control characters, surrogates and ends of lines
TASKS = ('detection', 'instance segmentation', 'semantic segmentation', 'classification')
DETECTION, INSTANCES, SEMANTIC, CLASSES = TASKS


@dataclass
class Instance:
    """One object of a picture.

    Args:
        label: The index of its class; None where the annotation names none that is known.
        where: The file and line, or the annotation's id.
        box: (x, y, width, height), or what stands in its place.
        polygons: Flat lists of corners, x and y in turn.
        rle: COCO's run lengths, ``size`` and ``counts``.
        crowd: Whether it stands for many objects at once.
    """

    label: int | None
    where: str
    box: object = None
    polygons: list | None = None
    rle: dict | None = None
    crowd: bool = False


@dataclass
class Sample:
    """One picture and what is said of it.

    Args:
        picture: Its file.
        where: The file and line, or the image's id.
        size: (width, height) that the annotations state.
        instances: Its objects.
        label: The index of its class, in classification.
        mask: Its label map.
        values: How many pixels have each value of the mask; None where it cannot be read.
        upright: Whether it is annotated as EXIF data turn it, not as it is stored.
    """

    picture: Path
    where: str
    size: tuple[int, int] | None = None
    instances: list[Instance] = field(default_factory=list)
    label: int | None = None
    mask: Path | None = None
    values: dict | None = None
    upright: bool = True


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: a kind of :data:`mmdense.intake.kinds.KINDS`, where, and what.

    Of pictures that are alike it has both.
    """

    kind: str
    where: str
    text: str
    pictures: tuple[Path, ...] = ()


@dataclass
class Folder:
    """A data set.

    Args:
        root: The folder.
        layout: The name of its layout.
        task: One of :data:`TASKS`.
        classes: Names of the classes, in the order of their labels.
        splits: Samples by 'train', 'val' and 'test', or all of them under 'all'.
        faults: What reading found.
        notes: What was decided, a line each.
        codes: The label of each value of the masks, an index or a colour.
        palette: Colours of the classes, where the masks have some.
        native: By split, how the toolbox reads it without conversion, where it does.
    """

    root: Path
    layout: str
    task: str
    classes: list[str]
    splits: dict[str, list[Sample]]
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    codes: dict = field(default_factory=dict)
    palette: list | None = None
    native: dict[str, dict] = field(default_factory=dict)

    def add(self, split: str, samples: list[Sample]) -> None:
        """Add a split.

        Raises:
            UserError: When there is one of that name.
        """
        if split in self.splits:
            raise UserError(f"'{self.root}' has two folders for the split '{split}'; join them")
        self.splits[split] = samples

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Every sample with its split."""
        for split, samples in self.splits.items():
            for sample in samples:
                yield split, sample

    def name(self, path: Path) -> str:
        """A path below the folder, as reports show it."""
        return os.path.relpath(path, self.root)


def find_task(splits: dict[str, list[Sample]]) -> str:
    """Detection, or instance segmentation where most objects have a shape."""
    objects = [i for samples in splits.values() for sample in samples for i in sample.instances]
    shaped = sum(bool(i.polygons or i.rle) for i in objects)
    return INSTANCES if 2 * shaped > len(objects) else DETECTION


def find_split(name: str) -> str | None:
    """The split that a folder's or file's name speaks of."""
    words = ''.join(c if c.isalpha() else ' ' for c in name.lower()).split()
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and is_listed(p.name))


def is_listed(name: str) -> bool:
    """Whether a file or folder is neither hidden nor of a name that lists cannot hold."""
    return not name.startswith('.') and is_plain(name)


def is_plain(name: str) -> bool:
    return not any(unicodedata.category(character) in STRANGE for character in name)


def find_strange_names(folder: Folder) -> Iterator[Fault]:
    """Pictures that are passed over for control characters in their names or their folders'."""
    for place, folders, names in os.walk(folder.root):
        folders[:] = sorted(f for f in folders if not f.startswith('.'))
        for name in sorted(names):
            path = folder.name(Path(place, name))
            if name.lower().endswith(SUFFIXES) and not name.startswith('.') and not is_plain(path):
                text = 'lists cannot hold a name with control characters'
                yield Fault('strange name', repr(path)[1:-1], text)


def list_files(folder: Path, suffixes: Iterable[str], deep: bool = False) -> list[Path]:
    """Files with one of these suffixes in a folder, or also below it; hidden ones left out."""
    suffixes = tuple(suffixes)
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if deep and is_listed(f))
        found += [
            Path(place, name)
            for name in sorted(names)
            if name.lower().endswith(suffixes) and is_listed(name)
        ]
    return found


def list_pictures(folder: Path, deep: bool = False) -> list[Path]:
    return list_files(folder, SUFFIXES, deep)


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """A text file of at most so many bytes.

    Raises:
        ValueError: When it is larger, no regular file, or no UTF-8.
        OSError: When it cannot be read.
    """
    if not path.is_file():
        raise ValueError('it is no regular file')
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f'it has {size} bytes, more than the {limit} that are read')
    return path.read_bytes().decode('utf-8-sig')


def read_lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines()]


def read_names(path: Path) -> list[str]:
    """Names of classes, one a line.

    Raises:
        UserError: When the file cannot be read.
    """
    try:
        return [line for line in read_lines(path) if line]
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; write one class a line") from error


def is_text(name: str) -> bool:
    """Whether a name can be written: without halves of characters, which json can spell."""
    return not any('\ud800' <= character <= '\udfff' for character in name)


def join_inside(folder: Path, name: object, root: Path) -> Path | None:
    """A file that an annotation names; None when that is no name, or leads out of the data set."""
    if not isinstance(name, str) or not name or '\0' in name or not is_text(name):
        return None
    path = Path(os.path.normpath(folder / name.replace('\\', '/')))
    if len(os.fsencode(path)) > MAX_PATH or any(len(os.fsencode(p)) > MAX_NAME for p in path.parts):
        return None
    return path if is_below(str(path), str(root)) else None
