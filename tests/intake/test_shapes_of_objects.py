"""Boxes, polygons and run lengths, beside COCO's own reckoning."""

import numpy as np
import pytest
from pycocotools import mask as coco

from mmdense.intake.folder import Instance
from mmdense.intake.shapes import (
    find_box,
    find_box_fault,
    find_rle_fault,
    find_shape_faults,
    is_box,
    is_polygon,
    measure,
    measure_polygon,
    read_counts,
)

SIZE = (20, 10)  # width, height
SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]


def make_masks() -> list[np.ndarray]:
    """Of every kind of run: none, one pixel, everything, whole columns, noise, edges."""
    rng = np.random.default_rng(0)
    empty = np.zeros(SIZE[::-1], np.uint8)
    one, columns, edge = empty.copy(), empty.copy(), empty.copy()
    one[3, 7] = columns[:, 4:9] = edge[[0, -1]] = 1
    blob = empty.copy()
    blob[2:8, 5:15] = 1
    return [empty, one, empty + 1, columns, edge, blob, *rng.integers(0, 2, (20, *SIZE[::-1]))]


@pytest.mark.parametrize('mask', make_masks())
@pytest.mark.parametrize('compressed', [False, True])
def test_run_lengths_are_read_as_cocos(mask, compressed):
    made = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ends = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2))
    runs = np.diff(ends, prepend=0).tolist()
    counts = made['counts'].decode() if compressed else runs
    assert read_counts(counts)[: len(runs)] == runs
    instance = Instance(0, '', rle=dict(size=[*mask.shape], counts=counts))
    assert measure(instance) == coco.area(made)
    assert find_box(instance) == coco.toBbox(made).tolist()
    assert find_rle_fault(instance.rle, SIZE) is None


@pytest.mark.parametrize('counts', ['\x20', 'é', 'ooooooooo', 7, None, [1.5], ['1']])
def test_what_are_no_run_lengths(counts):
    assert read_counts(counts) is None
    assert 'do not add up' in find_rle_fault(dict(size=[10, 20], counts=counts), None)


@pytest.mark.parametrize(
    'rle, words',
    [
        (dict(counts=[200]), 'size is not'),
        (dict(size=[10], counts=[200]), 'size is not'),
        (dict(size=[20, 10], counts=[200]), 'size is 10 x 20, the picture has 20 x 10'),
        (dict(size=[10, 20], counts=[199]), 'do not add up to 20 x 10'),
        (dict(size=[10, 20], counts=[-1, 201]), 'do not add up'),
    ],
)
def test_faulty_run_lengths(rle, words):
    assert words in find_rle_fault(rle, SIZE)


def test_polygons():
    assert measure_polygon(SQUARE) == 16
    assert measure_polygon(SQUARE[::-1]) == 16  # mirrored, and the other way round
    assert is_polygon(SQUARE)
    for corners in (SQUARE[:4], SQUARE[:7], [1, 1, 5, 5, 9, 9], [0, 0, 9, 0, 9, float('nan')], ()):
        assert not is_polygon(corners)
    instance = Instance(0, '', polygons=[SQUARE, [10, 1, 12, 1, 10, 3]])
    assert find_box(instance) == [2, 1, 10, 5] and measure(instance) == 18


@pytest.mark.parametrize(
    'box, kind',
    [
        ([0, 0, 20, 10], None),
        ([-0.9, -0.9, 21.8, 11.8], None),  # less than a pixel
        ([-1, 0, 5, 5], 'box beyond'),
        ([16, 6, 5, 5], 'box beyond'),
        ([15, 5, 5.9, 5.9], None),
        ([18, 0, 5, 5], 'box outside'),  # by its centre
        ([-3, 0, 5, 5], 'box outside'),
        ([5, 5, 0, 5], 'empty box'),
        ([5, 5, 5, -1], 'empty box'),
        ([5, 5, 0.9, 5], 'thin box'),
    ],
)
def test_faulty_boxes(box, kind):
    assert [kind for kind, _ in find_box_fault(box, SIZE)] == ([kind] if kind else [])
    if kind in ('box beyond', 'box outside'):  # beyond what, is not known
        assert not list(find_box_fault(box, None))


def test_numbers_of_boxes():
    assert is_box([1, 2.5, 3, 4]) and is_box((1, 2, 3, 4))
    for box in ([1, 2, 3], [1, 2, 3, True], [1, 2, 3, '4'], [1, 2, 3, float('inf')], [2**31] * 4):
        assert not is_box(box)
        assert find_box(Instance(0, '', box=box)) is None


@pytest.mark.parametrize(
    'instance, kinds',
    [
        (dict(box=[1, 1, 5, 5]), ['missing shape']),
        (dict(box=[1, 1, 5, 5], polygons=[SQUARE]), []),
        (dict(polygons=[SQUARE, [1, 2]]), ['degenerate polygon']),
        (dict(polygons=[]), ['malformed box']),
        (dict(box='1, 1, 5, 5', polygons=[SQUARE]), ['malformed box']),
        (dict(rle=dict(size=[10, 20], counts=[5])), ['mask run lengths']),
        (dict(), ['missing shape', 'malformed box']),
    ],
)
def test_faulty_objects(instance, kinds):
    found = find_shape_faults(Instance(0, '', **instance), SIZE, shaped=True)
    assert [kind for kind, _ in found] == kinds
