"""Models under somebody's fingers: predictions of a picture, and what they look at from a point.

A model runs once for a picture; points, thresholds and layers are shown from what it left.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field

import cv2
import mmcv
import numpy as np
import torch
from matplotlib import colormaps
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_iou

from ..engine.data import build_dataset, build_pipeline
from ..errors import UserError
from ..families.views import View
from .drawing import SCORE_THR, build_visualizer, draw_sample, packs_rgb, to_picture
from .predict import load_image, predict
from .visualize import (
    OPACITY,
    Point,
    Recording,
    choose_colours,
    find_pixel,
    find_stride,
    list_kinds,
    name_classes,
    name_place,
    record,
    run_parts,
    tell_apart,
)

MAX_PICTURES = 200  # of a data set that are offered
MAX_PIXELS = 50_000_000  # of a picture
MATCHED = 0.5  # IoU from which two boxes are of one object
SUMMARIES = ('partition', 'principal components', 'mean')


@dataclass(frozen=True)
class Seen:
    """What a model made of a picture.

    Args:
        original: (H, W, 3) RGB, as the file has it.
        picture: (H, W, 3) RGB, what the model saw.
        sample: Its prediction, the toolbox's data sample.
        overlay: (H', W', 3) RGB, the prediction drawn.
        seconds: That the prediction took, where it is not the model's first.
        recording: Of what the views are made.
    """

    original: np.ndarray
    picture: np.ndarray
    sample: BaseDataElement
    overlay: np.ndarray
    seconds: float
    recording: Recording


@dataclass
class Explored:
    """A model, and what it made of the last picture.

    Args:
        cfg: Its config.
        model: Of ``load_model``.
        score_thr: Objects with lower scores are not drawn.
    """

    cfg: Config
    model: nn.Module
    score_thr: float = SCORE_THR
    last: tuple[str, Seen] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.pipeline = build_pipeline(self.cfg)
        self.visualizer = build_visualizer(self.cfg, self.model.dataset_meta)

    def see(self, path: str) -> Seen:
        """Run the model on a picture, unless it was the last one.

        Raises:
            UserError: When the file is no picture, or the model cannot take it.
        """
        if self.last is None or self.last[0] != path:
            batch = load_image(self.pipeline, path)
            picture = to_picture(batch['inputs'][0], packs_rgb(self.cfg, 'test'))
            if self.last is None:
                predict(self.model, batch)  # a first run takes longer
            begin = time.perf_counter()
            sample = predict(self.model, batch)
            seconds = time.perf_counter() - begin
            original = mmcv.imread(path, channel_order='rgb')
            overlay = draw_sample(self.visualizer, original, sample, True, self.score_thr)
            recording = record(self.model, lambda: run_parts(self.model, batch), list_kinds())
            self.last = path, Seen(original, picture, sample, overlay, seconds, recording)
        return self.last[1]

    def look(self, path: str, point: Point) -> dict[str, dict[str, View]]:
        """What there is to see of a picture from a point of it: by kind, by place in the model."""
        seen = self.see(path)
        classes = self.model.dataset_meta['classes']
        views = seen.recording.show(find_pixel(point, seen.picture))
        return {
            kind: {name_place(view.name): name_classes(view, classes) for view in found}
            for kind, found in views.items()
        }


def check_pixels(path: str) -> None:
    """Raise :class:`UserError` for a picture that would take gigabytes, before it is read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                pixels = picture.width * picture.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = math.inf
    except OSError:
        return  # OpenCV knows more formats, or says that it is none
    if pixels > MAX_PIXELS:
        raise UserError(f'the picture has more than {MAX_PIXELS:,} pixels: show a part of it')


def list_maps(view: View) -> list[str]:
    """What :func:`paint` can show of a view."""
    there = (view.owners is not None, view.colours is not None, len(view.maps) > 1)
    return [*(name for name, is_there in zip(SUMMARIES, there) if is_there), *view.labels]


