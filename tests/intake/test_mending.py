"""What is mended, and what is left out."""

import numpy as np
import pytest
from edits import copy, edit, turn
from makers import name, write
from PIL import Image

from mmdense.intake.copying import write_copy
from mmdense.intake.examining import examine
from mmdense.intake.mending import mend


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
