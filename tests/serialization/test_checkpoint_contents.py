"""What is in the files: classes and weights, raw and averaged, names that may differ."""

import hashlib
import json

import numpy as np
import pytest
import safetensors
import torch
from torch import nn

from mmdense.errors import UserError
from mmdense.files import replacing
from mmdense.serialization.checkpoint import (
    get_classes,
    get_state_dict,
    load_file,
    save_weights,
)
from mmdense.serialization.conversion import has_averaged_weights, pick_weights
from mmdense.serialization.matching import (
    describe_mismatch,
    describe_prefixes,
    find_exempt,
    find_mismatch,
)

CLASSES = dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
META = dict(dataset_meta=CLASSES, epoch=7, config='import os', seed=1, experiment_name='secret')


def make_state() -> dict[str, torch.Tensor]:
    return dict(x=torch.arange(6.0).view(2, 3), y=torch.tensor([1, 2]))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_only_weights_and_classes_are_written(suffix, tmp_path):
    path = save_weights(make_state(), META, tmp_path / f'a{suffix}')
    found = load_file(path)
    assert set(found) == {'state_dict', 'meta'}
    assert set(found['meta']) == {'dataset_meta'}
    assert tuple(found['meta']['dataset_meta']['classes']) == CLASSES['classes']
    assert found['meta']['dataset_meta']['palette'] == CLASSES['palette']
    for key, value in make_state().items():
        assert torch.equal(found['state_dict'][key], value)
    assert b'secret' not in path.read_bytes()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('meta', [None, {}, dict(epoch=3)])
def test_without_classes_there_are_none(suffix, meta, tmp_path):
    found = load_file(save_weights(make_state(), meta, tmp_path / f'a{suffix}'))
    assert 'meta' not in found
    assert get_state_dict(found).keys() == make_state().keys()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_name_carries_the_hash_of_the_file(suffix, tmp_path):
    path = save_weights(make_state(), META, tmp_path / f'name{suffix}', add_hash=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path == tmp_path / f'name-{digest[:8]}{suffix}'
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other = save_weights(dict(x=torch.ones(1)), META, tmp_path / f'name{suffix}', add_hash=True)
    assert other != path


def test_tied_and_transposed_weights_go_into_safetensors(tmp_path):
    weight = torch.arange(6.0).view(2, 3)
    state = dict(a=weight, b=weight, c=weight.T, d=weight[:, :2])
    found = load_file(save_weights(state, None, tmp_path / 'a.safetensors'))
    assert set(found) == set('abcd')
    for key, value in state.items():
        assert torch.equal(found[key], value), key


def test_classes_in_safetensors_are_json_and_a_palette_may_be_an_array(tmp_path):
    meta = dict(dataset_meta=dict(classes=['a'], palette=np.array([[1, 2, 3]])))
    path = save_weights(make_state(), meta, tmp_path / 'a.safetensors')
    with safetensors.safe_open(path, 'pt') as file:
        text = file.metadata()['dataset_meta']
    assert json.loads(text) == dict(classes=['a'], palette=[[1, 2, 3]])


def test_classes_of_old_and_new_files():
    assert get_classes(dict(CLASSES=('a',), PALETTE=[[0, 0, 0]], epoch=1)) == dict(
        classes=('a',), palette=[[0, 0, 0]]
    )
    assert get_classes(dict(dataset_meta=CLASSES, CLASSES=('old',))) == CLASSES
    assert get_classes(dict(dataset_meta=None, CLASSES=('a',))) == dict(classes=('a',))
    assert get_classes(dict(epoch=1)) == {}


def test_tensors_by_name_without_a_wrapper():
    """``module.`` goes from the start of a name only; what is no tensor goes too."""
    one = torch.ones(1)
    state = {'module.a': one, 'b.module.c': one, 'steps': 3, 'd': one}
    assert set(get_state_dict(dict(state_dict=state))) == {'a', 'b.module.c', 'd'}
    assert set(get_state_dict(state)) == {'a', 'b.module.c', 'd'}


def test_an_old_file_survives_a_failure(tmp_path):
    path = tmp_path / 'folder' / 'a.txt'
    with replacing(path) as part:
        part.write_text('old')
        assert part.suffix == '.txt' and not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text('new')
        1 / 0  # noqa: B018
    assert path.read_text() == 'old' and list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match='cannot be written'), replacing(path / 'below'):
        pass


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


def shapes(**sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {key.replace('_', '.'): torch.empty(size) for key, size in sizes.items()}


@pytest.mark.parametrize(
    'own, found, exempt',
    [
        ((100, 64), (200, 64), True),  # the channels come last and agree
        ((100, 64), (100, 32), False),
        ((100, 64), (200, 32), False),
        ((100, 64), (100, 64), False),  # it does not differ
        ((1, 9, 64), (1, 4, 64), True),
        ((1, 9, 64), (9, 64), False),  # of another rank
        ((100,), (200,), True),  # a bias has no channels
    ],
)
def test_a_shape_may_differ_but_in_its_channels(own, found, exempt):
    own, found = shapes(a_assign=own), shapes(a_assign=found)
    assert find_exempt(own, found, r'\.assign$', None) == ({'a.assign'} if exempt else set())
    assert find_exempt(own, found, r'\.other$', 'assign') == set()
    assert find_exempt(own, found, None, None) == set()


def test_norms_may_be_absent_on_either_side():
    own, found = shapes(norm_a=(1,), norm_b=(1,), x=(1,)), shapes(norm_b=(1,), norm_c=(1,), y=(1,))
    assert find_exempt(own, found, None, r'^norm\.') == {'norm.a', 'norm.c'}


def test_mismatches_by_kind_in_one_line():
    own = shapes(a=(1,), b=(2, 3), c=(4,))
    found = shapes(b=(3, 2), c=(4,), d=(5,))
    mismatch = find_mismatch(own, found)
    assert mismatch == {
        'missing': ['a'],
        'unexpected': ['d'],
        'of another shape': ['b (3, 2) for (2, 3)'],
    }
    assert describe_mismatch(mismatch, 3) == (
        'of 3 tensors, 1 missing (a), 1 unexpected (d), 1 of another shape (b (3, 2) for (2, 3))'
    )
    many = dict(missing=['a', 'b', 'c', 'd'], unexpected=['e', 'f', 'g'])
    assert describe_mismatch(many, 9) == (
        'of 9 tensors, 4 missing (a, b, c, ...), 3 unexpected (e, f, g)'
    )
    assert describe_mismatch(find_mismatch(own, own), 3) == ''
    assert find_mismatch(own, own | shapes(b=(2, 4)))['of another shape']


def test_first_names_by_number():
    state = nn.ModuleDict(dict(a=nn.Linear(1, 1), b=nn.BatchNorm1d(1))).state_dict()
    assert describe_prefixes(state) == '5 b.*, 2 a.*'
    assert describe_prefixes({}) == 'no tensors'
