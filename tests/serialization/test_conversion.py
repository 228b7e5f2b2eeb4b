"""Published names become this project's, and back; what a file is of is found out."""

import pytest
import torch
from helpers import FAMILY, build_in

from mmdense.errors import UserError
from mmdense.serialization.conversion import convert, pick_weights
from mmdense.serialization.loading import load_pretrained


def build(cfg: dict) -> torch.nn.Module:
    return build_in('mmpretrain', cfg)


@pytest.mark.parametrize('family', FAMILY)
def test_dense_models_load_a_converted_classifier(family, smallest, tmp_path):
    """init_cfg of a detector or segmentor: the classifier's norm may stay behind."""
    state = convert(smallest(family)[1])
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=state.state_dict), path)
    backbone = {**state.variant.backbone, **FAMILY[family].dense}
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
        backbone = {**once.variant.backbone, 'out_indices': (0, 1, 2, 3)}
        state = {f'backbone.{k}': v for k, v in build(backbone).state_dict().items()}
    again = convert(state)
    assert again.variant.config == once.variant.config
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
    assert convert(state).variant.config == config


def test_unfit_weights_are_refused_before_anything_is_converted():
    with pytest.raises(UserError, match='no weights'):
        pick_weights(dict(epoch=1))