def paint(picture: np.ndarray, view: View, name: str, threshold: float = 0.0) -> np.ndarray:
    """A map of a view over the grey picture.

    Args:
        picture: (H, W, 3) RGB, what the model saw.
        view: Of that picture.
        name: Of :func:`list_maps`.
        threshold: Positions below this share of the largest value are left grey; a signed map's
            by their distance from zero.

    Returns:
        (H, W, 3) RGB, with a cross where the point is.

    Raises:
        ValueError: When the view has no map of this name.
    """
    if name not in list_maps(view):
        raise ValueError(f"'{name}': this view has {', '.join(list_maps(view))}")
    strength = torch.ones(view.maps.shape[1:])
    if name == 'partition':
        colours = tell_apart(len(view.maps))[view.owners.numpy()]
    elif name == 'principal components':
        colours = view.colours.numpy()
    else:
        heat = view.maps.mean(0) if name == 'mean' else view.maps[view.labels.index(name)]
        strength = heat.abs() / heat.abs().max().clamp(min=1e-12)
        if view.signed:
            level = 0.5 + 0.5 * heat.sign() * strength
        else:
            level = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)
        colours = colormaps[choose_colours(view)](level.numpy())[..., :3]
    opacity = OPACITY * (strength >= threshold).float().numpy()[..., None]
    grey = np.broadcast_to(picture.mean(axis=2, keepdims=True), picture.shape) / 255
    colours, opacity = (to_pixels(maps, view, picture) for maps in (colours, opacity))
    painted = np.rint(255 * (opacity[..., None] * colours + (1 - opacity[..., None]) * grey))
    painted = np.ascontiguousarray(painted.astype(np.uint8))
    if view.query is not None:
        size = max(8, min(picture.shape[:2]) // 20)
        cv2.drawMarker(painted, view.query, (255, 255, 255), cv2.MARKER_CROSS, size, 3)
        cv2.drawMarker(painted, view.query, (255, 0, 0), cv2.MARKER_CROSS, size, 1)
    return painted


def to_pixels(maps: np.ndarray, view: View, picture: np.ndarray) -> np.ndarray:
    """Maps (h, w, C) at the picture's pixels, without the padding beyond: (H, W, C), or (H, W)."""
    stride = find_stride(view, picture)
    size = (maps.shape[1] * stride, maps.shape[0] * stride)
    large = cv2.resize(maps.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return large[: picture.shape[0], : picture.shape[1]]


def list_pictures(cfg: Config) -> list[str]:
    """Files of the config's test pictures, the first ones; none where the data are not there."""
    try:
        dataset = build_dataset(cfg, 'test')
    except (OSError, UserError):
        return []
    number = min(len(dataset), MAX_PICTURES)
    return [str(dataset.get_data_info(i)['img_path']) for i in range(number)]


def compare(first: Seen, second: Seen, score_thr: float = SCORE_THR) -> tuple[np.ndarray, str]:
    """What two models make of one picture, where they differ.

    Args:
        first: Of one model.
        second: Of the other.
        score_thr: Objects with lower scores do not count.

    Returns:
        The picture (H, W, 3), grey, with what differs: pixels with other labels, and objects of
        the first model alone in red, of the second alone in blue; and that in words.
    """
    picture = np.repeat(first.original.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    samples = first.sample, second.sample
    for name, tell in DIFFERENCES.items():
        if all(name in sample for sample in samples):
            return tell(picture, *samples, score_thr)
    return picture, 'these models do not do the same: there is nothing to compare'


def compare_labels(
    picture: np.ndarray, first: BaseDataElement, second: BaseDataElement, score_thr: float
) -> tuple[np.ndarray, str]:
    a, b = (sample.pred_sem_seg.data[0].numpy() for sample in (first, second))
    differs = a != b
    picture[differs] = (255, 0, 0)
    return picture, f'{differs.mean():.1%} of the pixels have another label'


def compare_objects(
    picture: np.ndarray, first: BaseDataElement, second: BaseDataElement, score_thr: float
) -> tuple[np.ndarray, str]:
    a, b = (s.pred_instances[s.pred_instances.scores >= score_thr] for s in (first, second))
    overlap = box_iou(a.bboxes, b.bboxes) * (a.labels[:, None] == b.labels)
    overlap = (overlap * (overlap >= MATCHED)).numpy()
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    is_pair = overlap[rows, columns] > 0
    alone = [
        (np.delete(a.bboxes.numpy(), rows[is_pair], axis=0), (255, 0, 0)),
        (np.delete(b.bboxes.numpy(), columns[is_pair], axis=0), (0, 0, 255)),
    ]
    for boxes, colour in alone:
        for box in boxes.round().astype(int).tolist():
            cv2.rectangle(picture, tuple(box[:2]), tuple(box[2:]), colour, 2)
    only_first, only_second = (len(boxes) for boxes, _ in alone)
    return picture, (
        f'{is_pair.sum()} objects of both, {only_first} of the first alone (red), '
        f'{only_second} of the second alone (blue)'
    )


def compare_classes(
    picture: np.ndarray, first: BaseDataElement, second: BaseDataElement, score_thr: float
) -> tuple[np.ndarray, str]:
    a, b = (sample.pred_score for sample in (first, second))
    if len(a) != len(b):
        return picture, f'{len(a)} classes and {len(b)}: there is nothing to compare'
    verdict = 'the same class' if a.argmax() == b.argmax() else 'other classes'
    return picture, f'{verdict}; probabilities differ by {(a - b).abs().max():.3f} at most'


# A field of the prediction -> what compares two of them.
DIFFERENCES = {
    'pred_sem_seg': compare_labels,
    'pred_instances': compare_objects,
    'pred_score': compare_classes,
}
