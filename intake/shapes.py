"""Boxes, polygons and run lengths of objects: what is wrong with them, and their areas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .folder import Instance

MIN_AREA = 1e-3  # square pixels of a polygon
Size = tuple[int, int]


def find_shape_faults(
    instance: Instance, size: Size | None, shaped: bool
) -> Iterator[tuple[str, str]]:
    """Kinds and texts of what is wrong with an object.

    Args:
        instance: The object.
        size: (width, height) of its picture, where known.
        shaped: Whether it should have a polygon or run lengths.
    """
    if instance.polygons is not None:
        bad = [i for i, polygon in enumerate(instance.polygons) if not is_polygon(polygon)]
        if bad:
            yield 'degenerate polygon', f'polygon {bad[0] + 1} of {len(instance.polygons)}'
    elif instance.rle is not None:
        problem = find_rle_fault(instance.rle, size)
        if problem:
            yield 'mask run lengths', problem
    elif shaped:
        yield 'missing shape', 'it has a box alone'
    box = find_box(instance)
    if box is None and (instance.box is not None or not (instance.polygons or instance.rle)):
        yield 'malformed box', f'{str(instance.box)[:60]}'
    elif box is not None:
        yield from find_box_fault(box, size)


def find_box_fault(box: Sequence[float], size: Size | None) -> Iterator[tuple[str, str]]:
    """At most one fault of a box (x, y, width, height)."""
    x, y, width, height = box
    text = f'({x:g}, {y:g}, {width:g}, {height:g})'
    inside = size is None or all(
        0 <= corner + side / 2 <= limit for corner, side, limit in zip(box[:2], box[2:], size)
    )
    if width <= 0 or height <= 0:
        yield 'empty box', text
    elif not inside:
        yield 'box outside', f'{text} in {size[0]} x {size[1]}'
    elif min(width, height) < 1:
        yield 'thin box', text
    elif size and (min(x, y) <= -1 or x + width >= size[0] + 1 or y + height >= size[1] + 1):
        yield 'box beyond', f'{text} in {size[0]} x {size[1]}'


def is_box(box: object) -> bool:
    return isinstance(box, list | tuple) and len(box) == 4 and all(map(is_number, box))


def is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) < 2**31 and math.isfinite(value)


def is_polygon(polygon: object) -> bool:
    """Three corners or more, with an area."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(map(is_number, polygon)) and measure_polygon(polygon) > MIN_AREA


def measure_polygon(polygon: Sequence[float]) -> float:
    """The area within a polygon."""
    x, y = np.array(polygon[::2], np.float64), np.array(polygon[1::2], np.float64)
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def find_box(instance: Instance) -> list[float] | None:
    """(x, y, width, height): the object's, or that of its shape."""
    if instance.box is not None:
        return [float(value) for value in instance.box] if is_box(instance.box) else None
    polygons = [p for p in instance.polygons or [] if is_polygon(p)]
    if polygons:
        x, y = ([value for p in polygons for value in p[i::2]] for i in (0, 1))
        return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
    if instance.rle and not find_rle_fault(instance.rle, None):
        return find_rle_box(instance.rle)
    return None


def find_rle_box(rle: dict) -> list[float]:
    """Of run lengths, which go down one column after another."""
    height = rle['size'][0]
    ends = np.cumsum(read_counts(rle['counts']))
    starts, stops = ends[0::2][: len(ends) // 2], ends[1::2] - 1
    if not len(starts) or (stops < starts).all():
        return [0.0, 0.0, 0.0, 0.0]
    is_whole = (stops // height > starts // height).any()  # a run that goes on in the next column
    left, right = int(starts.min() // height), int(stops.max() // height)
    top = 0 if is_whole else int((starts % height).min())
    bottom = height - 1 if is_whole else int((stops % height).max())
    return [float(v) for v in (left, top, right - left + 1, bottom - top + 1)]


def find_rle_fault(rle: dict, size: Size | None) -> str | None:
    """What is wrong with run lengths in a picture of (width, height)."""
    stated, counts = rle.get('size'), read_counts(rle.get('counts'))
    if not isinstance(stated, list) or len(stated) != 2 or not all(map(is_number, stated)):
        return 'size is not (height, width)'
    if size and [*stated] != [size[1], size[0]]:
        return f'size is {stated[1]} x {stated[0]}, the picture has {size[0]} x {size[1]}'
    if counts is None or min(counts, default=0) < 0 or sum(counts) != stated[0] * stated[1]:
        return f'the runs do not add up to {stated[1]} x {stated[0]}'
    return None


def read_counts(counts: object) -> list[int] | None:
    """Run lengths as a list, or as COCO's text: five bits a character, differences from the third
    on to the run before the last."""
    if isinstance(counts, list):
        return counts if all(isinstance(count, int) for count in counts) else None
    if not isinstance(counts, str):
        return None
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def measure(instance: Instance) -> float:
    """The area of an object in square pixels."""
    if instance.polygons:
        return sum(measure_polygon(polygon) for polygon in instance.polygons)
    if instance.rle:
        return float(sum(read_counts(instance.rle['counts'])[1::2]))
    box = find_box(instance)
    return box[2] * box[3]
