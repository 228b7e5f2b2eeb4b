"""Learning rates that differ between the parts of a model."""

import pytest
from helpers import load_config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdense.engine import building
from mmdense.errors import UserError


def load_model(path: str) -> tuple[object, nn.Module]:
    """A config, and its model: only the names and shapes of the parameters count."""
    cfg = load_config(path)
    return cfg, building.build_model(cfg, 'meta').train()


def test_paca_head_learns_ten_times_as_fast():
    """And the last cluster layers of the blocks; nothing else, in any family."""
    for path, clusters in (
        ('paca/paca_head_paca_t_160k', 3),
        ('paca/paca_head_paca_s_mlp_160k', 0),
        ('fcvit/paca_head_fcvit_b12_160k', 0),
    ):
        cfg, model = load_model(path)
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
    cfg, model = load_model(path)
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
    cfg, model = load_model('paca/paca_head_paca_t_160k')
    cfg.optim_wrapper.constructor = 'mmdense.LayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.5
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    rates = {g['param_name']: g['lr'] for g in groups if g['params']}
    assert rates['decode_head.conv_seg.weight'] == pytest.approx(6e-4)


def test_backbones_that_do_not_know_the_depth_of_a_layer():
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    cfg = dict(
        constructor='mmdense.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.1),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    with pytest.raises(UserError, match=r'with get_layer_depth; Linear has none$'):
        build_optim_wrapper(model, cfg)
