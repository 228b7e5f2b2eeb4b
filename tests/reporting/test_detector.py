"""What is counted of a detector, beside MMDetection's own figures and by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric

from mmdense.errors import UserError
from mmdense.reporting.detector import (
    ReportedCocoMetric,
    bin_matches,
    count_matches,
    get_class_table,
    get_curves,
    get_mistakes,
    match,
)

CLASSES = ('a', 'b', '<script>', 'never')
NUMBER, SIDE, OBJECTS = 20, 64, 4
BOX, BESIDE, FAR = [0, 0, 10, 10], [2, 0, 12, 10], [40, 40, 50, 50]  # the first two share 2 / 3


def to_rle(mask: np.ndarray) -> dict:
    """Uncompressed run lengths, column by column, of a mask (H, W)."""
    flat = mask.ravel(order='F').astype(int)
    changes = (np.flatnonzero(np.diff(flat)) + 1).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    return dict(size=list(mask.shape), counts=counts if not flat[0] else [0, *counts])


def fill(box: np.ndarray) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    left, top, right, bottom = box.astype(int)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """An annotation file, whose classes are in another order, and predictions: most are right."""
    rng = np.random.default_rng(0)
    ids = dict(zip(reversed(CLASSES), (3, 5, 8, 9)))
    categories = [dict(id=i, name=name) for name, i in ids.items()]
    names = [category['name'] for category in categories]
    images, annotations, samples = [], [], []
    for index in range(NUMBER):
        images.append(dict(id=index, width=SIDE, height=SIDE, file_name=f'{index}.jpg'))
        corners = rng.integers(0, 40, (OBJECTS, 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 24, (OBJECTS, 2))], axis=1)
        labels = rng.integers(1, 4, OBJECTS)  # of the file's names; the first never is
        for box, label in zip(boxes, labels):
            sides = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            annotation = dict(id=len(annotations) + 1, image_id=index, bbox=sides, iscrowd=0)
            annotation.update(category_id=ids[names[label]], area=sides[2] * sides[3])
            annotation['segmentation'] = to_rle(fill(box))
            annotations.append(annotation)
        found = boxes + rng.normal(0, 0.7, boxes.shape).round()
        found = np.concatenate([found, rng.integers(0, 30, (2, 4)) + np.array([0, 0, 30, 30])])
        found = found.clip(0, SIDE).astype(np.float32)
        guessed = np.where(rng.uniform(size=OBJECTS) < 0.8, labels, rng.integers(1, 4, OBJECTS))
        instances = dict(
            bboxes=torch.from_numpy(found),
            labels=torch.from_numpy(np.concatenate([guessed, rng.integers(0, 4, 2)])),
            scores=torch.from_numpy(rng.uniform(0.05, 1, OBJECTS + 2).astype(np.float32)),
            masks=torch.from_numpy(np.stack([fill(box) for box in found])),
        )
        meta = dict(img_id=index, ori_shape=(SIDE, SIDE), img_path=f'{index}.jpg')
        samples.append(dict(meta, pred_instances=instances))
    path = tmp_path_factory.mktemp('coco') / 'instances.json'
    content = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content))
    return path, samples


@pytest.fixture(scope='module')
def evaluate(scenes) -> Callable[..., tuple[CocoMetric, dict[str, float]]]:
    def run(kind: type[CocoMetric], **options: object) -> tuple[CocoMetric, dict[str, float]]:
        path, samples = scenes
        metric = kind(ann_file=str(path), metric=['bbox', 'segm'], **options)
        metric.dataset_meta = dict(classes=CLASSES)
        for begin in range(0, NUMBER, 3):
            metric.process({}, samples[begin : begin + 3])
        return metric, metric.evaluate(NUMBER)

    return run


@pytest.fixture(scope='module')
def evaluated(evaluate) -> tuple[ReportedCocoMetric, dict[str, float]]:
    return evaluate(ReportedCocoMetric)


def test_the_metrics_are_the_toolboxs(evaluated, evaluate):
    metric, metrics = evaluated
    assert metrics == evaluate(CocoMetric)[1]
    assert 0.2 < metrics['coco/bbox_mAP'] < 0.9
    figures = metric.get_figures(metrics)
    assert figures == {
        'box AP': metrics['coco/bbox_mAP'],
        'box AP50': metrics['coco/bbox_mAP_50'],
        'mask AP': metrics['coco/segm_mAP'],
        'mask AP50': metrics['coco/segm_mAP_50'],
        'pictures': NUMBER,
    }


def test_ids_of_annotations_do_not_count(evaluated, scenes, tmp_path):
    """COCO's evaluation takes 0 for an object that is not found; some tools count from there."""
    content = json.loads(scenes[0].read_text())
    for number, annotation in enumerate(content['annotations'], -NUMBER):
        annotation['id'] = number
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(content))
    metric = ReportedCocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, scenes[1])
    assert metric.evaluate(NUMBER) == evaluated[1]
    for kind, evaluation in metric.evaluations.items():
        np.testing.assert_array_equal(evaluation.bins, evaluated[0].evaluations[kind].bins)


