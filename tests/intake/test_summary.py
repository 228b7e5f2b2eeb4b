"""A data set in numbers, counted by hand."""

from pathlib import Path

import pytest

from mmdense.intake.examining import Examination
from mmdense.intake.folder import Fault, Folder, Instance, Sample
from mmdense.intake.models import Input
from mmdense.intake.summary import (
    compare_with_strides,
    conclude,
    count_each_class,
    count_kinds,
    count_splits,
    describe,
    measure_classes,
    measure_objects,
)


def make_objects() -> Examination:
    """Two classes; the object without a box counts, and has no size."""
    samples = [
        Sample(Path('a'), '', (100, 50), [Instance(0, '', [0, 0, 4, 9]), Instance(1, '')]),
        Sample(Path('b'), '', (60, 80), [Instance(0, '', [0, 0, 16, 16])]),
        Sample(Path('c'), ''),
        Sample(Path('d'), '', (200, 100), [Instance(1, '', [0, 0, 20, 45])]),
    ]
    splits = dict(train=samples[:3], val=samples[3:])
    folder = Folder(Path('root'), 'COCO json', 'detection', ['ape', 'bee'], splits)
    return Examination(folder, {}, [])


def make_masks() -> Examination:
    samples = [
        Sample(Path('a'), '', values={0: 30, 7: 5, 99: 1}),  # no class has the value 99
        Sample(Path('b'), '', values={7: 2}),
        Sample(Path('c'), ''),
    ]
    classes = ['ground', 'ape']
    codes = {0: 0, 7: 1}
    task = 'semantic segmentation'
    folder = Folder(Path('root'), 'masks', task, classes, dict(all=samples), codes=codes)
    return Examination(folder, {}, [])


def test_pictures_of_splits():
    table = count_splits(make_objects())
    assert table.columns == ('split', 'pictures', 'objects', 'smallest', 'median', 'largest')
    assert table.rows == [
        ['train', 3, 3, '60 x 50', '80 x 65', '100 x 80'],
        ['val', 1, 1, '200 x 100', '200 x 100', '200 x 100'],
    ]
    table = count_splits(make_masks())
    assert table.columns == ('split', 'pictures', 'smallest', 'median', 'largest')
    assert table.rows == [['all', 3, '0 x 0', '0 x 0', '0 x 0']]


def test_each_class():
    table = count_each_class(make_objects())
    assert table.columns == ('class', 'train', 'val')
    assert table.rows == [['ape', 2, 0], ['bee', 1, 1]] and 'objects' in table.caption
    table = count_each_class(make_masks())
    assert table.rows == [['ground', 30], ['ape', 7]] and 'pixels' in table.caption


def test_sizes_of_classes():
    """Of squares as large: 4 x 9 is 6 x 6, 20 x 45 is 30 x 30."""
    assert measure_classes(make_objects()).rows == [
        ['ape', 2, '6', '11', '16'],
        ['bee', 2, '30', '30', '30'],
    ]


def test_objects_beside_strides():
    """In the model's input, to which 100 x 50 grows and 200 x 100 shrinks."""
    seen = Input((8, 4, 16), (120, 60))
    assert measure_objects(make_objects(), seen).tolist() == pytest.approx([7.2, 16, 18])
    table, word = compare_with_strides(make_objects(), seen)
    assert table.rows == [
        ['0 to 4', 0, 0],
        ['4 to 8', 1, 1 / 3],
        ['8 to 16', 0, 0],
        ['16 and more', 2, 2 / 3],
    ]
    assert word is None
    _, word = compare_with_strides(make_objects(), Input((8, 16)))
    assert word.startswith('1 of 3 objects are smaller than 8 pixels')


@pytest.mark.parametrize(
    'kinds, words',
    [
        ([], 'no fault was found'),
        (['empty box', 'box beyond', 'empty box'], '2 faults of 1 kinds, 1 warnings'),
        (['thin box'], '0 faults of 0 kinds, 1 warnings'),
    ],
)
def test_in_a_line(kinds, words):
    examination = make_objects()
    examination.faults = [Fault(kind, '', '') for kind in kinds]
    assert conclude(examination) == words
    assert dict(count_kinds(examination.faults)) == {k: kinds.count(k) for k in kinds}
    found = describe(examination)
    assert found == 'COCO json, detection: 2 classes, 3 train + 1 val pictures'
