"""Data sets in the forms that the toolboxes read: COCO json, lists with index PNGs, lists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ..files import replacing
from .folder import CLASSES, SEMANTIC, Folder, Instance, Sample
from .masks import read_codes, relabel
from .shapes import find_box, measure

Namer = Callable[[Sample], str]


def convert(folder: Folder, target: Path) -> dict[str, dict]:
    """What a config says of each split's data set, after what is needed was written.

    Args:
        folder: A data set without faults.
        target: Where files go that the toolbox needs; pictures stay where they are.
    """
    root = os.path.abspath(folder.root)
    settings = {}
    for split, samples in folder.splits.items():
        if split in folder.native:
            found = folder.native[split]
        elif folder.task == SEMANTIC:
            found = write_masks(folder, samples, target, split)
        elif folder.task == CLASSES:
            lines = [f'{folder.name(sample.picture)} {sample.label}' for sample in samples]
            found = dict(ann_file=write_lines(lines, target / f'{split}.txt'))
        else:
            path = target / f'instances_{split}.json'
            write_coco(folder, samples, path, lambda sample: folder.name(sample.picture))
            found = dict(ann_file=os.path.abspath(path), data_prefix=dict(img=''))
        settings[split] = dict(found, data_root=os.path.join(root, found.get('data_root', ''), ''))
    return settings


def write_lines(lines: list[str], path: Path) -> str:
    """Write a list; returns its absolute path."""
    with replacing(path) as part:
        part.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return os.path.abspath(path)


def write_coco(folder: Folder, samples: list[Sample], path: Path, name: Namer) -> None:
    """Write a COCO json in which pictures have the names that ``name`` gives."""
    categories = [dict(id=i, name=name) for i, name in enumerate(folder.classes, 1)]
    images, annotations = [], []
    for number, sample in enumerate(samples, 1):
        width, height = sample.size
        images.append(dict(id=number, file_name=name(sample), width=width, height=height))
        for instance in sample.instances:
            annotation = dict(id=len(annotations) + 1, image_id=number)
            annotations.append(annotation | describe(instance))
    content = dict(images=images, annotations=annotations, categories=categories)
    with replacing(path) as part:
        part.write_text(json.dumps(content), encoding='utf-8')


def describe(instance: Instance) -> dict:
    """An object as COCO has it; ids of categories are labels from 1 on."""
    found = dict(
        category_id=instance.label + 1,
        bbox=find_box(instance),
        area=measure(instance),
        iscrowd=int(instance.crowd),
    )
    shape = instance.polygons or instance.rle
    return dict(found, segmentation=shape) if shape else found


def write_masks(folder: Folder, samples: list[Sample], target: Path, split: str) -> dict:
    """Masks of labels, in the places of their pictures, and a list of those."""
    names = [folder.name(sample.picture) for sample in samples]
    for name, sample in zip(names, samples):
        write_mask(folder, sample, Path(target, 'masks', f'{name}.png'))
    return dict(
        ann_file=write_lines(names, target / f'{split}.txt'),
        data_prefix=dict(img_path='', seg_map_path=os.path.abspath(target / 'masks')),
        img_suffix='',
        seg_map_suffix='.png',
    )


def write_mask(folder: Folder, sample: Sample, path: Path) -> None:
    """The mask of a sample as an index PNG."""
    labels = relabel(read_codes(sample.mask), folder.codes)
    with replacing(path) as part:
        Image.fromarray(labels).save(part)


def name_samples(samples: list[Sample]) -> dict[int, str]:
    """A name for each sample's copy, by its id: its file's, or with its folder's before it.

    No two differ in their suffix or in capital letters alone.
    """
    names: dict[int, str] = {}
    used: set[str] = set()
    for sample in samples:
        name, place = sample.picture.name, sample.picture.parent
        while Path(name).stem.lower() in used:
            name, place = f'{place.name or "picture"}_{name}', place.parent
        used.add(Path(name).stem.lower())
        names[id(sample)] = name
    return names
