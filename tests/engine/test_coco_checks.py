"""Faults of a COCO json, each planted into digit scenes, and what is said of it."""

import json
import math
import re

import pytest
from mmengine.config import Config
from planting import SCENES, TRAIN, check, plant, renamed

from mmdense.errors import UserError


def first(content: dict) -> dict:
    return content['annotations'][0]


def copy_of(entry: dict, **changes: object) -> dict:
    return {**entry, **changes}


def swapped(content: dict) -> None:
    content['categories'].reverse()


def of_one_name(content: dict) -> None:
    content['categories'].append(dict(id=99, name='3'))


# what is changed in the json of the training data, and what is said of it
COCO_FAULTS = {
    'a misspelt class': (
        renamed,
        r'metainfo and categories differ: 1 of 10 are not there: 3, 1 are there beside: three',
    ),
    'order': (swapped, 'the classes of metainfo stand in another order'),
    'name twice': (of_one_name, '1 categories have a name twice: 3'),
    'category id': (
        lambda c: c['categories'].append(c['categories'][0]),
        'categories share an id',
    ),
    'no images': (lambda c: c.pop('images'), "is not COCO: it has no list 'images'"),
    'no annotations': (lambda c: c.pop('annotations'), "it has no list 'annotations'"),
    'entries': (lambda c: c.update(images=[1]), 'is not COCO: 1 images lack id, file_name or'),
    'no file name': (
        lambda c: c['images'][3].pop('file_name'),
        'is not COCO: 1 images lack id, file_name or have a field of another type: 3 ',
    ),
    'list as id': (lambda c: first(c).update(id=[1]), '1 annotations lack id, image_id'),
    'width of text': (lambda c: c['images'][0].update(width='128'), '1 images lack'),
    'area of text': (lambda c: first(c).update(area='9'), '1 annotations lack'),
    'masks of text': (lambda c: first(c).update(segmentation='9'), '1 annotations lack'),
    'mask without counts': (lambda c: first(c)['segmentation'].pop('counts'), '1 masks .RLE.'),
    'polygon of text': (
        lambda c: first(c).update(segmentation=[['1'] * 6]),
        '1 masks have no polygon of three points',
    ),
    'numbers as polygons': (
        lambda c: first(c).update(segmentation=[1, 2, 3, 4, 5, 6]),
        '1 masks have no polygon of three points',
    ),
    'numbers as categories': (lambda c: c.update(categories=[1]), '1 categories lack'),
    'no size': (lambda c: c['images'][1].pop('width'), '1 images have no width and height'),
    'size of nothing': (lambda c: c['images'][1].update(width=None), '1 images have no width and'),
    'another size': (
        lambda c: c['images'][1].update(width=127),
        r'1 pictures of 8 have another size than the json says: .*\(128, 128\) and \(127, 128\)',
    ),
    'image twice': (lambda c: c['images'].append(c['images'][0]), '1 image ids appear twice'),
    'annotation twice': (
        lambda c: c['annotations'].append(first(c)),
        '1 annotation ids appear twice',
    ),
    'annotations as a number': (lambda c: c.update(annotations=1), "it has no list 'annotations'"),
    'unknown category': (lambda c: first(c).update(category_id=77), '1 annotations are of a categ'),
    'unknown image': (lambda c: first(c).update(image_id=-5), '1 annotations are of an image_id'),
    'no area': (lambda c: first(c).pop('area'), '1 annotations have no area'),
    'area 0': (lambda c: first(c).update(area=0), '1 annotations have an area of 0'),
    'no box': (lambda c: first(c).pop('bbox'), '1 boxes are not 4 numbers'),
    'short box': (lambda c: first(c).update(bbox=[1, 2, 3]), '1 boxes are not 4 numbers'),
    'box of text': (lambda c: first(c).update(bbox=['1'] * 4), '1 boxes are not 4 numbers'),
    'NaN': (lambda c: first(c).update(bbox=[1, 2, math.nan, 4]), '1 boxes are negative or not fin'),
    'negative': (lambda c: first(c).update(bbox=[9, 9, -3, 4]), '1 boxes are negative or not fin'),
    'outside': (lambda c: first(c).update(bbox=[200, 9, 9, 9]), '1 boxes lie outside'),
    'left of it': (lambda c: first(c).update(bbox=[-30, 9, 9, 9]), '1 boxes lie outside'),
    'every box': (
        lambda c: [a.update(bbox=[0, 500, 9, 9]) for a in c['annotations']],
        r'\d+ boxes lie outside their picture: \d+, \d+, \d+, \.\.\.',
    ),
    'no mask': (lambda c: first(c).pop('segmentation'), '1 annotations have no segmentation'),
    'flat mask': (
        lambda c: first(c).update(segmentation=[[1, 2, 3, 4]]),
        '1 masks have no polygon',
    ),
    'foreign mask': (
        lambda c: first(c)['segmentation'].update(size=[64, 64]),
        '1 masks .RLE. have no counts, or another size',
    ),
    'missing picture': (
        lambda c: c['images'][0].update(file_name='gone.png'),
        '1 pictures are missing: gone.png',
    ),
}


