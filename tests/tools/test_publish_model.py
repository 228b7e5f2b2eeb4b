"""tools/publish_model.py: weights and classes alone, named by their hash, with the same metrics."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGIT_CONFIGS, build_in, check_fails
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from safetensors import safe_open

from mmdense.serialization.checkpoint import load_file, save_weights

CONFIG = DIGIT_CONFIGS['mmpretrain']
CLASSES = tuple('abc')
SUFFIXES = ('.pth', '.safetensors')


def training_file(state: dict, **more: object) -> dict:
    """What mmengine saves around the weights."""
    momentum = {key: torch.ones_like(value) for key, value in state.items()}
    return dict(
        meta=dict(epoch=9, config='model = ...', dataset_meta=dict(classes=CLASSES)),
        state_dict=state,
        optimizer=dict(state=momentum, param_groups=[dict(lr=1e-4)]),
        param_schedulers=[dict(last_step=3)],
        message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])}),
        **more,
    )


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Also tied and transposed weights, which safetensors refuses as they are."""
    weight = torch.randn(300, 40)
    return {'a.weight': weight, 'b.weight': weight, 'c.weight': weight.T, 'n': torch.tensor(3)}


@pytest.fixture
def src(state, tmp_path) -> Path:
    torch.save(training_file(state), tmp_path / 'epoch_9.pth')
    return tmp_path / 'epoch_9.pth'


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_what_is_written(suffix, src, state, tmp_path, run_tool):
    before = src.read_bytes()
    code, out, err = run_tool('publish_model.py', src, tmp_path / 'new' / f'my.model{suffix}')
    assert code == 0, err
    (path,) = (tmp_path / 'new').iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'my.model-{digest[:8]}{suffix}'
    sizes = [f'{size / 1e6:.1f} MB' for size in (len(before), path.stat().st_size)]
    assert out == f"4 tensors, {sizes[0]} -> {sizes[1]}, written to '{path}'\n"
    assert path.stat().st_size < 0.8 * len(before)

    written = load_file(path)
    assert written.keys() == {'state_dict', 'meta'}
    assert written['meta'].keys() == {'dataset_meta'}
    assert list(written['meta']['dataset_meta']['classes']) == list(CLASSES)
    assert written['state_dict'].keys() == state.keys()
    assert all(torch.equal(written['state_dict'][key], value) for key, value in state.items())
    assert src.read_bytes() == before


def test_classes_are_json_in_the_metadata(src, tmp_path, run_tool):
    run_tool('publish_model.py', src, tmp_path / 'x.safetensors')
    with safe_open(next(tmp_path.glob('x-*')), 'pt') as file:
        assert json.loads(file.metadata()['dataset_meta']) == dict(classes=list(CLASSES))


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_same_weights_get_the_same_name(suffix, src, tmp_path, run_tool):
    """Also when what was published is published again: it stays as it is."""
    for folder in ('first', 'second'):
        assert run_tool('publish_model.py', src, tmp_path / folder / f'x{suffix}')[0] == 0
    (first,), (second,) = ((tmp_path / f).iterdir() for f in ('first', 'second'))
    assert first.name == second.name
    before = first.read_bytes()
    assert run_tool('publish_model.py', first, tmp_path / 'first' / f'x{suffix}')[0] == 0
    assert first.read_bytes() == before
    weights = load_file(src)['state_dict']
    weights['n'] += 1
    torch.save(training_file(weights), src)
    assert run_tool('publish_model.py', src, tmp_path / 'second' / f'x{suffix}')[0] == 0
    assert len(list((tmp_path / 'second').iterdir())) == 2


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_from_one_format_to_the_other(suffix, src, state, tmp_path, run_tool):
    run_tool('publish_model.py', src, tmp_path / f'one{suffix}')
    (one,) = tmp_path.glob('one-*')
    other_suffix = next(s for s in SUFFIXES if s != suffix)
    code, _, err = run_tool('publish_model.py', one, tmp_path / f'two{other_suffix}')
    assert code == 0, err
    written = load_file(next(tmp_path.glob('two-*')))
    assert list(written['meta']['dataset_meta']['classes']) == list(CLASSES)
    assert all(torch.equal(written['state_dict'][key], value) for key, value in state.items())


