"""Faults of data sets, each planted into digit scenes, and what is said of it."""

import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from helpers import DIGIT_CONFIGS, check_fails, shorten
from mmengine.config import Config
from PIL import Image
from planting import LOADERS, SCENES, TRAIN, check, plant, renamed

from mmdense.errors import UserError


@pytest.mark.parametrize(
    'scope, pictures', [('mmpretrain', (20, 30)), ('mmdet', (8, 4)), ('mmseg', (8, 4))]
)
def test_good_data_pass_without_a_word(scope, pictures, place, capsys):
    assert check(scope) == dict(zip(LOADERS, pictures))
    assert capsys.readouterr().err == ''


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
            ([*'0123abcdef'], None),  # fewer than half alike: other names
            ([*'01234bcdef'], 'differ: 5 of 10 are not there'),
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


def test_the_tools_say_it_before_training(place, run_tool):
    plant(renamed)
    args = (DIGIT_CONFIGS['mmdet'], '--dry-run', '--cfg-options', 'model.backbone.init_cfg=None')
    check_fails(run_tool('train.py', *args), 'metainfo and categories differ', '--no-data-check')
    code, _, err = run_tool('train.py', *args, '--no-data-check')
    assert code == 0 and 'differ' not in err
