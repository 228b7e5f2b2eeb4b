"""Steps are run once, and again when what they depend on has changed."""

import json
import os
import sys
from pathlib import Path

import pytest

from mmdense.errors import UserError
from mmdense.study import steps
from mmdense.study.steps import Step, environment, run_step

# In place of tools/train.py: leaves what a training leaves, and counts how often it is called.
TRAIN = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
calls = folder / 'calls'
calls.write_text((calls.read_text() if calls.exists() else '') + ' '.join(sys.argv[1:]) + '\\n')
print('a warning')
print("mmdense: loaded 139 of 139 tensors of 'a.pth'")
print('Epoch(train)  [1][ 20/250]  lr: 1e-3  eta: 0:01:02  time: 0.1  loss: 2.5')
if '--fail' in sys.argv:
    print('error: no space left')
    sys.exit(1)
log = folder / 'now' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
rows = [{'loss': 1.0, 'iter': 1, 'step': 1}, {'coco/bbox_mAP': 0.5, 'mIoU': 50.0, 'step': 1}]
log.write_text(''.join(json.dumps(row) + '\\n' for row in rows))
(folder / 'epoch_1.pth').touch()
(folder / 'last_checkpoint').write_text('epoch_1.pth')
"""
METRICS = {'box AP': 'coco/bbox_mAP'}


@pytest.fixture
def command(tmp_path):
    (tmp_path / 'train.py').write_text(TRAIN)
    return sys.executable, str(tmp_path / 'train.py')


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a step, which depends on the code of one folder."""
    (tmp_path / 'code').mkdir()
    (tmp_path / 'code' / 'model.py').write_text('x = 1\n')
    (tmp_path / 'config.py').write_text("default_scope = 'mmdet'\n")
    (tmp_path / 'data.json').write_text('{"seed": 0}')
    monkeypatch.setattr(steps, 'PACKAGE', tmp_path)
    monkeypatch.setattr(steps, 'CODE', ('code/*.py',))

    def make_step(name: str = 'detection', **kwargs: object) -> Step:
        kwargs = dict(dict(metrics=METRICS, data=(tmp_path / 'data.json',)), **kwargs)
        return Step(name, tmp_path / 'config.py', tmp_path / 'work' / name, **kwargs)

    return make_step


def count_calls(step: Step) -> int:
    return len((step.folder / 'calls').read_text().splitlines())


def test_result(make, command, capsys):
    step = make(options=('--cfg-options', 'seed=1'))
    result = run_step(step, command)
    assert result.metrics == {'box AP': 0.5} and result.loaded == '139 of 139'
    assert step.checkpoint == step.folder / 'epoch_1.pth'
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith('detection: python ') and 'seed=1' in printed[0]
    assert printed[1:] == [
        "  detection: loaded 139 of 139 tensors of 'a.pth'",
        '  detection: epoch [1][ 20/250] eta 0:01:02 loss 2.5',
    ]
    assert (step.folder / 'train.log').read_text().startswith('a warning\n')
    assert json.loads((step.folder / 'step.json').read_text())['metrics'] == result.metrics


def test_metrics_in_percent(make, command, tmp_path):
    (tmp_path / 'config.py').write_text("default_scope = 'mmseg'\n")
    assert run_step(make(metrics={'mIoU': 'mIoU'}), command).metrics == {'mIoU': 0.5}


def test_a_finished_step_is_kept(make, command):
    first, second = run_step(make(), command), run_step(make(), command)
    assert first == second and count_calls(make()) == 1


@pytest.mark.parametrize(
    'file, text',
    [
        ('config.py', "default_scope = 'mmdet'\nlr = 2\n"),
        ('code/model.py', 'x = 2\n'),
        ('data.json', '{"seed": 1}'),
    ],
)
@pytest.mark.parametrize('needs', [False, True])
def test_what_makes_it_run_again(file, text, needs, make, command, tmp_path):
    step = make(needs=make('pretraining') if needs else None)
    run_step(step, command)
    Path(tmp_path, file).write_text(text)
    run_step(step, command)
    assert count_calls(step) == 2


def test_other_weights_make_it_run_again(make, command):
    first = make(needs=make('pretraining'))
    other = make(needs=make('pretraining', options=('--cfg-options', 'seed=1')))
    run_step(first, command)
    run_step(other, command)
    assert count_calls(first) == 2


@pytest.mark.parametrize('name', ['epoch_1.pth', 'last_checkpoint'])
def test_a_lost_checkpoint_makes_it_run_again(name, make, command):
    step = make()
    run_step(step, command)
    (step.folder / name).unlink()
    assert step.checkpoint is None
    run_step(step, command)
    assert count_calls(step) == 2


def test_code_that_a_run_depends_on():
    files = {str(path.relative_to(steps.PACKAGE)) for path in steps.list_code()}
    assert {Path(name).parts[0] for name in files if '/' in name} == {*steps.ROOMS, 'tools'}
    assert {'compat.py', 'backbones/paca.py', 'engine/loops.py', 'tools/train.py'} <= files
    assert 'setup.py' not in files


def test_failure_is_told_and_no_result_kept(make, command):
    step = make(options=('--fail',))
    with pytest.raises(UserError, match=r'failed: error: no space left \(all of it: .*train.log'):
        run_step(step, command)
    assert not (step.folder / 'step.json').exists()


def test_environment_of_a_step(make, command, tmp_path, monkeypatch):
    """Its config and its training see it, and it is as before afterwards."""
    (tmp_path / 'config.py').write_text("default_scope = 'mmdet'\nlr = {{'$RATE:1'}}\n")
    (tmp_path / 'train.py').write_text(
        TRAIN + "(folder / 'rate').write_text(os.environ['RATE'] + os.environ['OTHER'])\n"
    )
    monkeypatch.setenv('OTHER', 'x')
    monkeypatch.setenv('RATE', '7')
    steps_by_rate = {rate: make(rate, variables={'RATE': rate}) for rate in ('2', '3')}
    for rate, step in steps_by_rate.items():
        assert step.read_config().lr == int(rate)
        run_step(step, command, verbose=False)
        assert (step.folder / 'rate').read_text() == f'{rate}x'
    assert len({step.inputs for step in steps_by_rate.values()}) == 2
    assert os.environ['RATE'] == '7'
    monkeypatch.delenv('RATE')
    with environment({'RATE': '2'}):
        assert os.environ['RATE'] == '2'
    assert 'RATE' not in os.environ


def test_a_quiet_step_shows_no_progress(make, command, capsys):
    result = run_step(make(), command, verbose=False)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert result.memory > 0 and result.core_seconds > 0 and result.loaded == '139 of 139'


def test_code_that_does_not_matter(make, command, tmp_path):
    step = make(follows_code=False)
    run_step(step, command)
    Path(tmp_path, 'code', 'model.py').write_text('x = 2\n')
    run_step(step, command)
    assert count_calls(step) == 1


def test_a_result_of_an_older_form_is_measured_again(make, command):
    step = make()
    run_step(step, command)
    file = step.folder / 'step.json'
    content = json.loads(file.read_text())
    del content['memory']
    file.write_text(json.dumps(content))
    run_step(step, command)
    assert count_calls(step) == 2
