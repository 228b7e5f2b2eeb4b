"""A file in 8 bits is judged by the validation metric, and is smaller."""

import onnx
import pytest
import torch
from helpers import DIGIT_CONFIGS, check_fails, load_config

from mmdense.errors import UserError
from mmdense.inference import quantize
from mmdense.inference.quantize import compare_metrics, pick_pictures, time_files


@pytest.mark.slow
@pytest.mark.parametrize('lost, is_kept', [(0.5, True), (1.5, False)])
def test_tool(lost, is_kept, place, untrained, run_tool, monkeypatch):
    """More than a point of the metric may not be lost. The file is written and run, the metric's
    values are set: those of a network that nobody trained say nothing."""
    metrics = [{'accuracy/top1': 80.0}, {'accuracy/top1': 80.0 - lost}]
    monkeypatch.setattr(quantize, 'evaluate_file', lambda *_: metrics.pop(0))
    config, out = DIGIT_CONFIGS['mmpretrain'], place / 'int8.onnx'
    result = run_tool(
        'export.py', config, untrained('mmpretrain'), out, '--uint8', '--int8', '--calibrate', '4'
    )
    code, printed, err = result
    assert f'accuracy/top1: 80.000 in float32, {80 - lost:.3f} in int8' in printed, err
    assert 'times as fast on this CPU' in printed
    assert out.exists() == is_kept
    if not is_kept:
        check_fails(result, 'validation loses more than a point')
        return
    assert code == 0, err
    graph = onnx.load(out).graph
    weights = [w for w in graph.initializer if w.data_type == onnx.TensorProto.INT8]
    assert sum(max(w.dims[0], 1) for w in weights) > 100
    assert {'QuantizeLinear', 'DequantizeLinear'} <= {node.op_type for node in graph.node}
    size = sum(len(w.raw_data) for w in graph.initializer)
    floats = sum(p.numel() for p in torch.load(untrained('mmpretrain'))['state_dict'].values())
    assert size < 2 * floats  # of four bytes each


@pytest.mark.parametrize(
    'more, message',
    [
        (['--int8'], '--int8 needs --uint8'),
        (['--int8', '--uint8', '--part', 'backbone'], '--int8 needs --uint8, the whole model'),
        (['--calibrate', '0'], 'at least one picture'),
    ],
)
def test_what_is_refused(more, message, place, untrained, run_tool):
    checkpoint = untrained('mmpretrain')
    result = run_tool('export.py', DIGIT_CONFIGS['mmpretrain'], checkpoint, 'a.onnx', *more)
    check_fails(result, message)


def test_data_that_are_missing_are_told_before(untrained, run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = [DIGIT_CONFIGS['mmdet'], untrained('mmdet'), 'a.onnx', '--uint8', '--int8']
    check_fails(run_tool('export.py', *args), 'train_dataloader: folder', 'does not exist')


def test_losses():
    """Of each metric a point, in its own unit; a gain is none."""
    before = {'coco/bbox_mAP': 0.43, 'coco/segm_mAP': 0.3, 'coco/bbox_mAP_50': 0.7}
    good = {'coco/bbox_mAP': 0.42, 'coco/segm_mAP': 0.35, 'coco/bbox_mAP_50': 0.2}
    assert [is_good for _, is_good in compare_metrics(before, good)] == [True, True]
    bad = {**good, 'coco/bbox_mAP': 0.419}
    assert [is_good for _, is_good in compare_metrics(before, bad)] == [False, True]
    assert compare_metrics({'mIoU': 50.0}, {'mIoU': 48.9})[0][1] is False
    with pytest.raises(UserError, match='gives none of'):
        compare_metrics({'PQ': 1.0}, {'PQ': 1.0})


def test_nothing_found_is_no_metric_of_cocos():
    ((text, is_good),) = compare_metrics({'coco/bbox_mAP': 0.43}, {})
    assert not is_good and text == 'coco/bbox_mAP: 0.430 in float32, 0.000 in int8'
    with pytest.raises(UserError, match='have no objects'):
        compare_metrics({'coco/bbox_mAP': -1.0}, {'coco/bbox_mAP': -1.0})


def test_pictures_are_of_the_training_pipeline(place):
    pictures = pick_pictures(load_config('digits/mask_rcnn_paca_digits'), 3)
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.dtype == torch.uint8 and picture.shape[2] == 3 and picture.max() > 100


def test_times():
    picture = torch.zeros(2, 2, 3, dtype=torch.uint8)
    quick, slow = time_files(
        [torch.clone, lambda x: torch.randn(300, 300) @ x.new_ones(300, 300).float()], [picture] * 5
    )
    assert 0 < quick < slow
