"""Picture files: their sizes, and which look the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mmdense.intake.pictures import (
    MAX_BITS,
    ORIENTATION,
    find_alike,
    get_hash,
    look,
    pair_equal,
    pair_near,
    to_colours,
)


@pytest.fixture(scope='module')
def photograph() -> Image.Image:
    return Image.fromarray(data.chelsea())


def test_sizes_as_loaders_see_them(photograph, tmp_path):
    """From the fifth on, EXIF's orientations swap the sides; only JPEG files are turned."""
    width, height = photograph.size
    for orientation in range(1, 9):
        path = tmp_path / f'{orientation}.jpg'
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        photograph.save(path, exif=exif)
        photograph.save(path.with_suffix('.png'), exif=exif)
    for path, found in look(sorted(tmp_path.iterdir())).items():
        swapped = path.suffix == '.jpg' and int(path.stem) > 4
        assert found.size == ((height, width) if swapped else (width, height)), path
        assert found.stored == (width, height)
        assert found.turned == (path.suffix == '.jpg' and path.stem != '1')
        assert found.fault is None


def test_files_that_are_no_pictures(photograph, tmp_path):
    photograph.save(tmp_path / 'whole.png')
    content = (tmp_path / 'whole.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(content[: len(content) // 2])
    (tmp_path / 'text.png').write_text('no picture')
    paths = [tmp_path / name for name in ('cut.png', 'text.png', 'none.png')]
    assert [picture.fault for picture in look(paths).values()] == [
        'truncated picture',
        'unreadable picture',
        'missing picture',
    ]


def test_the_hash_is_where_it_gets_darker():
    ramp = np.repeat(np.arange(0, 180, 20, np.uint8)[None], 8, axis=0)
    assert get_hash(Image.fromarray(ramp)) == 0
    assert get_hash(Image.fromarray(ramp[:, ::-1].copy())) == 2**64 - 1
    step = np.full((8, 9), 90, np.uint8)
    step[0, 1:] = 10  # the first bit: its first pixel is brighter than the second
    assert get_hash(Image.fromarray(step)) == 2**63
    step[0, 1:] = 88  # no more than noise
    assert get_hash(Image.fromarray(step)) == 0


def test_grey_levels_of_more_than_eight_bits_are_spread():
    levels = np.array([[1000, 1100], [1200, 1300]], np.uint16)
    spread = np.asarray(to_colours(Image.fromarray(levels)))
    assert spread[..., 0].tolist() == [[0, 85], [170, 255]] and spread.shape == (2, 2, 3)
    flat = to_colours(Image.fromarray(np.full((2, 2), 7.0, np.float32)))
    assert not np.asarray(flat).any()


def save_all(pictures: dict[str, Image.Image], folder: Path) -> list[Path]:
    for name, picture in pictures.items():
        picture.save(folder / name)
    return [folder / name for name in pictures]


def test_saved_again_or_in_another_size_is_alike(photograph, tmp_path):
    other = Image.fromarray(data.coffee())
    mirrored = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = photograph.size
    paths = save_all(
        {
            'a.png': photograph,
            'b.jpg': photograph,
            'c.png': photograph.resize((width // 2, height // 2)),
            'd.png': photograph.copy(),  # equal to the first, which stands for both
            'e.png': other,
            'f.png': mirrored,
        },
        tmp_path,
    )
    pairs = {(a.name, b.name) for a, b in find_alike(look(paths))}
    assert pairs == {('a.png', 'b.jpg'), ('a.png', 'c.png'), ('b.jpg', 'c.png')}


def test_pairs_by_their_hashes():
    few, many = (1 << MAX_BITS) - 1, (1 << MAX_BITS + 1) - 1
    hashes = np.array([0, few, many, 0], np.uint64)
    assert list(pair_near(hashes)) == [(0, [1, 3]), (1, [2, 3]), (2, []), (3, [])]
    assert list(pair_equal(hashes, [0, 3, 1, 2])) == [(0, [3]), (3, []), (1, [])]
