"""Pictures that are alike, and those that are not."""

import numpy as np
from makers import name
from PIL import Image

from mmdense.intake.examining import examine


def test_plain_backgrounds_are_not_alike(tmp_path):
    """Pictures of one colour but for an object that is elsewhere."""
    for i in range(4):
        picture = np.full((64, 96, 3), 200, np.uint8)
        picture[20:40, 10 + 20 * i : 25 + 20 * i] = 30
        path = tmp_path / ('kite' if i % 2 else 'wedge') / name(i)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    assert examine(tmp_path).faults == []
