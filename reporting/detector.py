"""What a page says of a detector that was evaluated, of boxes and, where it has any, of masks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from ..errors import UserError
from ..registry import METRICS
from .collector import Collector
from .measures import bin_scores, choose_pictures
from .page import Plot, Section, Table
from .parts import show_calibration, show_mistakes, show_pairs
from .plots import draw_precision_recall

KINDS = {'bbox': 'box', 'segm': 'mask'}  # COCO's words and ours
SCORE_THR = 0.3  # of instances that are drawn and counted as mistakes
IOU_THR = 0.5  # from which one of them is at its object
BACKGROUND = 'background'


@dataclass(frozen=True)
class Evaluation:
    """What COCO's evaluation finds, of objects of all sizes.

    Args:
        ious: Thresholds (T,) from which a prediction is at its object.
        recalls: (R,)
        precision: (T, R, C), NaN for classes without objects.
        bins: Scores, and whether they are right at the threshold nearest ``IOU_THR``.
    """

    ious: np.ndarray
    recalls: np.ndarray
    precision: np.ndarray
    bins: np.ndarray

    def at(self, iou: float) -> int:
        """The index of the threshold nearest to this one."""
        return int(np.abs(self.ious - iou).argmin())


@METRICS.register_module()
class ReportedCocoMetric(Collector, CocoMetric):
    """MMDetection's COCO metrics, which also keep what a page shows.

    Of each picture it keeps, beyond the predictions that are kept anyway, the path.
    """

    def __init__(self, **kwargs: object) -> None:
        """With MMDetection's arguments.

        Raises:
            UserError: When neither boxes nor masks are evaluated.
        """
        super().__init__(**kwargs)
        if self._coco_api:
            count_anew(self._coco_api)
        if not KINDS.keys() & self.metrics:
            raise UserError("--report needs bbox or segm as test_evaluator's metric; leave it out")

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """As MMDetection does."""
        super().process(data_batch, data_samples)
        for (_, result), sample in zip(self.results[-len(data_samples) :], data_samples):
            result['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """As MMDetection does; this runs in the main process alone."""
        metrics = super().compute_metrics(results)
        predictions = [prediction for _, prediction in results]
        self.names = [cat['name'] for cat in self._coco_api.load_cats(self.cat_ids)]
        self.evaluations = self.evaluate_again(predictions)
        self.matrix = np.zeros((len(self.names) + 1,) * 2, int)
        records = [self.look_at(prediction) for prediction in predictions]
        self.chosen = choose_pictures(records, lambda r: r['f1'] < 1, by_f1)
        return metrics

    def evaluate_again(self, predictions: list[dict]) -> dict[str, Evaluation]:
        """Boxes and masks, as MMDetection evaluates them, with all that COCO's evaluation has."""
        found = {}
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            files = self.results2json(predictions, str(Path(folder, 'results')))
            for kind in KINDS:
                rows = load(files[kind]) if kind in self.metrics else []
                if rows:
                    found[kind] = self.evaluate_rows(rows, kind)
        return found

    def evaluate_rows(self, rows: list[dict], kind: str) -> Evaluation:
        """One kind of predictions, in COCO's form."""
        for row in rows:
            if kind == 'segm':  # so that COCO's own code finds masks, as for MMDetection
                row.pop('bbox')
        evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(rows), kind)
        params = evaluation.params
        params.catIds, params.imgIds, params.iouThrs = self.cat_ids, self.img_ids, self.iou_thrs
        params.maxDets = self.proposal_nums[-1:]
        params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval['precision'][..., 0, 0]
        ious = np.atleast_1d(self.iou_thrs)
        return Evaluation(
            ious,
            np.asarray(params.recThrs),
            np.where(precision < 0, np.nan, precision),
            bin_matches(evaluation.evalImgs, int(np.abs(ious - IOU_THR).argmin())),
        )

    def look_at(self, prediction: dict) -> dict:
        """Count a picture's mistakes; what is kept of it: path, prediction, F1 and a sentence."""
        truth = self.find_truth(prediction['img_id'])
        kept = prediction['scores'] >= SCORE_THR
        boxes, labels = prediction['bboxes'][kept], prediction['labels'][kept]
        matches = match(boxes, prediction['scores'][kept], truth['bboxes'], truth['crowd'])
        matrix = count_matches(matches, labels, truth['labels'], truth['crowd'], len(self.names))
        self.matrix += matrix
        right, objects, found = matrix.trace(), matrix[:-1].sum(), matrix[:, :-1].sum()
        return dict(
            img_path=prediction['img_path'],
            prediction=prediction,
            f1=float(2 * right / (objects + found)) if objects + found else 1.0,
            says=f'{right} of {objects} objects found, {found - right} of {found} boxes wrong',
        )

    def find_truth(self, img_id: int) -> dict:
        """What is annotated: ``bboxes`` (G, 4) as corners, ``labels``, ``crowd``, and ``anns``."""
        api = self._coco_api
        anns = api.load_anns(api.get_ann_ids(img_ids=[img_id], cat_ids=self.cat_ids))
        boxes = np.array([ann['bbox'] for ann in anns], float).reshape(-1, 4)
        return dict(
            bboxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            labels=np.array([self.cat_ids.index(ann['category_id']) for ann in anns], int),
            crowd=np.array([ann.get('iscrowd', 0) for ann in anns], int),
            anns=anns,
        )

    def get_figures(self, metrics: Mapping[str, float]) -> dict[str, object]:
        """The few that matter most, given all metrics of the evaluation."""
        figures = {}
        for kind, word in KINDS.items():
            for name in ('mAP', 'mAP_50'):
                value = metrics.get(f'{self.prefix}/{kind}_{name}')
                if value is not None:
                    figures[f'{word} {name.removeprefix("m").replace("_", "")}'] = value
        return {**figures, 'pictures': len(self.img_ids)}

    def get_sections(self, cfg: Config) -> list[Section]:
        """What the page shows, from the top."""
        meta = dict(self.dataset_meta, classes=tuple(self.names))
        return [
            Section('Classes', [get_class_table(self.evaluations, self.matrix, self.names)]),
            Section('Precision and recall', get_curves(self.evaluations, self.names)),
            Section('Mistakes', get_mistakes(self.matrix, self.names)),
            Section('Calibration', get_calibration(self.evaluations)),
            Section('Pictures', show_pairs(cfg, meta, *self.chosen, self.to_sample)),
        ]

    def to_sample(self, record: dict) -> DetDataSample:
        """The toolbox's sample of a picture, with what is annotated and what was predicted."""
        found, truth = record['prediction'], self.find_truth(record['prediction']['img_id'])
        kept = found['scores'] >= SCORE_THR
        predicted = InstanceData(
            bboxes=torch.from_numpy(found['bboxes'][kept]),
            labels=torch.from_numpy(found['labels'][kept]),
            scores=torch.from_numpy(found['scores'][kept]),
        )
        annotated = InstanceData(
            bboxes=torch.from_numpy(truth['bboxes']), labels=torch.from_numpy(truth['labels'])
        )
        if 'masks' in found:
            add_masks(predicted, [found['masks'][i] for i in kept.nonzero()[0]])
            if all(ann.get('segmentation') for ann in truth['anns']):
                add_masks(annotated, [self._coco_api.annToRLE(ann) for ann in truth['anns']])
        return DetDataSample(gt_instances=annotated, pred_instances=predicted)


