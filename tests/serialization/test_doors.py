"""Nothing that an untrusted file holds is run, through no door; lies end in one line."""

import functools
import importlib.util
import io
import json
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from helpers import DIGIT_CONFIGS, check_fails
from mmengine import fileio
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from payloads import FILES, RUNS, Payload, answers
from torch import nn

from mmdense.engine.building import load_model
from mmdense.errors import UserError
from mmdense.serialization import doors
from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.loading import check_numbers


@functools.cache
def make_runner() -> Runner:
    data = dict(
        batch_size=1,
        dataset=[dict(inputs=torch.zeros(1))] * 2,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    return Runner(
        model=nn.Linear(1, 1),
        work_dir=tempfile.mkdtemp(),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        log_level='ERROR',
        experiment_name='doors',
    )


# The ways in that need no large model.
DOORS = {
    'load_file': load_file,
    'lazily': lambda path: load_file(path, lazily=True),
    'bytes': lambda path: load_file(io.BytesIO(Path(path).read_bytes())),
    'load_checkpoint': lambda path: checkpoint.load_checkpoint(nn.Linear(1, 1), path),
    'CheckpointLoader': lambda path: CheckpointLoader.load_checkpoint(path, 'cpu'),
    '_safe_torch_load': lambda path: checkpoint._safe_torch_load(path),
    'prefix': lambda path: checkpoint._load_checkpoint_with_prefix('a', path),
    'Pretrained': lambda path: PretrainedInit(path)(nn.Linear(1, 1)),
    'Runner.load_checkpoint': lambda path: make_runner().load_checkpoint(path),
    'Runner.resume': lambda path: make_runner().resume(path),
}


@pytest.mark.parametrize('door', DOORS)
def test_no_file_runs_code_or_takes_memory(door, tmp_path):
    """Each kind of file through each door, which has a process of its own."""
    make_runner()
    paths = [tmp_path / f'{kind}.pth' for kind in FILES]
    for write, path in zip(FILES.values(), paths):
        write(path, path.with_suffix('.marker'))
    for path in paths:  # writing may touch it
        path.with_suffix('.marker').unlink(missing_ok=True)
    for path, said in zip(paths, answers(DOORS[door], paths), strict=True):
        assert not path.with_suffix('.marker').exists(), path
        assert said.startswith('UserError: ') and '\n' not in said, (path, said)
        assert 'memory' not in said.replace('in memory cannot', '') and len(said) < 600, (
            path,
            said,
        )


def det_inferencer(path: str) -> None:
    from mmdet.apis import DetInferencer

    DetInferencer(Config.fromfile(DIGIT_CONFIGS['mmdet']), path, device='cpu')


def det_inferencer_alone(path: str) -> None:
    from mmdet.apis import DetInferencer

    DetInferencer(weights=path, device='cpu')


def seg_inferencer(path: str) -> None:
    from mmseg.apis import MMSegInferencer

    MMSegInferencer(Config.fromfile(DIGIT_CONFIGS['mmseg']), path, device='cpu')


def init_detector(path: str) -> None:
    from mmdet.apis import init_detector

    init_detector(str(DIGIT_CONFIGS['mmdet']), path, device='cpu')


def init_model(path: str) -> None:
    from mmseg.apis import init_model

    init_model(str(DIGIT_CONFIGS['mmseg']), path, device='cpu')


def get_model(path: str) -> None:
    from mmpretrain import get_model

    get_model(str(DIGIT_CONFIGS['mmpretrain']), pretrained=path, device='cpu')


def classification_inferencer(path: str) -> None:
    from mmpretrain import ImageClassificationInferencer

    config = str(DIGIT_CONFIGS['mmpretrain'])
    ImageClassificationInferencer(config, pretrained=path, device='cpu')


def own_model(path: str) -> None:
    load_model(Config.fromfile(DIGIT_CONFIGS['mmpretrain']), path)


LIBRARIES = [
    det_inferencer,
    det_inferencer_alone,
    seg_inferencer,
    init_detector,
    init_model,
    get_model,
    classification_inferencer,
    own_model,
]


@pytest.mark.parametrize('door', LIBRARIES, ids=lambda door: door.__name__)
def test_no_door_of_the_toolboxes_runs_code(door, tmp_path):
    marker = tmp_path / 'marker'
    for kind in ('argument', 'legacy', 'system', 'weight'):
        path = tmp_path / f'{kind}.pth'
        RUNS[kind](path, marker)
        marker.unlink(missing_ok=True)
        with pytest.raises(UserError, match=r'cannot be read|is not run') as error:
            door(str(path))
        assert not marker.exists() and '\n' not in str(error.value)


def test_a_config_in_a_checkpoint_is_not_run_by_an_inferencer(tmp_path):
    """mmengine takes the model's config from the checkpoint when none is named."""
    marker = tmp_path / 'marker'
    text = f'open({str(marker)!r}, "w")\nmodel = dict()\n'
    for content in (
        dict(state_dict={}, meta=dict(cfg=text, config=text)),
        dict(state_dict={}, message_hub=dict(runtime_info=dict(cfg=text))),
    ):
        torch.save(content, tmp_path / 'a.pth')
        with pytest.raises(UserError, match='the config in a checkpoint is not run'):
            det_inferencer_alone(str(tmp_path / 'a.pth'))
        assert text not in str(load_file(tmp_path / 'a.pth'))
    assert not marker.exists()


TOOLS = {
    'predict.py': lambda path: (DIGIT_CONFIGS['mmpretrain'], path, __file__),
    'test.py': lambda path: (DIGIT_CONFIGS['mmpretrain'], path),
    'train.py': lambda path: (
        *(DIGIT_CONFIGS['mmpretrain'], '--cfg-options', f'load_from={path}'),
        'model.backbone.init_cfg=None',
    ),
    'export.py': lambda path: (DIGIT_CONFIGS['mmpretrain'], path, 'a.onnx'),
    'visualize.py': lambda path: (DIGIT_CONFIGS['mmpretrain'], path, 'picture.png'),
    'convert_checkpoint.py': lambda path: (path, 'out.pth'),
    'publish_model.py': lambda path: (path, 'out.pth'),
}


@pytest.mark.parametrize('tool', [*TOOLS, 'resume'])
def test_no_tool_runs_code(tool, place, run_tool):
    marker = place / 'marker'
    next((place / 'data').rglob('*.png')).rename('picture.png')
    for kind in ('argument', 'legacy', 'system', 'weight', 'tensor_size', 'dtype_state'):
        path = place / f'{kind}.pth'
        FILES[kind](path, marker)
        marker.unlink(missing_ok=True)
        if tool == 'resume':
            result = run_tool('train.py', DIGIT_CONFIGS['mmpretrain'], '--resume', path)
        else:
            result = run_tool(tool, *TOOLS[tool](path))
        check_fails(result, f"checkpoint '{path}' cannot be read")
        assert not marker.exists()


@pytest.mark.parametrize('suffix', ['pkl', 'pickle'])
def test_annotations_are_no_pickles_unless_the_user_says_so(suffix, tmp_path, monkeypatch):
    path, marker = tmp_path / f'a.{suffix}', tmp_path / 'marker'
    fileio.dump(dict(a=1), path)
    with pytest.raises(UserError, match=r'is a pickle.*MMDENSE_ALLOW_PICKLE=1'):
        fileio.load(path)
    monkeypatch.setenv('MMDENSE_ALLOW_PICKLE', '1')
    assert fileio.load(path) == dict(a=1)
    monkeypatch.setenv('MMDENSE_ALLOW_PICKLE', '0')
    fileio.dump(Payload(marker), path)
    with pytest.raises(UserError, match='is a pickle'):
        fileio.load(path)
    assert not marker.exists()


def test_yaml_holds_plain_data(tmp_path):
    path, marker = tmp_path / 'a.yaml', tmp_path / 'marker'
    path.write_text(f"a: !!python/object/apply:builtins.open ['{marker}', 'w']\n")
    with pytest.raises(UserError, match='is no YAML of plain data') as error:
        fileio.load(path)
    assert not marker.exists() and '\n' not in str(error.value)
    fileio.dump(dict(a=(1, 2), b=[3, 'c']), path)
    assert fileio.load(path) == dict(a=(1, 2), b=[3, 'c'])


@pytest.mark.parametrize('deeper', ['[', '- ', '? ', '{a: '])
def test_yaml_that_nests_without_end_is_refused(deeper, tmp_path):
    """It would take more stack than there is."""
    path = tmp_path / 'a.yaml'
    path.write_text(deeper * 200_000)
    with pytest.raises(UserError, match='is no YAML of plain data'):
        fileio.load(path)
    path.write_text('[' * 100 + ']' * 100)
    assert str(fileio.load(path)) == path.read_text()


def test_yaml_without_libyaml(monkeypatch, tmp_path):
    """PyYAML's own reader takes its place."""
    (tmp_path / 'a.yaml').write_text('a: !!python/tuple [1, 2]\n')
    (tmp_path / 'b.yaml').write_text('[' * 100_000)
    monkeypatch.delattr(yaml, 'CSafeLoader', raising=False)
    spec = importlib.util.spec_from_file_location('mmdense.serialization.slow', doors.__file__)
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    assert issubclass(slow.SafeLoader, yaml.SafeLoader)
    with open(tmp_path / 'a.yaml') as file:
        assert slow.SafeYamlHandler().load_from_fileobj(file) == dict(a=(1, 2))
    with open(tmp_path / 'b.yaml') as file, pytest.raises(UserError, match='no YAML of plain data'):
        slow.SafeYamlHandler().load_from_fileobj(file)


@pytest.mark.parametrize('key', ['ann_file', 'proposal_file'])
def test_a_data_set_reads_no_pickle(key, tmp_path):
    from mmdet.datasets import CocoDataset
    from mmengine.dataset import BaseDataset

    marker = tmp_path / 'marker'
    fileio.dump(Payload(marker), tmp_path / 'a.pkl')
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[])))
    with pytest.raises(UserError, match='is a pickle'):
        if key == 'ann_file':
            BaseDataset(ann_file=str(tmp_path / 'a.pkl'))
        else:
            with DefaultScope.overwrite_default_scope('mmdet'):
                CocoDataset(
                    ann_file=str(tmp_path / 'a.json'), proposal_file=str(tmp_path / 'a.pkl')
                )
    assert not marker.exists()


