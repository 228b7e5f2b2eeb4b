"""What a page says of a segmentor that was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from ..registry import METRICS
from .collector import Collector
from .measures import (
    ORDINARY,
    WORST,
    bin_scores,
    calibration_error,
    choose_pictures,
    draw_lot,
)
from .page import Plot, Section, Table
from .parts import show_calibration, show_mistakes, show_pairs

ROWS = 64  # of a picture's logits at a time


@METRICS.register_module()
class ReportedIoUMetric(Collector, IoUMetric):
    """MMSegmentation's IoU, which also keeps what a page shows.

    Of each picture it keeps counts of pixels; label maps only of the few that may be shown.

    Args:
        scores: The model's ``seg_logits`` are such that their softmax is a score.
        kwargs: MMSegmentation's.
    """

    def __init__(self, scores: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.scores = scores
        self.worst: list[dict] = []  # of what this process has seen so far
        self.drawn: list[dict] = []

    @classmethod
    def read_settings(cls, cfg: Config) -> dict:
        """``scores``: heads that classify masks give sums over masks, and test-time augmentation
        the last view's."""
        heads = cfg.model.get('decode_head')
        head = heads[-1] if isinstance(heads, list | tuple) else heads
        if head is None:  # the model is in the wrapper that merges views
            return dict(scores=False)
        with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
            kind = registry.get(head.type) if isinstance(head.type, str) else head.type
        return dict(scores=hasattr(kind, 'cls_seg'))  # as all of MMSegmentation's for pixels

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """As MMSegmentation does."""
        super().process(data_batch, data_samples)
        for index, sample in enumerate(data_samples, len(self.results) - len(data_samples)):
            record = self.look_at(sample)
            self.results[index] = (self.results[index], record)
            self.shortlist(record)

    def look_at(self, sample: dict) -> dict:
        """What is kept of a picture.

        Its path; ``cells`` and ``counts`` of its confusion matrix; ``bins`` of the pixels' scores;
        ``iou``, the mean of the classes in it; both label maps as PNG.
        """
        number = len(self.dataset_meta['classes'])
        found = sample['pred_sem_seg']['data'].squeeze()
        truth = sample['gt_sem_seg']['data'].squeeze().to(found)
        counted = (truth != self.ignore_index) & (truth < number)
        pairs = (truth[counted].long() * number + found[counted].long()).cpu().numpy()
        counts = np.bincount(pairs, minlength=number**2)
        cells = counts.nonzero()[0]
        counts = counts[cells]
        iou, bins = mean_iou(cells, counts, number), None
        if self.scores and 'seg_logits' in sample:
            right = (truth == found)[counted].cpu().numpy()
            scores = find_scores(sample['seg_logits']['data'], found)[counted]
            bins = bin_scores(scores.double().cpu().numpy(), right)
        return dict(
            img_path=sample.get('img_path'),
            cells=cells,
            counts=counts,
            iou=iou,
            says='nothing labelled' if iou is None else f'mean IoU {100 * iou:.1f} %',
            bins=bins,
            maps=tuple(to_png(labels.cpu().numpy()) for labels in (truth, found)),
        )

    def shortlist(self, record: dict) -> None:
        """Keep the label maps of a picture while it is one of the worst, or of the first by lot."""
        if not record['img_path']:
            record['maps'] = None
            return
        before = [*self.worst, *self.drawn, record]
        if record['iou'] is not None:
            self.worst = sorted([*self.worst, record], key=by_iou)[:WORST]
        by_lot = sorted([*self.drawn, record], key=lambda r: draw_lot(r['img_path']))
        self.drawn = by_lot[: WORST + ORDINARY]  # the worst may be among them
        kept = {id(r) for r in (*self.worst, *self.drawn)}
        for dropped in before:
            if id(dropped) not in kept:
                dropped['maps'] = None

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """As MMSegmentation does; this runs in the main process alone."""
        areas, records = zip(*results)
        number = len(self.dataset_meta['classes'])
        self.matrix = np.zeros(number**2, np.int64)
        for record in records:
            self.matrix[record['cells']] += record['counts']
        self.matrix = self.matrix.reshape(number, number)
        self.number = len(records)
        bins = [record['bins'] for record in records if record['bins'] is not None]
        self.bins = sum(bins) if bins else None
        self.by_class = self.total_area_to_metrics(*map(sum, zip(*areas)))
        kept = [record for record in records if record['maps']]
        self.chosen = choose_pictures(kept, lambda r: r['iou'] not in (None, 1), by_iou)
        return super().compute_metrics(list(areas))

    def get_figures(self, metrics: Mapping[str, float]) -> dict[str, object]:
        """The few that matter most, given all metrics of the evaluation."""
        prefix = f'{self.prefix}/' if self.prefix else ''
        own = {name: metrics.get(prefix + name) for name in ('mIoU', 'aAcc', 'mAcc')}
        figures = {f'{name}, %': value for name, value in own.items() if value is not None}
        if self.bins is not None:
            figures['calibration error'] = calibration_error(self.bins)
        return {**figures, 'pictures': self.number}

    def get_sections(self, cfg: Config) -> list[Section]:
        """What the page shows, from the top."""
        names = self.dataset_meta['classes']
        return [
            Section('Classes', [get_class_table(self.by_class, self.matrix, names)]),
            Section('Mistakes', show_mistakes(self.matrix, names, 'pixels')),
            Section('Calibration', get_calibration(self.bins)),
            Section('Pictures', show_pairs(cfg, self.dataset_meta, *self.chosen, to_sample)),
        ]


