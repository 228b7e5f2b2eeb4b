"""A data set in numbers: tables for the terminal and for pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .examining import Examination
from .faults import count_classes
from .folder import CLASSES, SEMANTIC, Fault
from .kinds import KINDS
from .models import Input
from .shapes import find_box

UNITS = {SEMANTIC: 'pixels', CLASSES: 'pictures'}  # what is counted of a class; else objects
SMALL = 0.05  # share of objects below the finest stride that is worth a word


class Rows(NamedTuple):
    """A table.

    Args:
        caption: What it shows.
        columns: Their names.
        rows: A cell for each column.
    """

    caption: str
    columns: Sequence[str]
    rows: list[list[object]]


def count_splits(examination: Examination) -> Rows:
    """Pictures, objects and sizes of each split."""
    rows, has_objects = [], examination.folder.task not in UNITS
    for split, samples in examination.folder.splits.items():
        sizes = np.array([s.size for s in samples if s.size] or [[0, 0]])
        smallest, middle, largest = (
            '{:.0f} x {:.0f}'.format(*pick(sizes, axis=0)) for pick in (np.min, np.median, np.max)
        )
        objects = [sum(len(sample.instances) for sample in samples)] if has_objects else []
        rows.append([split, len(samples), *objects, smallest, middle, largest])
    numbers = ('pictures', 'objects') if has_objects else ('pictures',)
    columns = ('split', *numbers, 'smallest', 'median', 'largest')
    return Rows('Pictures: numbers, and sides', columns, rows)


def count_each_class(examination: Examination) -> Rows:
    """Objects, pictures or pixels of each class in each split."""
    folder = examination.folder
    counts = [count_classes(folder, samples) for samples in folder.splits.values()]
    rows = [[name, *(c[label] for c in counts)] for label, name in enumerate(folder.classes)]
    unit = UNITS.get(folder.task, 'objects')
    return Rows(f'Classes: {unit} in each split', ('class', *folder.splits), rows)


def measure_classes(examination: Examination) -> Rows:
    """Sizes of the objects of each class."""
    sides: dict[int, list[float]] = {}
    pictures: Counter[int] = Counter()
    for _, sample in examination.folder.samples():
        pictures.update({i.label for i in sample.instances})
        for instance in sample.instances:
            box = find_box(instance)
            if box:
                sides.setdefault(instance.label, []).append(max(box[2] * box[3], 0) ** 0.5)
    rows = []
    for label, name in enumerate(examination.folder.classes):
        found = sides.get(label) or [0]
        sizes = (f'{pick(found):.0f}' for pick in (np.min, np.median, np.max))
        rows.append([name, pictures[label], *sizes])
    caption = 'Classes: pictures with them, and sides of squares as large as their boxes, in pixels'
    return Rows(caption, ('class', 'pictures', 'smallest', 'median', 'largest'), rows)


def measure_objects(examination: Examination, seen: Input) -> np.ndarray:
    """Sides of squares as large as the boxes, in pixels of a model's input."""
    sides = []
    for _, sample in examination.folder.samples():
        boxes = [find_box(instance) for instance in sample.instances]
        if sample.size:
            factor = seen.get_factor(sample.size)
            sides += [factor * max(b[2] * b[3], 0) ** 0.5 for b in boxes if b]
    return np.array(sides)


def compare_with_strides(examination: Examination, seen: Input) -> tuple[Rows, str | None]:
    """How many objects are as large as each stride, and a word when many are smaller."""
    sides = measure_objects(examination, seen)
    edges = [0, *sorted(set(seen.strides)), np.inf]
    counts = np.histogram(sides, edges)[0].tolist()
    names = [f'{a} to {b}' for a, b in zip(edges[:-2], edges[1:-1])] + [f'{edges[-2]} and more']
    total = max(sum(counts), 1)
    rows = [[name, number, number / total] for name, number in zip(names, counts)]
    caption = "Objects: pixels of a side in the model's input, by the strides of its maps"
    word = None
    if counts[0] / total > SMALL:
        word = (
            f'{counts[0]} of {total} objects are smaller than {edges[1]} pixels in the model, its '
            'finest stride: a larger input finds more of them'
        )
    return Rows(caption, ('side', 'objects', 'share'), rows), word


def count_kinds(faults: Sequence[Fault]) -> list[tuple[str, int]]:
    """Kinds of faults and how many there are of each, those that stop a training first."""
    return [*Counter(fault.kind for fault in faults).items()]


def describe(examination: Examination) -> str:
    """What the folder is, in a line."""
    folder = examination.folder
    pictures = ' + '.join(f'{len(samples)} {split}' for split, samples in folder.splits.items())
    classes = f'{len(folder.classes)} class' + ('es' if len(folder.classes) != 1 else '')
    return f'{folder.layout}, {folder.task}: {classes}, {pictures} pictures'


def conclude(examination: Examination) -> str:
    """How many faults and warnings there are, in a line."""
    stopping = sum(KINDS[fault.kind].stops for fault in examination.faults)
    warnings = len(examination.faults) - stopping
    kinds = sum(KINDS[kind].stops for kind, _ in count_kinds(examination.faults))
    if not examination.faults:
        return 'no fault was found'
    return f'{stopping} faults of {kinds} kinds, {warnings} warnings'
