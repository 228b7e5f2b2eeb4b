"""Faults of data sets, found before a run: all of a data set at once, in one line.

What would lose data without a word, or end a run later, is an error; what the toolboxes leave out
by design is a warning. The three data sets that the configs of this package use are looked into:
COCO json, folders of pictures and label maps, folders of classes; and so are those that derive from
them without reading in another way. Nothing is decoded but what looks damaged, and label maps of a
sample; remote files are not looked at.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from ..errors import UserError
from .building import told_in_one_line
from .data import find_datasets

SECONDS = 10.0  # for the ends of a data set's picture files; beyond that, a sample has been seen
SAMPLE = 200  # pictures whose header is read, evenly spread
MAPS = 40  # label maps that are decoded
CHUNK = 250  # files that a thread looks at before the time is asked for
TAIL = 1024  # bytes in which a whole file has its end marker
NAMED = 3  # of everything that is counted, so many are named
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
PICKLES = ('.pkl', '.pickle')


@dataclass
class Report:
    """What is wrong with one data set."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pictures: int = 0
    folders: list[str] | None = None  # of classes


def examine_contents(cfg: Config, loaders: Sequence[str]) -> dict[str, int]:
    """Look into the data sets of ``loaders``; print warnings to stderr.

    Returns:
        The number of pictures by loader, of loaders with a single data set.

    Raises:
        UserError: With the faults of all data sets in one line.
    """
    errors, pictures, trained = [], {}, None
    for loader in loaders:
        datasets = [] if cfg.get(loader) is None else list(find_datasets(cfg[loader].dataset))
        for dataset in datasets:
            report = examine(cfg, loader, dataset)
            if report.folders and trained and report.folders != trained:
                report.errors.append(
                    'the class folders are not those of the training data, so labels differ: '
                    + compare(trained, report.folders)
                )
            if loader == 'train_dataloader':
                trained = trained or report.folders
            name = dataset.get('ann_file') or dataset.get('data_root') or dataset.get('type')
            if report.errors:
                errors.append(f"{loader} '{name}': " + '; '.join(report.errors))
            if report.warnings:
                print(f"warning: {loader} '{name}': " + '; '.join(report.warnings), file=sys.stderr)
            if datasets == [cfg[loader].dataset]:
                pictures[loader] = report.pictures
    if errors:
        raise UserError('; '.join(errors) + ' (--no-data-check passes over this)')
    return pictures


def examine(cfg: Config, loader: str, dataset: dict) -> Report:
    """The faults of one data set of a config."""
    report = Report()
    evaluators = cfg.get(loader.replace('dataloader', 'evaluator')) or []
    files = [dataset.get('ann_file'), dataset.get('proposal_file')]
    files += [
        e.get('ann_file') for e in (evaluators if isinstance(evaluators, list) else [evaluators])
    ]
    for file in {str(file) for file in files if str(file).endswith(PICKLES)}:
        report.errors.append(
            f"'{file}' is a pickle, which can run any code when it is read: use json, yaml or txt"
        )
    backend = dataset.get('backend_args') or {}
    if report.errors or is_remote(dataset) or backend.get('backend', 'local') != 'local':
        return report
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine')
    with told_in_one_line(f'the data set of {loader} cannot be built'), scope:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = dataset.get('type')
            kind = registry.get(kind) if isinstance(kind, str) else kind
        examiner = find_examiner(kind)
        if examiner is None:
            return report
        built = registry.build(dict(dataset, pipeline=[], lazy_init=True))
    steps = [step for step in dataset.get('pipeline', ()) if isinstance(step, dict)]
    examiner(report, built, steps, loader)
    return report


def is_remote(dataset: dict) -> bool:
    return '://' in str([dataset.get(key) for key in ('data_root', 'ann_file', 'data_prefix')])


