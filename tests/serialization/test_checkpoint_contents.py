"""What is in the files: classes and weights, as they are written and read."""

import hashlib
import json

import numpy as np
import pytest
import safetensors
import torch

from mmdense.serialization.checkpoint import (
    get_classes,
    get_state_dict,
    load_file,
    save_weights,
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
    plain = save_weights(make_state(), META, tmp_path / f'name{suffix}')  # only when asked for
    assert plain == tmp_path / f'name{suffix}'


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
