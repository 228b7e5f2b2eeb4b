"""Digit scenes: a small data set of real images for detection, segmentation and classification.

    python data/digit_scenes.py --out data/digit_scenes

Handwritten digits (scikit-learn's 1,797 images of 8 x 8) are enlarged, turned, coloured and pasted,
overlapping, on photographs and textures that scikit-image and scikit-learn ship. Nothing is
downloaded. One seed makes everything, so the same versions of those packages write the same files.
A source digit and a background belong to one split only.

    digit_scenes/
      annotations/instances_{train,val}.json    COCO: boxes, masks as RLE, ten classes
      images/{train,val}/*.png                  scenes of 128 x 128
      semantic/{train,val}/*.png                class indices: 0 background, 1 + digit
      classification/{train,val}/<digit>/*.png  single digits of 48 x 48, an ImageFolder
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

MARKER = '.digit_scenes.json'  # written last, so only a finished data set of ours has it
CLASSES = tuple(str(digit) for digit in range(10))
SCENE, CROP = 128, 48  # pixels
SCENE_DIGIT, CROP_DIGIT = (38, 57), (34, 47)  # longer side in pixels, upper end excluded
MAX_DIGITS = 5
VAL_FRACTION = 0.25  # of the source digits
MIN_VISIBLE = 0.6  # of a digit's area; a paste that hides more of another one is not made
PLACING_ATTEMPTS = 20
TURN = 15  # degrees, either way
SLANT, STRETCH = 0.15, 0.1  # shear and change of aspect ratio, either way
CONTRAST = 70  # grey levels between a digit and the mean of what it covers

# The photographs by split. motorcycle_left and motorcycle_right show one scene.
BACKGROUNDS = {
    'train': (
        'skimage/astronaut.png',
        'skimage/brick.png',
        'skimage/camera.png',
        'skimage/cell.png',
        'skimage/clock_motion.png',
        'skimage/coffee.png',
        'skimage/grass.png',
        'skimage/hubble_deep_field.jpg',
        'skimage/ihc.png',
        'skimage/moon.png',
        'skimage/motorcycle_left.png',
        'sklearn/china.jpg',
        'sklearn/flower.jpg',
    ),
    'val': (
        'skimage/chelsea.png',
        'skimage/coins.png',
        'skimage/gravel.png',
        'skimage/retina.jpg',
        'skimage/rocket.jpg',
    ),
}


@dataclass(frozen=True)
class Sizes:
    """How many images each split gets."""

    scenes: int
    crops: int


class Photograph(NamedTuple):
    """A photograph (H, W, 3) as it is and mirrored."""

    image: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Sources:
    """What one split is made of: (n, 8, 8) digits in [0, 1], their labels, RGB photographs."""

    digits: np.ndarray
    labels: np.ndarray
    backgrounds: list[Photograph]


def load_sources(seed: int) -> dict[str, Sources]:
    """The digits and photographs of each split; no image is in two."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    order = np.random.default_rng(seed).permutation(len(images))
    num_val = round(len(images) * VAL_FRACTION)
    index = {'val': order[:num_val], 'train': order[num_val:]}
    return {
        split: Sources(
            images[index[split]],
            labels[index[split]],
            [mirror(load_photograph(name)) for name in BACKGROUNDS[split]],
        )
        for split in ('train', 'val')
    }


def load_photograph(name: str) -> np.ndarray:
    """An image that a package ships, (H, W, 3) uint8 RGB."""
    import skimage
    import sklearn.datasets

    package, file = name.split('/')
    folder = {
        'skimage': Path(skimage.__file__).parent / 'data',
        'sklearn': Path(sklearn.datasets.__file__).parent / 'images',
    }[package]
    image = cv2.imread(str(folder / file), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f'{folder / file}: install requirements.txt, which pins {package}')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def mirror(image: np.ndarray) -> Photograph:
    """An image, and the image mirrored, once for all its crops."""
    return Photograph(image, np.ascontiguousarray(image[:, ::-1]))


