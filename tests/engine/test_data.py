"""The data sets that a config names."""

import pytest
from helpers import load_config
from mmengine.config import ConfigDict

from mmdense.engine.data import find_dataset_meta, find_datasets


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
