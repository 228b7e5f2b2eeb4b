"""Pictures: annotations, predictions, and views of a model (:mod:`mmdense.backbones.views`).

What the toolboxes know is drawn by their own visualizers (``build_visualizer``, ``draw_sample``),
what only this package knows by matplotlib (``draw_view``).
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer
from torch import Tensor

from .checks import find_datasets
from .errors import UserError
from .files import replacing

if TYPE_CHECKING:
    from ..backbones.views import View

VISUALIZER = {
    'mmpretrain': 'mmpretrain.UniversalVisualizer',
    'mmdet': 'mmdet.DetLocalVisualizer',
    'mmseg': 'mmseg.SegLocalVisualizer',
}
PICTURE_SIDE = 512  # pixels; a smaller picture is enlarged until labels can be read on it
FONT_SIZE = 12  # points, of labels
COLUMNS = 4  # or 5, where that spares a row for one panel
INCHES = 2.6  # a panel's width
OPACITY = 0.6  # of what lies on the picture


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
    visualizer = VISUALIZERS.get(VISUALIZER[cfg.default_scope])()
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
    score_thr: float = 0.3,
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
    factor = max(1, round(PICTURE_SIDE / max(picture.shape[:2])))
    picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
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
        visualizer.add_datasample('', picture, sample, **which, pred_score_thr=score_thr)
    return visualizer.get_image()


def enlarge_sample(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """A sample of a picture whose every pixel becomes ``factor`` x ``factor``."""
    sample = sample.clone()
    for name, field in sample.items():
        if isinstance(field, PixelData) and factor > 1:
            maps = {key: enlarge(value, factor) for key, value in field.items()}
            setattr(sample, name, PixelData(metainfo=field.metainfo, **maps))
    for name in {'gt_instances', 'pred_instances'} & set(sample.keys()):
        found = sample.get(name)
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


def draw_view(picture: np.ndarray, view: View, path: str | Path, max_maps: int) -> None:
    """Write a page: the picture, what sums the view up, and its maps as heat maps.

    Args:
        picture: (H, W, 3) RGB, what the model saw.
        view: Its maps start at the picture's upper left corner and may reach beyond the others.
        path: The file, ``.png`` or what else matplotlib writes.
        max_maps: How many maps at most; of a partition those with the most positions.
    """
    order = np.arange(len(view.maps))
    if view.owners is not None:
        sizes = np.bincount(view.owners.numpy().ravel(), minlength=len(order))
        order = np.argsort(-sizes, kind='stable')
    order = order[:max_maps]
    extra = view.owners is not None or view.colours is not None
    panels = 1 + extra + len(order)
    columns = min(panels, COLUMNS + (panels % COLUMNS == 1))
    rows = math.ceil(panels / columns)
    height = INCHES * picture.shape[0] / picture.shape[1] + 0.3
    figure = Figure(figsize=(columns * INCHES, rows * height), layout='constrained', dpi=100)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()

    panels = iter(axes)
    show_picture(next(panels), picture, name_place(view.name))
    if view.query is not None:
        axes[0].plot(*view.query, 'P', color='red', markersize=9, markeredgecolor='white')
    if view.owners is not None:
        colours = tell_apart(len(sizes))[view.owners.numpy()]
        title = f'partition: {(sizes > 0).sum()} of {len(sizes)}'
        show_colours(next(panels), picture, view, colours, title)
    if view.colours is not None:
        show_colours(next(panels), picture, view, view.colours.numpy(), 'principal components')
    for i in order:
        share = f': {sizes[i] / sizes.sum():.0%}' if view.owners is not None else ''
        show_heat(next(panels), picture, view, i, view.labels[i] + share)
    with replacing(path) as part:
        figure.savefig(part)


def name_place(name: str) -> str:
    """'stage1_block2' -> 'stage 1, block 2'."""
    return re.sub(r'(\d+)', r' \1', name).replace('_', ', ')


def show_picture(axis: Axes, picture: np.ndarray, title: str) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, cmap='gray', extent=(0, width, height, 0))
    axis.set_title(title, fontsize=9)


def show_colours(
    axis: Axes, picture: np.ndarray, view: View, colours: np.ndarray, title: str
) -> None:
    """Colours (h, w, 3) per position over the picture."""
    show_picture(axis, picture, title)
    axis.imshow(colours, alpha=OPACITY, extent=extent_of(view, picture), interpolation='nearest')
    cut_to(axis, picture)


def show_heat(axis: Axes, picture: np.ndarray, view: View, index: int, title: str) -> None:
    """One map over the grey picture; a signed one blue below zero and red above."""
    show_picture(axis, picture.mean(axis=2), title)
    heat = view.maps[index].numpy()
    limit = np.abs(heat).max() if view.signed else None
    axis.imshow(
        heat,
        cmap='coolwarm' if view.signed else 'inferno',
        vmin=-limit if view.signed else None,
        vmax=limit,
        alpha=OPACITY,
        extent=extent_of(view, picture),
        interpolation='bilinear',
    )
    cut_to(axis, picture)


def extent_of(view: View, picture: np.ndarray) -> tuple[int, int, int, int]:
    """Left, right, lower and upper end of a view's maps, in pixels of the picture."""
    height, width = view.maps.shape[1:]
    stride = view.stride or 2 ** math.ceil(math.log2(picture.shape[0] / height))
    return 0, width * stride, height * stride, 0


def cut_to(axis: Axes, picture: np.ndarray) -> None:
    """Hide what lies beyond the picture: a model's padding."""
    axis.set_xlim(0, picture.shape[1])
    axis.set_ylim(picture.shape[0], 0)


def tell_apart(number: int) -> np.ndarray:
    """Colours (number, 3); neighbours in the list lie far apart on the wheel."""
    golden = (math.sqrt(5) - 1) / 2
    return colormaps['hsv'](np.arange(number) * golden % 1)[:, :3]
