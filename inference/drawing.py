"""Pictures of annotations and predictions, drawn by the toolboxes' own visualizers."""

from __future__ import annotations

import argparse
import warnings

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer
from torch import Tensor

from ..engine.data import find_datasets
from ..engine.toolboxes import find_toolbox
from ..errors import UserError

PICTURE_SIDE = 512  # pixels; a smaller picture is enlarged until labels can be read on it
FONT_SIZE = 12  # points, of labels
SCORE_THR = 0.3  # least score of an object that is drawn


def add_score_thr(parser: argparse.ArgumentParser) -> None:
    """The flag of tools that show what a detector finds."""

    def share(text: str) -> float:
        if not 0 <= float(text) <= 1:
            message = '--score-thr is between 0 and 1; overlays show it in percent'
            raise argparse.ArgumentTypeError(message)
        return float(text)

    parser.add_argument(
        '--score-thr',
        type=share,
        default=SCORE_THR,
        help="least score of a detector's instances, between 0 and 1 (default: %(default)s)",
    )


def packs_rgb(cfg: Config, split: str) -> bool:
    """Whether pictures leave the pipeline as RGB.

    The loading transforms read BGR. RGB are the pictures of data sets that hold them in memory,
    like CIFAR, and those that the model's preprocessor would turn into BGR.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    datasets = find_datasets(cfg[f'{split}_dataloader'].dataset)
    steps = [step for dataset in datasets for step in dataset.get('pipeline', [])]
    is_read = any('LoadImage' in str(step['type']) for step in steps)
    return preprocessor.get('rgb_to_bgr', False) or not is_read


def to_picture(inputs: Tensor, is_rgb: bool) -> np.ndarray:
    """A packed image (C, H, W) as an RGB picture (H, W, 3).

    Raises:
        UserError: When the pipeline packs something else, e.g. several views.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 3 or len(inputs) not in (1, 3):
        found = getattr(inputs, 'shape', type(inputs).__name__)
        raise UserError(
            f'only images of one or three channels are drawn; the pipeline packs {found}'
        )
    picture = inputs.permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8)
    picture = picture if is_rgb else picture[..., ::-1]
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def build_visualizer(cfg: Config, dataset_meta: dict) -> Visualizer:
    """The toolbox's visualizer; its colours let the picture through, its labels can be read.

    Args:
        cfg: Its ``default_scope`` says which toolbox's.
        dataset_meta: ``classes``, and ``palette`` if there is one for all of them.
    """
    visualizer = VISUALIZERS.get(find_toolbox(cfg).visualizer)()
    number = len(dataset_meta.get('classes') or ())
    palette = dataset_meta.get('palette') or ()
    if len(palette) < number:  # or it is of another data set, of fewer classes
        palette = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
    visualizer.dataset_meta = dict(dataset_meta, palette=list(map(tuple, palette)))
    visualizer.alpha = 0.5
    warnings.filterwarnings('ignore', 'Warning: The .* is out of bounds')  # it ends at the border
    draw_texts = visualizer.draw_texts

    def draw_large_texts(*args: object, font_sizes: int = 0, **kwargs: object) -> Visualizer:
        return draw_texts(*args, font_sizes=max(font_sizes, FONT_SIZE), **kwargs)

    visualizer.draw_texts = draw_large_texts
    return visualizer


def draw_sample(
    visualizer: Visualizer,
    picture: np.ndarray,
    sample: BaseDataElement,
    predicted: bool,
    score_thr: float = SCORE_THR,
) -> np.ndarray:
    """A data sample drawn on its picture; small pictures are enlarged until labels can be read.

    Args:
        visualizer: Of :func:`build_visualizer`.
        picture: (H, W, 3) RGB.
        sample: A toolbox's, which is not changed.
        predicted: Draw what was predicted, rather than the annotation.
        score_thr: Predicted instances below it are left out.

    Returns:
        (H', W', 3) RGB.
    """
    picture, factor = enlarge_picture(picture)
    which = dict(draw_gt=not predicted, draw_pred=predicted)
    if hasattr(visualizer, 'visualize_cls'):
        return visualizer.visualize_cls(picture, sample, **which)
    sample = enlarge_sample(sample, factor)
    labels = 'pred_sem_seg' if predicted else 'gt_sem_seg'
    if labels in sample:
        # The toolbox's own labels would be as transparent as its colours.
        visualizer.add_datasample('', picture, sample, **which, with_labels=False)
        name_regions(visualizer, sample.get(labels).data[0].numpy())
    else:
        if predicted:  # the toolbox would leave out what is just at the threshold
            found = sample.pred_instances
            sample.pred_instances = found[found.scores >= score_thr]
        visualizer.add_datasample('', picture, sample, **which, pred_score_thr=-1)
    return visualizer.get_image()


def enlarge_picture(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture (H, W, 3) whose every pixel becomes n x n, and n: 1 if labels can be read on it."""
    factor = max(1, round(PICTURE_SIDE / max(picture.shape[:2])))
    size = dict(dsize=None, fx=factor, fy=factor)
    return cv2.resize(picture, **size, interpolation=cv2.INTER_NEAREST), factor


def enlarge_sample(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """A sample of a picture whose every pixel becomes ``factor`` x ``factor``."""
    sample = sample.clone()
    for name, field in sample.items():
        if isinstance(field, PixelData) and factor > 1:
            maps = {key: enlarge(value, factor) for key, value in field.items()}
            setattr(sample, name, PixelData(metainfo=field.metainfo, **maps))
    for name in {'gt_instances', 'pred_instances'} & set(sample.keys()):
        found = sample.get(name).clone()  # which a sample's own clone shares
        setattr(sample, name, found)
        if 'bboxes' in found:
            found.bboxes = getattr(found.bboxes, 'tensor', found.bboxes) * factor
        if 'masks' not in found or factor == 1:
            continue
        if isinstance(found.masks, Tensor):
            found.masks = enlarge(found.masks, factor)
        else:  # an annotation's
            size = (found.masks.height * factor, found.masks.width * factor)
            found.masks = found.masks.resize(size)
    return sample


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """(..., H, W) -> (..., factor H, factor W), every value repeated."""
    return maps.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def name_regions(visualizer: Visualizer, labels: np.ndarray) -> None:
    """Write the class's name into the widest part of every class of a label map (H, W)."""
    classes = visualizer.dataset_meta['classes']
    for label in np.unique(labels):
        if label < len(classes):  # others are ignored pixels
            region = np.pad(labels == label, 1).astype(np.uint8)
            *_, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(region, cv2.DIST_L2, 5))
            visualizer.draw_texts(
                classes[label],
                np.array([x - 1, y - 1]),
                colors='white',
                font_sizes=FONT_SIZE,
                vertical_alignments='center',
                horizontal_alignments='center',
                bboxes=dict(facecolor='black', alpha=0.8, pad=0.7, edgecolor='none'),
            )
