"""Where MMPretrain, MMDetection and MMSegmentation differ: one row each.

What is alike in the three, the tools do in one way; whatever is not is looked up here by the
config's ``default_scope``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from ..errors import UserError

CLASSIFIER, DETECTOR, SEGMENTOR = 'classifier', 'detector', 'segmentor'
# A two-stage detector's heads see as many regions as mmdet's tools/analysis_tools/get_flops.py has.
NUM_PROPOSALS = 1000
NUM_MASKS = 100
NUM_BOXES = 8  # objects in a made-up image
TOP = 5  # classes that a classifier's description names


@dataclass(frozen=True, eq=False)
class Toolbox:
    """One of the three.

    Args:
        task: What its models are called: one of the three words above.
        shape: (height, width) of the images that figures are published for.
        visualizer: Draws its samples.
        show_flag: Turns its visualization hook on.
        show_folder: The hook's argument for a folder of pictures; None where the visualizer's
            ``save_dir`` is that.
        dump: The metric that writes predictions to a .pkl file; None where the evaluator writes a
            folder of label maps.
        metric: Its metric that a report is made from.
        collector: The metric that stands in for it, and collects what the report shows.
        keys: What models are judged by, the first one before the others: in the log -> a title.
        whole: What metrics are at best: 1, or 100 of those in percent.
        cpu_batch: Pictures of a training step on a CPU, where more do not make it faster.
        tta_model: Merges the predictions of a picture and its mirror image.
        tta_meta_keys: What its packing transform must keep for that, beside what it keeps anyway.
        tta_metric: What is left to evaluate then; None for all.
        run_heads: Computes what the heads make of the neck's maps and an image's shape, but what
            depends on the numbers in the image.
        label: Adds made-up labels to a sample of a shape, given the number of classes.
        sample: The class of its samples.
        describe: A prediction as plain data, see :func:`mmdense.inference.predict.describe`.
    """

    task: str
    shape: tuple[int, int]
    visualizer: str
    show_flag: str
    show_folder: str | None
    dump: str | None
    metric: str
    collector: str
    keys: dict[str, str]
    whole: float
    cpu_batch: int
    tta_model: dict
    run_heads: Callable[[nn.Module, Sequence[Tensor], tuple[int, int]], None]
    sample: type[BaseDataElement]
    label: Callable[[BaseDataElement, tuple[int, int], int], None]
    describe: Callable[[BaseDataElement, Sequence[str], float], dict]
    tta_meta_keys: tuple[str, ...] = ()
    tta_metric: str | None = None


def find_toolbox(cfg: Config) -> Toolbox:
    """The row of a config, by its ``default_scope``.

    Raises:
        UserError: When the config is of none of the three.
    """
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise UserError(f"default_scope '{scope}' is none of {', '.join(TOOLBOXES)}")
    return TOOLBOXES[scope]


def describe_shapes() -> str:
    """The default shapes in words, for the tools' help."""
    rows = TOOLBOXES.values()
    return ', '.join(f'{" ".join(map(str, row.shape))} for a {row.task}' for row in rows)


def check_model_config(cfg: Config) -> None:
    """Raise :class:`UserError` unless a config is of a model with a backbone, in a toolbox."""
    if 'backbone' not in (cfg.get('model') or {}) or cfg.get('default_scope') not in TOOLBOXES:
        raise UserError(
            f"'{cfg.filename or 'it'}' is no config of a classifier, detector or segmentor with a "
            'backbone'
        )


def run_classifier(model: nn.Module, maps: Sequence[Tensor], shape: tuple[int, int]) -> None:
    """The classifier's head on maps (B, C, h, w) or vectors (B, C) of an image of ``shape``."""
    model.head(maps)


def label_class(sample: DataSample, shape: tuple[int, int], num_classes: int) -> None:
    """The first class."""
    sample.set_gt_label(0)


def describe_class(sample: DataSample, classes: Sequence[str], score_thr: float) -> dict:
    """``labels``, ``classes`` and ``scores`` of the most probable, best first."""
    scores, labels = sample.pred_score.topk(min(TOP, len(sample.pred_score)))
    return dict(
        labels=labels.tolist(),
        classes=[classes[i] for i in labels.tolist()],
        scores=scores.tolist(),
    )


def run_detector(model: nn.Module, maps: Sequence[Tensor], shape: tuple[int, int]) -> None:
    """The heads on maps (B, C, h, w); a second stage on empty regions, each of a cascade on all.

    Raises:
        UserError: For a detector of another kind, such as DETR.
    """
    if hasattr(model, 'decoder') or not (hasattr(model, 'roi_head') or hasattr(model, 'bbox_head')):
        raise UserError(
            f'the heads of a {type(model).__name__} are not known here: only those of '
            'detectors of one or two stages'
        )
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    for kind, number in (('bbox', NUM_PROPOSALS), ('mask', NUM_MASKS)):
        heads = getattr(model.roi_head, f'{kind}_head', None)
        extractors = getattr(model.roi_head, f'{kind}_roi_extractor', None)
        if heads is None:
            continue
        if not isinstance(heads, nn.ModuleList):
            heads, extractors = [heads], [extractors]
        for head, extractor in zip(heads, extractors):
            size = extractor.roi_layers[0].output_size
            regions = torch.empty(number, extractor.out_channels, *size)
            head(regions.to(next(head.parameters()).device))


