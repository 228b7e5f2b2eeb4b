"""Faults of data sets, found before a run: all of a data set at once, in one line.

What would lose data without a word, or end a run later, is an error; what the toolboxes leave out
by design is a warning. The three data sets that the configs of this package use are looked into:
COCO json, folders of pictures and label maps, folders of classes; and so are those that derive from
them without reading in another way. Nothing is decoded but what looks damaged, and label maps of a
sample; remote files are not looked at.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from ..errors import UserError
from .building import told_in_one_line
from .coco_checks import examine_coco
from .data import find_datasets
from .findings import Report, compare, count, names_of, spread
from .picture_files import SAMPLE, find_missing, find_whole_pictures, read_size

MAPS = 40  # label maps that are decoded
PICKLES = ('.pkl', '.pickle')


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


# The data sets that can be looked into, with the methods that make them what they are.
EXAMINERS = {
    'mmdet.CocoDataset': (examine_coco, ('load_data_list', 'parse_data_info')),
    'mmseg.BaseSegDataset': (examine_maps, ('load_data_list',)),
    'mmpretrain.CustomDataset': (examine_folders, ('load_data_list', '_find_samples')),
}
