"""A detector's test path from a picture to boxes, as operators that ONNX has.

MMDetection's own ``predict`` reads numbers of tensors in Python, which no trace can keep. Here the
modules, weights and ``test_cfg`` of a built model compute the same, in tensors whose sizes depend
on the picture's size alone up to the non-maximum suppression (NMS). One operator of our own does
that: how many boxes are left is the only size that depends on numbers.

Axes: N detections, R regions, A anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.detectors import CascadeRCNN, FasterRCNN, MaskRCNN, RetinaNet
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

ABSENT = -1.0  # the score of what is no candidate: below every threshold
ALL_SCORES = -0.5  # the threshold that every candidate is above
ANOTHER_LABEL = 1e9  # the distance of detections that are no pair
FAR = -1e4  # pixels: a region there has no part of any map
# The parts whose test path stands below; what derives from them may differ.
DETECTORS = (CascadeRCNN, FasterRCNN, MaskRCNN, RetinaNet)
PARTS = (
    RPNHead,
    RetinaHead,
    StandardRoIHead,
    CascadeRoIHead,
    SingleRoIExtractor,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
    FCNMaskHead,
)


@torch.library.custom_op('mmdense::suppress', mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_num: int
) -> Tensor:
    """Greedy NMS.

    Args:
        boxes: (A, 4), x1, y1, x2, y2.
        scores: (A,).
        iou_threshold: A box that overlaps a better one by more is dropped.
        score_threshold: Boxes with a score above it take part.
        max_num: So many are kept at most.

    Returns:
        Indices (N,) of the boxes kept, best first.
    """
    index = (scores > score_threshold).nonzero().squeeze(1)
    kept = torchvision.ops.nms(boxes[index], scores[index], iou_threshold)
    return index[kept[:max_num]]


@suppress.register_fake
def _suppress_shape(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_num: int
) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


def translate_suppress(
    boxes: object, scores: object, iou_threshold: float, score_threshold: float, max_num: int
) -> object:
    """:func:`suppress` in ONNX's words."""
    from onnxscript import opset18 as op  # only exporting needs it

    found = op.NonMaxSuppression(
        op.Unsqueeze(boxes, op.Constant(value_ints=[0])),
        op.Unsqueeze(scores, op.Constant(value_ints=[0, 1])),
        op.Constant(value_ints=[max_num]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[score_threshold]),
    )  # (N, 3): batch, class, box
    return op.Gather(found, op.Constant(value_int=2), axis=1)


def check_detector(model: nn.Module) -> None:
    """Raise ``ValueError`` unless the whole test path of a detector is known here."""
    if type(model) not in DETECTORS:
        names = ', '.join(kind.__name__ for kind in DETECTORS)
        raise ValueError(
            f'a {type(model).__name__} as a whole is not known here, only {names}; export its '
            'backbone or its neck'
        )
    for part in find_parts(model):
        if type(part) not in PARTS:
            raise ValueError(
                f'a detector with a {type(part).__name__} is not known here as a whole'
            )
        if type(getattr(part, 'bbox_coder', None)) not in (DeltaXYWHBBoxCoder, NoneType):
            raise ValueError(f'boxes of {type(part.bbox_coder).__name__} are not known here')
        if getattr(part, 'custom_cls_channels', False):
            raise ValueError(f'scores of {type(part.loss_cls).__name__} are not known here')
        for layer in getattr(part, 'roi_layers', ()):
            if getattr(layer, 'pool_mode', None) != 'avg':
                raise ValueError(f'regions pooled by {layer} are not known here')
    for name, cfg in get_test_cfgs(model):
        nms = cfg.get('nms') or {}
        if nms.get('type') != 'nms' or set(nms) - {'type', 'iou_threshold', 'class_agnostic'}:
            raise ValueError(f'test_cfg.{name}nms={dict(nms)} is not known here, only plain NMS')


def find_parts(model: nn.Module) -> Iterator[nn.Module]:
    """A detector's heads and what they consist of; a cascade has several of each."""
    if isinstance(model, RetinaNet):
        yield model.bbox_head
        return
    yield from (model.rpn_head, model.roi_head)
    for name in ('bbox_roi_extractor', 'bbox_head', 'mask_roi_extractor', 'mask_head'):
        part = getattr(model.roi_head, name, None)
        if isinstance(part, nn.ModuleList):
            yield from part
        elif part is not None:
            yield part


def get_test_cfgs(model: nn.Module) -> list[tuple[str, ConfigDict]]:
    """The settings of each NMS, by what stands before their names in ``test_cfg``."""
    if isinstance(model, RetinaNet):
        return [('', model.test_cfg)]
    return [('rpn.', model.test_cfg.rpn), ('rcnn.', model.test_cfg.rcnn)]


