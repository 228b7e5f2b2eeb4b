"""Picture files: whole, cut short, missing, turned."""

from pathlib import Path

import numpy as np
import pytest
from helpers import shorten
from PIL import Image

from mmdense.engine import picture_files
from mmdense.engine.picture_files import find_fault, find_missing, read_size


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif', 'webp', 'ppm'])
def test_whole(suffix, tmp_path):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(np.random.randint(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
    assert find_fault(str(path)) is None
    assert read_size(str(path)) == (30, 40)


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_with_something_behind_its_end(suffix, tmp_path):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(np.random.randint(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes() + b'\0' * 5000)
    assert find_fault(str(path)) is None


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('keep', [0.5, 0.95])
def test_cut(suffix, keep, tmp_path):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(np.random.randint(0, 255, (90, 80, 3), dtype=np.uint8)).save(path)
    shorten(path, keep)
    assert find_fault(str(path)) == 'cut short'


def test_turned_by_its_camera(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 40)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_size(str(tmp_path / 'a.jpg')) == (40, 30)


def test_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a', 'b/c'):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text('')
    paths = ['a', 'b/c', 'b/d', 'e/f', 'g']
    assert find_missing(paths) == ['b/d', 'e/f', 'g']


def test_no_longer_than_allowed(tmp_path, monkeypatch):
    """A sample is looked at then."""
    paths = [str(tmp_path / f'{i}.png') for i in range(20)]
    for path in paths:
        Path(path).write_bytes(b'')
    assert len(picture_files.look_at(paths)) == 20
    monkeypatch.setattr(picture_files, 'CHUNK', 1)
    monkeypatch.setattr(picture_files, 'SECONDS', -1.0)
    assert len(picture_files.look_at(paths)) == 8
