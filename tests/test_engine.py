"""Small parts between config and runner."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS

from mmdense.engine import building
from mmdense.engine.checks import check_channels, check_data, outline_model
from mmdense.engine.data import find_datasets
from mmdense.engine.testing import enable_tta
from mmdense.errors import UserError, last_line
from mmdense.files import config_root


def test_sync_bn_becomes_bn_everywhere():
    cfg = ConfigDict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='GN', num_groups=4))],
    )
    building.replace_sync_bn(cfg)
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
        outline_model(Config(dict(model=model, default_scope='mmdet')))


def test_errors_from_workers_are_cut_to_their_message():
    message = (
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x.py"\n'
        "mmdense.errors.UserError: 'a.png' cannot be read\n"
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


class TestChannels:
    """A neck or head that does not fit its backbone is named with both sides' channels."""

    def check(self, path: str | Path, **changes: object) -> None:
        cfg = Config.fromfile(config_root() / Path(path).with_suffix('.py'))
        cfg.merge_from_dict(changes)
        check_channels(cfg, outline_model(cfg))

    @pytest.mark.parametrize(
        'path',
        [
            'paca/mask_rcnn_paca_s_1x',
            'paca/upernet_paca_b_160k',
            'fcvit/fcvit_b12_in1k',
            'msf/msf_s_in1k',
            'msf/mask_rcnn_msf_s_1x',
            'msf/paca_head_msf_s_160k',
            'groupmixformer/retinanet_groupmixformer_s_1x',
            'fcvit/mask2former_fcvit_b12_160k',
        ],
    )
    def test_published_configs_fit(self, path):
        self.check(path)

    @pytest.mark.parametrize(
        'path, change, message',
        [
            (
                'paca/mask_rcnn_paca_s_1x',
                {'model.backbone.arch': 'base'},
                r'neck takes \[96, 192, 320, 384\] channels, but the backbone gives '
                r'\[96, 192, 384, 512\]',
            ),
            (
                'paca/upernet_paca_b_160k',
                {'model.auxiliary_head.in_channels': 320},
                r'auxiliary_head takes \[320\] channels, but the backbone gives \[384\]',
            ),
            (
                'groupmixformer/groupmixformer_s_in1k',
                {'model.head.in_channels': 384},
                r'head takes \[384\] channels, but the backbone gives \[320\]',
            ),
            (
                'fcvit/paca_head_fcvit_b12_160k',
                {'model.backbone.out_indices': (0, 1, 2)},
                r'decode_head uses maps \[0, 1, 2, 3\] of a backbone that gives 3',
            ),
            (
                'msf/upernet_msf_s_160k',
                {'model.neck.embed_dim': 768},
                r'neck takes \[768, 768, 768, 768\] channels',
            ),
        ],
    )
    def test_mismatch(self, path, change, message):
        with pytest.raises(UserError, match=message):
            self.check(path, **change)

    def test_backbones_of_the_toolboxes_too(self, tmp_path):
        (tmp_path / 'mine.py').write_text(
            "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
            'model = dict(neck=dict(in_channels=[1, 2, 3, 4]))\n'
        )
        with pytest.raises(UserError, match=r'the backbone gives \[256, 512, 1024, 2048\]'):
            self.check(tmp_path / 'mine.py')


def test_paca_head_learns_ten_times_as_fast():
    """And the last cluster layers of the blocks; nothing else, in any family."""
    for path, clusters in (
        ('paca/paca_head_paca_t_160k', 3),
        ('paca/paca_head_paca_s_mlp_160k', 0),
        ('fcvit/paca_head_fcvit_b12_160k', 0),
    ):
        cfg = Config.fromfile(config_root() / f'{path}.py')
        cfg.model.backbone.pop('init_cfg', None)
        model = building.build_model(cfg).train()
        names = {id(p): name for name, p in model.named_parameters()}
        groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
        fast = {names[id(p)] for g in groups for p in g['params'] if g['lr'] == pytest.approx(6e-4)}
        head = {name for name in fast if name.startswith('decode_head.')}
        assert head == {n for n in names.values() if n.startswith('decode_head.')}
        assert len(fast - head) == clusters
        assert all('clustering.assign' in name for name in fast - head)


@pytest.mark.parametrize(
    'path', ['paca/mask_rcnn_paca_t_1x', 'msf/upernet_msf_s_160k', 'fcvit/fcvit_tiny_in1k']
)
def test_layer_wise_learning_rates(path):
    """In all three toolboxes: heads at the full rate, the stem at the lowest."""
    cfg = Config.fromfile(config_root() / f'{path}.py')
    cfg.model.backbone.pop('init_cfg', None)
    model = building.build_model(cfg).train()
    cfg.optim_wrapper.constructor = 'mmdense.LayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg = dict(layer_decay_rate=0.5)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    base = cfg.optim_wrapper.optimizer.lr
    rates = {g['param_name']: g['lr'] for g in wrapper.param_groups if g['params']}
    assert all(r == base for name, r in rates.items() if not name.startswith('backbone.'))
    _, num_layers = model.backbone.get_layer_depth('backbone.x', 'backbone.')
    assert min(rates.values()) == pytest.approx(base * 0.5 ** (num_layers - 1))
    assert len(set(rates.values())) == num_layers


def test_layer_wise_learning_rates_keep_multipliers():
    cfg = Config.fromfile(config_root() / 'paca/paca_head_paca_t_160k.py')
    cfg.model.backbone.pop('init_cfg', None)
    cfg.optim_wrapper.constructor = 'mmdense.LayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.5
    groups = build_optim_wrapper(building.build_model(cfg).train(), cfg.optim_wrapper).param_groups
    rates = {g['param_name']: g['lr'] for g in groups if g['params']}
    assert rates['decode_head.conv_seg.weight'] == pytest.approx(6e-4)


def test_backbone_is_compiled_in_place():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        calls.append(graph)
        return graph.forward

    hook = HOOKS.build(dict(type='mmdense.CompileBackboneHook', backend=backend))
    names = list(model.state_dict())
    hook.before_run(SimpleNamespace(model=model))
    model.backbone(torch.ones(1, 2))
    assert len(calls) == 1 and list(model.state_dict()) == names