def test_ap_of_each_class(evaluated, evaluate):
    """Beside MMDetection's own, which it rounds; the last evaluation's are those of masks."""
    metric, metrics = evaluated
    expected = evaluate(CocoMetric, classwise=True)[1]
    table = get_class_table(metric.evaluations, metric.matrix, metric.names)
    assert metric.names == list(reversed(CLASSES))  # in the file's order, as labels are
    for name, objects, *_, mask_ap, _ in table.rows:
        assert mask_ap == pytest.approx(
            100 * expected[f'coco/{name}_precision'], abs=0.051, nan_ok=True
        )
        assert (objects == 0) == (name == 'never') == bool(np.isnan(mask_ap))
    columns = np.array([row[2:] for row in table.rows], float)
    names = ('bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'segm_mAP_50')
    means = [100 * metrics[f'coco/{name}'] for name in names]
    assert np.nanmean(columns, axis=0) == pytest.approx(means, abs=0.051)


def test_scores_are_right_where_coco_matches(evaluated, scenes):
    """Boxes are as many as were predicted; right are those with an object, counted by hand."""
    metric, _ = evaluated
    bins = metric.evaluations['bbox'].bins
    scores = torch.cat([s['pred_instances']['scores'] for s in scenes[1]]).numpy()
    np.testing.assert_array_equal(bins[0], np.histogram(scores, 10, (0, 1))[0])
    right = 0
    for sample in scenes[1]:
        truth = metric.find_truth(sample['img_id'])
        found = {k: v.numpy() for k, v in sample['pred_instances'].items()}
        for label in range(len(CLASSES)):
            mine, theirs = found['labels'] == label, truth['labels'] == label
            boxes, objects = found['bboxes'][mine], truth['bboxes'][theirs]
            right += (
                match(boxes, found['scores'][mine], objects, np.zeros(len(objects))) >= 0
            ).sum()
    assert bins[2].sum() == right


def test_what_coco_ignores_has_no_score():
    image = dict(dtScores=[0.95, 0.55, 0.5], dtMatches=np.array([[7, 0, 9]]))
    image['dtIgnore'] = np.array([[0, 0, 1]])
    bins = bin_matches([None, image], 0)
    assert bins[0].sum() == 2 and bins[2].sum() == 1 and bins[:, 9].tolist() == [1, 0.95, 1]


@pytest.mark.parametrize(
    'found, scores, truth, crowd, expected',
    [
        ([BOX], [0.9], [BOX], [0], [0]),
        ([BOX], [0.9], [FAR], [0], [-1]),
        ([BOX], [0.9], [], [], [-1]),
        ([], [], [BOX], [0], []),
        ([BESIDE, BOX], [0.5, 0.9], [BOX], [0], [-1, 0]),  # the better score has it
        ([BESIDE, BOX], [0.9, 0.5], [BOX], [0], [0, -1]),
        ([BOX], [0.9], [BESIDE, BOX], [0, 0], [1]),  # the larger overlap
        ([BOX, BOX], [0.9, 0.8], [BOX, BESIDE], [0, 0], [0, 1]),
        ([BOX, BOX], [0.9, 0.8], [[0, 0, 60, 60]], [1], [0, 0]),  # any number in a crowd
        ([BOX], [0.9], [[0, 0, 60, 60], BESIDE], [1, 0], [1]),  # an object before a crowd
    ],
)
def test_boxes_and_objects(found, scores, truth, crowd, expected):
    boxes = np.array(found, float).reshape(-1, 4), np.array(truth, float).reshape(-1, 4)
    matches = match(boxes[0], np.array(scores), boxes[1], np.array(crowd, int))
    assert matches.tolist() == expected


@pytest.mark.parametrize(
    'matches, found, truth, crowd, expected',
    [
        ([0], [1], [1], [0], {(1, 1): 1}),
        ([0], [0], [1], [0], {(1, 0): 1}),
        ([-1], [0], [1], [0], {(2, 0): 1, (1, 2): 1}),
        ([], [], [1, 1, 0], [0, 0, 0], {(1, 2): 2, (0, 2): 1}),
        ([0, 0, 1], [1, 0, 0], [1, 0], [1, 0], {(0, 0): 1}),
    ],
    ids=['right', 'other_class', 'false_and_missed', 'missed', 'crowd'],
)
def test_mistakes_of_a_picture(matches, found, truth, crowd, expected):
    arrays = [np.array(x, int) for x in (matches, found, truth, crowd)]
    matrix = count_matches(*arrays, number=2)
    assert {tuple(map(int, at)): int(matrix[tuple(at)]) for at in np.argwhere(matrix)} == expected


def test_mistakes_add_up(evaluated, scenes):
    """Every object and every box above the threshold is in one cell."""
    metric, _ = evaluated
    boxes = sum(int((s['pred_instances']['scores'] >= 0.3).sum()) for s in scenes[1])
    assert metric.matrix[:-1].sum() == NUMBER * OBJECTS
    assert metric.matrix[:, :-1].sum() == boxes
    text = get_mistakes(metric.matrix, metric.names)[0]
    assert f'of {NUMBER * OBJECTS} objects {metric.matrix.trace()} are found' in text


def test_the_worst_pictures_first(evaluated, scenes):
    metric, _ = evaluated
    worst, others = metric.chosen
    assert [r['f1'] for r in worst] == sorted(r['f1'] for r in worst)
    assert worst[-1]['f1'] <= min(r['f1'] for r in others) and worst[0]['f1'] < 1
    record = worst[0]
    sample = metric.to_sample(record)
    found = scenes[1][record['prediction']['img_id']]['pred_instances']
    kept = found['scores'] >= 0.3
    assert torch.equal(sample.pred_instances.bboxes, found['bboxes'][kept])
    assert torch.equal(sample.pred_instances.masks, found['masks'][kept])
    areas = sample.gt_instances.masks.sum(dim=(1, 2))
    left, top, right, bottom = sample.gt_instances.bboxes.T
    assert torch.equal(areas, ((right - left) * (bottom - top)).long())


def test_curves(evaluated):
    metric, _ = evaluated
    boxes, masks = get_curves(metric.evaluations, metric.names)
    assert 'box' in boxes.caption and 'mask' in masks.caption
    lines = {line.get_label(): line for line in boxes.figure.axes[0].lines}
    assert set(lines) == {'a', 'b', '<script>', 'all at IoU 0.50', 'all at IoU 0.75'}
    single = np.stack([lines[name].get_ydata() for name in ('a', 'b', '<script>')])
    np.testing.assert_allclose(lines['all at IoU 0.50'].get_ydata(), single.mean(axis=0))


def test_nothing_is_found(scenes):
    """Every object is missed; there is no curve, no calibration."""
    path, samples = scenes
    metric = ReportedCocoMetric(ann_file=str(path), metric='bbox')
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in samples:
        empty = {k: v[:0] for k, v in sample['pred_instances'].items()}
        metric.process({}, [dict(sample, pred_instances=empty)])
    metrics = metric.evaluate(NUMBER)
    assert metric.evaluations == {} and metric.get_figures(metrics) == {'pictures': NUMBER}
    assert metric.matrix[:, -1].sum() == NUMBER * OBJECTS == metric.matrix.sum()
    assert get_curves(metric.evaluations, metric.names) == ['Nothing was found.']
    sample = metric.to_sample(metric.chosen[0][0])
    assert len(sample.pred_instances) == 0 and len(sample.gt_instances) == OBJECTS


def test_annotations_from_the_data_set(scenes):
    """Without an annotation file: boxes that are predicted as they are annotated."""
    metric = ReportedCocoMetric(metric='bbox')
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in scenes[1][:3]:
        found = sample['pred_instances']
        labelled = zip(found['bboxes'].tolist(), found['labels'].tolist())
        instances = [dict(bbox=box, bbox_label=label, ignore_flag=0) for box, label in labelled]
        metric.process({}, [dict(sample, instances=instances)])
    assert metric.evaluate(3)['coco/bbox_mAP'] > 0.9
    assert metric.names == list(CLASSES)
    above = sum(int((s['pred_instances']['scores'] >= 0.3).sum()) for s in scenes[1][:3])
    assert metric.matrix.trace() == above
    assert 'masks' not in metric.to_sample(metric.chosen[1][0]).gt_instances


def test_proposals_are_refused():
    with pytest.raises(UserError, match='--report needs bbox or segm'):
        ReportedCocoMetric(metric='proposal')
