"""The generator: deterministic, three formats that agree, splits that share nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmdense.data import digit_scenes
from mmdense.data.digit_scenes import Sizes, generate, load_sources

SIZES = {'train': Sizes(scenes=12, crops=20), 'val': Sizes(scenes=6, crops=10)}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'scenes'
    generate(out, SIZES, seed=0)
    return out


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob('*') if p.is_file()):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def test_one_seed_makes_one_data_set(data, tmp_path):
    generate(tmp_path / 'again', SIZES, seed=0)
    assert digest(tmp_path / 'again') == digest(data)
    generate(tmp_path / 'other', SIZES, seed=1)
    assert digest(tmp_path / 'other') != digest(data)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_and_semantic_maps_agree(data, split):
    coco = COCO(str(data / 'annotations' / f'instances_{split}.json'))
    assert len(coco.imgs) == SIZES[split].scenes
    assert [c['name'] for c in coco.cats.values()] == list('0123456789')
    for image in coco.imgs.values():
        scene = cv2.imread(str(data / 'images' / split / image['file_name']))
        assert scene.shape == (image['height'], image['width'], 3)
        semantic = np.zeros(scene.shape[:2], np.uint8)
        for annotation in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(annotation)
            assert annotation['iscrowd'] == 0 and mask.sum() == annotation['area'] > 0
            x, y, w, h = annotation['bbox']
            rows, cols = np.nonzero(mask)
            assert (cols.min(), rows.min()) == (x, y)
            assert (np.ptp(cols) + 1, np.ptp(rows) + 1) == (w, h)
            assert not semantic[mask > 0].any(), 'visible masks overlap'
            semantic[mask > 0] = annotation['category_id']
        path = data / 'semantic' / split / image['file_name']
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), semantic)


def test_image_folder(data):
    for split, sizes in SIZES.items():
        files = list((data / 'classification' / split).glob('[0-9]/*.png'))
        assert len(files) == sizes.crops
        assert {p.parent.name for p in files} == set('0123456789')


def test_no_source_is_in_two_splits():
    sources = load_sources(seed=0)
    digits = [{d.tobytes() for d in s.digits} for s in sources.values()]
    assert sum(len(s.digits) for s in sources.values()) == 1797
    assert not digits[0] & digits[1]
    names = list(digit_scenes.BACKGROUNDS.values())
    assert not set(names[0]) & set(names[1])


def test_a_folder_of_somebody_else_is_refused(data, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='was not made by this script'):
        generate(tmp_path / 'photos', SIZES, seed=0)
    assert [p.name for p in tmp_path.rglob('*')] == ['photos', 'mine.txt']


@pytest.mark.parametrize('name', ['000000.png', '000009.png'])
def test_a_folder_of_ours_is_replaced_and_a_failure_leaves_it(name, tmp_path, monkeypatch):
    """Whichever picture cannot be written, the first or the last."""
    out = tmp_path / 'scenes'
    small = {'train': Sizes(1, 10), 'val': Sizes(1, 10)}
    generate(out, small, seed=0)
    before = digest(out)

    def fail(path, image):
        if path.name == name:
            raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(digit_scenes, 'write_image', fail)
        with pytest.raises(OSError, match='disk full'):
            generate(out, small, seed=1)
    assert digest(out) == before and [p.name for p in tmp_path.iterdir()] == ['scenes']
    generate(out, small, seed=1)
    assert digest(out) != before


def test_command_line(tmp_path):
    script = Path(digit_scenes.__file__)
    sizes = ['--train', '2', '--val', '1', '--train-crops', '10', '--val-crops', '10']
    command = [sys.executable, str(script), '--out', str(tmp_path / 'a'), *sizes]
    assert subprocess.run(command, capture_output=True).returncode == 0
    settings = json.loads((tmp_path / 'a' / '.digit_scenes.json').read_text())
    assert settings['sizes']['train'] == dict(scenes=2, crops=10)
    (tmp_path / 'b').write_text('a file')
    command[3] = str(tmp_path / 'b')
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith('error: ')
