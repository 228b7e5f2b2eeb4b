"""Small parts between config and runner."""

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmdense.engine import launch
from mmdense.engine.checks import check_data, check_model, find_datasets
from mmdense.engine.errors import UserError, last_line
from mmdense.engine.tta import enable_tta


def test_sync_bn_becomes_bn_everywhere():
    cfg = ConfigDict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='GN', num_groups=4))],
    )
    launch.replace_sync_bn(cfg)
    assert cfg.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.heads] == ['BN', 'GN']


def test_data_sets_below_wrappers_are_found():
    inner = [dict(type='A', data_root='a'), dict(type='B', data_root='b')]
    concat = dict(type='ConcatDataset', datasets=inner)
    wrapped = ConfigDict(type='RepeatDataset', times=2, dataset=concat)
    assert [d.type for d in find_datasets(wrapped)] == ['A', 'B']


def test_data_checks_name_file_and_loader(tmp_path):
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='train.json')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError, match=r"train_dataloader: file '.*/train.json' does not exist"):
        check_data(cfg, ('train_dataloader',))
    (tmp_path / 'train.json').write_text('{}')
    check_data(cfg, ('train_dataloader', 'val_dataloader'))


def test_a_bare_assertion_of_a_constructor_says_where_it_stands():
    model = dict(type='FPN', in_channels=(8, 8), out_channels=8, num_outs=2)
    with pytest.raises(UserError, match=r'isinstance\(in_channels, list\).*fpn.py'):
        check_model(Config(dict(model=model, default_scope='mmdet')))


def test_errors_from_workers_are_cut_to_their_message():
    message = (
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x.py"\n'
        "mmdense.engine.errors.UserError: 'a.png' cannot be read\n"
    )
    assert last_line(UserError(message)) == "'a.png' cannot be read"
    assert last_line(ValueError()) == 'ValueError'


def test_tta_needs_a_toolbox():
    with pytest.raises(UserError, match='default_scope'):
        enable_tta(Config(dict(default_scope='mmpose')))


def test_cpu_amp_runs_in_bfloat16():
    from mmdense.registry import OPTIM_WRAPPERS

    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(type='CPUAmpOptimWrapper', optimizer=optimizer))
    with wrapper.optim_context(layer):
        out = layer(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    before = layer.weight.clone()
    wrapper.update_params(out.float().square().mean())
    assert layer.weight.dtype == torch.float32 and not torch.equal(layer.weight, before)
