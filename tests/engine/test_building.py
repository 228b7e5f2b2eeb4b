"""From a config to a model that fits this machine and knows its classes."""

from helpers import DIGIT_CONFIGS
from mmengine.config import Config, ConfigDict

from mmdense.engine import building


def test_sync_bn_becomes_bn_everywhere():
    cfg = ConfigDict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='GN', num_groups=4))],
    )
    building.replace_sync_bn(cfg)
    assert cfg.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.heads] == ['BN', 'GN']


def test_classes_that_fit_the_model():
    """The checkpoint's names, or the data set's, if there are enough of them; or else numbers."""
    cfg = Config.fromfile(DIGIT_CONFIGS['mmdet'])
    ten = tuple('abcdefghij')
    for meta in (dict(dataset_meta=dict(classes=ten)), dict(CLASSES=ten)):
        assert building.find_classes(cfg, dict(meta=meta))['classes'] == ten
    for checkpoint in ({}, dict(meta=None), dict(meta=dict(dataset_meta=dict(classes='ab')))):
        assert building.find_classes(cfg, checkpoint)['classes'] == tuple('0123456789')
    cfg.test_dataloader.dataset.metainfo.classes = 'nothing.txt'
    assert building.find_classes(cfg, {})['classes'] == tuple('0123456789')
    cascade = dict(roi_head=dict(bbox_head=[dict(num_classes=7), dict(num_classes=7)]))
    assert building.find_num_classes(cascade) == 7
