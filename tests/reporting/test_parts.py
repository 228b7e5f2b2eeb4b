"""Pictures that are gone are told, and the others shown."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdense.errors import UserError
from mmdense.reporting.parts import NO_FILES, show_galleries
from mmdense.reporting.views import read_picture


def draw(record: dict) -> np.ndarray:
    return read_picture(record['img_path'])


def test_pictures_are_read_as_rgb(tmp_path):
    path = str(tmp_path / 'blue.png')
    cv2.imwrite(path, np.full((2, 3, 3), (255, 0, 0), np.uint8))
    assert read_picture(path).tolist() == np.full((2, 3, 3), (0, 0, 255)).tolist()


def test_pictures_that_are_gone(tmp_path):
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(UserError, match=r"text\.png' cannot be read again for the report"):
        read_picture(str(tmp_path / 'text.png'))
    there = str(tmp_path / 'there.png')
    cv2.imwrite(there, np.zeros((4, 4, 3), np.uint8))
    gone = str(Path(tmp_path, 'gone.png'))
    records = [dict(img_path=path, says='7') for path in (gone, there)]
    said, title, gallery = show_galleries(records, [], draw, width=100)
    assert f"'{gone}' cannot be read again" in said and title == 'The worst first:'
    assert [picture.caption for picture in gallery.pictures] == [f'7: {there}']
    assert show_galleries([], [], draw, width=100) == [NO_FILES]