class ExportedDetector(nn.Module):
    """A detector as a function from a normalized image to what it finds there.

    Args:
        model: In eval mode. It is not changed.

    Raises:
        ValueError: When a part of it is of a kind whose test path is not stated here.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_detector(model)
        self.model = model

    @property
    def output_names(self) -> list[str]:
        """What :meth:`forward` returns."""
        has_masks = not isinstance(self.model, RetinaNet) and self.model.roi_head.with_mask
        return ['boxes', 'labels', 'scores', *(['masks'] if has_masks else [])]

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Find the objects in an image.

        Args:
            image: Normalized, (1, in_channels, H, W), padded to what the model divides by.
            size: Its (height, width) without what was padded: boxes end there.

        Returns:
            Best first: boxes (N, 4) as x1, y1, x2, y2 in the image's pixels, labels (N,), scores
            (N,), and of a detector with a mask head masks (N, h, w): the probability that a cell
            of the grid which divides a box evenly is of the object.
        """
        maps = self.model.extract_feat(image)
        if isinstance(self.model, RetinaNet):
            head = self.model.bbox_head
            return find_in_maps(head, maps, size, head.test_cfg)
        head = self.model.rpn_head
        regions, _, _ = find_in_maps(head, maps, size, head.test_cfg, groups_are_levels=True)
        torch._check(regions.shape[0] > 0)  # no threshold keeps the best one out
        return find_in_regions(self.model.roi_head, maps, regions, size)