def crop_background(photograph: Photograph, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph at a random scale, possibly mirrored, (size, size, 3)."""
    image = photograph.image
    height, width = image.shape[:2]
    side = int(rng.integers(min(size, height, width), min(height, width) + 1))
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    if rng.random() < 0.5:
        image, left = photograph.mirrored, width - side - left
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def render_digit(digit: np.ndarray, longer_side: int, rng: np.random.Generator) -> np.ndarray:
    """Enlarge, turn, slant and stretch one digit; opacity in [0, 1] in its bounding box, (h, w)."""
    ink = np.pad(cut_to_content(digit, 0), 2).astype(np.float32)
    turn = np.deg2rad(rng.uniform(-TURN, TURN))
    stretch = 1 + rng.uniform(-STRETCH, STRETCH)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    slant = np.array([[1, rng.uniform(-SLANT, SLANT)], [0, 1]])
    scale = longer_side / (max(ink.shape) - 4)
    matrix = scale * rotation @ slant @ np.diag([stretch, 1 / stretch])
    side = int(np.ceil(1.8 * scale * max(ink.shape)))
    shift = (side - 1) / 2 - matrix @ ((np.array(ink.shape[::-1]) - 1) / 2)
    affine = np.column_stack([matrix, shift])
    opacity = cv2.warpAffine(ink, affine, (side, side), flags=cv2.INTER_CUBIC)
    # The strokes are blurred by the enlargement; a steep ramp gives them an edge again.
    opacity = cut_to_content(np.clip((opacity - 0.3) / 0.2, 0, 1), 0.5)
    excess = max(opacity.shape) / longer_side
    if excess > 1:  # a turned or stretched digit can be longer than was asked for
        size = tuple(max(1, round(n / excess)) for n in opacity.shape[::-1])
        opacity = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
    return opacity


def cut_to_content(image: np.ndarray, threshold: float) -> np.ndarray:
    """The smallest rectangle with everything above the threshold."""
    rows, cols = (np.flatnonzero(image.max(axis) > threshold) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def paint(
    canvas: np.ndarray, opacity: np.ndarray, top: int, left: int, rng: np.random.Generator
) -> None:
    """Blend a digit into the canvas, lighter than dark ground and darker than light ground."""
    height, width = opacity.shape
    under = canvas[top : top + height, left : left + width]
    mean = under[opacity > 0.5].mean(axis=0)
    grey = float(mean.mean())
    sign = 1 if grey < 140 else -1
    colour = rng.integers(0, 256, 3)
    while sign * (sum(colour.tolist()) / 3 - grey) < CONTRAST:
        colour = rng.integers(0, 256, 3)
    alpha = opacity[..., None]
    under[:] = np.rint(alpha * colour + (1 - alpha) * under).astype(np.uint8)


def make_scene(
    sources: Sources, rng: np.random.Generator
) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """One scene (SCENE, SCENE, 3), the digits in it, and the visible mask of each."""
    background = sources.backgrounds[rng.integers(len(sources.backgrounds))]
    canvas = crop_background(background, SCENE, rng)
    labels: list[int] = []
    masks: list[np.ndarray] = []
    areas: list[int] = []  # before anything was pasted over
    for _ in range(int(rng.integers(2, MAX_DIGITS + 1))):
        choice = rng.integers(len(sources.digits))
        opacity = render_digit(sources.digits[choice], int(rng.integers(*SCENE_DIGIT)), rng)
        for _ in range(PLACING_ATTEMPTS):
            top = int(rng.integers(SCENE - opacity.shape[0] + 1))
            left = int(rng.integers(SCENE - opacity.shape[1] + 1))
            mask = np.zeros((SCENE, SCENE), bool)
            mask[top : top + opacity.shape[0], left : left + opacity.shape[1]] = opacity > 0.5
            remaining = [other & ~mask for other in masks]
            if all(m.sum() >= MIN_VISIBLE * area for m, area in zip(remaining, areas)):
                paint(canvas, opacity, top, left, rng)
                labels.append(int(sources.labels[choice]))
                masks = [*remaining, mask]
                areas.append(int(mask.sum()))
                break
    return canvas, labels, masks


def make_crop(sources: Sources, label: int, rng: np.random.Generator) -> np.ndarray:
    """One digit, roughly centred, on a piece of a photograph, (CROP, CROP, 3)."""
    background = sources.backgrounds[rng.integers(len(sources.backgrounds))]
    canvas = crop_background(background, CROP, rng)
    choice = rng.choice(np.flatnonzero(sources.labels == label))
    opacity = render_digit(sources.digits[choice], int(rng.integers(*CROP_DIGIT)), rng)
    room = np.array([CROP, CROP]) - opacity.shape
    top, left = (int(rng.integers(r // 4, r - r // 4 + 1)) for r in room)
    paint(canvas, opacity, top, left, rng)
    return canvas


def write_split(
    out: Path, split: str, sources: Sources, sizes: Sizes, rng: np.random.Generator
) -> None:
    """Write all three formats of one split below ``out``."""
    for folder in (f'images/{split}', f'semantic/{split}', 'annotations'):
        (out / folder).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in tqdm(range(sizes.scenes), f'{split} scenes', leave=False):
        canvas, labels, masks = make_scene(sources, rng)
        name = f'{i:06d}.png'
        semantic = np.zeros((SCENE, SCENE), np.uint8)
        for label, mask in zip(labels, masks):
            semantic[mask] = label + 1
            annotations.append(make_annotation(len(annotations) + 1, i + 1, label, mask))
        images.append(dict(id=i + 1, file_name=name, height=SCENE, width=SCENE))
        write_image(out / 'images' / split / name, canvas[..., ::-1])
        write_image(out / 'semantic' / split / name, semantic)
    coco = dict(
        info=dict(description='digit scenes', split=split),
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    (out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco))

    for name in CLASSES:
        (out / 'classification' / split / name).mkdir(parents=True)
    for i in tqdm(range(sizes.crops), f'{split} crops', leave=False):
        label = i % len(CLASSES)
        crop = make_crop(sources, label, rng)
        path = out / 'classification' / split / CLASSES[label] / f'{i:06d}.png'
        write_image(path, crop[..., ::-1])


def make_annotation(index: int, image_id: int, label: int, mask: np.ndarray) -> dict:
    """A COCO annotation of one visible mask: RLE, since a digit has holes and may be in pieces."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        id=index,
        image_id=image_id,
        category_id=label + 1,
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
        area=int(mask.sum()),
        bbox=[float(v) for v in coco_mask.toBbox(rle)],
        iscrowd=0,
    )


