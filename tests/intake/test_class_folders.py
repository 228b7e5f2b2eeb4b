"""A folder for each class."""

import os
from pathlib import Path

import pytest
from makers import (
    CLASSES,
)
from PIL import Image

from mmdense.engine.config import read_config
from mmdense.engine.data import build_dataset
from mmdense.intake.examining import examine
from mmdense.intake.layouts import read_folder
from mmdense.intake.preparing import prepare

pytestmark = pytest.mark.usefixtures('there')


@pytest.mark.parametrize('maker', ['classes', 'classes without splits'])
def test_classes_are_folders(maker, examined, scenes):
    folder = examined(maker).folder
    assert (tuple(folder.classes), folder.task) == (CLASSES, 'classification')
    for _, sample in folder.samples():
        assert sample.label == scenes[int(sample.picture.stem)].objects[0][0]


@pytest.mark.parametrize('space', ['\u202f', '\xa0', '\u3000', '\u200d'])
def test_spaces_of_all_kinds_are_in_names(space, own):
    """Screenshots have them."""
    root = own('classes')
    path = sorted(root.glob('train/kite/*.png'))[0]
    path.rename(path.with_name(f'9.41.00{space}PM.png'))
    examination = examine(root)
    assert examination.faults == []
    assert len(examination.folder.splits['train']) == 12


def test_a_folder_that_is_no_text_is_a_fault(own):
    root = own('classes')
    number = len(list((root / 'train/kite').iterdir()))
    (root / 'train/kite').rename(root / 'train' / '\udcff')
    kinds = [fault.kind for fault in read_folder(root).faults]
    assert kinds.count('strange name') == number > 0


PLANTED = [  # what is added to class folders, and whether the toolbox's own listing has the same
    ('train/kite/more.webp', False),
    ('train/kite/more.TIFF', False),
    ('train/.hidden/more.png', False),
    ('train/kite/.hidden/more.png', False),
    ('train/kite/deep/more.png', True),
    ('train/kite/.more.png', True),
    ('train/kite/notes.txt', True),
]


@pytest.mark.parametrize('file, native', PLANTED)
def test_class_folders_are_trained_on_as_examined(file, native, own, scenes):
    root = own('classes')
    (root / file).parent.mkdir(exist_ok=True)
    kind = {'.webp': 'webp', '.TIFF': 'tiff', '.txt': 'ppm'}.get(Path(file).suffix, 'png')
    Image.fromarray(scenes[20].picture).save(root / file, kind)
    examination = examine(root)
    path, _ = prepare(examination, None, None)
    assert Path('work_dirs/shapes/data/train.txt').is_file() != native
    dataset = build_dataset(read_config(str(path)), 'train')
    found = {os.path.relpath(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
    samples = examination.folder.splits['train']
    assert found == {os.path.relpath(sample.picture) for sample in samples}


def test_links_to_folders_are_not_followed(own, tmp_path, scenes):
    root = own('classes')
    (tmp_path / 'elsewhere').mkdir()
    Image.fromarray(scenes[20].picture).save(tmp_path / 'elsewhere/more.png')
    (root / 'train/kite/link').symlink_to(tmp_path / 'elsewhere')
    path, _ = prepare(examine(root), None, None)
    assert len(build_dataset(read_config(str(path)), 'train')) == 12
