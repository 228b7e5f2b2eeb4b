"""The page of a data set: what it holds, samples of it, what is alike, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageOps

from ..engine.findings import spread
from ..intake.examining import Examination
from ..intake.folder import CLASSES, SEMANTIC, Folder, Instance, Sample
from ..intake.kinds import KINDS
from ..intake.masks import read_codes, relabel
from ..intake.models import Input
from ..intake.shapes import find_box, find_rle_fault, is_polygon, read_counts
from ..intake.summary import (
    Rows,
    compare_with_strides,
    count_each_class,
    count_kinds,
    count_splits,
    describe,
    measure_classes,
    measure_objects,
)
from .page import Gallery, Page, Picture, Plot, Section, Table, write_page

SAMPLES = 12  # of each split
SIDE = 480  # pixels of a sample's longer side
LISTED = 1000  # faults of a kind
PAIRS = 12  # of pictures that are equal or look alike
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
)


def write_report(examination: Examination, seen: Input, path: str | Path) -> None:
    """Write the page.

    Args:
        examination: What was found.
        seen: What the model sees that objects are compared with.
        path: The file.
    """
    folder, faults = examination.folder, examination.faults
    stopping = sum(KINDS[fault.kind].stops for fault in faults)
    samples = [sample for _, sample in folder.samples()]
    figures = {'pictures': len(samples), 'classes': len(folder.classes)}
    if folder.task not in (SEMANTIC, CLASSES):
        figures['objects'] = sum(len(sample.instances) for sample in samples)
    page = Page(
        title=folder.root.resolve().name,
        lead=describe(examination),
        figures=figures | {'faults': stopping, 'warnings': len(faults) - stopping},
        sections=[
            Section('Faults', [*list_faults(examination)] or ['None was found.']),
            Section('Splits', [*folder.notes, as_table(count_splits(examination))]),
            Section('Classes', [as_table(count_each_class(examination))]),
            *compare_objects(examination, seen),
            *show_samples(examination),
            *show_alike(examination),
        ],
    )
    write_page(page, path)


def as_table(rows: Rows) -> Table:
    return Table(rows.columns, rows.rows, rows.caption)


def list_faults(examination: Examination) -> Iterator[str | Table]:
    """A paragraph and a table for each kind."""
    for kind, number in count_kinds(examination.faults):
        row = KINDS[kind]
        name = 'Fault' if row.stops else 'Warning'
        found = [fault for fault in examination.faults if fault.kind == kind][:LISTED]
        caption = f'{name}: {kind}: {number} {row.title}; {row.remedy}'
        if number > LISTED:
            caption += f' (the first {LISTED})'
        yield Table(('where', 'what'), [(f.where, f.text) for f in found], caption)


def compare_objects(examination: Examination, seen: Input) -> Iterator[Section]:
    """Sizes of objects in the model's pixels, and its strides."""
    if examination.folder.task in (SEMANTIC, CLASSES):
        return
    rows, word = compare_with_strides(examination, seen)
    sides = measure_objects(examination, seen)
    parts: list[str | Table | Plot] = [as_table(measure_classes(examination)), as_table(rows)]
    if (sides > 0).any():
        figure = Figure(figsize=(8, 3), layout='constrained')
        axis = figure.subplots()
        axis.hist(sides[sides > 0], np.geomspace(1, max(sides.max(), 2), 40))
        axis.set_xscale('log', base=2)
        for stride in seen.strides:
            axis.axvline(stride, color='black', linestyle=':')
        axis.set(xlabel="pixels of a side in the model's input", ylabel='objects')
        parts.append(Plot(figure, 'Sides of objects; dotted lines are strides of the model'))
    yield Section('Objects and the model', [*([word] if word else []), *parts])


def show_samples(examination: Examination) -> Iterator[Section]:
    """Some pictures of each split, evenly spread, with what is said of them."""
    for split, samples in examination.folder.splits.items():
        readable = [s for s in samples if not examination.pictures[s.picture].fault]
        drawn = [draw(examination.folder, sample) for sample in spread(readable, SAMPLES)]
        if drawn:
            yield Section(f'Samples: {split}', [Gallery(drawn)])


def show_alike(examination: Examination) -> Iterator[Section]:
    """Thumbnails of pictures that are equal or look alike."""
    found = [fault for fault in examination.faults if fault.pictures]
    pictures = []
    for fault in found[:PAIRS]:
        sides = [examination.pictures[path].thumbnail for path in fault.pictures]
        pair = Image.fromarray(np.concatenate(sides, axis=1))
        pictures.append(Picture(pair.resize((256, 128)), fault.text))
    if pictures:
        yield Section('Pictures that are alike', [Gallery(pictures)])


def draw(folder: Folder, sample: Sample) -> Picture:
    """A sample with its boxes, shapes, mask or class."""
    with Image.open(sample.picture) as image:
        picture = ImageOps.exif_transpose(image).convert('RGB')
    width, height = picture.size
    factor = SIDE / max(width, height)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    picture = picture.resize(size)
    name = folder.name(sample.picture)
    if sample.label is not None:
        return Picture(picture, f'{folder.classes[sample.label]}: {name}')
    if sample.values is not None:
        labels = relabel(read_codes(sample.mask), folder.codes)
        palette = np.array([pick_colour(folder, i) for i in range(256)], np.uint8)
        mask = Image.fromarray(palette[labels]).resize(size, Image.Resampling.NEAREST)
        return Picture(Image.blend(picture, mask, 0.5), name)
    for instance in sample.instances:
        draw_instance(picture, folder, instance, (width, height))
    return Picture(picture, f'{len(sample.instances)} objects: {name}')


def pick_colour(folder: Folder, label: int) -> Sequence[int]:
    """A class's own, or one of ours."""
    if folder.palette and label < len(folder.palette):
        return folder.palette[label]
    return COLOURS[label % len(COLOURS)]


def draw_instance(
    picture: Image.Image, folder: Folder, instance: Instance, size: tuple[int, int]
) -> None:
    """Draw a box, the lines of polygons or the pixels of run lengths, and the class.

    Args:
        picture: Scaled; it is drawn on.
        folder: Names the class.
        instance: An object of the picture.
        size: (width, height) before it was scaled.
    """
    factor = picture.width / size[0]
    colour = tuple(pick_colour(folder, instance.label or 0))
    pen = ImageDraw.Draw(picture)
    for polygon in instance.polygons or []:
        if is_polygon(polygon):
            corners = [factor * value for value in polygon]
            pen.line(corners + corners[:2], fill=colour, width=2)
    if instance.rle and not find_rle_fault(instance.rle, size):
        mask = expand(instance.rle).resize(picture.size)
        picture.paste(Image.blend(picture, Image.new('RGB', picture.size, colour), 0.5), mask=mask)
    box = find_box(instance)
    if box is None or min(box[2:]) <= 0:
        return
    left, top, right, bottom = (
        factor * value for value in (box[0], box[1], box[0] + box[2], box[1] + box[3])
    )
    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
    name = '?' if instance.label is None else folder.classes[instance.label]
    pen.text((left + 4, top + 2), name, fill='white', stroke_width=2, stroke_fill='black')


def expand(rle: dict) -> Image.Image:
    """Run lengths as a mask of black and white."""
    height, width = rle['size']
    runs = read_counts(rle['counts'])
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return Image.fromarray(flat.reshape(width, height).T.astype(np.uint8) * 255)
