"""Learning rates that differ between the parts of a model, and the groups that they make."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from toy_run import check_equal, make_config, outcome, run

from mmdense.engine import building, training
from mmdense.engine.optim import RegroupHook, merge_groups, regroup, sort_parameters
from mmdense.errors import UserError

UNGROUPED = 'mmengine.DefaultOptimWrapperConstructor'  # the tools leave a full name alone
GROUPED = 'mmdense.GroupedOptimWrapperConstructor'
PARAMWISE = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bias_lr_mult=2.0)
OPTIMIZERS = {
    'adamw': dict(type='AdamW', lr=0.01, weight_decay=0.1),
    'foreach': dict(type='AdamW', lr=0.01, weight_decay=0.1, foreach=True),
    'fused': dict(type='AdamW', lr=0.01, weight_decay=0.1, fused=True),
    'sgd': dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1),
}


def load_model(path: str) -> tuple[object, nn.Module]:
    """A config, and its model: only the names and shapes of the parameters count."""
    cfg = load_config(path)
    return cfg, building.build_model(cfg, 'meta').train()


def find_rates(model: nn.Module, groups: list[dict]) -> dict[str, float]:
    """The learning rate of each parameter, by name."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group['lr'] for group in groups for p in group['params']}


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
    rates = find_rates(model, wrapper.optimizer.param_groups)
    assert all(r == base for name, r in rates.items() if not name.startswith('backbone.'))
    _, num_layers = model.backbone.get_layer_depth('backbone.x', 'backbone.')
    assert min(rates.values()) == pytest.approx(base * 0.5 ** (num_layers - 1))
    assert len(set(rates.values())) == num_layers
    assert len(wrapper.optimizer.param_groups) == num_layers  # and no decay of their own
    ordered = sort_parameters(wrapper.optimizer.param_groups)
    assert all(a is b for a, b in zip(ordered, model.parameters(), strict=True))


def test_layer_wise_learning_rates_keep_multipliers():
    cfg, model = load_model('paca/paca_head_paca_t_160k')
    cfg.optim_wrapper.constructor = 'mmdense.LayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.5
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = find_rates(model, wrapper.optimizer.param_groups)
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


def make_run(folder: Path, optimizer: str = 'adamw', **wrapper: object) -> Config:
    """A training whose parameters have three settings, interleaved in the model."""
    wrapper = dict(
        optimizer=OPTIMIZERS[optimizer],
        paramwise_cfg=PARAMWISE,
        clip_grad=dict(max_norm=0.1),
        accumulative_counts=1,
        **wrapper,
    )
    cfg = make_config(folder, optim_wrapper=wrapper)
    cfg.param_scheduler[1] = dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=True, end=4)
    training.group_parameters(cfg)
    return cfg


def drop_numbers(found: dict) -> dict:
    """Without the state of the optimizer, which counts parameters in the order of the groups."""
    return {key: value for key, value in found.items() if not key.startswith('optimizer ')}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_one_group_a_setting_trains_to_the_same_bits(name, tmp_path):
    """Gradients are clipped by the norm of all, in whose last bit their order would show."""
    plain = run(make_run(tmp_path / 'plain', name, constructor=UNGROUPED))
    assert len(plain.optim_wrapper.optimizer.param_groups) == 6
    wanted = drop_numbers(outcome(plain))
    assert {'train/lr', 'train/base_lr', 'train/grad_norm'} <= wanted.keys()
    grouped = run(make_run(tmp_path / 'grouped', name))
    groups = grouped.optim_wrapper.optimizer.param_groups
    assert [group['places'] for group in groups] == [[0, 4], [1, 5], [2, 3]]
    check_equal(drop_numbers(outcome(grouped)), wanted)


def test_gradients_are_clipped_in_the_order_of_the_model():
    """Whatever is asked for, and by value too."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    cfg = dict(constructor=GROUPED, optimizer=OPTIMIZERS['sgd'], paramwise_cfg=PARAMWISE)
    clip = dict(type='value', clip_value=0.5)
    wrapper = build_optim_wrapper(model, dict(cfg, clip_grad=clip))
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    seen = []
    _, places = wrapper.clip_func.args
    wrapper.clip_func.func(lambda params, **kwargs: seen.extend(params), places, places.keys())
    assert all(a is b for a, b in zip(seen, model.parameters(), strict=True))
    wrapper.step()
    assert all((param.grad == 0.5).all() for param in model.parameters())
    assert not hasattr(build_optim_wrapper(model, dict(cfg)), 'clip_func')


def test_goes_on_from_a_group_for_each_parameter(tmp_path):
    """The optimizer's state, its rates and the schedules; and from what it writes itself."""
    wanted = outcome(run(make_run(tmp_path / 'whole')))
    run(make_run(tmp_path / 'plain', constructor=UNGROUPED), cut=dict(at=15))
    resumed = run(make_run(tmp_path / 'on'), resume=tmp_path / 'plain' / 'cut.pth')
    check_equal(outcome(resumed), wanted)
    for schedule in resumed.param_schedulers:
        assert len(schedule.base_values) == 4  # with the optimizer's own setting
    run(make_run(tmp_path / 'grouped'), cut=dict(at=15))
    resumed = run(make_run(tmp_path / 'again'), resume=tmp_path / 'grouped' / 'cut.pth')
    check_equal(outcome(resumed), wanted)


