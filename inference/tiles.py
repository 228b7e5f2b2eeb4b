"""Pictures larger than a model was trained on: predicted a tile at a time, and put together.

A tile goes through the test pipeline like a picture of its own. Neighbours overlap, so that each
pixel, and each object smaller than the overlap, is seen with what lies around it. Memory is that of
a tile, beside the picture and what is found in it.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseTTAModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from ..engine.data import find_datasets
from ..engine.toolboxes import CLASSIFIER, encode_mask, find_toolbox
from ..errors import UserError
from ..registry import MODELS
from .drawing import draw_sample, enlarge_picture, enlarge_sample
from .predict import predict

LEAST_TILE = 64
OVERLAP = 0.25  # of a tile's side
SAME = 0.5  # boxes of one class that overlap by more are one object
OVERLAY = 2048  # pixels of the longer side of what is drawn
DRAWN = 32  # instances at a time: each has a mask of the drawing's size
EDGE = 2  # pixels: a box that ends so near a tile's edge may go on beyond it
# Of an object found several times the first of these is kept: seen whole in a tile, seen in the
# whole picture made small, cut by a tile's edge.
WHOLE, SMALL, CUT = range(3)


def add_tile(parser: argparse.ArgumentParser) -> None:
    """The flag for pictures larger than a model was trained on."""

    def side(text: str) -> int:
        if int(text) < LEAST_TILE:
            raise argparse.ArgumentTypeError(f'must be at least {LEAST_TILE}')
        return int(text)

    parser.add_argument(
        '--tile',
        type=side,
        metavar='SIDE',
        help='a picture with a longer side than this, in pixels, is predicted a tile at a time',
    )


def check_tiles(cfg: Config) -> None:
    """Raise :class:`UserError` for a classifier, whose pictures have no parts of their own."""
    if find_toolbox(cfg).task == CLASSIFIER:
        raise UserError('--tile is for detectors and segmentors: a classifier sees a whole picture')


def enable_tiles(cfg: Config, side: int) -> None:
    """Let a test see pictures a tile at a time.

    Args:
        cfg: The config.
        side: Of a tile, in pixels.

    Raises:
        UserError: For a classifier, or data sets whose pictures are prepared in different ways.
    """
    check_tiles(cfg)
    pipelines = []
    for dataset in find_datasets(cfg.test_dataloader.dataset):
        steps = dataset.pipeline
        pipelines.append([step for step in steps if 'LoadAnnotations' not in str(step['type'])])
        # Pictures and truth as they are.
        dataset.pipeline = [step for step in steps if re.search('Load|Pack', str(step['type']))]
    if any(pipeline != pipelines[0] for pipeline in pipelines):
        raise UserError('--tile needs one way to prepare the pictures of all test data sets')
    cfg.model = ConfigDict(
        type='mmdense.TiledModel', module=cfg.model, pipeline=pipelines[0], side=side
    )


class Tile(NamedTuple):
    """A part of a picture, in pixels from its top left corner.

    Args:
        rows: That the model sees.
        columns: That the model sees.
        own_rows: That no other tile answers for.
        own_columns: That no other tile answers for.
    """

    rows: slice
    columns: slice
    own_rows: slice
    own_columns: slice


def cut_side(length: int, side: int, overlap: float = OVERLAP) -> list[tuple[slice, slice]]:
    """The spans of tiles along a picture's side, evenly spaced, each with the part that it owns.

    Args:
        length: Of the picture's side.
        side: Of a tile; a shorter picture has one as long as itself.
        overlap: Least overlap of neighbours, as a share of ``side``, below 1.
    """
    side = min(side, length)
    step = side - math.ceil(overlap * side)
    number = 1 + math.ceil((length - side) / max(step, 1))
    starts = [i * (length - side) // max(number - 1, 1) for i in range(number)]
    middles = [(start + after + side) // 2 for start, after in zip(starts, starts[1:])]
    borders = [0, *middles, length]
    spans = [slice(start, start + side) for start in starts]
    return [(span, slice(*own)) for span, own in zip(spans, zip(borders, borders[1:]))]


def cut(height: int, width: int, side: int) -> Iterator[Tile]:
    """The tiles of a picture, row by row."""
    for rows, own_rows in cut_side(height, side):
        for columns, own_columns in cut_side(width, side):
            yield Tile(rows, columns, own_rows, own_columns)


class Predictor:
    """A model and its test pipeline, for pictures of any size.

    Args:
        model: A detector or segmentor.
        pipeline: From a file to the model's input, of :func:`mmdense.engine.data.build_pipeline`.
        side: Of a tile, in pixels of the picture.
        score_thr: Instances of a detector below it are left out.
    """

    def __init__(self, model: nn.Module, pipeline: Compose, side: int, score_thr: float) -> None:
        place = next(i for i, t in enumerate(pipeline.transforms) if 'LoadImage' in str(type(t)))
        self.read = Compose(pipeline.transforms[: place + 1])
        self.prepare = Compose(pipeline.transforms[place + 1 :])
        self.model = model
        self.side = side
        self.score_thr = score_thr

    def __call__(self, path: str) -> BaseDataElement:
        """What the model finds in a file, as :meth:`find` has it."""
        return self.find(self.read(dict(img_path=path, img_id=0, seg_fields=[]))['img'])

    def find(self, picture: np.ndarray) -> BaseDataElement:
        """What the model finds in a picture (H, W, C): the toolbox's data sample.

        Of a picture that is larger than a tile, a segmentor's labels are uint8, or uint16 where
        there are more classes, and a detector's masks COCO's run lengths, one for each instance.
        """
        if not self.is_large(picture):
            return self.look(picture)
        if hasattr(self.model, 'decode_head'):
            return self.segment(picture)
        return self.detect(picture)

    def is_large(self, picture: np.ndarray) -> bool:
        """Whether a picture (H, W, C) is more than one tile."""
        return max(picture.shape[:2]) > self.side

    def look(self, picture: np.ndarray) -> BaseDataElement:
        """What the model finds in an array (H, W, C), as it would in a file."""
        size = picture.shape[:2]
        loaded = dict(img=picture, img_path=None, img_id=0, img_shape=size, ori_shape=size)
        return predict(self.model, pseudo_collate([self.prepare(dict(loaded, seg_fields=[]))]))

    def segment(self, picture: np.ndarray) -> SegDataSample:
        """Each pixel has the label that the tile gives it whose middle is nearest."""
        heads = self.model.decode_head
        number = (heads[-1] if isinstance(heads, nn.ModuleList) else heads).num_classes
        labels = np.empty(picture.shape[:2], np.uint8 if number <= 256 else np.uint16)
        for tile in cut(*picture.shape[:2], self.side):
            found = self.look(picture[tile.rows, tile.columns]).pred_sem_seg.data[0].numpy()
            rows, columns = (
                slice(own.start - seen.start, own.stop - seen.start)
                for own, seen in ((tile.own_rows, tile.rows), (tile.own_columns, tile.columns))
            )
            labels[tile.own_rows, tile.own_columns] = found[rows, columns]
        return SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))

    def detect(self, picture: np.ndarray) -> DetDataSample:
        """The objects of all tiles, and those larger than a tile of the picture made small."""
        height, width = picture.shape[:2]
        found = []
        for tile in cut(height, width, self.side):
            part = self.look(picture[tile.rows, tile.columns]).pred_instances
            found.append(self.place(part, tile, height, width))
        factor = self.side / max(height, width)
        size = tuple(max(1, round(factor * n)) for n in (width, height))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        found.append(self.enlarge(self.look(small).pred_instances, small, height, width))
        return DetDataSample(pred_instances=merge(InstanceData.cat(found)))

    def are_large(self, boxes: Tensor) -> Tensor:
        """Which boxes (N, 4) may be cut by each tile that has a part of them, bool (N,)."""
        return (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) > OVERLAP * self.side - 2 * EDGE

    def place(self, found: InstanceData, tile: Tile, height: int, width: int) -> InstanceData:
        """Instances of a tile as those of the picture."""
        found = found[found.scores >= self.score_thr]
        top, left = tile.rows.start, tile.columns.start
        boxes = found.bboxes + found.bboxes.new_tensor([left, top, left, top])
        ends = torch.tensor([left, top, tile.columns.stop, tile.rows.stop])
        is_inner = torch.tensor(
            [left > 0, top > 0, tile.columns.stop < width, tile.rows.stop < height]
        )
        is_cut = (((boxes - ends).abs() < EDGE) & is_inner).any(dim=1)
        # What fits into the overlap another tile sees whole, or it is the end of something large.
        is_end = is_cut & ~self.are_large(boxes)
        found, boxes, is_cut = found[~is_end], boxes[~is_end], is_cut[~is_end]
        placed = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
        placed.ranks = torch.where(is_cut, CUT, WHOLE)
        if 'masks' in found:
            placed.masks = [
                encode_part(mask.numpy(), tile.rows, tile.columns, height, width)
                for mask in found.masks
            ]
        return placed

    def enlarge(
        self, found: InstanceData, small: np.ndarray, height: int, width: int
    ) -> InstanceData:
        """Instances of a picture made small as those of the picture.

        But for those that fit into the overlap of tiles, which see them better.
        """
        across, down = width / small.shape[1], height / small.shape[0]
        boxes = found.bboxes * found.bboxes.new_tensor([across, down, across, down])
        kept = self.are_large(boxes) & (found.scores >= self.score_thr)
        found, boxes = found[kept], boxes[kept]
        large = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
        large.ranks = torch.full_like(found.labels, SMALL)
        if 'masks' in found:
            large.masks = [
                encode_mask(
                    cv2.resize(
                        mask.numpy().astype(np.uint8),
                        (width, height),
                        interpolation=cv2.INTER_NEAREST,
                    )
                )
                for mask in found.masks
            ]
        return large


@MODELS.register_module()
class TiledModel(BaseTTAModel):
    """A model that is tested on large pictures a tile at a time.

    Args:
        module: The detector or segmentor.
        pipeline: The test pipeline, from a file to the model's input.
        side: Of a tile, in pixels of the picture.
        data_preprocessor: Of the module, where the config has it beside the model.
    """

    def __init__(
        self,
        module: dict,
        pipeline: list[dict],
        side: int,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(module, data_preprocessor)
        self.pipeline = Compose(pipeline)
        self.side = side

    def test_step(self, data: dict) -> list[BaseDataElement]:
        """The batch's samples with what is found in its pictures, which nothing has resized."""
        predictor = Predictor(self.module, self.pipeline, self.side, score_thr=0.0)
        for image, sample in zip(data['inputs'], data['data_samples']):
            found = predictor.find(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
            if 'pred_sem_seg' in found:
                labels = found.pred_sem_seg.data
                # Of uint16 PyTorch compares nothing.
                labels = labels.int() if labels.dtype == torch.uint16 else labels
                sample.pred_sem_seg = PixelData(data=labels)
            else:
                sample.pred_instances = found.pred_instances
        return data['data_samples']

    def merge_preds(self, data_samples_list: list) -> list:
        """Nothing is left to merge: that is mmengine's for whole pictures."""
        return data_samples_list


def encode_part(mask: np.ndarray, rows: slice, columns: slice, height: int, width: int) -> dict:
    """A mask of a tile as COCO's run lengths in the picture (height, width)."""
    whole = np.zeros((height, width), np.uint8, order='F')
    whole[rows, columns] = mask
    return encode_mask(whole)


def merge(found: InstanceData) -> InstanceData:
    """Each object once, best first: by rank, then by score.

    Of two boxes of a class that overlap by more than :data:`SAME` the better one is kept, and a box
    that a tile's edge cuts is dropped where so much of it lies within a better one. The box that is
    kept has the best score of those that were the same. (mmdet's ``merge_results_by_nms`` goes by
    scores alone, so that a part may take the place of the whole.)
    """
    order = np.lexsort((-found.scores.numpy(), found.ranks.numpy()))
    found = found[torch.from_numpy(order)]
    is_kept = torch.ones(len(found), dtype=torch.bool)
    for i, box in enumerate(found.bboxes):
        if is_kept[i]:
            after = is_kept & (found.labels == found.labels[i])
            after[: i + 1] = False
            (rest,) = after.nonzero(as_tuple=True)
            same = bbox_overlaps(found.bboxes[rest], box[None])[:, 0] > SAME
            # iof: by the area of the first.
            within = bbox_overlaps(found.bboxes[rest], box[None], 'iof')[:, 0] > SAME
            found.scores[i] = torch.cat((found.scores[[i]], found.scores[rest[same]])).max()
            is_kept[rest[same | within & (found.ranks[rest] == CUT)]] = False
    found = found[is_kept]
    found.pop('ranks')
    return found[found.scores.argsort(descending=True)]


def draw(
    visualizer: Visualizer, picture: np.ndarray, sample: BaseDataElement, score_thr: float
) -> np.ndarray:
    """What was found in a large picture, drawn on every n-th of its pixels.

    Args:
        visualizer: Of :func:`mmdense.inference.drawing.build_visualizer`.
        picture: (H, W, 3) RGB.
        sample: Of :class:`Predictor`.
        score_thr: Instances below it are left out.

    Returns:
        (h, w, 3) RGB, no side above :data:`OVERLAY`.
    """
    step = math.ceil(max(picture.shape[:2]) / OVERLAY)
    drawn, factor = enlarge_picture(np.ascontiguousarray(picture[::step, ::step]))
    for part in shrink(sample, step):
        drawn = draw_sample(visualizer, drawn, enlarge_sample(part, factor), True, score_thr)
    return drawn


def shrink(sample: BaseDataElement, step: int) -> Iterator[BaseDataElement]:
    """A sample at every n-th pixel; of a detector's a few instances at a time, with masks as
    tensors, as the toolbox's visualizer takes them."""
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data[:, ::step, ::step]
        yield SegDataSample(pred_sem_seg=PixelData(data=labels))
        return
    found = sample.pred_instances
    for start in range(0, len(found), DRAWN):
        some = found[start : start + DRAWN]
        part = InstanceData(bboxes=some.bboxes / step, scores=some.scores, labels=some.labels)
        if 'masks' in some:
            masks = [coco_mask.decode(mask)[::step, ::step].astype(bool) for mask in some.masks]
            part.masks = torch.from_numpy(np.stack(masks))
        yield DetDataSample(pred_instances=part)
