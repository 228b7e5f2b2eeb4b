"""A folder of pictures for each class, with or without folders of splits around them."""

from __future__ import annotations

import os
from pathlib import Path

from .folder import CLASSES, WHOLE, Folder, Sample, find_split, list_folders, list_pictures

NAME = 'class folders'
LOOKED_FOR = 'two or more folders of pictures, one a class, in the folder or in train/ and val/'
LISTED = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # by MMPretrain
RESERVED = (  # of other layouts
    'annotations',
    'ann_dir',
    'img_dir',
    'images',
    'jpegimages',
    'labels',
    'masks',
    'segmentationclass',
)


def find(root: Path) -> str | None:
    """What of this layout lies in a folder."""
    found = [f for _, folders in find_places(root) for f in folders]
    return ', '.join(str(path.relative_to(root)) for path in found[:3]) if found else None


def find_places(root: Path) -> list[tuple[str, list[Path]]]:
    """Splits with their class folders."""
    splits = [(find_split(folder.name), folder) for folder in list_folders(root)]
    places = [(split, list_classes(folder)) for split, folder in splits if split]
    if any(folders for _, folders in places):
        return places
    folders = list_classes(root)
    return [(WHOLE, folders)] if len(folders) > 1 and not places else []


def list_classes(folder: Path) -> list[Path]:
    """The folders in a folder, if they are of classes: with pictures in at least one of them."""
    folders = list_folders(folder)
    if any(f.name.lower() in RESERVED for f in folders) or list_pictures(folder):
        return []
    return folders if any(list_pictures(f, deep=True) for f in folders) else []


def read(root: Path) -> Folder:
    """All splits; the classes are those of any split, in alphabetical order."""
    places = find_places(root)
    classes = sorted({folder.name for _, folders in places for folder in folders})
    folder = Folder(root, NAME, CLASSES, classes, {})
    for split, folders in places:
        samples = [
            Sample(picture, folder.name(picture), label=classes.index(place.name))
            for place in folders
            for picture in list_pictures(place, deep=True)
        ]
        folder.add(split, samples)
        if split != WHOLE and is_native(folders, classes, samples):
            folder.native[split] = dict(data_root=folder.name(folders[0].parent))
    return folder


def is_native(folders: list[Path], classes: list[str], samples: list[Sample]) -> bool:
    """Whether MMPretrain lists the same: every folder a class, of all pictures that it knows."""
    if len({sample.label for sample in samples}) < len(classes):
        return False
    place = folders[0].parent
    if sorted(path.name for path in place.iterdir() if path.is_dir()) != classes:
        return False
    listed = set()
    for folder in folders:
        for parent, below, names in os.walk(folder):
            if any(os.path.islink(os.path.join(parent, name)) for name in below):
                return False  # which MMPretrain follows
            known = [n for n in names if n.lower().endswith(LISTED) and not n.startswith('.')]
            listed.update(Path(parent, name) for name in known)
    return listed == {sample.picture for sample in samples}
