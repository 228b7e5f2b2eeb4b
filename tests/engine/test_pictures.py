"""Why a picture was not read."""

import pytest
from PIL import Image

from mmdense.compat import MAX_PIXELS
from mmdense.engine.pictures import explain


@pytest.mark.parametrize('size, is_large', [((10, 10), False), ((11, 10), True), ((1, 101), True)])
def test_more_pixels_than_are_allowed(size, is_large, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '100')
    Image.new('L', size).save(tmp_path / 'a.png')
    wanted = ': more pixels than OPENCV_IO_MAX_IMAGE_PIXELS=100 allows' if is_large else ''
    assert explain(str(tmp_path / 'a.png')) == wanted


def test_other_reasons_need_no_words(tmp_path, monkeypatch):
    """By default many pixels are allowed; a bomb in PIL's eyes is too large in ours."""
    monkeypatch.delenv('OPENCV_IO_MAX_IMAGE_PIXELS', raising=False)
    path = tmp_path / 'a.png'
    Image.new('L', (300, 300)).save(path)
    assert explain(str(path)) == explain(str(tmp_path / 'none.png')) == explain(None) == ''
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    assert explain(str(path)).endswith(f'={MAX_PIXELS} allows')