def find_examiner(kind: object) -> Callable | None:
    """What looks into data sets of a class, unless it reads them in its own way."""
    for base in getattr(kind, '__mro__', ()):
        name = f'{base.__module__.partition(".")[0]}.{base.__name__}'
        if name in EXAMINERS:  # by name: to import a toolbox takes seconds and prints
            examiner, methods = EXAMINERS[name]
            own = any(getattr(kind, method) is not getattr(base, method) for method in methods)
            return None if own else examiner
    return None


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
    unsized = [i['id'] for i in content['images'] if 'width' not in i or 'height' not in i]
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
            if not any(is_polygon(polygon) for polygon in mask):
                flat.append(ann['id'])
        else:
            image = images[ann['image_id']]
            if mask.get('size') != [image['height'], image['width']]:
                foreign.append(ann['id'])
    count(report.errors, missing, 'annotations have no segmentation, which the pipeline loads')
    count(report.errors, flat, 'masks have no polygon of three points')
    count(report.errors, foreign, 'masks (RLE) have another size than their picture')


def is_polygon(corners: object) -> bool:
    """Whether it is a flat list of three corners or more."""
    return isinstance(corners, list) and len(corners) >= 6 and len(corners) % 2 == 0


def examine_maps(report: Report, dataset: BaseDataset, steps: list[dict], loader: str) -> None:
    """Pictures and their label maps."""
    folder, maps_folder = (
        dataset.data_prefix.get('img_path'),
        dataset.data_prefix.get('seg_map_path'),
    )
    samples = dataset.load_data_list()
    pictures = [sample['img_path'] for sample in samples]
    report.pictures = len(pictures)
    if not pictures:
        report.errors.append(f"no picture '*{dataset.img_suffix}' is in '{folder}'")
    whole = find_whole_pictures(report, pictures)
    if maps_folder is None or not any('LoadAnnotations' in str(step.get('type')) for step in steps):
        return
    pairs = {sample['seg_map_path']: sample['img_path'] for sample in samples}
    missing = find_missing(list(pairs))
    count(report.errors, names_of(missing), f"label maps are missing in '{maps_folder}'")
    if not dataset.ann_file:
        suffix = dataset.seg_map_suffix
        there = [str(p) for p in Path(maps_folder).rglob(f'*{suffix}')]
        left = {os.path.normpath(p) for p in there} - {os.path.normpath(p) for p in pairs}
        count(report.errors, names_of(sorted(left)), 'label maps have no picture')
    lost = set(missing)
    there = [path for path in pairs if path not in lost]
    fitting = [(m, pairs[m]) for m in there if pairs[m] in whole]
    check_map_sizes(report, spread(fitting, SAMPLE))
    check_map_values(report, dataset, spread(there, MAPS))


def check_map_sizes(report: Report, pairs: list[tuple[str, str]]) -> None:
    different = []
    for path, picture in pairs:
        sizes = read_size(path), read_size(picture)
        if None in sizes:
            continue
        if sizes[0] != sizes[1]:
            different.append(f'{Path(path).name} {sizes[0]} and {sizes[1]}')
    count(
        report.errors, different, f'label maps of {len(pairs)} have another size than the picture'
    )


