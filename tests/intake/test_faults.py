"""Faults of every kind, each planted into a sound folder; and the copies that --fix writes."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers import MAKERS, get_coco, name, write
from PIL import Image

from mmdense.intake.copying import write_copy
from mmdense.intake.examining import examine
from mmdense.intake.faults import count_classes, stops
from mmdense.intake.kinds import KINDS
from mmdense.intake.mending import mend

TRAIN = 'annotations/instances_train.json'


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the json of the training data."""

    def plant(root: Path) -> None:
        content = json.loads((root / TRAIN).read_text())
        change(content)
        (root / TRAIN).write_text(json.dumps(content))

    return plant


def first(**changes: object) -> Callable[[Path], None]:
    """Change the json's first annotation, 'annotation 1'."""
    return edit(lambda content: content['annotations'][0].update(changes))


def text(file: str, content: str) -> Callable[[Path], None]:
    return lambda root: write(root / file, content)


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def cut(file: str, size: int) -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:size])


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: shutil.copy(root / source, root / target)


def save_again(source: str, target: str, orientation: int = 1) -> Callable[[Path], None]:
    """As a JPEG, with EXIF data."""

    def plant(root: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(root / source) as image:
            image.convert('RGB').save(root / target, quality=95, exif=exif)

    return plant


def turn(root: Path) -> None:
    """The first picture is a JPEG that EXIF data turn by 90 degrees."""
    save_again('images/train/000.png', 'images/train/000.jpg', 6)(root)
    edit(lambda content: content['images'][0].update(file_name='000.jpg'))(root)


def paint(file: str, value: int) -> Callable[[Path], None]:
    """A corner of a mask gets a value."""

    def plant(root: Path) -> None:
        mask = np.asarray(Image.open(root / file)).copy()
        mask[:4, :4] = value
        Image.fromarray(mask).save(root / file)

    return plant


def shrink(file: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        mask = np.asarray(Image.open(root / file))
        Image.fromarray(mask[:-1]).save(root / file)

    return plant


def drop_every(label: int, split: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        path = root / f'annotations/instances_{split}.json'
        content = json.loads(path.read_text())
        kept = [a for a in content['annotations'] if a['category_id'] != label + 1]
        path.write_text(json.dumps(dict(content, annotations=kept)))

    return plant


def both(*plants: Callable[[Path], None]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for each in plants:
            each(root)

    return plant


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


UNNAMED = (('masks', 'classes.txt'), ('colours', 'labels.txt'))  # without their text of classes


@pytest.mark.parametrize('maker, unnamed', [*((maker, '') for maker in MAKERS), *UNNAMED])
def test_copies_of_sound_folders_have_the_same(maker, unnamed, own, tmp_path):
    """Also of masks whose classes no text names."""
    root = own(maker)
    if unnamed:
        (root / unnamed).unlink()
    examination = examine(root)
    folder, said = mend(examination, in_place=False)
    write_copy(folder, examination.pictures, tmp_path / 'mended')
    again = examine(tmp_path / 'mended')
    assert not said and not stops(again.faults), again.faults[:5]
    assert (again.folder.classes, again.folder.task) == (folder.classes, folder.task)
    for split, samples in folder.splits.items():
        assert count_classes(again.folder, again.folder.splits[split]) == count_classes(
            folder, samples
        )


def test_every_kind_is_planted():
    assert {kind for kind, *_ in FAULTS} == KINDS.keys()


@pytest.mark.parametrize('turned_back', [True, False])
def test_turned_pictures_are_mended_as_they_were_annotated(turned_back, own, tmp_path, scenes):
    """Where sizes are those of the stored pixels, the pixels stay; else they are turned."""
    root = own('coco')
    turn(root)
    if turned_back:
        edit(lambda c: c['images'][0].update(width=64, height=96))(root)
        edit(lambda c: [a.update(bbox=[9, 9, 9, 9]) for a in c['annotations'][:2]])(root)
    examination = examine(root)
    folder, _ = mend(examination, in_place=False)
    write_copy(folder, examination.pictures, tmp_path / 'mended')
    with Image.open(tmp_path / 'mended' / 'images' / 'train' / '000.jpg') as image:
        assert image.getexif().get(0x0112, 1) == 1
        pixels = np.asarray(image).astype(int)
    wanted = np.rot90(scenes[0].picture, -1) if turned_back else scenes[0].picture
    assert pixels.shape == wanted.shape
    assert np.abs(pixels - wanted).mean() < 6


def test_boxes_are_clipped_and_sound_objects_stay(own, tmp_path):
    root = own('yolo inside splits')
    write(root / 'train/labels/000.txt', '0 0 .5 .5 .5\n1 .5 .5 .2 .2\n1 3 3 .1 .1\n')
    examination = examine(root)
    folder, said = mend(examination, in_place=False)
    boxes = [instance.box for instance in folder.splits['train'][0].instances]
    np.testing.assert_allclose(boxes, [[0, 16, 24, 32], [38.4, 25.6, 19.2, 12.8]])
    assert said == [
        '1 boxes and polygons clipped to their picture',
        '1 objects dropped: box outside',
    ]


def test_categories_of_one_name_do_not_stop_where_one_is_idle(own):
    root = own('coco')
    edit(lambda c: c['categories'].insert(0, dict(id=0, name='kite')))(root)
    examination = examine(root)
    assert {fault.kind for fault in examination.faults} == {'idle category'}
    assert examination.folder.classes == ['kite', 'square', 'wedge']


def test_pictures_that_share_an_id_are_left_out(own):
    """Nothing says which of them an annotation is of."""
    root = own('coco')
    edit(lambda c: c['images'][1].update(id=0))(root)
    folder, said = mend(examine(root), in_place=False)
    found = {sample.picture.name for sample in folder.splits['train']}
    assert found == {name(i) for i in range(2, 12)}
    assert '1 annotations left out: double image id' in said


@pytest.mark.parametrize('again, objects, lines', [('000.png', 2, []), ('copy.png', 1, [1])])
def test_objects_of_equal_pictures_are_joined_or_counted(again, objects, lines, own):
    """Some tools write an image for each object."""
    root = own('coco')
    copy('images/train/000.png', 'images/train/copy.png')(root)

    def plant(content: dict) -> None:
        content['images'].append(dict(content['images'][0], id=900, file_name=again))
        content['annotations'][1]['image_id'] = 900

    edit(plant)(root)
    folder, said = mend(examine(root), in_place=False)
    kept = [s for s in folder.splits['train'] if s.picture.name == '000.png']
    assert [len(sample.instances) for sample in kept] == [objects]
    lost = [f'{number} objects left out with pictures that equal others' for number in lines]
    assert said == [*lost, '1 pictures left out: duplicate']


def test_plain_backgrounds_are_not_alike(tmp_path):
    """Pictures of one colour but for an object that is elsewhere."""
    for i in range(4):
        picture = np.full((64, 96, 3), 200, np.uint8)
        picture[20:40, 10 + 20 * i : 25 + 20 * i] = 30
        path = tmp_path / ('kite' if i % 2 else 'wedge') / name(i)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    assert examine(tmp_path).faults == []