def write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f'cannot write {path}')


def generate(out: Path, sizes: dict[str, Sizes], seed: int) -> None:
    """Write the data set to ``out``, complete or not at all.

    Raises:
        FileExistsError: When ``out`` holds something that this script did not make.
    """
    if out.exists() and not (out / MARKER).is_file() and (out.is_file() or any(out.iterdir())):
        raise FileExistsError(
            f"'{out}' exists and was not made by this script; move it away or choose another --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f'.{out.name}.{os.getpid()}.partial')
    try:
        partial.mkdir()
        sources = load_sources(seed)
        for number, split in enumerate(sizes):
            rng = np.random.default_rng([seed, number])
            write_split(partial, split, sources[split], sizes[split], rng)
        settings = dict(seed=seed, sizes={split: vars(size) for split, size in sizes.items()})
        (partial / MARKER).write_text(json.dumps(settings))
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Make the digit scenes: COCO json, index PNGs and an ImageFolder.'
    )
    parser.add_argument('--out', type=Path, required=True, help='the folder to write')
    parser.add_argument('--train', type=int, default=2000, help='training scenes (default: 2000)')
    parser.add_argument('--val', type=int, default=100, help='held-out scenes (default: 100)')
    parser.add_argument('--train-crops', type=int, default=16000, help='(default: 16000)')
    parser.add_argument('--val-crops', type=int, default=1000, help='(default: 1000)')
    parser.add_argument('--seed', type=int, default=0, help='(default: 0)')
    args = parser.parse_args()
    for name in ('train', 'val', 'train_crops', 'val_crops'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return args


def main() -> None:
    args = parse_args()
    sizes = {
        'train': Sizes(args.train, args.train_crops),
        'val': Sizes(args.val, args.val_crops),
    }
    try:
        generate(args.out, sizes, args.seed)
    except OSError as error:
        sys.exit(f'error: {error}')
    scenes, crops = (sum(getattr(s, kind) for s in sizes.values()) for kind in ('scenes', 'crops'))
    print(f'{args.out}: {scenes} scenes, {crops} single digits')


if __name__ == '__main__':
    main()