def test_averaged_weights(tmp_path, run_tool):
    """mmengine's files hold the average as 'state_dict' and the raw weights beside it."""
    raw = {'module.a': torch.zeros(2), 'steps': torch.tensor(3)}
    torch.save(training_file({'a': torch.ones(2)}, ema_state_dict=raw), tmp_path / 'in.pth')
    run_tool('publish_model.py', tmp_path / 'in.pth', tmp_path / 'out.pth')
    written = load_file(next(tmp_path.glob('out-*')))
    assert written['state_dict'] == {'a': pytest.approx(1)}


def test_old_files_and_files_without_classes(tmp_path):
    """mmcv 1.x wrote capitals; a file of bare tensors stays one."""
    weights = {'a': torch.ones(2)}
    for suffix in SUFFIXES:
        old = save_weights(
            weights, dict(CLASSES=['x'], PALETTE=[[1, 2, 3]]), tmp_path / f'o{suffix}'
        )
        expected = dict(classes=['x'], palette=[[1, 2, 3]])
        assert load_file(old)['meta'] == dict(dataset_meta=expected)
        meta = dict(dataset_meta=dict(palette=np.array([[1, 2, 3]])))
        found = load_file(save_weights(weights, meta, tmp_path / f'array{suffix}'))['meta']
        np.testing.assert_array_equal(found['dataset_meta']['palette'], [[1, 2, 3]])
        for meta in (None, {}, dict(epoch=3)):
            path = save_weights(weights, meta, tmp_path / f'bare{suffix}')
            assert load_file(path).keys() == ({'state_dict'} if suffix == '.pth' else {'a'})


@pytest.fixture
def trained(place) -> Path:
    """A checkpoint of the digits' classifier, beside data to test it on."""
    torch.manual_seed(0)
    model = build_in('mmpretrain', Config.fromfile(CONFIG).model)
    model.init_weights()
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(training_file(model.state_dict()), place / 'epoch_1.pth')
    return place / 'epoch_1.pth'


def test_metrics_are_those_of_the_original(trained, tmp_path, run_tool):
    files = [trained]
    for suffix in SUFFIXES:
        assert run_tool('publish_model.py', trained, tmp_path / f'x{suffix}')[0] == 0
        files.append(next(tmp_path.glob(f'x-*{suffix}')))
    options = ['--cfg-options', 'test_evaluator.topk=(1,2,5)']
    metrics = []
    for number, file in enumerate(files):
        folder = tmp_path / f'tested_{number}'
        code, _, err = run_tool('test.py', CONFIG, file, '--work-dir', folder, *options)
        assert code == 0, err
        found = json.loads(next(folder.glob('*/*.json')).read_text())
        metrics.append({key: value for key, value in found.items() if 'accuracy' in key})
    assert len(metrics[0]) == 3 and metrics[0]['accuracy/top5'] > 0
    assert metrics[0] == metrics[1] == metrics[2]


class TestBadInput:
    """One line, exit code 1, and nothing written."""

    @pytest.fixture
    def fails(self, tmp_path, run_tool):
        def check(*args: object, message: str) -> None:
            before = sorted(tmp_path.rglob('*'))
            result = run_tool('publish_model.py', *args)
            check_fails(result, message)
            assert not result[1] and sorted(tmp_path.rglob('*')) == before

        return check

    @pytest.mark.parametrize(
        'name, content, message',
        [
            ('none.pth', None, "none.pth' does not exist"),
            ('.', None, 'does not exist'),
            ('text.pth', 'no checkpoint', 'cannot be read'),
            ('text.safetensors', 'no checkpoint', 'cannot be read'),
            ('list.pth', [1, 2], 'no dict of tensors'),
            (
                'empty.pth',
                dict(state_dict={}, epoch=1),
                'no weights, but state_dict, epoch',
            ),
        ],
    )
    def test_in(self, name, content, message, tmp_path, fails):
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        elif content:
            torch.save(content, tmp_path / name)
        fails(tmp_path / name, tmp_path / 'x.pth', message=message)

    @pytest.mark.parametrize(
        'name, message',
        [
            ('x.onnx', 'ends in .pth or .safetensors'),
            ('.', 'ends in'),
            ('file/x.pth', 'cannot be written'),
        ],
    )
    def test_out(self, name, message, src, tmp_path, fails):
        (tmp_path / 'file').write_text('mine')
        fails(src, tmp_path / name, message=message)

    def test_out_of_space(self, src, tmp_path, fails, monkeypatch):
        def fill(path: Path, data: bytes) -> None:
            path.open('wb').write(data[:10])
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(Path, 'write_bytes', fill)
        fails(src, tmp_path / 'x.pth', message='No space left')
