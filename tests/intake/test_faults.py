"""Faults of every kind, each planted into a sound folder."""

import json
import math

import pytest
from edits import (
    TRAIN,
    both,
    copy,
    cut,
    drop_every,
    edit,
    first,
    paint,
    remove,
    save_again,
    shrink,
    text,
    turn,
)
from makers import get_coco

from mmdense.intake.copying import write_copy
from mmdense.intake.examining import examine
from mmdense.intake.faults import stops
from mmdense.intake.kinds import KINDS
from mmdense.intake.mending import mend

A = f'{TRAIN}: annotation 1'


RLE = dict(size=[64, 96], counts=[0, 64 * 96])


LINE = 'labels/train/000.txt'


XML = 'Annotations/000.xml'


MASK = 'masks/train/000.png'


# kind, maker, what is planted, where it is found, part of the text
FAULTS = [
    ('malformed file', 'coco', cut(TRAIN, 900), TRAIN, 'no json'),
    ('malformed file', 'coco', text(TRAIN, '[' * 9999 + '"images" "categories"'), TRAIN, 'no json'),
    ('malformed file', 'voc', cut(XML, 80), XML, 'no xml'),
    ('malformed file', 'voc', text(XML, '<!DOCTYPE a []><a/>'), XML, 'declares types'),
    ('malformed file', 'voc', text(XML, '<a>' * 40 + '</a>' * 40), XML, 'deep'),
    ('malformed file', 'yolo', text('broken.yaml', 'a: [1'), 'broken.yaml', 'no yaml'),
    (
        'malformed file',
        'yolo',
        text('broken.yaml', '!!python/object/apply:os.getcwd []'),
        'broken.yaml',
        'no yaml',
    ),
    (
        'malformed line',
        'coco',
        edit(lambda c: c['images'].append(dict(id=5000))),
        f'{TRAIN}: images[12]',
        'file_name',
    ),
    ('malformed line', 'yolo', text(LINE, '0 0.5 0.5 0.1\n'), f'{LINE}:1', "'0 0.5 0.5 0.1'"),
    ('malformed line', 'yolo', text(LINE, '\n0 .5 .5 .1 nan\n'), f'{LINE}:2', 'neither'),
    ('malformed line', 'yolo', text(LINE, '-1 .5 .5 .1 .1\n'), f'{LINE}:1', 'neither'),
    (
        'outside',
        'coco',
        edit(lambda c: c['images'][0].update(file_name='../../../secret.png')),
        f'{TRAIN}: image id 0',
        'no file below',
    ),
    (
        'outside',
        'coco',
        edit(lambda c: c['images'][0].update(file_name='/etc/passwd')),
        f'{TRAIN}: image id 0',
        'no file below',
    ),
    (
        'outside',
        'coco',
        edit(lambda c: c['images'][0].update(file_name='\xe9' * 128)),
        f'{TRAIN}: image id 0',
        'no file below',
    ),
    (
        'outside',
        'coco',
        edit(lambda c: c['images'][0].update(file_name='long/' * 900 + 'a.png')),
        f'{TRAIN}: image id 0',
        'no file below',
    ),
    (
        'malformed line',
        'coco',
        edit(lambda c: c['images'][0].update(file_name='\ud800.png')),
        f'{TRAIN}: images[0]',
        'no entry with file_name',
    ),
    (
        'malformed line',
        'coco',
        edit(lambda c: c['categories'].append(dict(id=4, name='\udfff'))),
        f'{TRAIN}: categories[3]',
        'no entry with name',
    ),
    ('malformed line', 'yolo', text(LINE, f'{"9" * 5000} .5 .5 .1 .1\n'), f'{LINE}:1', 'neither'),
    (
        'outside',
        'voc',
        text(XML, '<a>\n<filename>../../x.png</filename></a>'),
        f'{XML}:2',
        'no file below',
    ),
    (
        'missing picture',
        'coco',
        remove('images/train/000.png'),
        f'{TRAIN}: image id 0',
        'images/train/000.png',
    ),
    (
        'missing picture',
        'voc',
        text('ImageSets/Main/train.txt', '000\n001\nnothing\n'),
        'ImageSets/Main/train.txt:3',
        'nothing',
    ),
    (
        'unreadable picture',
        'coco',
        text('images/train/000.png', 'no picture'),
        f'{TRAIN}: image id 0',
        'no pictures',
    ),
    (
        'unreadable picture',
        'yolo',
        text('images/train/000.png', ''),
        'images/train/000.png',
        'empty',
    ),
    (
        'truncated picture',
        'coco',
        cut('images/train/000.png', 3000),
        f'{TRAIN}: image id 0',
        'cut short',
    ),
    ('turned picture', 'coco', turn, 'images/train/000.jpg', '64 x 96, stored as 96 x 64'),
    ('picture size', 'coco', turn, f'{TRAIN}: image id 0', 'has 64 x 96, stated is 96 x 64'),
    (
        'picture size',
        'coco',
        edit(lambda c: c['images'][0].update(width=97)),
        f'{TRAIN}: image id 0',
        'has 96 x 64, stated is 97 x 64',
    ),
    ('unlabelled picture', 'yolo', remove(LINE), 'images/train/000.png', LINE),
    ('unlabelled picture', 'voc', remove(XML), 'JPEGImages/000.png', XML),
    ('missing mask', 'masks', remove(MASK), 'images/train/000.png', 'masks/train'),
    ('missing partner', 'masks', remove('images/train/000.png'), MASK, 'images/train'),
    ('missing partner', 'yolo', remove('images/train/000.png'), LINE, 'train'),
    ('unreadable mask', 'masks', cut(MASK, 60), MASK, 'cannot be read'),
    ('mask size', 'masks', shrink(MASK), MASK, '96 x 63, the picture has 96 x 64'),
    ('mask values', 'masks', paint(MASK, 77), MASK, '77 are none of the 4 classes'),
    ('malformed box', 'coco', first(bbox=[1, 2, 3]), A, '[1, 2, 3]'),
    ('malformed box', 'coco', first(bbox=[1, 2, 3, math.nan]), A, 'nan'),
    ('malformed box', 'coco', first(bbox=['1', 2, 3, 4]), A, "'1'"),
    (
        'malformed box',
        'voc',
        text(XML, '<a>\n<object><name>kite</name>\n<bndbox/></object></a>'),
        f'{XML}:2',
        "['', '', '', '']",
    ),
    ('box outside', 'coco', first(bbox=[200, 9, 9, 9]), A, '(200, 9, 9, 9) in 96 x 64'),
    ('box outside', 'coco', first(bbox=[-30, 9, 9, 9]), A, '(-30, 9, 9, 9)'),
    ('box outside', 'yolo', text(LINE, '0 1.2 .5 .1 .1\n'), f'{LINE}:1', 'in 96 x 64'),
    ('box beyond', 'coco', first(bbox=[-3, 9, 20, 9]), A, '(-3, 9, 20, 9)'),
    ('empty box', 'coco', first(bbox=[9, 9, -3, 9]), A, '(9, 9, -3, 9)'),
    ('empty box', 'yolo', text(LINE, '0 .5 .5 0 .1\n'), f'{LINE}:1', '(48, '),
    ('thin box', 'coco', first(bbox=[9, 9, 0.5, 9]), A, '(9, 9, 0.5, 9)'),
    ('degenerate polygon', 'coco', first(segmentation=[[1, 2, 3, 4]]), A, 'polygon 1 of 1'),
    (
        'degenerate polygon',
        'coco',
        first(segmentation=[[9, 9, 19, 9, 9, 19], [1, 1, 5, 5, 9, 9]]),
        A,
        'polygon 2 of 2',
    ),
    ('degenerate polygon', 'yolo', text(LINE, '0 .1 .1 .2 .2 .3 .3\n'), f'{LINE}:1', 'polygon 1'),
    (
        'mask run lengths',
        'coco',
        first(segmentation=dict(RLE, size=[96, 64])),
        A,
        'size is 64 x 96, the picture has 96 x 64',
    ),
    ('mask run lengths', 'coco', first(segmentation=dict(RLE, counts=[5, 9])), A, 'add up'),
    ('mask run lengths', 'coco', first(segmentation=dict(RLE, counts='zzz')), A, 'add up'),
    ('missing shape', 'coco', first(segmentation=[]), A, 'a box alone'),
    (
        'repeated object',
        'coco',
        edit(lambda c: c['annotations'].append(dict(c['annotations'][0], id=9999))),
        f'{TRAIN}: annotation 9999',
        'the same class',
    ),
    ('unknown category', 'coco', first(category_id=77), A, 'id 77'),
    ('unknown category', 'yolo', text(LINE, '3 .5 .5 .1 .1\n'), f'{LINE}:1', 'class 3 of 3'),
    (
        'unknown category',
        'voc',
        text(XML, '<a>\n\n<object/></a>'),
        f'{XML}:3',
        'no name',
    ),
    (
        'gapped category ids',
        'coco',
        edit(lambda c: c['categories'].append(dict(id=9, name='late'))),
        f'{TRAIN}: category 9',
        'follows 3',
    ),
    (
        'double category',
        'coco',
        both(
            edit(lambda c: c['categories'].append(dict(id=4, name='kite'))),
            first(category_id=4),
        ),
        f'{TRAIN}: category 4',
        "'kite'",
    ),
    (
        'idle category',
        'coco',
        edit(lambda c: c['categories'].insert(0, dict(id=0, name='kite'))),
        f'{TRAIN}: category 1',
        "'kite'",
    ),
    (
        'double category',
        'coco',
        edit(lambda c: c['categories'].append(dict(id=3, name='late'))),
        f'{TRAIN}: category 3',
        "'late'",
    ),
    (
        'double image id',
        'coco',
        edit(lambda c: c['images'][1].update(id=0)),
        f'{TRAIN}: image id 0',
        "'001.png' and '000.png'",
    ),
    (
        'double annotation id',
        'coco',
        edit(lambda c: c['annotations'][1].update(id=1)),
        A,
        '2 have this id',
    ),
    ('unknown image id', 'coco', first(image_id=777), A, 'id 777'),
    (
        'unused class',
        'coco',
        both(drop_every(1, 'train'), drop_every(1, 'val')),
        'all splits',
        'squ',
    ),
    ('one-sided class', 'coco', drop_every(1, 'train'), 'val', "'square' is not in train"),
    (
        'empty split',
        'coco',
        text('annotations/instances_test.json', json.dumps(dict(get_coco([], range(0), True)))),
        'test',
        'no picture',
    ),
    *(
        (
            'strange name',
            'classes',
            copy('train/kite/000.png', f'train/kite/a{character}.png'),
            f'train/kite/a{word}.png',
            'control characters',
        )
        for character, word in (
            ('\n', '\\n'),
            ('\x07', '\\x07'),
            ('\u2028', '\\u2028'),
            ('\udcff', '\\udcff'),
        )
    ),
    (
        'duplicate',
        'classes',
        copy('train/kite/000.png', 'train/kite/copy.png'),
        'train/kite/copy.png',
        "equals train 'train/kite/000.png'",
    ),
    (
        'two classes',
        'classes',
        copy('train/kite/000.png', 'train/wedge/copy.png'),
        'train/wedge/copy.png',
        "equals train 'train/kite/000.png'",
    ),
    (
        'duplicate across',
        'classes',
        copy('train/kite/000.png', 'val/kite/copy.png'),
        'val/kite/copy.png',
        "equals train 'train/kite/000.png'",
    ),
    (
        'duplicate',
        'voc',
        text('ImageSets/Main/train.txt', '000\n001\n000\n'),
        XML,
        "train 'JPEGImages/000.png' equals train",
    ),
    (
        'duplicate across',
        'voc',
        text('ImageSets/Main/val.txt', '000\n012\n'),
        XML,
        "val 'JPEGImages/000.png' equals train",
    ),
    (
        'near duplicate',
        'classes',
        save_again('train/kite/000.png', 'train/kite/copy.jpg'),
        'train/kite/copy.jpg',
        "looks like train 'train/kite/000.png'",
    ),
    (
        'near duplicate across',
        'classes',
        save_again('train/kite/000.png', 'val/kite/copy.jpg'),
        'val/kite/copy.jpg',
        "looks like train 'train/kite/000.png'",
    ),
]