def by_iou(record: dict) -> tuple[float, str]:
    """The order of the worst; the path makes it the same among any number of processes."""
    return record['iou'], record['img_path']


def find_scores(logits: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Logits (C, H, W) and labels (H, W) -> what the model gives the labels that it chose."""
    if len(logits) == 1:  # one class against the background
        share = logits[0].sigmoid()
        return torch.where(found == 1, share, 1 - share)
    # The softmax at the largest logit alone, some rows at a time: no second tensor of all classes.
    rows = logits.split(ROWS, dim=1)
    return torch.cat([(part.amax(dim=0) - part.logsumexp(dim=0)).exp() for part in rows])


def mean_iou(cells: np.ndarray, counts: np.ndarray, number: int) -> float | None:
    """The mean IoU of the classes in a picture or its prediction; None where nothing is labelled.

    Args:
        cells: Truth times the number of classes plus prediction, of pairs that there are.
        counts: Their pixels.
        number: Of classes.
    """
    truth, found = divmod(cells, number)
    by_truth, by_found = (np.bincount(axis, counts, number) for axis in (truth, found))
    right = np.bincount(truth[truth == found], counts[truth == found], number)
    union = by_truth + by_found - right
    return float((right[union > 0] / union[union > 0]).mean()) if counts.size else None


def to_png(labels: np.ndarray) -> bytes:
    """A label map (H, W) as a PNG file, of 8 or 16 bits."""
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    return cv2.imencode('.png', labels.astype(kind))[1].tobytes()


def from_png(content: bytes) -> torch.Tensor:
    """The label map (1, H, W) of a PNG file."""
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return torch.from_numpy(labels.astype(np.int64))[None]


def get_class_table(
    by_class: Mapping[str, np.ndarray], matrix: np.ndarray, names: Sequence[str]
) -> Table:
    """A row for each class.

    Args:
        by_class: ``IoU`` and ``Acc``, as MMSegmentation has them.
        matrix: Pixels (truth, prediction).
        names: Of the classes.
    """
    shares = 100 * matrix.sum(axis=1) / max(matrix.sum(), 1)
    iou, accuracy = (np.round(100 * by_class[key].astype(float), 2) for key in ('IoU', 'Acc'))
    return Table(
        ['class', 'IoU, %', 'accuracy, %', 'of all pixels, %'],
        list(zip(names, iou.tolist(), accuracy.tolist(), shares.tolist())),
        'IoU is what truth and prediction share of what either of them covers, accuracy the share '
        "of the class's pixels that are found.",
        decimals=2,
    )


def get_calibration(bins: np.ndarray | None) -> list[str | Plot]:
    """The reliability diagram, where the model has scores."""
    if bins is None or not bins.any():
        return ['What this model gives pixels are no scores of its classes.']
    return [show_calibration(bins, 'accuracy', 'pixels')]


def to_sample(record: dict) -> SegDataSample:
    """The toolbox's sample of a picture whose label maps were kept."""
    truth, found = map(from_png, record['maps'])
    return SegDataSample(gt_sem_seg=PixelData(data=truth), pred_sem_seg=PixelData(data=found))
