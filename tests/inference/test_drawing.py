"""Predictions are drawn where they are."""

import numpy as np
import torch
from helpers import DIGIT_CONFIGS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmdense.inference import drawing


def test_overlay_lies_on_its_objects():
    """A detector's masks and a segmentor's labels are drawn where they are, enlarged or not."""
    square = torch.zeros(1, 100, 100, dtype=torch.bool)
    square[0, 20:60, 30:50] = True
    instances = InstanceData(
        bboxes=torch.tensor([[30.0, 20.0, 50.0, 60.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.9]),
        masks=square,
    )
    samples = {
        'mmdet': DetDataSample(pred_instances=instances),
        'mmseg': SegDataSample(pred_sem_seg=PixelData(data=square.long())),
    }
    meta = dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]])
    grey = np.full((100, 100, 3), 128, np.uint8)
    for scope, sample in samples.items():
        visualizer = drawing.build_visualizer(Config.fromfile(DIGIT_CONFIGS[scope]), meta)
        overlay = drawing.draw_sample(visualizer, grey, sample, predicted=True)
        inside, outside = overlay[275, 200].astype(int), overlay[450, 450].astype(int)
        assert overlay.shape == (500, 500, 3)
        assert inside[0] - inside[1] > 50  # red, in RGB
        assert abs(outside[0] - outside[1]) < 10
    assert sample.pred_sem_seg.data.shape == (1, 100, 100)  # they are not changed
    assert samples['mmdet'].pred_instances.masks.shape == (1, 100, 100)
    assert samples['mmdet'].pred_instances.bboxes.tolist() == [[30, 20, 50, 60]]
