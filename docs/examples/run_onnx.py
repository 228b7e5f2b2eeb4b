"""Run a file of tools/export.py on a picture and draw what it finds: numpy, onnxruntime, Pillow.

    pip install numpy onnxruntime pillow
    python run_onnx.py detector.onnx picture.jpg drawn.png --score 0.3 --long-side 1333

For files that were written with --uint8: of a detector, a segmentor or a classifier.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

COLOURS = np.array(
    [(230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240)],
    dtype=np.uint8,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', help='of tools/export.py --uint8')
    parser.add_argument('picture')
    parser.add_argument('out', help='the drawn picture')
    parser.add_argument('--score', type=float, default=0.3, help='of the boxes that are shown')
    parser.add_argument('--long-side', type=int, help='pixels; makes the picture that large first')
    args = parser.parse_args()

    session = onnxruntime.InferenceSession(args.file, providers=['CPUExecutionProvider'])
    if session.get_inputs()[0].type != 'tensor(uint8)':
        parser.exit(1, f'{args.file} takes no picture: export it with --uint8\n')
    meta = session.get_modelmeta().custom_metadata_map
    classes = json.loads(meta['classes'])
    picture = Image.open(args.picture).convert('RGB')
    resized = picture
    if args.long_side:
        scale = args.long_side / max(picture.size)
        resized = picture.resize([max(1, round(n * scale)) for n in picture.size], Image.BILINEAR)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {'image': np.asarray(resized)})))

    if 'boxes' in found:
        found['boxes'] = found['boxes'] * np.tile(np.divide(picture.size, resized.size), 2)
        threshold = float(meta.get('mask_threshold', 0.5))
        drawn = draw_detections(picture, found, classes, args.score, threshold)
    elif found['logits'].ndim == 4:
        logits = found['logits'][0]
        if len(logits) == 1:  # object or background
            labels = 1 / (1 + np.exp(-logits[0])) > float(meta['threshold'])
        else:
            labels = logits.argmax(axis=0)
        labels = Image.fromarray(labels.astype(np.int32))
        drawn = draw_labels(
            picture, np.asarray(labels.resize(picture.size, Image.NEAREST)), classes
        )
    else:
        logits = found['logits'][0]
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        for label in probabilities.argsort()[::-1][:5]:
            print(f'{classes[label]}: {probabilities[label]:.2f}')
        drawn = picture
    drawn.save(args.out)


def draw_detections(
    picture: Image.Image,
    found: dict[str, np.ndarray],
    classes: list[str],
    min_score: float,
    threshold: float,
) -> Image.Image:
    """Boxes, names and, where there are any, masks; each is printed as well."""
    pixels = np.array(picture)
    shown = np.flatnonzero(found['scores'] >= min_score)
    for i in shown[::-1] if 'masks' in found else ():
        top, left, inside = paste(found['masks'][i], found['boxes'][i], *pixels.shape[:2])
        part = pixels[top : top + len(inside), left : left + inside.shape[1]]
        colour = COLOURS[found['labels'][i] % len(COLOURS)]
        part[inside >= threshold] = (part[inside >= threshold] // 2) + colour // 2
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    for i in shown:
        box, label = found['boxes'][i], found['labels'][i]
        text = f'{classes[label]} {found["scores"][i]:.2f}'
        colour = tuple(COLOURS[label % len(COLOURS)].tolist())
        pen.rectangle(box.tolist(), outline=colour)
        pen.text((box[0] + 2, box[1] + 1), text, fill=colour)
        print(text, *(f'{value:.1f}' for value in box))
    return drawn


def paste(
    mask: np.ndarray, box: np.ndarray, height: int, width: int
) -> tuple[int, int, np.ndarray]:
    """A mask (h, w) of a box as probabilities of the picture's pixels within the box.

    Bilinear between the centres of cells and zero beyond, as the model's own test path pastes.

    Returns:
        Top, left, and probabilities (rows, columns) from there on.
    """
    weights, starts = [], []
    for axis, limit in ((1, height), (0, width)):
        start, end, cells = box[axis], box[axis + 2], mask.shape[1 - axis]
        first, last = max(int(start) - 1, 0), min(int(end) + 2, limit)
        centre = np.arange(first, max(first, last)) + 0.5
        at = (centre - start) / max(end - start, 1e-6) * cells - 0.5
        weights.append(np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0))
        starts.append(first)
    return *starts, weights[0] @ mask @ weights[1].T


def draw_labels(picture: Image.Image, labels: np.ndarray, classes: list[str]) -> Image.Image:
    """The colours of the classes, half through; the share of each that occurs is printed."""
    for label, count in zip(*np.unique(labels, return_counts=True)):
        print(f'{classes[label]}: {count / labels.size:.0%} of the pixels')
    overlay = COLOURS[labels % len(COLOURS)]
    return Image.blend(picture, Image.fromarray(overlay), 0.5)


if __name__ == '__main__':
    main()
