"""Published names become this project's, and back; what a file is of is found out."""

import inspect
import re

import pytest
import torch
from helpers import FAMILY, TINY, build_in
from helpers import build as build_tiny
from mmengine.registry import MODELS

from mmdense.errors import UserError
from mmdense.families.family import Family
from mmdense.serialization.conversion import (
    convert,
    find_options,
    has_averaged_weights,
    pick_weights,
)
from mmdense.serialization.loading import load_pretrained


def build(cfg: dict) -> torch.nn.Module:
    return build_in('mmpretrain', cfg)


@pytest.mark.parametrize('family', FAMILY)
def test_dense_models_load_a_converted_classifier(family, smallest, tmp_path):
    """init_cfg of a detector or segmentor: the classifier's norm may stay behind."""
    state = convert(smallest(family)[1])
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=state.state_dict), path)
    backbone = {**state.backbone, **FAMILY[family].dense}
    backbone |= {'clusters': (200, 200, 200, 0)} if family == 'paca' else {}
    pretrained = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = build({**backbone, 'init_cfg': pretrained})
    model.init_weights()
    fresh = {'fcvit': 6, 'paca': 3}.get(family, 0)  # norms of three maps; clusters of three stages
    own = model.state_dict()
    loaded = {
        k for k, v in own.items() if torch.equal(v, state.state_dict.get(f'backbone.{k}', v + 1))
    }
    assert len(own) - len(loaded) == fresh
    assert load_pretrained(model, str(path), 'backbone.') == len(own) - fresh


def test_another_number_of_classes(smallest):
    _, state = smallest('fcvit')
    state['head.weight'], state['head.bias'] = torch.zeros(7, 320), torch.zeros(7)
    assert convert(state).state_dict['head.fc.weight'].shape == (7, 320)


@pytest.mark.parametrize('form', ['classifier', 'dense'])
@pytest.mark.parametrize('family', FAMILY)
def test_a_converted_file_stays_as_it_is(smallest, family, form):
    once = convert(smallest(family)[1])
    state = once.state_dict
    if form == 'dense':
        backbone = {**once.backbone, 'out_indices': (0, 1, 2, 3)}
        state = {f'backbone.{k}': v for k, v in build(backbone).state_dict().items()}
    again = convert(state)
    assert again.config == once.config
    assert again.state_dict.keys() == state.keys()
    assert all(torch.equal(again.state_dict[key], value) for key, value in state.items())


def test_averaged_weights_of_mmengine():
    """Its files hold the average as 'state_dict' and the raw weights as 'ema_state_dict'."""
    average, raw = {'a': torch.ones(1)}, {'module.a': torch.zeros(1), 'steps': torch.tensor(3)}
    file = dict(state_dict=average, ema_state_dict=raw)
    assert pick_weights(file) == {'a': torch.zeros(1)}
    assert pick_weights(file, ema=True) == {'a': torch.ones(1)}


@pytest.mark.parametrize(
    'clusters, config',
    [
        ((200, 200, 200, 0), 'configs/paca/paca_s_in1k.py'),
        ((200, 200, 200, 200), 'configs/paca/paca_s_100_in1k.py'),
        ((49, 49, 49, 0), 'configs/paca/paca_s_49_0_in1k.py'),
    ],
)
def test_variant_of_a_segmentor(clusters, config):
    """Several ablations are one network when they have 200 clusters: the plainest is named."""
    with torch.device('meta'):
        model = build(dict(type='mmdense.PaCaViT', arch='small', clusters=clusters))
    state = {
        f'backbone.{k}': v for k, v in FAMILY['paca'].naming.restore(model.state_dict()).items()
    }
    assert convert(state).config == config


def test_unfit_weights_are_refused_before_anything_is_converted():
    with pytest.raises(UserError, match='no weights'):
        pick_weights(dict(epoch=1))


@pytest.mark.parametrize('name', TINY)
def test_what_was_not_published_is_read_from_names_and_shapes(name):
    """Options that change tensors are found; those that do not are said to be unknown."""
    family, options = family_of(name), TINY[name]
    model = build_tiny(name)
    theirs = family.naming.restore(model.state_dict())
    assert family.naming.owns(theirs)
    found = convert(theirs)
    assert found.config is None and found.family is family and found.reshaped == []
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict[f'backbone.{key}'], tensor)
    untold = (*family.untold, 'drop_path_rate', 'out_indices', 'arch')
    told = {k: v for k, v in options.items() if k not in untold}
    assert {k: v for k, v in found.backbone.items() if k in told} == {
        k: v for k, v in told.items() if v != default(family, k)
    }
    for key, value in options['arch'].items():
        assert found.backbone['arch'][key] == value or key in untold


