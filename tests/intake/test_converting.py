"""Data in the toolbox's own form."""

import json
from pathlib import Path

import numpy as np
import pytest
from makers import write
from mmengine.config import Config
from PIL import Image

from mmdense.engine.config import read_config
from mmdense.engine.data import build_dataset
from mmdense.intake.examining import examine
from mmdense.intake.preparing import prepare

pytestmark = pytest.mark.usefixtures('there')


@pytest.mark.parametrize('maker', ['yolo', 'single json', 'voc'])
def test_converted_data_are_those_of_the_json(maker, own, scenes):
    """Boxes in the toolbox's own form, against those that were drawn."""
    path, _ = prepare(examine(own(maker)), None, None)
    cfg = Config.fromfile(path)
    for split in ('train', 'val'):
        dataset = build_dataset(cfg, split)
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            wanted = scenes[int(Path(info['img_path']).stem)].objects
            boxes = [instance['bbox'] for instance in info['instances']]
            corners = [[min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])] for _, p in wanted]
            np.testing.assert_allclose(boxes, corners, atol=1e-6)
            assert [x['bbox_label'] for x in info['instances']] == [label for label, _ in wanted]


@pytest.mark.parametrize('model', ['mask_rcnn_paca_t_1x', None])
@pytest.mark.parametrize('maker', ['coco', 'yolo'])
def test_empty_and_small_pictures_are_trained_on(maker, model, own, scenes):
    root = own(maker)
    Image.fromarray(scenes[20].picture[:20, :20]).save(root / 'images/train/empty.png')
    if maker == 'yolo':
        write(root / 'labels/train/empty.txt', '')
    else:
        path = root / 'annotations/instances_train.json'
        content = json.loads(path.read_text())
        content['images'].append(dict(id=999, file_name='empty.png', width=20, height=20))
        write(path, json.dumps(content))
    path, _ = prepare(examine(root), model, None)
    assert len(build_dataset(read_config(str(path)), 'train')) == 13