def count_anew(api: COCO) -> None:
    """Give annotations ids from 1 on, since COCO's evaluation takes 0 for an object not found."""
    for number, annotation in enumerate(api.dataset['annotations'], 1):
        annotation['id'] = number
    with redirect_stdout(io.StringIO()):
        api.createIndex()


def by_f1(record: dict) -> tuple[float, str]:
    """The order of the worst."""
    return record['f1'], record['img_path']


def add_masks(instances: InstanceData, masks: list[dict]) -> None:
    """Give instances their masks (N, H, W), which are COCO's run lengths; none has no size."""
    if masks:
        instances.masks = torch.from_numpy(coco_mask.decode(masks)).permute(2, 0, 1).bool()


def bin_matches(images: list[dict | None], threshold: int) -> np.ndarray:
    """COCO's matches of each class in each picture -> sums over bins of scores.

    Args:
        images: ``COCOeval.evalImgs``, None where there is nothing of a class.
        threshold: The index of the IoU threshold.
    """
    bins = np.zeros_like(bin_scores(np.zeros(0), np.zeros(0)))
    for image in filter(None, images):
        counted = ~np.asarray(image['dtIgnore'][threshold], bool)
        scores = np.asarray(image['dtScores'], float)[counted]
        bins += bin_scores(scores, image['dtMatches'][threshold][counted] > 0)
    return bins