def family_of(name: str) -> Family:
    return next(family for family in FAMILY.values() if family.type == TINY[name]['type'])


def default(family: Family, option: str) -> object:
    return (
        inspect.signature(family.backbone)
        .parameters.get(option, inspect.Parameter(option, 1))
        .default
    )


# Settings that a tiny network of a family is built with, and what must be told of them.
SETTINGS = [
    ('MSFViT', dict(groups=4, patch_size=8)),
    ('MSFViT', dict(out_type='avg_featmap')),
    ('PaCaViT', dict(clusters=(4, 0, 25, 0), clustering='linear')),
    ('PaCaViT', dict(clustering_kernel_size=(3, 5, 7, 7))),
    ('PaCaViT', dict(post_norm=True, mlp_dwconv=False, cluster_norm=False)),
    ('PaCaViT', dict(pos_embed=True, img_size=96)),
    ('PaCaViT', dict(clusters=(0, 0, 0, 0))),
    ('GroupMixFormer', dict(final_norm=True)),
    ('FCViT', dict(kernel_size=7, num_mixers=1, fc_reduction=1)),
    ('FCViT', dict(global_context=False, mlp_dwconv=False)),
    ('FCViT', dict(num_heads=4, context_reduction=4, weighted_context=True)),
    ('FCViT', dict(weighted_context=False)),
]


@pytest.mark.parametrize('name, settings', SETTINGS)
def test_settings_are_told_by_the_tensors(name, settings):
    family = family_of(name)
    state = build_tiny(name, **settings).state_dict()
    found = find_options(family, state)
    again = MODELS.build(found).state_dict()
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}
    for key, value in settings.items():
        assert found.get(key, default(family, key)) == value, key


def test_a_published_arch_is_called_by_its_name():
    with torch.device('meta'):
        state = MODELS.build(dict(type='mmdense.MSFViT', groups=4)).state_dict()
    assert find_options(FAMILY['msf'], state) == dict(type='mmdense.MSFViT', arch='small', groups=4)


@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 4, 5), (0, 7), (10**9, 10**9)])
def test_odd_shapes_are_of_no_network(shape):
    """Whatever a file claims, a line or nothing comes of it, and soon."""
    for name in TINY:
        with torch.device('meta'):
            state = MODELS.build(TINY[name]).state_dict()
            odd = torch.empty(()).expand(shape)  # no memory
        # One of the blocks stands for those beside it.
        weights = {re.sub(r'\d+', '', key): key for key in state if key.endswith('weight')}
        for key in list(weights.values())[:: 1 if shape == () else len(weights) // 5]:
            if state[key].shape != shape:
                assert find_options(family_of(name), {**state, key: odd}) is None, key


RAW, AVERAGE = dict(w=torch.zeros(2)), dict(w=torch.ones(2))


@pytest.mark.parametrize(
    'checkpoint',
    [
        dict(state_dict=RAW, state_dict_ema=AVERAGE),  # timm
        dict(model=RAW, model_ema=AVERAGE),
        dict(state_dict=AVERAGE, ema_state_dict=RAW),  # mmengine swaps the two when it saves
    ],
    ids=['timm', 'model', 'mmengine'],
)
def test_raw_and_averaged_weights(checkpoint):
    assert torch.equal(pick_weights(checkpoint)['w'], RAW['w'])
    assert torch.equal(pick_weights(checkpoint, ema=True)['w'], AVERAGE['w'])
    assert has_averaged_weights(checkpoint)


@pytest.mark.parametrize(
    'checkpoint', [RAW, dict(state_dict=RAW), dict(model=RAW, epoch=1)], ids=['bare', 'mm', 'model']
)
def test_files_without_averaged_weights(checkpoint):
    assert torch.equal(pick_weights(checkpoint)['w'], RAW['w'])
    assert not has_averaged_weights(checkpoint)
    with pytest.raises(UserError, match='holds no averaged weights'):
        pick_weights(checkpoint, ema=True)


def test_what_is_no_weight_is_left_out():
    averaged = {'module.w': torch.ones(2), 'n_averaged': torch.tensor(3), 'steps': torch.tensor(4)}
    assert set(pick_weights(dict(state_dict=RAW, model_ema=averaged), ema=True)) == {'w'}
    assert set(pick_weights(dict(state_dict=dict(RAW, epoch=3)))) == {'w'}


def test_nothing_to_pick():
    with pytest.raises(UserError, match='it holds a list, no dict of tensors'):
        pick_weights([])
    with pytest.raises(UserError, match=r'it holds no weights, but epoch$'):
        pick_weights(dict(epoch=1))
    with pytest.raises(UserError, match=r'; --ema reads the averaged weights$'):
        pick_weights(dict(model_ema=AVERAGE))
