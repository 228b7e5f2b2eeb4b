"""Every layout is recognised and read to the same content."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from makers import (
    CLASSES,
    COLOURS,
    MAKERS,
    SIZE,
    get_box,
    get_mask,
    get_splits,
    make_coco,
    name,
    write,
)
from PIL import Image

from mmdense.errors import UserError
from mmdense.intake import voc
from mmdense.intake.examining import examine
from mmdense.intake.faults import stops
from mmdense.intake.folder import DETECTION, Folder, Sample
from mmdense.intake.layouts import read_folder
from mmdense.intake.pictures import Picture
from mmdense.intake.splitting import divide

BOXES = ('coco', 'roboflow', 'single json', 'json in the root', 'yolo', 'yolo inside splits')
BOXES = (*BOXES, 'voc', 'plain xml')
SHAPES = ('coco', 'roboflow', 'single json', 'json in the root', 'yolo')
MASKS = ('masks', 'colours', 'values')


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


def test_objects_of_one_line_keep_their_classes(own, scenes):
    """As tools write xml that do not indent it."""
    root = own('voc')
    paths = sorted((root / 'Annotations').glob('*.xml'))[:4]
    for path in paths:
        path.write_text(path.read_text().replace('\n', ''))
    samples = {sample.picture.stem: sample for _, sample in examine(root).folder.samples()}
    for path in paths:
        wanted = [label for label, _ in scenes[int(path.stem)].objects]
        assert [i.label for i in samples[path.stem].instances] == wanted


def test_long_texts_of_xml_are_read_in_parts():
    """Each line and each reference ends one; joining them one by one took seconds."""
    parts, words = ['line\n', '&amp;', 'word'], ['line\n', '&', 'word']
    begin = time.perf_counter()
    found = voc.parse(f'<a><b>{"".join(parts) * 100_000}</b></a>').get('b')
    assert time.perf_counter() - begin < 2
    assert found == ''.join(words) * 100_000


@pytest.mark.parametrize(
    'lists, wanted',
    [
        (dict(trainval=range(10), test=range(10, 15)), dict(train=8, val=2, test=5)),
        (dict(trainval=range(15), val=range(12, 15)), dict(train=12, val=3)),
        (dict(trainval=range(15), train=range(9), val=range(9, 15)), dict(train=9, val=6)),
    ],
)
def test_trainval_stands_for_train_where_there_is_none(lists, wanted, own):
    root = own('voc')
    shutil.rmtree(root / 'ImageSets')
    for stem, members in lists.items():
        write(root / f'ImageSets/Main/{stem}.txt', '\n'.join(f'{i:03}' for i in members))
    examination = examine(root)
    found = {split: len(samples) for split, samples in examination.folder.splits.items()}
    assert found == wanted
    assert not stops(examination.faults)


@pytest.mark.parametrize('form, is_native', [(lambda i: i + 1, True), (int, False), (str, False)])
def test_json_is_read_as_it_is_where_ids_count_from_one(form, is_native, own):
    """COCO's evaluation takes an object with the id 0 for none."""
    root = own('coco')
    path = root / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = form(number)
    path.write_text(json.dumps(content))
    folder = examine(root).folder
    assert ('train' in folder.native) == is_native


@pytest.mark.parametrize('maker', MASKS)
def test_masks_have_the_pixels_that_were_drawn(maker, examined, scenes):
    folder = examined(maker).folder
    named = maker != 'values'
    assert folder.classes == (['background', *CLASSES] if named else ['0', '50', '100', '150'])
    assert folder.palette == ([list(colour) for colour in COLOURS] if named else None)
    for _, sample in folder.samples():
        values, counts = np.unique(get_mask(scenes[int(sample.picture.stem)]), return_counts=True)
        found = {folder.codes[value]: number for value, number in sample.values.items()}
        assert found == dict(zip(values.tolist(), counts.tolist()))


@pytest.mark.parametrize('maker', ['classes', 'classes without splits'])
def test_classes_are_folders(maker, examined, scenes):
    folder = examined(maker).folder
    assert (tuple(folder.classes), folder.task) == (CLASSES, 'classification')
    for _, sample in folder.samples():
        assert sample.label == scenes[int(sample.picture.stem)].objects[0][0]


def test_a_binary_mask_has_a_foreground(tmp_path, scenes):
    for i in range(6):
        (tmp_path / 'images').mkdir(exist_ok=True)
        (tmp_path / 'masks').mkdir(exist_ok=True)
        Image.fromarray(scenes[i].picture).save(tmp_path / 'images' / name(i))
        mask = (get_mask(scenes[i]) > 0) * np.uint8(255)
        Image.fromarray(mask).save(tmp_path / 'masks' / name(i))
    folder = examine(tmp_path).folder
    assert (folder.classes, folder.codes) == (['background', 'foreground'], {0: 0, 255: 1})


@pytest.mark.parametrize('space', ['\u202f', '\xa0', '\u3000', '\u200d'])
def test_spaces_of_all_kinds_are_in_names(space, own):
    """Screenshots have them."""
    root = own('classes')
    path = sorted(root.glob('train/kite/*.png'))[0]
    path.rename(path.with_name(f'9.41.00{space}PM.png'))
    examination = examine(root)
    assert examination.faults == []
    assert len(examination.folder.splits['train']) == 12