def match(
    found: np.ndarray, scores: np.ndarray, truth: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """For each box found the object that it is at, whatever their classes, or -1.

    The best scores choose first: each takes the object with the largest IoU of those that are left,
    if that is at least ``IOU_THR``, or else a crowd, which any number may be in.

    Args:
        found: (D, 4) x1, y1, x2, y2.
        scores: (D,)
        truth: (G, 4)
        crowd: (G,) 1 for a crowd of objects in one box.
    """
    matches = np.full(len(found), -1)
    if not len(found) or not len(truth):
        return matches
    overlaps = coco_mask.iou(to_sides(found), to_sides(truth), crowd.tolist())
    is_crowd = crowd.astype(bool)
    free = ~is_crowd
    for index in np.argsort(-scores, kind='stable'):
        for allowed in (free, is_crowd):
            overlap = np.where(allowed, overlaps[index], 0)
            if overlap.max() >= IOU_THR:
                matches[index] = overlap.argmax()
                free[matches[index]] = False
                break
    return matches


def to_sides(boxes: np.ndarray) -> np.ndarray:
    """Corners (N, 4) -> x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(float)


def count_matches(
    matches: np.ndarray, found: np.ndarray, truth: np.ndarray, crowd: np.ndarray, number: int
) -> np.ndarray:
    """Counts (truth, prediction) of classes, the background last: what is false, what is missed.

    Args:
        matches: Of :func:`match`.
        found: Classes (D,) of the boxes.
        truth: Classes (G,) of the objects.
        crowd: (G,) Crowds do not count, nor what is in them.
        number: Of classes.
    """
    matrix = np.zeros((number + 1, number + 1), int)
    missed = ~crowd.astype(bool)
    for label, at in zip(found, matches):
        if at < 0:
            matrix[number, label] += 1
        elif not crowd[at]:
            matrix[truth[at], label] += 1
            missed[at] = False
    np.add.at(matrix[:, number], truth[missed], 1)
    return matrix


def get_class_table(
    found: Mapping[str, Evaluation], matrix: np.ndarray, names: Sequence[str]
) -> Table:
    """A row for each class, the average precision of boxes and masks."""
    columns, values = ['class', 'objects'], [names, matrix[:-1].sum(axis=1).tolist()]
    for kind, evaluation in found.items():
        half = evaluation.at(IOU_THR)
        columns += [f'{KINDS[kind]} AP, %', f'at IoU {evaluation.ious[half]:.2f}, %']
        values.append(average(evaluation.precision))
        values.append(average(evaluation.precision[half]))
    return Table(
        columns,
        list(zip(*values)),
        'AP is the mean precision over all recalls, and all IoU thresholds where none is named.',
        decimals=1,
    )


def average(precision: np.ndarray) -> list[float]:
    """AP of each class in percent, of precisions (..., R, C)."""
    return (100 * precision.reshape(-1, precision.shape[-1]).mean(axis=0)).tolist()


def get_curves(found: Mapping[str, Evaluation], names: Sequence[str]) -> list[str | Plot]:
    """Precision over recall, of boxes and masks."""
    parts = []
    for kind, evaluation in found.items():
        ious, precision = evaluation.ious, evaluation.precision
        known = ~np.isnan(precision).any(axis=(0, 1))
        if not known.any():
            continue
        picked = dict.fromkeys(evaluation.at(iou) for iou in (IOU_THR, 0.75))
        means = {f'all at IoU {ious[t]:.2f}': precision[t][:, known].mean(axis=1) for t in picked}
        half = precision[evaluation.at(IOU_THR)]
        by_class = {names[c]: half[:, c] for c in known.nonzero()[0]}
        caption = f'By {KINDS[kind]}; single classes at IoU {ious[evaluation.at(IOU_THR)]:.2f}.'
        figure = draw_precision_recall(evaluation.recalls, means, by_class)
        parts.append(Plot(figure, caption))
    return parts or ['Nothing was found.']


def get_mistakes(matrix: np.ndarray, names: Sequence[str]) -> list[str | Plot | Table]:
    """Counts (truth, prediction), the background last, in words, as a figure and in a table."""
    objects, found, right = matrix[:-1].sum(), matrix[:, :-1].sum(), matrix.trace()
    missed, false = matrix[:-1, -1].sum(), matrix[-1, :-1].sum()
    text = (
        f'Boxes of a score of {SCORE_THR} and more, each at the object with which it shares an IoU '
        f'of {IOU_THR} and more: of {objects} objects {right} are found, {found - right - false} '
        f'taken for another class and {missed} missed; {false} boxes are at no object. The row of '
        'the background has these, and its column what is missed.'
    )
    return [text, *show_mistakes(matrix, [*names, BACKGROUND], 'objects')]


def get_calibration(found: Mapping[str, Evaluation]) -> list[str | Plot]:
    """Reliability diagrams, of boxes and masks."""
    parts = [
        show_calibration(evaluation.bins, f'precision by {KINDS[kind]}', 'predictions')
        for kind, evaluation in found.items()
        if evaluation.bins.any()
    ]
    return parts or ['Nothing was found.']
