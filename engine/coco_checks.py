"""Faults of a COCO json: its fields, ids, boxes and masks, and its pictures."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset

from .findings import Report, compare, count, enumerate_first
from .picture_files import check_sizes, find_whole_pictures

NUMBER, TEXT, NOTHING = (int, float), (str,), (type(None),)
FIELDS = {  # of a COCO json, of which all else is asked
    'images': dict(
        id=NUMBER + TEXT, file_name=TEXT, width=NUMBER + NOTHING, height=NUMBER + NOTHING
    ),
    'categories': dict(id=NUMBER + TEXT, name=TEXT),
    'annotations': dict(
        id=NUMBER + TEXT,
        image_id=NUMBER + TEXT,
        category_id=NUMBER + TEXT,
        area=NUMBER + NOTHING,
        segmentation=(list, dict, *NOTHING),
    ),
}


def examine_coco(report: Report, dataset: BaseDataset, steps: list[dict], loader: str) -> None:
    """A COCO json and its pictures."""
    try:
        with open(dataset.ann_file, encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        report.errors.append(f'is not json: {error}')
        return
    if isinstance(content, dict) and dataset.test_mode:
        content.setdefault('annotations', [])
    for key in FIELDS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            report.errors.append(f"is not COCO: it has no list '{key}'")
            return
    malformed = find_malformed(content)
    if malformed:
        report.errors.append(f'is not COCO: {"; ".join(malformed)}')
        return
    names = examine_categories(report, content, dataset.metainfo['classes'])
    used = examine_annotations(report, content, names, steps, loader != 'train_dataloader')
    only_used = not dataset.test_mode and (dataset.filter_cfg or {}).get('filter_empty_gt')
    images = [i for i in content['images'] if i['id'] in used or not only_used]
    paths = [os.path.join(dataset.data_prefix['img'], i['file_name']) for i in images]
    report.pictures = len(images)
    whole = find_whole_pictures(report, paths)
    sizes = [(i.get('width'), i.get('height')) for i in images]
    check_sizes(report, [(p, s) for p, s in zip(paths, sizes) if p in whole and None not in s])


def find_malformed(content: dict) -> list[str]:
    """Entries of a COCO json that are not what every reader takes them for; a line per list."""
    lines = []
    for name, fields in FIELDS.items():
        needed = [key for key, types in fields.items() if NOTHING[0] not in types]
        bad = [i for i, entry in enumerate(content[name]) if not fits(entry, fields)]
        count(lines, bad, f'{name} lack {", ".join(needed)} or have a field of another type')
    return lines


def fits(entry: object, fields: dict[str, tuple]) -> bool:
    """Whether an entry is a dict with fields of these types; None is one that is left out."""
    return isinstance(entry, dict) and all(isinstance(entry.get(k), t) for k, t in fields.items())


def examine_categories(report: Report, content: dict, classes: Sequence[str]) -> dict:
    """Compare classes and categories; the names of those that count, by id."""
    ids = {category['id']: category['name'] for category in content['categories']}
    repeated = [n for n, k in Counter(c['name'] for c in content['categories']).items() if k > 1]
    count(report.errors, repeated, 'categories have a name twice')
    if len(ids) != len(content['categories']):
        report.errors.append('categories share an id')
    known, wanted = set(ids.values()), set(classes)
    if wanted - known:
        report.errors.append('metainfo and categories differ: ' + compare(classes, [*ids.values()]))
    elif [name for name in ids.values() if name in wanted] != list(classes):
        report.errors.append(
            'the classes of metainfo stand in another order than the categories, whose order '
            'decides the labels'
        )
    if known - wanted and not wanted - known:
        lost = sum(ids.get(a.get('category_id')) not in wanted for a in content['annotations'])
        report.warnings.append(
            f'{lost} annotations of {len(known - wanted)} categories that are no classes of '
            f'metainfo are left out: {enumerate_first(sorted(known - wanted))}'
        )
    return ids


def examine_annotations(
    report: Report, content: dict, names: dict, steps: list[dict], evaluated: bool
) -> set:
    """Ids, boxes and masks; returns the ids of images that have an annotation."""
    images = {image['id']: image for image in content['images']}
    if len(images) != len(content['images']):
        repeated = Counter(i['id'] for i in content['images'])
        count(report.errors, [i for i, k in repeated.items() if k > 1], 'image ids appear twice')
    unsized = [i['id'] for i in content['images'] if None in (i.get('width'), i.get('height'))]
    count(report.errors, unsized, 'images have no width and height')
    every = content['annotations']
    ids = [a['id'] for a in every]
    if len(set(ids)) != len(ids):
        twice = [i for i, k in Counter(ids).items() if k > 1]
        count(report.errors, twice, 'annotation ids appear twice')
    strange = [a['id'] for a in every if a['image_id'] not in images]
    count(report.errors, strange, 'annotations are of an image_id that no image has')
    strange = [a['id'] for a in every if a['category_id'] not in names]
    count(report.errors, strange, 'annotations are of a category_id that no category has')
    used = {a['image_id'] for a in every}
    anns = [a for a in every if not a.get('ignore') and a['image_id'] in images]
    if not anns or unsized:
        return used
    for key in ('area', *(['iscrowd'] if evaluated else [])):
        count(report.errors, [a['id'] for a in anns if key not in a], f'annotations have no {key}')
    anns = examine_boxes(report, anns, images)
    if any(step.get('with_mask') for step in steps):
        check_masks(report, anns, images)
    return used


def examine_boxes(report: Report, anns: list[dict], images: dict) -> list[dict]:
    """Boxes (x, y, width, height) against their pictures; returns the annotations that stay."""
    boxes = read_boxes(anns)
    if boxes is None:  # one by one: which are none?
        is_box = [read_boxes([a]) is not None for a in anns]
        bad = [a['id'] for a, ok in zip(anns, is_box) if not ok]
        count(report.errors, bad, 'boxes are not 4 numbers')
        anns = [a for a, ok in zip(anns, is_box) if ok]
        boxes = read_boxes(anns)
        if boxes is None:
            return []
    sides = {key: (image['width'], image['height']) for key, image in images.items()}
    shape = np.array([sides[a['image_id']] for a in anns], dtype=np.float64)  # (N, 2)
    area = np.array([a.get('area', 1) for a in anns], dtype=np.float64)
    ids = np.array([a['id'] for a in anns], dtype=object)
    corner, size = boxes[:, :2], boxes[:, 2:]
    broken = ~np.isfinite(boxes).all(1) | (size < 0).any(1)
    centre = corner + size / 2
    outside = ~broken & ((centre < 0) | (centre > shape)).any(1)
    beyond = ~broken & ~outside & ((corner <= -1) | (corner + size >= shape + 1)).any(1)
    small = ~broken & (size < 1).any(1)
    empty = ~broken & ~small & ~(area > 0)
    count(report.errors, ids[broken], 'boxes are negative or not finite')
    count(report.errors, ids[outside], 'boxes lie outside their picture')
    count(report.errors, ids[empty], 'annotations have an area of 0 and would be left out')
    count(report.warnings, ids[beyond], 'boxes reach out of their picture')
    count(report.warnings, ids[small], 'boxes are smaller than a pixel and are left out')
    return [ann for ann, is_small in zip(anns, small) if not is_small]


def check_masks(report: Report, anns: list[dict], images: dict) -> None:
    """Polygons and run lengths."""
    missing, flat, foreign = [], [], []
    for ann in anns:
        mask = ann.get('segmentation')
        if not mask:
            missing.append(ann['id'])
        elif isinstance(mask, list):
            if not any(has_corners(polygon) for polygon in mask):
                flat.append(ann['id'])
        else:
            image = images[ann['image_id']]
            has_counts = isinstance(mask.get('counts'), list | str)
            if not has_counts or mask.get('size') != [image['height'], image['width']]:
                foreign.append(ann['id'])
    count(report.errors, missing, 'annotations have no segmentation, which the pipeline loads')
    count(report.errors, flat, 'masks have no polygon of three points')
    count(report.errors, foreign, 'masks (RLE) have no counts, or another size than their picture')


def has_corners(corners: object) -> bool:
    """Whether it is a flat list of three corners or more."""
    is_list = isinstance(corners, list) and len(corners) >= 6 and len(corners) % 2 == 0
    return is_list and all(isinstance(corner, NUMBER) for corner in corners)


def read_boxes(anns: list[dict]) -> np.ndarray | None:
    """(N, 4) of all annotations; None when there is none, or one is not four numbers."""
    try:
        boxes = np.array([ann.get('bbox') for ann in anns])
    except ValueError:  # of different lengths
        return None
    is_good = boxes.shape[1:] == (4,) and boxes.dtype.kind in 'iuf'
    return boxes.astype(np.float64) if is_good else None
