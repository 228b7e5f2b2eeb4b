"""Every layout is recognised and read to the same content."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import (
    CLASSES,
    MAKERS,
    SIZE,
    get_box,
    get_splits,
    make_coco,
    name,
    write,
)

from mmdense.errors import UserError
from mmdense.intake.layouts import read_folder

BOXES = ('coco', 'roboflow', 'single json', 'json in the root', 'yolo', 'yolo inside splits')


BOXES = (*BOXES, 'voc', 'plain xml')


SHAPES = ('coco', 'roboflow', 'single json', 'json in the root', 'yolo')


@pytest.mark.parametrize('maker', MAKERS)
def test_sound_folders_have_no_fault(maker, examined):
    examination = examined(maker)
    folder = examination.folder
    assert folder.layout == MAKERS[maker].layout
    assert examination.faults == []
    assert {split: len(samples) for split, samples in folder.splits.items()} == {
        'train': 48,
        'val': 12,
    }
    drawn = any('were drawn' in note for note in folder.notes)
    assert drawn != MAKERS[maker].splits


@pytest.mark.parametrize('maker', MAKERS)
def test_splits_are_those_of_the_folder(maker, examined, scenes):
    if not MAKERS[maker].splits:
        pytest.skip('it has none')
    for split, members in get_splits(scenes).items():
        found = {sample.picture.name for sample in examined(maker).folder.splits[split]}
        assert found == {name(i) for i in members}


@pytest.mark.parametrize('maker', BOXES)
def test_boxes_are_those_that_were_drawn(maker, examined, scenes):
    folder = examined(maker).folder
    assert tuple(folder.classes) == CLASSES
    shaped = maker in SHAPES
    assert folder.task == ('instance segmentation' if shaped else 'detection')
    for _, sample in folder.samples():
        wanted = scenes[int(sample.picture.stem)].objects
        assert [i.label for i in sample.instances] == [label for label, _ in wanted]
        for instance, (_, polygon) in zip(sample.instances, wanted):
            np.testing.assert_allclose(instance.box, get_box(polygon), atol=1e-9)
            if shaped:
                np.testing.assert_allclose(instance.polygons, [polygon], atol=1e-9)
        assert sample.size == SIZE


class TestRefused:
    """One line that says what was looked for."""

    def test_nothing_is_there(self, tmp_path):
        with pytest.raises(UserError, match='no layout that is known; looked for were a COCO json'):
            read_folder(tmp_path)
        with pytest.raises(UserError, match='is no folder'):
            read_folder(tmp_path / 'nothing')

    def test_two_layouts(self, tmp_path, scenes):
        make_coco(tmp_path, scenes)
        write(tmp_path / 'labels' / 'train' / '000.txt', '0 0.5 0.5 0.1 0.1')
        with pytest.raises(UserError, match=r'several layouts: COCO json \(ann.* and YOLO \(lab'):
            read_folder(tmp_path)

    def test_two_files_of_one_split(self, own):
        root = own('coco')
        source = root / 'annotations' / 'instances_train.json'
        shutil.copy(source, source.with_name('instances_train2.json'))
        with pytest.raises(UserError, match='are not told apart'):
            read_folder(root)

    def test_no_classes(self, own):
        root = own('yolo')
        (root / 'data.yaml').unlink()
        for path in root.rglob('*.txt'):
            path.write_text('')
        with pytest.raises(UserError, match=r'write classes\.txt'):
            read_folder(root)


def rename_class(root: Path, name: str) -> None:
    path = root / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = name
    path.write_text(json.dumps(content))


BRACED = [  # maker, and what gets a name that a config would replace
    ('coco', lambda root, name: rename_class(root, name)),
    ('yolo', lambda root, name: write(root / 'data.yaml', json.dumps(dict(names=[name] * 3)))),
    ('masks', lambda root, name: write(root / 'classes.txt', f'{name}\n' * 4)),
    ('classes', lambda root, name: (root / 'train/kite').rename(root / 'train' / name)),
    (
        'classes',
        lambda root, name: (root / 'train/kite/000.png').rename(root / 'train/kite' / name),
    ),
]


@pytest.mark.parametrize('name', ['{{$X:.*}}', "{{$X:}}', open('run', 'w'))#", '{{$HOME:x}}'])
@pytest.mark.parametrize('maker, plant', BRACED)
def test_names_that_configs_replace_are_refused(maker, plant, name, own):
    root = own(maker)
    plant(root, name + '.png')
    with pytest.raises(
        UserError, match=r"has '\{\{' in its name, which configs replace: rename it"
    ):
        read_folder(root)


def test_a_folder_that_configs_replace_is_refused(own, tmp_path):
    own('voc').rename(tmp_path / '{{ fileDirname }}')
    with pytest.raises(UserError, match='rename it'):
        read_folder(tmp_path / '{{ fileDirname }}')
