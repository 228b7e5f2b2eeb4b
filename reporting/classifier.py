"""What a page says of a classifier that was evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.evaluation import Accuracy, ConfusionMatrix

from ..errors import UserError
from ..registry import METRICS
from .collector import Collector
from .measures import bin_scores, calibration_error, choose_pictures
from .page import Section, Table
from .parts import show_calibration, show_galleries, show_mistakes
from .views import read_picture

TOP = (1, 5)


@METRICS.register_module()
class ReportedAccuracy(Collector, Accuracy):
    """MMPretrain's accuracy, which also keeps what a page shows.

    Of each picture it keeps, beyond the scores that are kept anyway, the path.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """As MMPretrain does.

        Raises:
            UserError: When a picture has not one label, or the model gives no scores.
        """
        super().process(data_batch, data_samples)
        for result, sample in zip(self.results[-len(data_samples) :], data_samples):
            if 'pred_score' not in result or len(result['gt_label']) != 1:
                raise UserError(
                    '--report is for classifiers that give each picture scores of all classes, and '
                    'data with one label a picture; leave it out'
                )
            result['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """As MMPretrain does; this runs in the main process alone."""
        self.collect(results)
        return super().compute_metrics(results)

    def collect(self, results: list[dict]) -> None:
        """Count what the page shows."""
        scores = torch.stack([result['pred_score'] for result in results])
        truth = torch.cat([result['gt_label'] for result in results])
        best, labels = scores.max(dim=1)
        self.names = name_classes(self.dataset_meta, scores.shape[1])
        self.top = self.count_top(scores, truth)
        self.matrix = ConfusionMatrix.calculate(labels, truth, scores.shape[1]).numpy()
        self.bins = bin_scores(best.double().numpy(), (labels == truth).numpy())
        records = [
            dict(
                img_path=result['img_path'],
                right=t == p,
                score=s,
                says=f'{self.names[t]}, predicted {self.names[p]} ({s:.2f})',
            )
            for result, t, p, s in zip(results, truth.tolist(), labels.tolist(), best.tolist())
        ]
        self.chosen = choose_pictures(records, lambda r: not r['right'], by_score)

    def count_top(self, scores: torch.Tensor, truth: torch.Tensor) -> dict[int, float]:
        """How many percent of the truths (N,) are among the best 1, 5 of the scores (N, C)."""
        ks = [k for k in TOP if k <= scores.shape[1]]
        return {k: percent[0].item() for k, percent in zip(ks, self.calculate(scores, truth, ks))}

    def get_figures(self, metrics: Mapping[str, float]) -> dict[str, object]:
        """The few that matter most, given all metrics of the evaluation."""
        figures = {f'top-{k}, %': percent for k, percent in self.top.items()}
        figures['calibration error'] = calibration_error(self.bins)
        return {**figures, 'pictures': int(self.matrix.sum())}

    def get_sections(self, cfg: Config) -> list[Section]:
        """What the page shows, from the top."""
        names = self.names
        return [
            Section('Classes', [get_class_table(self.matrix, names)]),
            Section('Mistakes', show_mistakes(self.matrix, names, 'pictures')),
            Section('Calibration', [show_calibration(self.bins, 'accuracy', 'pictures')]),
            Section('Pictures', show_galleries(*self.chosen, draw, width=160)),
        ]


def name_classes(dataset_meta: Mapping, number: int) -> list[str]:
    """Names of so many classes; those that the data set does not name are numbers."""
    names = [str(name) for name in dataset_meta.get('classes') or ()][:number]
    return names + [str(label) for label in range(len(names), number)]


def by_score(record: dict) -> tuple[float, str]:
    """The order of mistakes, the surest first."""
    return -record['score'], record['img_path']


def draw(record: dict) -> np.ndarray:
    """The picture, whose caption says truth and prediction."""
    return read_picture(record['img_path'])


def get_class_table(matrix: np.ndarray, names: Sequence[str]) -> Table:
    """A row for each class, of its counts (truth, prediction)."""
    rows = []
    for label, name in enumerate(names):
        right, truths, found = matrix[label, label], matrix[label].sum(), matrix[:, label].sum()
        recall, precision = divide(right, truths), divide(right, found)
        rows.append((name, recall, precision, divide(2 * right, truths + found), int(truths)))
    return Table(
        ['class', 'accuracy (recall), %', 'precision, %', 'F1, %', 'pictures'],
        rows,
        'Accuracy is the share of the class that is found, precision the share of what is taken '
        'for the class that belongs to it, F1 the harmonic mean of both.',
        decimals=1,
    )


def divide(part: int, whole: int) -> float | None:
    """In percent, None of nothing."""
    return 100 * float(part / whole) if whole else None