@pytest.mark.parametrize('fault', COCO_FAULTS)
def test_coco_faults(fault, place):
    change, message = COCO_FAULTS[fault]
    plant(change)
    pattern = rf"train_dataloader 'annotations/instances_train.json': .*{message}"
    with pytest.raises(UserError, match=pattern) as error:
        check('mmdet')
    assert '\n' not in str(error.value)


COCO_WARNINGS = {
    'reaching out': (lambda c: first(c).update(bbox=[120, 9, 12, 9]), '1 boxes reach out of their'),
    'tiny': (lambda c: first(c).update(bbox=[9, 9, 0.5, 9], area=0), '1 boxes are smaller than'),
    'unused category': (
        lambda c: (
            c['categories'].append(dict(id=50, name='ten')),
            c['annotations'].append(copy_of(first(c), id=10**6, category_id=50)),
        ),
        '1 annotations of 1 categories that are no classes of metainfo are left out: ten',
    ),
}
COCO_GOOD = {
    'by less than a pixel': lambda c: first(c).update(bbox=[120, 9, 8.9, 9]),
    'at the border': lambda c: first(c).update(bbox=[-0.9, 9, 8, 9]),
    'crowd': lambda c: first(c).update(iscrowd=1),
    'ignored': lambda c: first(c).update(ignore=1, bbox=[500, 500, 1, 1], segmentation=None),
    'no iscrowd in training': lambda c: first(c).pop('iscrowd', None),
    'one good polygon': lambda c: first(c).update(segmentation=[[1, 2], [1, 2, 9, 9, 1, 9]]),
    'a picture that nothing uses': lambda c: c['images'].append(
        dict(id=999, file_name='gone.png', width=1, height=1)
    ),
}


@pytest.mark.parametrize('case', COCO_WARNINGS)
def test_what_is_left_out_by_design_is_a_warning(case, place, capsys):
    change, message = COCO_WARNINGS[case]
    plant(change)
    check('mmdet')
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"warning: train_dataloader '.*': .*{message}", line)


@pytest.mark.parametrize('case', COCO_GOOD)
def test_what_is_no_fault(case, place, capsys):
    plant(COCO_GOOD[case])
    check('mmdet')
    assert capsys.readouterr().err == ''


def test_all_faults_at_once(place):
    """Of a data set in one message, and both data sets."""
    plant(lambda c: (renamed(c), first(c).update(area=0)))
    (SCENES / 'images/val/000000.png').unlink()
    with pytest.raises(UserError) as error:
        check('mmdet')
    for message in ('differ', 'area of 0', 'val_dataloader', '1 pictures are missing: 000000.png'):
        assert message in str(error.value)


def test_misspelt_class_of_the_config(place):
    def change(cfg: Config) -> None:
        cfg.train_dataloader.dataset.metainfo.classes = ('person', 'bycicle')

    plant(lambda c: c.update(categories=[dict(id=1, name='bicycle'), dict(id=2, name='person')]))
    with pytest.raises(UserError, match=r"is 'bycicle' meant for 'bicycle'\?"):
        check('mmdet', change)


def test_evaluation_needs_iscrowd(place):
    path = SCENES / 'annotations' / 'instances_val.json'
    content = json.loads(path.read_text())
    content['annotations'][0].pop('iscrowd')
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'val_dataloader .*1 annotations have no iscrowd'):
        check('mmdet')


def test_test_data_without_annotations(place):
    path = SCENES / 'annotations' / 'instances_val.json'
    content = json.loads(path.read_text())
    content.pop('annotations')
    path.write_text(json.dumps(content))
    check('mmdet')


@pytest.mark.parametrize('text', ['', '{', 'PK\x03\x04', '[' * 10**5, '"a"', '[]'])
def test_no_json_at_all(text, place):
    TRAIN.write_text(text)
    with pytest.raises(UserError, match=r'is not (json|COCO): '):
        check('mmdet')
