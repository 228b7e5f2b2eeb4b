"""Faults of data sets, each planted into digit scenes, and what is said of it."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import DIGIT_CONFIGS, check_fails
from mmengine.config import Config
from PIL import Image

from mmdense.engine import data_checks
from mmdense.engine.data_checks import (
    compare,
    examine_contents,
    find_fault,
    find_missing,
    read_size,
    spread,
)
from mmdense.errors import UserError

LOADERS = ('train_dataloader', 'val_dataloader')
SCENES = Path('data/digit_scenes')
TRAIN = SCENES / 'annotations' / 'instances_train.json'


def check(scope: str, change: Callable[[Config], None] = lambda cfg: None) -> dict[str, int]:
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    change(cfg)
    return examine_contents(cfg, LOADERS)


@pytest.mark.parametrize(
    'scope, pictures', [('mmpretrain', (20, 30)), ('mmdet', (8, 4)), ('mmseg', (8, 4))]
)
def test_good_data_pass_without_a_word(scope, pictures, place, capsys):
    assert check(scope) == dict(zip(LOADERS, pictures))
    assert capsys.readouterr().err == ''


def first(content: dict) -> dict:
    return content['annotations'][0]


def copy_of(entry: dict, **changes: object) -> dict:
    return {**entry, **changes}


def renamed(content: dict) -> None:
    content['categories'][3]['name'] = 'three'


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
    'numbers as polygons': (
        lambda c: first(c).update(segmentation=[1, 2, 3, 4, 5, 6]),
        '1 masks have no polygon of three points',
    ),
    'numbers as categories': (lambda c: c.update(categories=[1]), '1 categories lack'),
    'no size': (lambda c: c['images'][1].pop('width'), '1 images have no width and height'),
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
        '1 masks .RLE. have another size',
    ),
    'missing picture': (
        lambda c: c['images'][0].update(file_name='gone.png'),
        '1 pictures are missing: gone.png',
    ),
}


def plant(change: Callable[[dict], object]) -> None:
    content = json.loads(TRAIN.read_text())
    change(content)
    TRAIN.write_text(json.dumps(content))


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


def shorten(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda path: path.write_bytes(b''), '1 pictures are empty'),
        (lambda path: shorten(path, 0.9), '1 pictures are cut short'),
        (lambda path: path.write_bytes(b'hello, this is text'), '1 pictures are no pictures'),
        (lambda path: path.write_bytes(b'\x89PNG'), '1 pictures are no pictures'),
        (
            lambda path: (path.unlink(), os.mkfifo(path)),
            '1 pictures are (no regular files|missing)',
        ),
    ],
    ids=['empty', 'short', 'text', 'head', 'pipe'],
)
def test_damaged_pictures(scope, damage, message, place):
    folder = SCENES / ('classification/train/3' if scope == 'mmpretrain' else 'images/train')
    path = sorted(folder.iterdir())[0]
    damage(path)
    if scope != 'mmdet' and path.is_fifo():
        return  # their toolboxes list regular files only
    with pytest.raises(UserError, match=rf'train_dataloader .*{message}: {path.name}'):
        check(scope)


class TestMaps:
    """Segmentation: pictures, label maps, and what stands in them."""

    MAP = SCENES / 'semantic/train/000002.png'

    def refused(self, message: str, change: Callable[[Config], None] = lambda cfg: None) -> None:
        with pytest.raises(UserError, match=rf"train_dataloader 'data/digit_scenes/': .*{message}"):
            check('mmseg', change)

    def test_picture_without_map(self, place):
        self.MAP.unlink()
        self.refused("1 label maps are missing in '.*semantic/train': 000002.png")

    def test_map_without_picture(self, place):
        (SCENES / 'images/train/000002.png').unlink()
        self.refused('1 label maps have no picture: 000002.png')

    def test_no_picture(self, place):
        def change(cfg: Config) -> None:
            cfg.train_dataloader.dataset.img_suffix = '.tif'

        self.refused(r"no picture '\*.tif' is in '.*images/train'", change)

    def test_values(self, place):
        values = np.asarray(Image.open(self.MAP)).copy()
        values[0, :3] = 11, 200, 255  # 255 is ignored
        Image.fromarray(values).save(self.MAP)
        self.refused('2 values in 8 label maps are no index of the 11 classes: 11, 200')

    def test_values_with_a_zero_that_is_no_class(self, place):
        values = np.asarray(Image.open(self.MAP)).copy()
        values[0, :2] = 11, 255

        def change(cfg: Config) -> None:
            cfg.train_dataloader.dataset.reduce_zero_label = True

        Image.fromarray(values).save(self.MAP)
        check('mmseg', change)
        values[0, 0] = 12
        Image.fromarray(values).save(self.MAP)
        self.refused('1 values in 8 label maps', change)

    def test_size(self, place):
        Image.open(self.MAP).crop((0, 0, 64, 128)).save(self.MAP)
        self.refused(r'1 label maps of 8 have another size .*\(64, 128\) and \(128, 128\)')

    def test_colours(self, place):
        Image.open(self.MAP).convert('RGB').save(self.MAP)
        self.refused('1 label maps of 8 have colours, not indices: 000002.png')

    def test_damaged(self, place):
        shorten(self.MAP, 0.5)
        self.refused('1 label maps of 8 cannot be read: 000002.png')

    def test_list_of_names(self, place):
        def change(cfg: Config) -> None:
            cfg.train_dataloader.dataset.ann_file = 'names.txt'

        (SCENES / 'names.txt').write_text('000000\n000001\n')
        assert check('mmseg', change)['train_dataloader'] == 2
        (SCENES / 'names.txt').write_text('000000\nnowhere\n')
        with pytest.raises(UserError, match=r"'names.txt': 1 pictures are missing: nowhere.png; 1"):
            check('mmseg', change)


class TestFolders:
    """Classification: a folder for each class."""

    FOLDER = SCENES / 'classification'

    def refused(self, message: str, change: Callable[[Config], None] = lambda cfg: None) -> None:
        with pytest.raises(UserError, match=message):
            check('mmpretrain', change)

    def test_empty_folder(self, place, capsys):
        shutil.rmtree(self.FOLDER / 'train' / '3')
        (self.FOLDER / 'train' / '3').mkdir()
        self.refused(r"train_dataloader '.*train': 1 class folders have no picture: 3")

    def test_empty_folder_of_evaluation(self, place, capsys):
        shutil.rmtree(self.FOLDER / 'val' / '3')
        (self.FOLDER / 'val' / '3').mkdir()
        check('mmpretrain')
        assert '1 class folders have no picture: 3' in capsys.readouterr().err

    def test_other_folders_in_evaluation(self, place):
        shutil.rmtree(self.FOLDER / 'val' / '3')
        self.refused(r'val_dataloader .* labels differ: 1 of 10 are not there: 3')

    def test_hidden_folder(self, place):
        (self.FOLDER / 'train' / '.cache').mkdir()
        self.refused('1 class folders have no picture: .cache')

    def test_no_picture(self, place):
        for path in self.FOLDER.glob('train/*/*.png'):
            path.unlink()
        self.refused('Found 0 files')

    @pytest.mark.parametrize(
        'classes, message',
        [
            ([*'012345678', 'nine'], 'differ: 1 of 10 are not there: nine, 1 are there beside: 9'),
            ([*'9876543210'], 'must be in the order of the folders'),
            ([*'0123456789', 'ten'], 'differ: 1 of 11 are not there: ten'),
            ([f'class {i}' for i in range(9)], '10 class folders, but 9 classes'),
            ([f'class {i}' for i in range(10)], None),  # as ImageNet has them
            ([*'0123456789'], None),
        ],
    )
    def test_classes_of_metainfo(self, classes, message, place):
        def change(cfg: Config) -> None:
            cfg.train_dataloader.dataset.metainfo = dict(classes=classes)

        if message is None:
            check('mmpretrain', change)
        else:
            self.refused(message, change)

    @pytest.mark.parametrize(
        'lines, message',
        [
            (['{} 0', '{} 9'], None),
            (['{} 0', '{} 10'], '1 labels are no index of the 10 classes: 10'),
            (['{} 0', 'gone.png 1'], '1 pictures are missing: gone.png'),
            (['{} 0', 'gone.png'], "each line must be 'picture label'"),
            (['{} 0', '{} dog'], "each line must be 'picture label'"),
        ],
    )
    def test_list_of_labels(self, lines, message, place):
        folder = self.FOLDER / 'train'
        picture = next(folder.glob('*/*.png')).relative_to(folder)
        (folder / 'list.txt').write_text('\n'.join(lines).format(*[picture] * 2))

        def change(cfg: Config) -> None:
            cfg.train_dataloader.dataset.ann_file = 'list.txt'
            cfg.train_dataloader.dataset.metainfo = dict(classes=list('0123456789'))

        if message is None:
            check('mmpretrain', change)
        else:
            self.refused(message, change)


@pytest.mark.parametrize('key', ['ann_file', 'proposal_file', 'evaluator'])
def test_pickles_are_refused_unread(key, place):
    def change(cfg: Config) -> None:
        if key == 'evaluator':
            cfg.val_evaluator.ann_file = 'a.pkl'
        else:
            cfg.val_dataloader.dataset[key] = 'a.pkl'

    with pytest.raises(UserError, match=r"'a\.pkl' is a pickle, which can run any code"):
        check('mmdet', change)


def test_what_is_not_looked_into(place):
    """Remote data, other backends, and data sets that read in a way of their own."""

    def change(**changes: object) -> Callable[[Config], None]:
        return lambda cfg: cfg.train_dataloader.dataset.update(changes)

    TRAIN.write_text('{}')
    for changes in (
        dict(data_root='s3://bucket/'),
        dict(backend_args=dict(backend='petrel')),
        dict(type='CocoPanopticDataset'),
        dict(type='NoSuchDataset'),  # its builder says so
    ):
        check('mmdet', change(**changes))


def test_below_wrappers(place):
    def wrap(cfg: Config) -> None:
        cfg.train_dataloader.dataset = dict(
            type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset
        )

    assert check('mmdet', wrap) == dict(val_dataloader=4)  # how many three times are is not asked
    plant(renamed)
    with pytest.raises(UserError, match='differ'):
        check('mmdet', wrap)


class TestFiles:
    """One picture file."""

    @pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif', 'webp', 'ppm'])
    def test_whole(self, suffix, tmp_path):
        path = tmp_path / f'a.{suffix}'
        Image.fromarray(np.random.randint(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
        assert find_fault(str(path)) is None
        assert read_size(str(path)) == (30, 40)

    @pytest.mark.parametrize('suffix', ['jpg', 'png'])
    def test_with_something_behind_its_end(self, suffix, tmp_path):
        path = tmp_path / f'a.{suffix}'
        Image.fromarray(np.random.randint(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes() + b'\0' * 5000)
        assert find_fault(str(path)) is None

    @pytest.mark.parametrize('suffix', ['jpg', 'png'])
    @pytest.mark.parametrize('keep', [0.5, 0.95])
    def test_cut(self, suffix, keep, tmp_path):
        path = tmp_path / f'a.{suffix}'
        Image.fromarray(np.random.randint(0, 255, (90, 80, 3), dtype=np.uint8)).save(path)
        shorten(path, keep)
        assert find_fault(str(path)) == 'cut short'

    def test_turned_by_its_camera(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new('RGB', (30, 40)).save(tmp_path / 'a.jpg', exif=exif)
        assert read_size(str(tmp_path / 'a.jpg')) == (40, 30)

    def test_missing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ('a', 'b/c'):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text('')
        paths = ['a', 'b/c', 'b/d', 'e/f', 'g']
        assert find_missing(paths) == ['b/d', 'e/f', 'g']

    def test_no_longer_than_allowed(self, tmp_path, monkeypatch):
        """A sample is looked at then."""
        paths = [str(tmp_path / f'{i}.png') for i in range(20)]
        for path in paths:
            Path(path).write_bytes(b'')
        assert len(data_checks.look_at(paths)) == 20
        monkeypatch.setattr(data_checks, 'CHUNK', 1)
        monkeypatch.setattr(data_checks, 'SECONDS', -1.0)
        assert len(data_checks.look_at(paths)) == 8


def test_lists():
    assert spread([1, 2, 3], 3) == [1, 2, 3] and spread(range(10), 2) == [0, 5]
    assert compare(['a', 'b'], ['a', 'b']) == ''
    assert compare(['cat'], ['cat', 'dog']) == '1 are there beside: dog'


def test_the_tools_say_it_before_training(place, run_tool):
    plant(renamed)
    args = (DIGIT_CONFIGS['mmdet'], '--dry-run', '--cfg-options', 'model.backbone.init_cfg=None')
    check_fails(run_tool('train.py', *args), 'metainfo and categories differ', '--no-data-check')
    code, _, err = run_tool('train.py', *args, '--no-data-check')
    assert code == 0 and 'differ' not in err
