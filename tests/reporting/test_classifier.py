"""What is counted of a classifier, beside scikit-learn's metrics and MMPretrain's."""

import functools

import numpy as np
import pytest
import torch
from helpers import evaluate_batches
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample
from sklearn import metrics as sklearn_metrics

from mmdense.errors import UserError
from mmdense.reporting.classifier import ReportedAccuracy, get_class_table, name_classes

CLASSES = ('a', 'b', 'c', 'd', 'e', 'f', 'never')
NUMBER = 60


def make_samples() -> list[dict]:
    """Scores that are right more often than not; a class that there are no pictures of."""
    truth = torch.randint(0, 6, (NUMBER,))
    scores = (torch.randn(NUMBER, 7) + 2 * torch.eye(7)[truth]).softmax(dim=1)
    samples = []
    for index, (label, score) in enumerate(zip(truth, scores)):
        sample = DataSample().set_gt_label(label).set_pred_score(score)
        samples.append({**sample.to_dict(), 'img_path': f'{index}.jpg'})
    return samples


evaluate = functools.partial(evaluate_batches, classes=CLASSES, batch=7)


@pytest.fixture
def evaluated() -> tuple[ReportedAccuracy, list[dict], dict[str, float]]:
    samples, metric = make_samples(), ReportedAccuracy(topk=(1, 3))
    return metric, samples, evaluate(metric, samples)


def test_the_metrics_are_the_toolboxs(evaluated):
    metric, samples, metrics = evaluated
    assert metrics == evaluate(Accuracy(topk=(1, 3)), samples)
    figures = metric.get_figures(metrics)
    expected = evaluate(Accuracy(topk=(1, 5)), samples)
    assert figures['top-1, %'] == expected['accuracy/top1'] == metrics['accuracy/top1']
    assert figures['top-5, %'] == expected['accuracy/top5']
    assert figures['pictures'] == NUMBER


def test_classes_beside_scikit_learn(evaluated):
    metric, samples, _ = evaluated
    truth = [int(s['gt_label']) for s in samples]
    found = [int(s['pred_score'].argmax()) for s in samples]
    labels = range(len(CLASSES))
    expected = sklearn_metrics.confusion_matrix(truth, found, labels=labels)
    np.testing.assert_array_equal(metric.matrix, expected)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        truth, found, labels=labels, zero_division=np.nan
    )
    table = get_class_table(metric.matrix, CLASSES)
    for row, *values, count in zip(table.rows, recall, precision, f1, support):
        expected = [None if np.isnan(v) else pytest.approx(100 * v) for v in values]
        assert list(row[1:]) == [*expected, count]


def test_the_surest_mistakes_first(evaluated):
    metric, samples, _ = evaluated
    wrong = [s for s in samples if s['pred_score'].argmax() != s['gt_label']]
    wrong.sort(key=lambda s: -s['pred_score'].max())
    worst, others = metric.chosen
    assert [r['img_path'] for r in worst] == [s['img_path'] for s in wrong[: len(worst)]]
    first = wrong[0]
    truth, found = CLASSES[first['gt_label']], CLASSES[first['pred_score'].argmax()]
    assert worst[0]['says'] == f'{truth}, predicted {found} ({first["pred_score"].max():.2f})'
    assert len(worst) == 8 and len(others) == 4


@pytest.mark.parametrize(
    'sample',
    [
        DataSample().set_gt_label([0, 2]).set_pred_score(torch.ones(7)),
        DataSample().set_gt_label(0).set_pred_label(0),
    ],
    ids=['two_labels', 'no_scores'],
)
def test_other_classifiers_are_refused(sample):
    with pytest.raises(UserError, match='--report is for classifiers that give each picture score'):
        ReportedAccuracy().process({}, [sample.to_dict()])


@pytest.mark.parametrize(
    'meta, names',
    [({}, ['0', '1', '2']), (dict(classes=('x',)), ['x', '1', '2']), (dict(classes='wxyz'), 'wxy')],
)
def test_names_of_classes(meta, names):
    assert name_classes(meta, 3) == list(names)