IDS = [f'{i}-{kind}' for i, (kind, *_) in enumerate(FAULTS)]


@pytest.mark.parametrize('kind, maker, plant, where, words', FAULTS, ids=IDS)
def test_fault_is_found_and_mended(kind, maker, plant, where, words, own, tmp_path):
    """With its place; the mended copy has none that stops a training."""
    root = own(maker)
    plant(root)
    examination = examine(root)
    found = [fault for fault in examination.faults if fault.kind == kind]
    assert [fault.where for fault in found][:1] == [where], examination.faults[:5]
    assert words in found[0].text
    assert stops(examination.faults) >= KINDS[kind].stops
    folder, said = mend(examination, in_place=False)
    write_copy(folder, examination.pictures, tmp_path / 'mended')
    again = examine(tmp_path / 'mended')
    if 'train' in folder.splits:  # else its one file is lost
        assert not stops(again.faults), again.faults[:5]
    assert said or not KINDS[kind].remedy.startswith('--fix') or kind in COUNTED


COUNTED = (  # what any copy mends, since it counts ids anew
    'gapped category ids',
    'double category',
    'double annotation id',
    'unknown image id',
    'missing picture',  # named by a list alone
)


def test_every_kind_is_planted():
    assert {kind for kind, *_ in FAULTS} == KINDS.keys()
