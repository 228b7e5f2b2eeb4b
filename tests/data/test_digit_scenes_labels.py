"""Digit scenes: what is labelled is what is painted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdense.data import digit_scenes
from mmdense.data.digit_scenes import Sizes, Sources

GROUND = (60, 20, 90)  # RGB of a photograph that shows nothing
HEIGHT = 40  # of a made-up digit, a bar whose width tells which it is
SIZES = {'train': Sizes(scenes=8, crops=20), 'val': Sizes(scenes=4, crops=10)}


def width_of(label: int) -> int:
    return 10 + 2 * label


def bar(digit: np.ndarray, longer_side: int, rng: np.random.Generator) -> np.ndarray:
    return np.ones((HEIGHT, width_of(round(10 * digit[0, 0]))), np.float32)


@pytest.fixture(scope='module')
def bars(tmp_path_factory) -> Path:
    """A data set of bars on plain ground, two in a scene."""
    labels = np.arange(40) % 10
    digits = np.ones((40, 8, 8)) * labels[:, None, None] / 10
    ground = np.full((200, 300, 3), GROUND, np.uint8)
    sources = Sources(digits, labels, [digit_scenes.mirror(ground)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, 'load_sources', lambda seed: dict(train=sources, val=sources))
        patch.setattr(digit_scenes, 'render_digit', bar)
        patch.setattr(digit_scenes, 'MAX_DIGITS', 2)
        out = tmp_path_factory.mktemp('data') / 'bars'
        digit_scenes.generate(out, SIZES, seed=0)
    return out


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def find_painted(path: Path) -> np.ndarray:
    """Where a picture is not the ground, whose colour the file has in cv2's order."""
    return (read(path) != np.array(GROUND[::-1])).any(axis=2)


@pytest.mark.parametrize('split', SIZES)
def test_pixels_are_painted_where_the_labels_say(bars, split):
    for number in range(SIZES[split].scenes):
        name = f'{split}/{number:06d}.png'
        painted, semantic = find_painted(bars / 'images' / name), read(bars / 'semantic' / name)
        np.testing.assert_array_equal(painted, semantic > 0)


@pytest.mark.parametrize('split', SIZES)
def test_boxes_and_masks_are_of_the_digit_that_they_name(bars, split):
    content = json.loads((bars / 'annotations' / f'instances_{split}.json').read_text())
    names = {c['id']: int(c['name']) for c in content['categories']}
    assert sorted(names.values()) == list(range(10))
    files = {image['id']: image['file_name'] for image in content['images']}
    assert len({a['id'] for a in content['annotations']}) == len(content['annotations'])
    for image, file in files.items():
        found = [a for a in content['annotations'] if a['image_id'] == image]
        semantic = read(bars / 'semantic' / split / file)
        for annotation in found:
            full = HEIGHT * width_of(names[annotation['category_id']])
            assert 0.6 * full <= annotation['area'] <= full
            mask = coco_mask.decode(annotation['segmentation'])
            assert (semantic[mask > 0] == 1 + names[annotation['category_id']]).all()
        last = found[-1]  # lies on top
        label = names[last['category_id']]
        assert last['area'] == HEIGHT * width_of(label)
        assert last['bbox'][2:] == [width_of(label), HEIGHT]


@pytest.mark.parametrize('split', SIZES)
def test_crops_lie_in_the_folder_of_their_digit(bars, split):
    for label in range(10):
        files = list((bars / 'classification' / split / str(label)).iterdir())
        assert len(files) == SIZES[split].crops / 10
        for path in files:
            painted = find_painted(path)
            assert painted.shape == (48, 48)
            assert painted.any(axis=0).sum() == width_of(label)
            assert painted.any(axis=1).sum() == HEIGHT
            for side, length in ((1, HEIGHT), (0, width_of(label))):  # roughly centred
                room = 48 - length
                before = int(painted.any(axis=side).argmax())
                assert room // 4 <= before <= room - room // 4


def test_paint_blends_and_stands_out():
    """Lighter than dark ground, darker than light ground, by 70 grey levels at least."""
    opacity = np.zeros((6, 5), np.float32)
    opacity[:, 1] = opacity[-1, 1:] = 1  # an L
    opacity[0, 4] = 0.5
    rng = np.random.default_rng(0)
    for grey in (40, 139, 140, 230):
        canvas = np.full((20, 20, 3), grey, np.uint8)
        digit_scenes.paint(canvas, opacity, 3, 7, rng)
        inside = canvas[3:9, 7:12]
        colours = np.unique(inside[opacity == 1], axis=0)
        assert len(colours) == 1
        step = colours[0].astype(float).mean() - grey
        assert abs(step) >= 70 and (step > 0) == (grey < 140)
        half = (colours[0].astype(float) + grey) / 2
        assert np.abs(inside[0, 4] - half).max() <= 0.5
        canvas[3:9, 7:12][opacity > 0] = grey
        assert (canvas == grey).all()  # nothing else was touched


