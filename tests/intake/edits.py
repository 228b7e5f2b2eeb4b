"""Edits that plant a fault into a sound folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from makers import write
from PIL import Image

TRAIN = 'annotations/instances_train.json'


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the json of the training data."""

    def plant(root: Path) -> None:
        content = json.loads((root / TRAIN).read_text())
        change(content)
        (root / TRAIN).write_text(json.dumps(content))

    return plant


def first(**changes: object) -> Callable[[Path], None]:
    """Change the json's first annotation, 'annotation 1'."""
    return edit(lambda content: content['annotations'][0].update(changes))


def text(file: str, content: str) -> Callable[[Path], None]:
    return lambda root: write(root / file, content)


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def cut(file: str, size: int) -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:size])


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: shutil.copy(root / source, root / target)


def save_again(source: str, target: str, orientation: int = 1) -> Callable[[Path], None]:
    """As a JPEG, with EXIF data."""

    def plant(root: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(root / source) as image:
            image.convert('RGB').save(root / target, quality=95, exif=exif)

    return plant


def turn(root: Path) -> None:
    """The first picture is a JPEG that EXIF data turn by 90 degrees."""
    save_again('images/train/000.png', 'images/train/000.jpg', 6)(root)
    edit(lambda content: content['images'][0].update(file_name='000.jpg'))(root)


def paint(file: str, value: int) -> Callable[[Path], None]:
    """A corner of a mask gets a value."""

    def plant(root: Path) -> None:
        mask = np.asarray(Image.open(root / file)).copy()
        mask[:4, :4] = value
        Image.fromarray(mask).save(root / file)

    return plant


def shrink(file: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        mask = np.asarray(Image.open(root / file))
        Image.fromarray(mask[:-1]).save(root / file)

    return plant


def drop_every(label: int, split: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        path = root / f'annotations/instances_{split}.json'
        content = json.loads(path.read_text())
        kept = [a for a in content['annotations'] if a['category_id'] != label + 1]
        path.write_text(json.dumps(dict(content, annotations=kept)))

    return plant


def both(*plants: Callable[[Path], None]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for each in plants:
            each(root)

    return plant