def find_in_maps(
    head: nn.Module,
    maps: tuple[Tensor, ...],
    size: Tensor,
    cfg: ConfigDict,
    groups_are_levels: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best boxes of an anchor head: mmdet's ``BaseDenseHead._predict_by_feat_single``.

    Args:
        head: RPN or RetinaNet's.
        maps: (1, C, h, w) from fine to coarse.
        size: (height, width) of the image, to which boxes are clipped.
        cfg: ``nms_pre``, ``score_thr``, ``min_bbox_size``, ``nms`` and ``max_per_img``.
        groups_are_levels: Suppress boxes of the same map (RPN), not of the same class.

    Returns:
        Boxes (N, 4), labels (N,) and scores (N,), best first.
    """
    logits, deltas = head(maps)
    shapes = [level.shape[2:] for level in logits]
    anchors = head.prior_generator.grid_priors(shapes, logits[0].dtype, logits[0].device)
    candidates = [
        pick_anchors(head, *level, cfg.get('nms_pre', -1)) for level in zip(logits, deltas, anchors)
    ]
    levels = torch.cat(
        [torch.full_like(labels, i) for i, (_, _, _, labels) in enumerate(candidates)]
    )
    anchors, deltas, scores, labels = map(torch.cat, zip(*candidates))
    boxes = decode(head, anchors, deltas, size)
    if cfg.get('min_bbox_size', -1) >= 0:
        is_large = (boxes[:, 2:] - boxes[:, :2] > cfg.min_bbox_size).all(dim=1)
        scores = torch.where(is_large, scores, ABSENT)
    groups = levels if groups_are_levels else labels
    threshold = ALL_SCORES if groups_are_levels else float(cfg.get('score_thr', 0))
    kept = suppress_groups(boxes, scores, groups, cfg.nms, threshold, cfg.max_per_img)
    return boxes[kept], labels[kept], scores[kept]


def pick_anchors(
    head: nn.Module, logits: Tensor, deltas: Tensor, anchors: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The ``number`` best pairs of an anchor and a class in a map; all where it is not positive.

    A map with fewer pairs is filled up with :data:`ABSENT` ones, so that no size depends on it.

    Args:
        head: Says how logits become scores.
        logits: (1, anchors per place x K, h, w).
        deltas: (1, anchors per place x 4, h, w).
        anchors: (A, 4).
        number: How many.

    Returns:
        Anchors (number, 4), deltas (number, 4), scores (number,) and labels (number,).
    """
    deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
    logits = logits[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
    scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]
    num_classes = scores.shape[1]
    if number <= 0:
        labels = torch.arange(num_classes, device=scores.device).expand(scores.shape)
        anchors, deltas = (t.repeat_interleave(num_classes, 0) for t in (anchors, deltas))
        return anchors, deltas, scores.flatten(), labels.flatten()
    scores, index = F.pad(scores.flatten(), (0, number), value=ABSENT).topk(number)
    anchor, label = index // num_classes, index % num_classes
    anchors, deltas = (F.pad(t, (0, 0, 0, number))[anchor] for t in (anchors, deltas))
    return anchors, deltas, scores, label


def decode(head: nn.Module, boxes: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Boxes (R, 4) moved by deltas (R, 4 or K x 4), in the shape of the deltas."""
    coder = head.bbox_coder
    moved = delta2bbox(
        boxes,
        deltas,
        coder.means,
        coder.stds,
        add_ctr_clamp=coder.add_ctr_clamp,
        ctr_clamp=coder.ctr_clamp,
    )
    if not coder.clip_border:
        return moved
    ends = size.flip(0).to(boxes).repeat(2)  # width, height, width, height
    return moved.reshape(-1, 4).clamp(min=0).minimum(ends).reshape(deltas.shape)


def suppress_groups(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    nms: ConfigDict,
    score_threshold: float,
    max_num: int,
) -> Tensor:
    """NMS among the boxes of each group: :func:`mmcv.ops.batched_nms`.

    As there, groups are moved apart by more than the picture is large, which costs the boxes a few
    bits: the same ones are lost here.

    Args:
        boxes: (A, 4).
        scores: (A,).
        groups: (A,), whole numbers.
        nms: ``iou_threshold``, and ``class_agnostic`` where groups do not count.
        score_threshold: As for :func:`suppress`.
        max_num: As for :func:`suppress`; all where it is not positive.

    Returns:
        Indices (N,), best first.
    """
    if not nms.get('class_agnostic', False):
        takes_part = (scores > score_threshold)[:, None]
        ends = torch.where(takes_part, boxes, 0).flatten()
        largest = F.pad(ends, (0, 1)).amax(dim=0)  # 0 where there is no box
        boxes = boxes + (groups.to(boxes) * (largest + 1))[:, None]
    max_num = max_num if max_num > 0 else torch.iinfo(torch.int64).max
    return suppress(boxes, scores, float(nms.iou_threshold), score_threshold, max_num)


def find_in_regions(
    roi_head: nn.Module, maps: tuple[Tensor, ...], regions: Tensor, size: Tensor
) -> tuple[Tensor, ...]:
    """The second stage, or those of a cascade: mmdet's ``predict_bbox`` and ``predict_mask``.

    Args:
        roi_head: Standard or cascade.
        maps: (1, C, h, w) from fine to coarse.
        regions: (R, 4) in the image's pixels.
        size: (height, width) of the image.

    Returns:
        As :meth:`ExportedDetector.forward`.
    """
    is_cascade = isinstance(roi_head, CascadeRoIHead)
    cfg = roi_head.test_cfg
    heads = list(roi_head.bbox_head) if is_cascade else [roi_head.bbox_head]
    extractors = list(roi_head.bbox_roi_extractor) if is_cascade else [roi_head.bbox_roi_extractor]
    all_logits = []
    for i, (extractor, head) in enumerate(zip(extractors, heads)):
        logits, deltas = head(pool(extractor, maps, regions))
        all_logits.append(logits)
        if i < len(heads) - 1:
            best = logits[:, :-1].argmax(dim=1)
            regions = decode(head, regions, pick_class(head, deltas, best), size)
    scores = (sum(all_logits) / len(all_logits)).softmax(dim=-1)[:, :-1]  # (R, K)
    num_classes = scores.shape[1]
    boxes = decode(heads[-1], regions, deltas, size).reshape(-1, deltas.shape[1] // 4, 4)
    boxes = boxes.expand(-1, num_classes, 4).reshape(-1, 4)
    labels = torch.arange(num_classes, device=scores.device).expand(scores.shape).flatten()
    scores = scores.flatten()
    kept = suppress_groups(boxes, scores, labels, cfg.nms, cfg.score_thr, cfg.max_per_img)
    boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
    if not roi_head.with_mask:
        return boxes, labels, scores
    heads = list(roi_head.mask_head) if is_cascade else [roi_head.mask_head]
    extractors = roi_head.mask_roi_extractor
    extractors = list(extractors) if is_cascade else [extractors]
    masks = [
        pick_mask(head, head(pool(extractor, maps, boxes)), labels)
        for extractor, head in zip(extractors, heads)
    ]
    return boxes, labels, scores, sum(masks) / len(masks)


def pick_class(head: nn.Module, deltas: Tensor, labels: Tensor) -> Tensor:
    """Of deltas (R, K x 4) those of the labels (R,): (R, 4). A head may have but one set."""
    if head.reg_class_agnostic:
        return deltas
    deltas = deltas.reshape(-1, head.num_classes, 4)
    return deltas.take_along_dim(labels[:, None, None], dim=1).squeeze(1)


def pick_mask(head: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Of mask logits (N, K, h, w) the probabilities of the labels (N,): (N, h, w)."""
    if head.class_agnostic:
        labels = torch.zeros_like(labels)
    return logits[torch.arange(labels.shape[0], device=labels.device), labels].sigmoid()


def pool(extractor: nn.Module, maps: tuple[Tensor, ...], regions: Tensor) -> Tensor:
    """RoIAlign of each region (R, 4) in the map for its size: (R, C, h, w).

    Every map is asked about every region, those that belong to another map far outside of it:
    there they have no sample, cost nothing and give zeros.
    """
    regions = F.pad(regions, (1, 0))  # image 0
    maps = maps[: extractor.num_inputs]
    level = extractor.map_roi_levels(regions, len(maps))
    far = regions.new_tensor([0, FAR, FAR, FAR, FAR])
    pooled = []
    for i, (layer, x) in enumerate(zip(extractor.roi_layers, maps)):
        rois = torch.where((level == i)[:, None], regions, far)
        pooled.append(
            torchvision.ops.roi_align(
                x, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
            )
        )
    return sum(pooled)


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Probabilities (N, h, w) within boxes (N, 4) as those of a picture's pixels (N, H, W).

    Bilinear between the centres of cells, zero beyond, as mmdet pastes. That is one product with a
    matrix from either side, whose weights fall from 1 at a cell's centre to 0 at the next one's.
    """
    rows, columns = (
        weigh_cells(boxes[:, axis], boxes[:, axis + 2], cells, pixels)
        for axis, cells, pixels in ((1, masks.shape[1], height), (0, masks.shape[2], width))
    )
    return rows @ masks @ columns.transpose(1, 2)


def weigh_cells(start: Tensor, end: Tensor, cells: int, pixels: int) -> Tensor:
    """What each pixel takes of each cell between start and end, both (N,): (N, pixels, cells)."""
    centre = torch.arange(pixels).to(start) + 0.5
    at = (centre - start[:, None]) / (end - start)[:, None] * cells - 0.5
    return (1 - (at[:, :, None] - torch.arange(cells).to(start)).abs()).clamp(min=0)


def find_mask_threshold(model: nn.Module) -> float:
    """The probability from which on a pixel is of an object; of use where there are masks."""
    return float(model.test_cfg.get('rcnn', {}).get('mask_thr_binary', 0.5))


def predict(model: nn.Module, image: Tensor, size: tuple[int, int]) -> InstanceData:
    """What the model's own test path finds; arguments as :meth:`ExportedDetector.forward`."""
    padded = tuple(image.shape[2:])
    meta = dict(
        img_shape=size,
        ori_shape=size,
        pad_shape=padded,
        batch_input_shape=padded,
        scale_factor=(1.0, 1.0),
    )
    (sample,) = model.predict(image, [DetDataSample(metainfo=meta)], rescale=False)
    return sample.pred_instances


class Difference(NamedTuple):
    """Between the detections of a file and those of the model.

    Args:
        missing: Detections of either that the other has not.
        boxes: Largest difference of a coordinate, in pixels.
        scores: Largest difference of a score.
        masks: Share of the pixels in which two masks differ, the largest of all pairs.
    """

    missing: int
    boxes: float
    scores: float
    masks: float


def compare_detections(found: list[Tensor], expected: InstanceData, threshold: float) -> Difference:
    """Pair detections of the same label, the nearest ones, and compare.

    Args:
        found: What :meth:`ExportedDetector.forward` returns.
        expected: Of :func:`predict`.
        threshold: Probability from which on a pixel is of an object.
    """
    boxes, labels, scores, *masks = found
    costs = torch.cdist(boxes.double(), expected.bboxes.double())
    costs = costs + (scores[:, None] - expected.scores).abs()
    costs[labels[:, None] != expected.labels] = ANOTHER_LABEL
    rows, columns = linear_sum_assignment(costs.numpy())
    is_pair = (costs[rows, columns] < 1).numpy()  # pixel
    rows, columns = torch.from_numpy(rows[is_pair]), torch.from_numpy(columns[is_pair])
    missing = len(boxes) + len(expected) - 2 * len(rows)
    if len(rows) == 0:
        return Difference(missing, 0.0, 0.0, 0.0)
    differences = [
        (boxes[rows] - expected.bboxes[columns]).abs().max().item(),
        (scores[rows] - expected.scores[columns]).abs().max().item(),
        0.0,
    ]
    if masks:
        height, width = expected.masks.shape[1:]
        pasted = paste_masks(masks[0][rows], boxes[rows], height, width) >= threshold
        differs = pasted != expected.masks[columns]
        differences[2] = differs.float().mean(dim=(1, 2)).max().item()
    return Difference(missing, *differences)