class TestSplitting:
    """A validation split that is drawn."""

    def test_seed(self, made):
        drawn = [
            {s.picture.name for s in examine(made('single json'), seed).folder.splits['val']}
            for seed in (0, 0, 1)
        ]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_every_class_gives_its_share(self, made):
        samples = examine(made('classes without splits')).folder.splits['val']
        assert np.bincount([sample.label for sample in samples]).tolist() == [4, 4, 4]

    @pytest.mark.parametrize('seed', range(4))
    def test_equal_and_like_pictures_stay_together(self, seed, own):
        root = own('classes without splits')
        for path in sorted(root.glob('*/*.png'))[:5]:
            shutil.copy(path, path.with_name(f'again_{path.name}'))
            Image.open(path).convert('RGB').save(path.with_suffix('.jpg'), quality=95)
        for samples in examine(root, seed).folder.splits.values():
            stems = [s.picture.stem.removeprefix('again_') for s in samples]
            assert all(stems.count(stem) in (1, 3) for stem in stems)

    @pytest.mark.parametrize('seed', range(4))
    @pytest.mark.parametrize(
        'sizes, together',
        [
            ((1,) * 20, True),
            ((12, *(1,) * 8), True),
            ((6, 6, 6), True),
            ((4, 3, 3, 5, 2, 3), True),
            ((19, 1), False),
            ((10, 10), False),
            ((20,), False),
        ],
    )
    def test_it_is_a_fifth_of_the_pictures(self, sizes, together, seed):
        """Given how many pictures of each kind look alike, each like the one before."""
        kinds = [kind for kind, size in enumerate(sizes) for _ in range(size)]
        paths = [Path(f'{i}.png') for i in range(len(kinds))]
        samples = [Sample(path, path.name) for path in paths]
        pictures = {path: Picture(digest=path.name) for path in paths}
        alike = [(paths[i - 1], paths[i]) for i in range(1, len(kinds)) if kinds[i] == kinds[i - 1]]
        folder = Folder(Path(), '', DETECTION, [], dict(all=samples))
        divide(folder, pictures, alike, seed)
        train, val = (folder.splits[split] for split in ('train', 'val'))
        assert 0.1 <= len(val) / len(samples) <= 0.35
        of = {sample.where: kind for sample, kind in zip(samples, kinds)}
        both = {of[sample.where] for sample in train} & {of[sample.where] for sample in val}
        assert (not both) == together == (len(folder.notes) == 1)

    def test_equal_pictures_stay_together_even_where_they_are_half(self, own):
        root = own('classes without splits')
        for path in sorted(root.glob('*/*.png')):
            if path.stem in ('000', '001', '002', '003', '004', '005'):
                shutil.copy(path, path.with_name(f'again_{path.name}'))
            else:
                path.unlink()
        found = examine(root)
        assert [len(samples) for samples in found.folder.splits.values()] == [6, 6]
        assert {fault.kind for fault in found.faults} == {'duplicate'}
        assert len(found.folder.notes) == 1

    def test_pictures_of_16_bits_are_told_apart(self, tmp_path, scenes):
        """Also where few of the levels are used, as 12-bit cameras do."""
        for i, scene in enumerate(scenes[:10]):
            path = tmp_path / ('kite', 'wedge')[i % 2] / name(i)
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(scene.picture[..., 0].astype(np.uint16) * 16 + 300).save(path)
        examination = examine(tmp_path)
        assert examination.faults == []
        assert [len(samples) for samples in examination.folder.splits.values()] == [8, 2]


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


NAMES = [  # of a yaml, and part of the line
    ('[&a [x, x], *a, kite]', 'no text and no small number'),
    ('[{a: 1}, b, c]', 'no text and no small number'),
    ('[~, b, c]', 'no text and no small number'),
    (f'[0x{"f" * 5000}, b, c]', 'no text and no small number'),
    (r'["\ud800", b, c]', 'no text in UTF-8'),
]


@pytest.mark.parametrize('names, message', NAMES)
def test_what_names_no_class(names, message, own):
    root = own('yolo')
    write(root / 'data.yaml', f'names: {names}\n')
    with pytest.raises(UserError, match=message):
        read_folder(root)


def test_plain_values_name_classes(own):
    root = own('yolo')
    write(root / 'data.yaml', 'names: [kite, 7, 1.5, true]\n')
    assert read_folder(root).classes == ['kite', '7', '1.5', 'True']


def test_a_number_of_thousands_of_digits_names_no_class(own):
    root = own('yolo')
    (root / 'data.yaml').unlink()
    write(root / 'labels/train/000.txt', f'{"9" * 5000} .5 .5 .1 .1\n')
    folder = read_folder(root)
    assert folder.classes == ['0', '1', '2']
    assert [fault.kind for fault in folder.faults] == ['malformed line']


def test_a_side_of_thousands_of_digits_is_not_known(own):
    root = own('voc')
    size = f'<size><width>{"9" * 5000}</width><height>64</height></size>'
    write(root / 'Annotations/000.xml', f'<a>{size}</a>')
    sizes = {sample.picture.stem: sample.size for _, sample in read_folder(root).samples()}
    assert sizes['000'] is None and sizes['001'] == SIZE


def test_a_folder_that_is_no_text_is_a_fault(own):
    root = own('classes')
    number = len(list((root / 'train/kite').iterdir()))
    (root / 'train/kite').rename(root / 'train' / '\udcff')
    kinds = [fault.kind for fault in read_folder(root).faults]
    assert kinds.count('strange name') == number > 0


def test_other_json_files_are_passed_over(own):
    root = own('coco')
    write(root / 'annotations' / 'captions_train.json', json.dumps(dict(images=[], annotations=[])))
    write(root / 'settings.json', '{}')
    assert examine(root).faults == []