def check_map_values(report: Report, dataset: BaseDataset, paths: list[str]) -> None:
    """Values of label maps, as they lie in the files, against the classes."""
    classes = type(dataset).METAINFO.get('classes') or dataset.metainfo.get('classes')
    found: Counter[int] = Counter()
    unreadable, coloured = [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                values = np.asarray(image)
        except OSError:
            unreadable.append(path)
            continue
        if values.ndim != 2:
            coloured.append(path)
        else:
            found.update(np.unique(values).tolist())
    count(report.errors, names_of(unreadable), f'label maps of {len(paths)} cannot be read')
    count(
        report.errors, names_of(coloured), f'label maps of {len(paths)} have colours, not indices'
    )
    if not classes:
        return
    allowed = {*range(len(classes)), dataset.ignore_index, 255}
    if dataset.reduce_zero_label:
        allowed = {*range(len(classes) + 1), 255}
    strange = sorted(set(found) - allowed)
    count(
        report.errors,
        strange,
        f'values in {len(paths)} label maps are no index of the {len(classes)} classes',
    )


def examine_folders(report: Report, dataset: BaseDataset, steps: list[dict], loader: str) -> None:
    """A folder for each class, or a list of pictures with their labels."""
    classes = list(dataset.CLASSES) if dataset.CLASSES is not None else None
    by_folder = dataset.with_label and not dataset.ann_file
    if by_folder:
        folders = sorted(entry.name for entry in os.scandir(dataset.img_prefix) if entry.is_dir())
        report.folders = folders
        # the folders of ImageNet bear other names than its classes
        same_names = classes is not None and 2 * len({*folders} & {*classes}) >= len(folders)
        if same_names and sorted(classes) == folders != classes:
            report.errors.append('the classes of metainfo must be in the order of the folders')
        elif same_names and classes != folders:
            report.errors.append('metainfo and class folders differ: ' + compare(classes, folders))
        elif classes is not None and len(classes) != len(folders):
            report.errors.append(f'{len(folders)} class folders, but {len(classes)} classes')
    if report.errors:
        return
    try:
        samples = dataset.load_data_list()
    except RuntimeError as error:  # no picture at all
        report.errors.append(' '.join(str(error).split()))
        return
    except ValueError as error:
        report.errors.append(f"each line must be 'picture label': {error}")
        return
    report.pictures = len(samples)
    labels = {sample['gt_label'] for sample in samples} if dataset.with_label else set()
    if by_folder:
        empty = [name for i, name in enumerate(folders) if i not in labels]
        told = report.errors if loader == 'train_dataloader' else report.warnings
        count(told, empty, 'class folders have no picture')
    elif classes:
        strange = sorted(label for label in labels if not 0 <= label < len(classes))
        count(report.errors, strange, f'labels are no index of the {len(classes)} classes')
    find_whole_pictures(report, [sample['img_path'] for sample in samples])


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


def read_size(path: str) -> tuple[int, int] | None:
    """(width, height) from a picture's header, turned as its EXIF data says and loaders do."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            turned = image.format in ('JPEG', 'MPO') and image.getexif().get(0x0112, 1) >= 5
            return image.size[::-1] if turned else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def read_boxes(anns: list[dict]) -> np.ndarray | None:
    """(N, 4) of all annotations; None when there is none, or one is not four numbers."""
    try:
        boxes = np.array([ann.get('bbox') for ann in anns])
    except ValueError:  # of different lengths
        return None
    is_good = boxes.shape[1:] == (4,) and boxes.dtype.kind in 'iuf'
    return boxes.astype(np.float64) if is_good else None


def spread(items: Sequence, number: int) -> list:
    """At most so many items, evenly spread."""
    return (
        [items[i * len(items) // number] for i in range(number)]
        if len(items) > number
        else [*items]
    )


def count(lines: list[str], found: Sequence, problem: str) -> None:
    """Add a line when anything was found: how many, what, and the first of them."""
    if len(found):
        lines.append(f'{len(found)} {problem}: {enumerate_first(found)}')


def enumerate_first(found: Sequence) -> str:
    return ', '.join(map(str, found[:NAMED])) + (', ...' if len(found) > NAMED else '')


def names_of(paths: Iterable[str]) -> list[str]:
    return [os.path.basename(path) for path in paths]


def compare(wanted: Sequence[str], there: Sequence[str]) -> str:
    """What one list has and the other has not, with what may have been meant."""
    missing = [name for name in wanted if name not in {*there}]
    extra = [name for name in there if name not in {*wanted}]
    parts = []
    if missing:
        parts.append(f'{len(missing)} of {len(wanted)} are not there: {enumerate_first(missing)}')
    if extra:
        parts.append(f'{len(extra)} are there beside: {enumerate_first(extra)}')
    for name in missing[:NAMED]:
        close = difflib.get_close_matches(name, extra, n=1)
        if close:
            parts.append(f"is '{name}' meant for '{close[0]}'?")
    return ', '.join(parts)


# The data sets that can be looked into, with the methods that make them what they are.
EXAMINERS = {
    'mmdet.CocoDataset': (examine_coco, ('load_data_list', 'parse_data_info')),
    'mmseg.BaseSegDataset': (examine_maps, ('load_data_list',)),
    'mmpretrain.CustomDataset': (examine_folders, ('load_data_list', '_find_samples')),
}
