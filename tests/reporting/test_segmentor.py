"""What is counted of a segmentor, beside scikit-learn's metrics and MMSegmentation's."""

import functools

import numpy as np
import pytest
import torch
from helpers import evaluate_batches
from mmseg.evaluation import IoUMetric
from sklearn import metrics as sklearn_metrics

from mmdense.reporting import segmentor
from mmdense.reporting.measures import ORDINARY, WORST, calibration_error
from mmdense.reporting.segmentor import ReportedIoUMetric, find_scores, from_png, mean_iou, to_png

CLASSES = ('a', 'b', 'c', 'never')
NUMBER, SIDE, IGNORED = 40, 12, 255


def make_samples() -> list[dict]:
    """Logits that are right the more often the later the picture; some pixels are ignored."""
    samples = []
    for index in range(NUMBER):
        truth = torch.randint(0, 3, (1, SIDE, SIDE))
        logits = torch.randn(4, SIDE, SIDE)
        logits.scatter_add_(0, truth, torch.full((1, SIDE, SIDE), index / 10))
        logits[3] = -9
        truth[:, :2] = IGNORED
        samples.append(
            dict(
                gt_sem_seg=dict(data=truth),
                pred_sem_seg=dict(data=logits.argmax(dim=0, keepdim=True)),
                seg_logits=dict(data=logits),
                img_path=f'{index}.jpg',
            )
        )
    return samples


evaluate = functools.partial(evaluate_batches, classes=CLASSES, batch=3)


