"""Pictures of a page: truth and prediction side by side."""

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGIT_CONFIGS
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmdense.errors import UserError
from mmdense.inference.drawing import build_visualizer
from mmdense.reporting.views import GAP, draw_both, read_picture


def test_truth_is_left_and_prediction_right(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((600, 400, 3), 128, np.uint8))
    labels = torch.zeros(1, 600, 400, dtype=torch.long)
    truth, found = labels.clone(), labels.clone()
    truth[:, :300], found[:, 300:] = 1, 1  # above, below
    sample = SegDataSample(gt_sem_seg=PixelData(data=truth), pred_sem_seg=PixelData(data=found))
    meta = dict(classes=('a', 'b'), palette=[[0, 0, 255], [255, 0, 0]])
    visualizer = build_visualizer(Config.fromfile(DIGIT_CONFIGS['mmseg']), meta)
    page = draw_both(visualizer, str(tmp_path / 'a.png'), sample).astype(int)
    height, width = page.shape[:2]
    side = (width - GAP) // 2
    assert height / side == pytest.approx(1.5)
    assert (page[:, side : side + GAP] == 255).all()
    is_red = page[..., 0] > page[..., 2] + 50
    parts = [
        is_red[half, column].mean()
        for half in (slice(0, height // 2), slice(height // 2, height))
        for column in (slice(0, side), slice(side + GAP, width))
    ]
    assert parts[0] > 0.8 and parts[3] > 0.8 and parts[1] < 0.1 and parts[2] < 0.1


def test_pictures_are_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((2, 3, 3), (1, 2, 3), np.uint8))  # BGR
    assert read_picture(str(tmp_path / 'a.png')).tolist() == [[[3, 2, 1]] * 3] * 2


@pytest.mark.parametrize('content', [None, b'', b'no picture'])
def test_a_picture_that_is_gone(content, tmp_path):
    path = tmp_path / 'a.png'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png' cannot be read again for the report"):
        read_picture(str(path))
