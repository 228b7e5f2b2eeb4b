"""Masks of index and colour."""

import numpy as np
import pytest
from makers import (
    CLASSES,
    COLOURS,
    get_mask,
    name,
)
from PIL import Image

from mmdense.intake.examining import examine

MASKS = ('masks', 'colours', 'values')


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


def test_a_binary_mask_has_a_foreground(tmp_path, scenes):
    for i in range(6):
        (tmp_path / 'images').mkdir(exist_ok=True)
        (tmp_path / 'masks').mkdir(exist_ok=True)
        Image.fromarray(scenes[i].picture).save(tmp_path / 'images' / name(i))
        mask = (get_mask(scenes[i]) > 0) * np.uint8(255)
        Image.fromarray(mask).save(tmp_path / 'masks' / name(i))
    folder = examine(tmp_path).folder
    assert (folder.classes, folder.codes) == (['background', 'foreground'], {0: 0, 255: 1})
