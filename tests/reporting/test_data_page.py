"""The page of a data set: annotations are drawn where they lie."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import COLOURS, MAKERS, get_mask, make_coco, make_scenes
from pages import read_page
from pycocotools import mask as coco_mask

from mmdense.intake.examining import examine
from mmdense.intake.models import Input
from mmdense.reporting.data import draw, write_report

SEEN = Input((4, 8, 16, 32), (320, 320))


@pytest.fixture(scope='module')
def scenes() -> list:
    return make_scenes(15)


@pytest.mark.parametrize('shaped', ['polygons', 'run lengths'])
def test_objects_are_drawn_where_they_are(shaped, scenes, tmp_path):
    """Beside the objects, pixels are the picture's."""
    make_coco(tmp_path, scenes)
    if shaped == 'run lengths':
        for path in (tmp_path / 'annotations').iterdir():
            content = json.loads(path.read_text())
            for annotation in content['annotations']:
                (rle,) = coco_mask.frPyObjects(annotation['segmentation'], 64, 96)
                annotation['segmentation'] = dict(rle, counts=rle['counts'].decode())
            path.write_text(json.dumps(content))
    examination = examine(tmp_path)
    assert examination.faults == []
    sample = examination.folder.splits['train'][0]
    number = int(sample.picture.stem)
    found = np.asarray(draw(examination.folder, sample).image).astype(int)
    sample.instances = []
    plain = np.asarray(draw(examination.folder, sample).image).astype(int)
    assert found.shape == (320, 480, 3)
    changed = (np.abs(found - plain).max(2) > 40).reshape(64, 5, 96, 5).any((1, 3))
    inside = get_mask(scenes[number]) > 0
    near = np.zeros_like(inside)
    rows, columns = np.nonzero(inside)
    near[max(rows.min() - 3, 0) : rows.max() + 4, max(columns.min() - 3, 0) : columns.max() + 4] = 1
    assert not changed[~near].any()
    share = changed[inside].mean()
    assert share > 0.8 if shaped == 'run lengths' else share > 0.05


def test_masks_are_drawn_in_their_colours(scenes, tmp_path):
    MAKERS['masks'].make(tmp_path, scenes)
    folder = examine(tmp_path).folder
    sample = folder.splits['train'][0]
    found = np.asarray(draw(folder, sample).image).astype(int)[2::5, 2::5]
    number = int(sample.picture.stem)
    colours = np.array(COLOURS)[get_mask(scenes[number])]
    wanted = (scenes[number].picture.astype(int) + colours) / 2
    assert np.median(np.abs(found - wanted)) <= 12


def test_alike_pictures_stand_side_by_side(scenes, tmp_path):
    """Whatever they are called."""
    MAKERS['classes'].make(tmp_path / 'shapes', scenes)
    first = next((tmp_path / 'shapes' / 'train' / 'kite').iterdir())
    shutil.copy(first, first.with_name("Bob's kite.png"))
    write_report(examine(tmp_path / 'shapes'), SEEN, tmp_path / 'page.html')
    page = read_page(Path(tmp_path / 'page.html'))
    assert 'Pictures that are alike' in page.text and 'Warning: duplicate: 1 equal' in page.text