def test_groups_that_do_not_fit(tmp_path):
    """One line, also for settings that were others, or groups of the same sizes."""
    run(make_run(tmp_path / 'plain', constructor=UNGROUPED), cut=dict(at=2))
    cfg = make_run(tmp_path / 'other', constructor=GROUPED)
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.0)
    message = r'has 6 groups of 6 parameters .* not the 2 of 6 of this run: .* load_from=FILE$'
    with pytest.raises(UserError, match=message):
        run(cfg, resume=tmp_path / 'plain' / 'cut.pth')
    run(make_run(tmp_path / 'grouped'), cut=dict(at=2))
    with pytest.raises(UserError, match=r'has 3 groups of 6 parameters .* not the 2 of 6'):
        run(cfg, resume=tmp_path / 'grouped' / 'cut.pth')
    saved = dict(param_groups=[dict(params=[0], places=[1]), dict(params=[1], places=[0])])
    with pytest.raises(UserError, match=r'has 2 groups of 2 parameters .* not the 2 of 2'):
        regroup(dict(optimizer=saved), [[0], [1]])


def test_states_that_are_not_resumed_stay():
    """Of several optimizers, of groups that were not merged, and where weights alone are loaded."""
    model = nn.Linear(2, 2)
    cfg = dict(optimizer=OPTIMIZERS['sgd'], paramwise_cfg=dict(bias_lr_mult=2.0))
    merged = build_optim_wrapper(model, dict(cfg, constructor=GROUPED))
    plain = build_optim_wrapper(model, dict(cfg))
    for wrapper, resume, state in (
        (merged, False, dict(optimizer={})),
        (merged, True, {}),
        (plain, True, dict(optimizer={})),
        (SimpleNamespace(), True, dict(optimizer={})),
    ):
        runner = SimpleNamespace(optim_wrapper=wrapper, _resume=resume)
        RegroupHook().after_load_checkpoint(runner, dict(state))


def test_states_move_with_their_parameters():
    """Schedules by name too; one that knows nothing of groups stays, and a parameter without."""
    groups = [dict(params=[i], lr=(1.0, 2.0)[i % 2], param_name=str(i)) for i in range(4)]
    state = {i: dict(step=i) for i in (0, 1, 3)}
    schedules = dict(a=[dict(base_values=[0, 1, 2, 3, 9], milestones=[1])], b=[dict(min_values=[])])
    checkpoint = dict(optimizer=dict(param_groups=groups, state=state), param_schedulers=schedules)
    regroup(checkpoint, [[0, 2], [1, 3]])
    assert checkpoint['optimizer'] == dict(
        param_groups=[
            dict(params=[0, 1], lr=1.0, places=[0, 2]),
            dict(params=[2, 3], lr=2.0, places=[1, 3]),
        ],
        state={0: dict(step=0), 2: dict(step=1), 3: dict(step=3)},
    )
    assert schedules == dict(
        a=[dict(base_values=[0, 1, 9], milestones=[1])], b=[dict(min_values=[])]
    )


def test_parameters_that_two_modules_share_are_left_to_torch():
    weight = nn.Parameter(torch.ones(1))
    groups = [dict(params=[weight], lr=1.0), dict(params=[weight], lr=1.0)]
    merge_groups(groups)
    assert len(groups) == 2
    assert sort_parameters(groups) == [weight, weight]


def test_which_configs_are_grouped():
    """Those whose constructor is mmengine's own, and whose parameters are told apart."""
    for wrapper, constructor in (
        (dict(paramwise_cfg=PARAMWISE), GROUPED),
        (dict(paramwise_cfg=PARAMWISE, constructor='DefaultOptimWrapperConstructor'), GROUPED),
        (dict(paramwise_cfg=PARAMWISE, constructor=UNGROUPED), UNGROUPED),
        (dict(paramwise_cfg=None), None),
        (dict(), None),
    ):
        cfg = Config(dict(optim_wrapper=wrapper))
        training.group_parameters(cfg)
        assert cfg.optim_wrapper.get('constructor') == constructor
    cfg = Config(dict(optim_wrapper=dict(paramwise_cfg=PARAMWISE), runner_type='FlexibleRunner'))
    training.group_parameters(cfg)
    assert 'constructor' not in cfg.optim_wrapper
    training.group_parameters(Config({}))