def test_paint_lets_what_lies_under_shine_through():
    """Each pixel its own, as far as the digit is transparent there."""
    canvas = np.zeros((8, 8, 3), np.uint8)
    canvas[:, 4:] = 100
    before = canvas.astype(float)
    opacity = np.full((8, 8), 0.6, np.float32)
    digit_scenes.paint(canvas, opacity, 0, 0, np.random.default_rng(0))
    colour = (canvas[0, 0] - 0.4 * before[0, 0]) / 0.6
    assert np.abs(canvas - (0.6 * colour + 0.4 * before)).max() <= 1


def test_no_digit_is_hidden_by_more_than_two_fifths(monkeypatch):
    """However crowded the scene; what does not fit is neither painted nor labelled."""
    sources = digit_scenes.load_sources(0)['val']
    painted = []

    def record(canvas, opacity, top, left, rng):
        painted.append(int((opacity > 0.5).sum()))

    monkeypatch.setattr(digit_scenes, 'MAX_DIGITS', 40)
    monkeypatch.setattr(digit_scenes, 'PLACING_ATTEMPTS', 4)
    monkeypatch.setattr(digit_scenes, 'paint', record)
    shares = []
    for seed in range(3):
        painted.clear()
        _, labels, masks = digit_scenes.make_scene(sources, np.random.default_rng(seed))
        assert len(labels) == len(masks) == len(painted)
        assert np.sum(masks, axis=0).max() == 1  # a pixel shows one digit
        shares += [mask.sum() / area for mask, area in zip(masks, painted)]
    assert min(shares) >= 0.6 and max(shares) == 1
    assert sum(share < 0.8 for share in shares) > 5  # yet they overlap


def test_a_scene_has_two_to_five_digits():
    sources = digit_scenes.load_sources(0)['val']
    numbers = {
        len(digit_scenes.make_scene(sources, np.random.default_rng(seed))[1]) for seed in range(25)
    }
    assert numbers == {2, 3, 4, 5}


def test_rendering_keeps_the_form(monkeypatch):
    """Without turning, slanting and stretching a digit is enlarged and nothing else."""
    for name in ('TURN', 'SLANT', 'STRETCH'):
        monkeypatch.setattr(digit_scenes, name, 0)
    digit = np.zeros((8, 8))
    digit[1:7, 2:4] = 1
    digit[5:7, 2:6] = 1  # an L of 6 x 4
    opacity = digit_scenes.render_digit(digit, 48, np.random.default_rng(0))
    assert 44 <= max(opacity.shape) <= 48
    assert opacity.min() >= 0 and opacity.max() == 1
    ink = cv2.resize(digit[1:7, 2:6], opacity.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    drawn = opacity > 0.5
    assert (ink & drawn).sum() / (ink | drawn).sum() > 0.85


def test_rendering_never_exceeds_the_side_asked_for():
    sources = digit_scenes.load_sources(0)['val']
    rng = np.random.default_rng(0)
    for digit in sources.digits[:40]:
        shape = digit_scenes.render_digit(digit, 40, rng).shape
        assert 24 <= max(shape) <= 40


def test_sizes_of_digits(monkeypatch):
    """38 to 56 pixels in a scene of 128, 34 to 46 in a crop of 48."""
    sources = digit_scenes.load_sources(0)['val']
    sides = []

    def record(digit: np.ndarray, longer_side: int, rng: np.random.Generator) -> np.ndarray:
        sides.append(longer_side)
        return np.ones((4, 4), np.float32)

    monkeypatch.setattr(digit_scenes, 'render_digit', record)
    rng = np.random.default_rng(0)
    for _ in range(60):
        digit_scenes.make_scene(sources, rng)
    assert (min(sides), max(sides)) == (38, 56)
    sides.clear()
    for _ in range(120):
        assert digit_scenes.make_crop(sources, 3, rng).shape == (48, 48, 3)
    assert (min(sides), max(sides)) == (34, 46)


def test_background_is_a_square_piece_of_the_photograph():
    """Of a photograph that encodes its rows and columns: as far from row to row as across."""
    rows, columns = np.mgrid[:200, :160]
    photograph = digit_scenes.mirror(np.dstack([rows, columns, 0 * rows]).astype(np.uint8))
    mirrored = set()
    for seed in range(12):
        piece = digit_scenes.crop_background(photograph, 32, np.random.default_rng(seed))
        assert piece.shape == (32, 32, 3)
        down = float(piece[-1, 0, 0]) - piece[0, 0, 0]
        across = float(piece[0, -1, 1]) - piece[0, 0, 1]
        assert down > 0 and abs(abs(across) - down) <= 1
        mirrored.add(across < 0)
    assert mirrored == {True, False}