@pytest.mark.parametrize(
    'name', ['load_from_local', 'load_from_http', '_safe_torch_load', 'load_url']
)
def test_no_reader_of_mmengine_is_left(name):
    assert getattr(checkpoint, name) is doors.load_from_mmdense
    doors.install()
    assert not hasattr(Runner.resume.__wrapped__, '__wrapped__')


def test_weights_that_are_not_finite_are_named(tmp_path):
    state = dict(a=torch.ones(3), b=torch.tensor([1.0, float('nan')]), c=torch.tensor(1))
    with pytest.raises(UserError, match=r"'x.pth': 1 of 3 tensors hold NaN.* \(b\); take an"):
        check_numbers(state, 'x.pth')
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2):
        for number in ('nan', 'inf', '-inf'):
            wrong = dict(a=torch.tensor([0.0, float(number)]).to(dtype))
            with pytest.raises(UserError, match='1 of 1 tensors'):
                check_numbers(wrong, 'x.pth')
        check_numbers(dict(a=torch.ones(2).to(dtype), b=torch.zeros(0, dtype=dtype)), 'x.pth')
    with pytest.raises(UserError, match='complex'):
        check_numbers(dict(a=torch.ones(1, dtype=torch.complex64)), 'x.pth')
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    for door in ('CheckpointLoader', 'load_checkpoint', 'Pretrained', 'Runner.resume'):
        with pytest.raises(UserError, match='tensors hold NaN'):
            DOORS[door](str(tmp_path / 'a.pth'))


def test_the_device_is_the_callers(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / 'a.pth')
    seen = []

    def place(storage: object, location: str) -> object:
        seen.append(location)
        return storage

    CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), place)
    assert seen == ['cpu']