def flatten(samples: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Labels of all pixels that count, annotated and predicted."""
    truth = torch.cat([s['gt_sem_seg']['data'].flatten() for s in samples]).numpy()
    found = torch.cat([s['pred_sem_seg']['data'].flatten() for s in samples]).numpy()
    return truth[truth != IGNORED], found[truth != IGNORED]


@pytest.fixture
def evaluated() -> tuple[ReportedIoUMetric, list[dict], dict[str, float]]:
    samples, metric = make_samples(), ReportedIoUMetric()
    return metric, samples, evaluate(metric, samples)


def test_the_metrics_are_the_toolboxs(evaluated):
    metric, samples, metrics = evaluated
    assert metrics == evaluate(IoUMetric(), samples)
    figures = metric.get_figures(metrics)
    assert [figures[f'{name}, %'] for name in metrics] == list(metrics.values())
    assert figures['pictures'] == NUMBER


def test_classes_beside_scikit_learn(evaluated):
    metric, samples, metrics = evaluated
    truth, found = flatten(samples)
    labels = range(len(CLASSES))
    expected = sklearn_metrics.confusion_matrix(truth, found, labels=labels)
    np.testing.assert_array_equal(metric.matrix, expected)
    table = segmentor.get_class_table(metric.by_class, metric.matrix, CLASSES)
    iou = sklearn_metrics.jaccard_score(truth, found, labels=[0, 1, 2], average=None)
    recall = sklearn_metrics.recall_score(truth, found, labels=[0, 1, 2], average=None)
    for row, *values in zip(table.rows, iou, recall):
        assert row[1:3] == pytest.approx([100 * v for v in values], abs=0.006)
    assert np.isnan(table.rows[3][1])
    assert metrics['mIoU'] == pytest.approx(np.nanmean([row[1] for row in table.rows]), abs=0.01)
    assert sum(row[3] for row in table.rows) == pytest.approx(100)


def test_calibration(evaluated):
    """Beside all pixels' softmax at once."""
    metric, samples, _ = evaluated
    truth, found = flatten(samples)
    scores = torch.stack([s['seg_logits']['data'].softmax(dim=0).amax(dim=0) for s in samples])
    scores = scores[:, 2:].flatten().double().numpy()
    bins = np.minimum((scores * 10).astype(int), 9)
    error = sum(
        abs((truth == found)[bins == b].mean() - scores[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    assert calibration_error(metric.bins) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize('scores', [True, False])
def test_without_scores_there_is_no_calibration(scores):
    metric, samples = ReportedIoUMetric(scores=scores), make_samples()[:2]
    if scores:  # wanted, but there are none
        for sample in samples:
            del sample['seg_logits']
    evaluate(metric, samples)
    assert 'calibration error' not in metric.get_figures({})
    assert segmentor.get_calibration(metric.bins) == [
        'What this model gives pixels are no scores of its classes.'
    ]


def test_scores_of_one_class():
    """A segmentor of one class against the background gives one logit."""
    logits = torch.tensor([[[0.0, 2.0, -1.0, -1.0]]])
    high, low = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))
    found = find_scores(logits, torch.tensor([[1, 1, 0, 1]]))
    assert found[0].tolist() == pytest.approx([0.5, high, 1 - low, low])


def test_scores_of_a_large_picture():
    """Whose rows are taken in parts."""
    logits = 5 * torch.randn(3, 2 * segmentor.ROWS + 1, 4)
    found = find_scores(logits, logits.argmax(dim=0))
    torch.testing.assert_close(found, logits.softmax(dim=0).amax(dim=0))


@pytest.mark.parametrize(
    'matrix, iou',
    [
        ([[5, 0], [0, 0]], 1),
        ([[2, 1], [1, 2]], 0.5),
        ([[0, 4], [0, 0]], 0),
        ([[6, 2], [0, 0]], 0.375),  # 6 / 8 and 0 / 2
        ([[0, 0], [0, 0]], None),
    ],
)
def test_iou_of_a_picture(matrix, iou):
    counts = np.array(matrix).ravel()
    cells = counts.nonzero()[0]
    assert mean_iou(cells, counts[cells], 2) == iou


def test_the_worst_pictures_and_their_maps(evaluated):
    """Those of the lowest IoU, with the label maps, which the others do not keep."""
    metric, samples, _ = evaluated
    ious = []
    for sample in samples:
        truth, found = flatten([sample])
        labels = np.union1d(truth, found)
        ious.append(sklearn_metrics.jaccard_score(truth, found, labels=labels, average='macro'))
    order = np.argsort(ious)
    worst, others = metric.chosen
    assert [r['img_path'] for r in worst] == [f'{i}.jpg' for i in order[:WORST]]
    assert worst[0]['says'] == f'mean IoU {100 * min(ious):.1f} %'
    assert len(others) == ORDINARY
    for record in (*worst, *others):
        sample = samples[int(record['img_path'].removesuffix('.jpg'))]
        drawn = segmentor.to_sample(record)
        assert torch.equal(drawn.gt_sem_seg.data, sample['gt_sem_seg']['data'])
        assert torch.equal(drawn.pred_sem_seg.data, sample['pred_sem_seg']['data'])


def test_few_label_maps_are_kept():
    metric = ReportedIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in make_samples():
        metric.process({}, [sample])
    kept = [record for _, record in metric.results if record['maps']]
    assert WORST + ORDINARY <= len(kept) <= 2 * WORST + ORDINARY < NUMBER


def test_two_processes_choose_what_one_does(evaluated):
    alone, samples, _ = evaluated
    halves = [ReportedIoUMetric(), ReportedIoUMetric()]
    for index, sample in enumerate(samples):
        halves[index % 2].dataset_meta = dict(classes=CLASSES)
        halves[index % 2].process({}, [sample])
    together = [halves[i % 2].results[i // 2] for i in range(NUMBER)]
    halves[0].compute_metrics(together)
    chosen = [[[r['img_path'] for r in part] for part in m.chosen] for m in (alone, halves[0])]
    assert chosen[0] == chosen[1]


def test_pictures_that_are_no_files():
    samples = [{k: v for k, v in s.items() if k != 'img_path'} for s in make_samples()[:3]]
    metric = ReportedIoUMetric()
    evaluate(metric, samples)
    assert metric.chosen == ([], [])


@pytest.mark.parametrize('largest', [3, 255, 300])
def test_label_maps_as_files(largest):
    labels = np.arange(12).reshape(3, 4) % 4
    labels[1, 2] = largest
    assert from_png(to_png(labels)).tolist() == [labels.tolist()]