def label_instances(sample: DetDataSample, shape: tuple[int, int], num_classes: int) -> None:
    """Boxes of a third of the image's sides, anywhere, that their masks fill."""
    height, width = shape
    corner = torch.rand(NUM_BOXES, 2) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat([corner, corner + torch.tensor([width / 3, height / 3])], dim=1)
    masks = np.zeros((NUM_BOXES, *shape), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left:right] = 1
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.randint(0, num_classes, (NUM_BOXES,)),
        masks=BitmapMasks(masks, height, width),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))


def describe_instances(sample: DetDataSample, classes: Sequence[str], score_thr: float) -> dict:
    """``labels``, ``classes``, ``scores``, ``bboxes`` (x1, y1, x2, y2 in pixels), and ``masks`` as
    COCO's run lengths where there are any, of scores from ``score_thr`` on."""
    found = sample.pred_instances
    found = found[found.scores >= score_thr]
    content = dict(
        labels=found.labels.tolist(),
        classes=[classes[i] for i in found.labels.tolist()],
        scores=found.scores.tolist(),
        bboxes=found.bboxes.tolist(),
    )
    if 'masks' in found:
        is_encoded = isinstance(found.masks, list)  # of a large picture
        content['masks'] = (
            found.masks if is_encoded else list(map(encode_mask, found.masks.numpy()))
        )
    return content


def encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) as COCO's run lengths."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=rle['size'], counts=rle['counts'].decode())


def run_segmentor(model: nn.Module, maps: Sequence[Tensor], shape: tuple[int, int]) -> None:
    """The segmentor's head on maps (B, C, h, w) of an image of ``shape``."""
    if hasattr(model.decode_head, 'transformer_decoder'):  # Mask2Former wants an image's size
        model.decode_head(maps, [SegDataSample(metainfo=dict(img_shape=shape))])
    else:
        model.decode_head(maps)


def label_pixels(sample: SegDataSample, shape: tuple[int, int], num_classes: int) -> None:
    """A label map (1, H, W) of any classes."""
    sample.gt_sem_seg = PixelData(data=torch.randint(0, num_classes, (1, *shape)))


def describe_pixels(sample: SegDataSample, classes: Sequence[str], score_thr: float) -> dict:
    """``labels``, ``classes`` and ``shares`` of the picture, by label."""
    labels, counts = np.unique(sample.pred_sem_seg.data.numpy(), return_counts=True)
    shares = counts / counts.sum()
    return dict(
        labels=labels.tolist(),
        classes=[classes[i] for i in labels],
        shares=[round(share, 6) for share in shares.tolist()],
    )


TOOLBOXES = {
    'mmpretrain': Toolbox(
        task=CLASSIFIER,
        shape=(224, 224),
        visualizer='mmpretrain.UniversalVisualizer',
        show_flag='enable',
        show_folder='out_dir',
        dump='DumpResults',
        metric='Accuracy',
        collector='mmdense.ReportedAccuracy',
        keys={'accuracy/top1': 'top-1'},
        whole=100.0,
        cpu_batch=16,
        tta_model=dict(type='AverageClsScoreTTA'),
        run_heads=run_classifier,
        sample=DataSample,
        label=label_class,
        describe=describe_class,
    ),
    'mmdet': Toolbox(
        task=DETECTOR,
        shape=(800, 1280),
        visualizer='mmdet.DetLocalVisualizer',
        show_flag='draw',
        show_folder='test_out_dir',
        dump='DumpDetResults',
        metric='CocoMetric',
        collector='mmdense.ReportedCocoMetric',
        keys={'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'},
        whole=1.0,
        cpu_batch=4,
        tta_model=dict(
            type='mmdense.BoxTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        ),
        tta_meta_keys=('flip', 'flip_direction'),
        tta_metric='bbox',  # MMDetection merges boxes only
        run_heads=run_detector,
        sample=DetDataSample,
        label=label_instances,
        describe=describe_instances,
    ),
    'mmseg': Toolbox(
        task=SEGMENTOR,
        shape=(512, 512),
        visualizer='mmseg.SegLocalVisualizer',
        show_flag='draw',
        show_folder=None,
        dump=None,
        metric='IoUMetric',
        collector='mmdense.ReportedIoUMetric',
        keys={'mIoU': 'mIoU'},
        whole=100.0,
        cpu_batch=4,
        tta_model=dict(type='SegTTAModel'),
        run_heads=run_segmentor,
        sample=SegDataSample,
        label=label_pixels,
        describe=describe_pixels,
    ),
}
