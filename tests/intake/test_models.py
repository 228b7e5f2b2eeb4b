"""The model of a folder: its classes and the weights that it starts from."""

import os
from pathlib import Path

import pytest
from makers import CLASSES
from mmengine.config import Config

from mmdense.engine.building import build_model
from mmdense.engine.config import read_config
from mmdense.engine.data import find_datasets
from mmdense.intake.examining import examine
from mmdense.intake.models import find_model
from mmdense.intake.preparing import prepare

pytestmark = pytest.mark.usefixtures('there')


def test_model_of_the_config_has_the_classes(own):
    path, _ = prepare(examine(own('voc')), None, None)
    cfg = read_config(str(path))
    assert build_model(cfg, 'meta').roi_head.bbox_head.num_classes == len(CLASSES)
    dataset = next(find_datasets(cfg.train_dataloader.dataset))
    assert os.path.isabs(dataset.ann_file)
    assert find_model('own/paca_own', 'classification').stem == 'paca_own'


@pytest.mark.parametrize(
    'maker, model, wanted',
    [
        ('classes', 'paca_t_in1k', 'load_from'),
        ('yolo', 'mask_rcnn_paca_t_1x', 'init_cfg'),
    ],
)
def test_published_weights_are_the_start(maker, model, wanted, own, monkeypatch):
    """Where they can be had; else the reason is said, and the training is from scratch."""
    folder = own(maker)
    path, said = prepare(examine(folder), model, None)
    (line,) = [line for line in said if line.startswith('it starts from')]
    assert (
        line.startswith("it starts from scratch: 'https://github.com/iVMCL/") and 'offline' in line
    )
    cfg = Config.fromfile(path)
    assert cfg.load_from is None and cfg.model.backbone.get('init_cfg') is None

    monkeypatch.setenv('TORCH_HOME', os.path.abspath('torch'))
    cache = Path('torch/hub/mmdense')
    cache.mkdir(parents=True)
    (cache / 'paca_t_in1k.pth').write_bytes(b'only its name counts here')
    path, said = prepare(examine(folder), model, None)
    assert "it starts from 'mmdense://paca_t_in1k'" in said
    cfg = Config.fromfile(path)
    found = dict(
        load_from=cfg.load_from,
        init_cfg=(cfg.model.backbone.get('init_cfg') or {}).get('checkpoint'),
    )
    assert found == {**dict(load_from=None, init_cfg=None), wanted: 'mmdense://paca_t_in1k'}
