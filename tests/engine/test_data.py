"""The data sets that a config names."""

import pytest
from helpers import DIGIT_CONFIGS, load_config
from mmengine.config import Config, ConfigDict

from mmdense.engine.data import (
    find_classes,
    find_dataset_meta,
    find_datasets,
    find_num_classes,
)
from mmdense.serialization.checkpoint import get_classes


def test_data_sets_below_wrappers_are_found():
    inner = [dict(type='A', data_root='a'), dict(type='B', data_root='b')]
    concat = dict(type='ConcatDataset', datasets=inner)
    wrapped = ConfigDict(type='RepeatDataset', times=2, dataset=concat)
    assert [d.type for d in find_datasets(wrapped)] == ['A', 'B']


@pytest.mark.parametrize(
    'name, first, number',
    [
        ('paca/paca_t_in1k', 'tench', 1000),
        ('fcvit/mask_rcnn_fcvit_b12_1x', 'person', 80),
        ('msf/upernet_msf_s_160k', 'wall', 150),
        ('digits/upernet_paca_digits', 'background', 11),
    ],
)
def test_classes_without_a_checkpoint_that_names_them(name, first, number):
    classes = find_dataset_meta(load_config(name))['classes']
    assert classes[0].startswith(first) and len(classes) == number


def test_classes_that_fit_the_model():
    """The checkpoint's names, or the data set's, if there are enough of them; or else numbers."""
    cfg = Config.fromfile(DIGIT_CONFIGS['mmdet'])
    ten = tuple('abcdefghij')
    for meta in (dict(dataset_meta=dict(classes=ten)), dict(CLASSES=ten)):
        assert find_classes(cfg, get_classes(meta))['classes'] == ten
    for known in ({}, dict(classes='ab')):
        assert find_classes(cfg, known)['classes'] == tuple('0123456789')
    cfg.test_dataloader.dataset.metainfo.classes = 'nothing.txt'
    assert find_classes(cfg, {})['classes'] == tuple('0123456789')
    cascade = dict(roi_head=dict(bbox_head=[dict(num_classes=7), dict(num_classes=7)]))
    assert find_num_classes(cascade) == 7
