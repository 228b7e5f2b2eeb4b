"""A mended copy of a data set beside it: COCO json, pictures with masks, or class folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from ..engine.pictures import is_below
from ..errors import UserError
from .converting import name_samples, write_coco, write_lines, write_mask
from .folder import CLASSES, SEMANTIC, Folder, Sample
from .pictures import Picture

QUALITY = 95  # of a JPEG that is written anew


def write_copy(folder: Folder, pictures: dict[Path, Picture], out: Path) -> None:
    """Write a data set to a folder that does not exist yet: the whole of it, or nothing.

    Args:
        folder: A data set without faults, from :func:`mmdense.intake.mending.mend`.
        pictures: What its files are.
        out: Where it goes.

    Raises:
        UserError: When the place is taken, or cannot be written.
    """
    check_target(out, folder)
    part = out.with_name(f'.{out.name}.{os.getpid()}.part')
    try:
        part.mkdir(parents=True)
        for split, samples in folder.splits.items():
            WRITERS.get(folder.task, write_objects)(folder, pictures, part, split, samples)
        os.rename(part, out)
    except OSError as error:
        raise UserError(f"--fix '{out}' cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_target(out: Path, folder: Folder) -> None:
    """Raise :class:`UserError` for a place of a copy that exists, or lies within the folder."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--fix '{out}' exists; name a folder that does not")
    if is_below(str(out), str(folder.root)):
        raise UserError(f"--fix '{out}' lies within '{folder.root}'; name a folder beside it")


def write_objects(
    folder: Folder, pictures: dict[Path, Picture], out: Path, split: str, samples: list[Sample]
) -> None:
    """``images/<split>`` and ``annotations/instances_<split>.json``."""
    names = name_samples(samples)
    for sample in samples:
        copy(sample, pictures[sample.picture], Path(out, 'images', split, names[id(sample)]))
    path = Path(out, 'annotations', f'instances_{split}.json')
    write_coco(folder, samples, path, lambda sample: names[id(sample)])


def write_labelled(
    folder: Folder, pictures: dict[Path, Picture], out: Path, split: str, samples: list[Sample]
) -> None:
    """``images/<split>``, ``masks/<split>`` and ``classes.txt``."""
    names = name_samples(samples)
    for sample in samples:
        name = Path(names[id(sample)])
        copy(sample, pictures[sample.picture], Path(out, 'images', split, name))
        write_mask(folder, sample, Path(out, 'masks', split, f'{name.stem}.png'))
    colours = folder.palette or [[]] * len(folder.classes)
    lines = [' '.join(map(str, [name, *rgb])) for name, rgb in zip(folder.classes, colours)]
    write_lines(lines, Path(out, 'classes.txt'))


def write_classes(
    folder: Folder, pictures: dict[Path, Picture], out: Path, split: str, samples: list[Sample]
) -> None:
    """``<split>/<class>``."""
    for label, name in enumerate(folder.classes):
        members = [sample for sample in samples if sample.label == label]
        names = name_samples(members)
        for sample in members:
            copy(sample, pictures[sample.picture], Path(out, split, name, names[id(sample)]))


WRITERS = {SEMANTIC: write_labelled, CLASSES: write_classes}


def copy(sample: Sample, picture: Picture, path: Path) -> None:
    """A picture's file, or where EXIF data turn it, its pixels as they are annotated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not picture.turned:
        shutil.copyfile(sample.picture, path)
        return
    with Image.open(sample.picture) as image:
        pixels = ImageOps.exif_transpose(image) if sample.upright else image.copy()
    pixels.getexif().pop(0x0112, None)
    pixels.info.pop('exif', None)
    pixels.save(path, 'JPEG', quality=QUALITY, exif=b'')
