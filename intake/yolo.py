"""YOLO: a text file for each picture, a line for each box or polygon, in shares of the sides."""

from __future__ import annotations

import math
from pathlib import Path

import yaml

from ..engine.picture_files import read_size
from ..errors import UserError
from .folder import (
    WHOLE,
    Fault,
    Folder,
    Instance,
    Sample,
    find_split,
    find_task,
    list_files,
    list_folders,
    list_pictures,
    read_lines,
    read_names,
    read_text,
)

NAME = 'YOLO'
LOOKED_FOR = 'YOLO text files in labels/, labels/train/ or train/labels/ beside images/'
NAMES = ('classes.txt', 'labels.txt', 'obj.names')
MAX_CLASSES = 10000
MAX_NUMBER = 10**9  # of a class that a number names
MAX_DIGITS = 9  # of a class's number in a line
CORNERS = 3  # that a polygon has at least
BOX = 5  # words of a line


def find(root: Path) -> str | None:
    """What of this layout lies in a folder."""
    labelled = [labels for _, _, labels in find_places(root) if list_labels(labels)]
    return ', '.join(f'{path.relative_to(root)}/*.txt' for path in labelled) or None


def find_places(root: Path) -> list[tuple[str, Path, Path]]:
    """Splits with their folders of pictures and of texts."""
    places = []
    for folder in list_folders(root / 'images'):
        if split := find_split(folder.name):
            places.append((split, folder, root / 'labels' / folder.name))
    for folder in list_folders(root):
        split = find_split(folder.name)
        if split and (folder / 'labels').is_dir():
            places.append((split, folder / 'images', folder / 'labels'))
    if not places and (root / 'labels').is_dir():
        places.append((WHOLE, root / 'images', root / 'labels'))
    return places


def list_labels(folder: Path) -> list[Path]:
    return [path for path in list_files(folder, ['.txt'], deep=True) if path.name not in NAMES]


def read(root: Path) -> Folder:
    """All splits; a picture without a text has no objects."""
    folder = Folder(root, NAME, '', [], {})
    folder.classes = read_classes(folder)
    for split, pictures, labels in find_places(root):
        if split == 'test' and not labels.is_dir():
            folder.notes.append(f"'{folder.name(pictures)}' has no labels and is left out")
        else:
            folder.add(split, read_split(folder, pictures, labels))
    folder.task = find_task(folder.splits)
    return folder


def read_classes(folder: Folder) -> list[str]:
    """Of the yaml's ``names``, or of a text with one class a line, or numbers."""
    root = folder.root
    for path in list_files(root, ['.yaml', '.yml']):
        try:
            content = yaml.safe_load(read_text(path))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            text = ' '.join(str(error).split())
            folder.faults.append(Fault('malformed file', folder.name(path), f'no yaml: {text}'))
            continue
        names = content.get('names') if isinstance(content, dict) else None
        if isinstance(names, dict) and names.keys() <= {*range(MAX_CLASSES)}:
            names = [names.get(i, f'class {i}') for i in range(max(names, default=-1) + 1)]
        if isinstance(names, list) and names:
            return [name_class(name, path) for name in names]
    for place in (root, root / 'labels'):
        for name in NAMES:
            if (place / name).is_file():
                return read_names(place / name)
    highest = -1
    for _, _, labels in find_places(root):
        for path in list_labels(labels):
            words = [line.split() for line in read_safely(path)]
            highest = max([highest, *(int(w[0]) for w in words if w and is_index(w[0]))])
    if not 0 <= highest < MAX_CLASSES:
        raise UserError(f"'{root}' names no classes: write classes.txt, one class a line")
    folder.notes.append('no names of classes were found: they are numbers')
    return [str(number) for number in range(highest + 1)]


def name_class(name: object, path: Path) -> str:
    """A class's name of a yaml.

    Raises:
        UserError: When it is no text and no number.
    """
    is_name = isinstance(name, str | float) or (isinstance(name, int) and abs(name) < MAX_NUMBER)
    if not is_name:
        raise UserError(f"'{path}' has a name of a class that is no text and no small number")
    return str(name)


def is_index(word: str) -> bool:
    """Whether a word is written as the number of a class."""
    return word.isdecimal() and len(word) <= MAX_DIGITS


def read_safely(path: Path) -> list[str]:
    """The lines of a text; none where it cannot be read, which reading the split tells."""
    try:
        return read_lines(path)
    except (OSError, ValueError):
        return []


def read_split(folder: Folder, pictures: Path, labels: Path) -> list[Sample]:
    samples = []
    texts = {path.relative_to(labels).with_suffix(''): path for path in list_labels(labels)}
    for picture in list_pictures(pictures, deep=True):
        text = texts.pop(picture.relative_to(pictures).with_suffix(''), None)
        sample = Sample(picture, folder.name(picture))
        if text is None:
            missing = folder.name(labels / picture.relative_to(pictures).with_suffix('.txt'))
            folder.faults.append(
                Fault('unlabelled picture', sample.where, f"there is no '{missing}'")
            )
        else:
            sample.instances = read_objects(folder, text, read_size(str(picture)))
        samples.append(sample)
    for text in texts.values():
        where = folder.name(text)
        folder.faults.append(
            Fault('missing partner', where, f"no picture of this name is in '{pictures.name}'")
        )
    return samples


def read_objects(folder: Folder, path: Path, size: tuple[int, int] | None) -> list[Instance]:
    """The objects of a text, in pixels of a picture of (width, height)."""
    found = []
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        folder.faults.append(Fault('malformed file', folder.name(path), f'no text: {error}'))
        return []
    for number, line in enumerate(lines, 1):
        where = f'{folder.name(path)}:{number}'
        words = line.split()
        if not words:
            continue
        values = parse(words)
        if values is None:
            text = f"'{line[:60]}' is neither 'class x y width height' nor 'class x y x y x y ...'"
            folder.faults.append(Fault('malformed line', where, text))
            continue
        label = int(words[0])
        if not 0 <= label < len(folder.classes):
            text = f'class {label} of {len(folder.classes)}, which are counted from 0'
            folder.faults.append(Fault('unknown category', where, text))
            label = None
        found.append(scale(Instance(label, where), values, size or (1, 1)))
    return found


def parse(words: list[str]) -> list[float] | None:
    """The numbers of a line behind its class; None when it is malformed."""
    is_box = len(words) == BOX
    is_polygon = len(words) > 2 * CORNERS and len(words) % 2 == 1
    try:
        values = [float(word) for word in words[1:]]
    except ValueError:
        return None
    is_good = is_index(words[0]) and all(map(math.isfinite, values))
    return values if is_good and (is_box or is_polygon) else None


def scale(instance: Instance, values: list[float], size: tuple[int, int]) -> Instance:
    """A box (centre and sides) or a polygon, with its box, in pixels."""
    scaled = [value * size[i % 2] for i, value in enumerate(values)]
    if len(scaled) == BOX - 1:
        x, y, width, height = scaled
        instance.box = [x - width / 2, y - height / 2, width, height]
    else:
        instance.polygons = [scaled]
        left, top = min(scaled[::2]), min(scaled[1::2])
        instance.box = [left, top, max(scaled[::2]) - left, max(scaled[1::2]) - top]
    return instance
