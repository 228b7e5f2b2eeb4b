"""Files are loaded strictly, mismatches told in one line."""

import pytest
import torch
from helpers import SMALLEST_PACA
from mmengine.registry import MODELS
from safetensors.torch import save_file

from mmdense.errors import UserError
from mmdense.serialization.loading import load_pretrained


def build(seed: int, clusters: tuple[int, ...] = (4, 4, 4, 0), **kwargs) -> torch.nn.Module:
    torch.manual_seed(seed)
    cfg = dict(type='mmdense.PaCaViT', arch=SMALLEST_PACA, clusters=clusters)
    model = MODELS.build({**cfg, **kwargs})
    if not kwargs.get('init_cfg'):
        model.init_weights()
    return model


@pytest.fixture
def classifier_file(tmp_path):
    """A file as mmpretrain writes it: backbone and head, with the prefix of each."""
    model = build(0)
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(10, 8)
    torch.save(dict(meta=dict(epoch=1), state_dict=state), tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth', model


def test_init_cfg_loads_every_tensor(classifier_file):
    path, source = classifier_file
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = build(1, init_cfg=init_cfg)
    model.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert load_pretrained(build(1), str(path), prefix='backbone') == len(source.state_dict())


def test_safetensors(tmp_path):
    model = build(0)
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    assert load_pretrained(build(1), tmp_path / 'model.safetensors') == len(model.state_dict())


def test_another_number_of_clusters_is_the_one_exception(classifier_file):
    path, source = classifier_file
    model = build(2, clusters=(6, 6, 6, 0))
    fresh = model.stages[0].blocks[0].attn.clustering.assign.weight.clone()
    loaded = load_pretrained(model, path, prefix='backbone.')
    assert loaded == len(source.state_dict()) - 3
    assert torch.equal(model.stages[0].blocks[0].attn.clustering.assign.weight, fresh)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop('backbone.stages.0.norm.bias'), r'1 missing \(stages.0.norm.bias\)'),
        (lambda s: s.update({'backbone.x': torch.ones(1)}), r'1 unexpected \(x\)'),
        (
            lambda s: s.update({'backbone.stages.0.norm.bias': torch.ones(3)}),
            r'1 of another shape \(stages.0.norm.bias \(3,\) for \(8,\)\)',
        ),
    ],
    ids=['missing', 'unexpected', 'shape'],
)
def test_mismatch_is_an_error(classifier_file, change, message):
    path, _ = classifier_file
    checkpoint = torch.load(path)
    change(checkpoint['state_dict'])
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=message) as error:
        load_pretrained(build(1), path, prefix='backbone.')
    assert '\n' not in str(error.value)


def test_a_forgotten_prefix_is_named(classifier_file):
    path, _ = classifier_file
    with pytest.raises(UserError, match=r'\d+ backbone\.\*, 1 head\.\*'):
        load_pretrained(build(1), path, prefix='encoder.')


def test_initializers_and_a_pretrained_file_in_one_list(classifier_file):
    path, source = classifier_file
    pretrained = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = build(1, init_cfg=[dict(type='TruncNormal', layer='Linear'), pretrained])
    model.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    model.stages[0].norm.bias.data.fill_(7)
    model.init_weights()  # a second time does nothing, as everywhere in mmengine
    assert (model.stages[0].norm.bias == 7).all()
    wrong = build(
        1, init_cfg=[dict(type='TruncNormal', layer='Linear'), dict(pretrained, prefix='x')]
    )
    with pytest.raises(UserError, match='does not hold this PaCaViT'):
        wrong.init_weights()


def test_a_file_of_another_variant_is_refused_with_both_names(tmp_path):
    with torch.device('meta'):
        tiny = MODELS.build(dict(type='mmdense.PaCaViT', arch='tiny'))
    state = {f'backbone.{k}': torch.zeros(v.shape) for k, v in tiny.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'paca.pth')
    with torch.device('meta'):
        small = MODELS.build(
            dict(type='mmdense.PaCaViT', arch='small', clusters=(200, 200, 200, 0))
        )
    with pytest.raises(UserError, match='is of paca_t_in1k, the config wants paca_s_in1k'):
        load_pretrained(small, tmp_path / 'paca.pth', prefix='backbone.')
