"""tools/train.py and tools/test.py: train, test, resume, several processes, and bad input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, DIGIT_CONFIGS, ROOT, check_fails
from processes import find_port, run, run_in_two

from mmdense.serialization.checkpoint import load_file

METRICS = {'mmpretrain': 'accuracy/top1', 'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
FROM_SCRATCH = {'mmdet', 'mmseg'}


def options(scope: str, *more: str) -> list[str]:
    """Two short epochs without pretrained weights, on eight images."""
    result = ['--cfg-options', 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=4']
    result.append('param_scheduler=None')
    if scope in FROM_SCRATCH:
        result.append('model.backbone.init_cfg=None')
    else:
        result += ['train_dataloader.dataset.indices=20', 'val_dataloader.dataset.indices=10']
    return [*result, *more]


def launch(
    place: Path, *command: object, expect: int = 0, **env: str
) -> subprocess.CompletedProcess:
    """A command in processes of its own."""
    env['PORT'] = find_port()
    env['PATH'] = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    result = subprocess.run(
        list(map(str, command)),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, **env},
    )
    assert result.returncode == expect, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def launch_two(place: Path, scope: str, name: str, positional: list, more: list) -> None:
    """A tool in two processes: by the script for it, or as that does once it has checked the run.

    One toolbox is enough for the script, which starts Python four times.
    """
    if scope == 'mmpretrain':
        launch(place, 'bash', ROOT / 'tools' / f'dist_{name}.sh', *positional, 2, *more)
    else:
        run_in_two(place, ROOT / 'tools' / f'{name}.py', *positional, *more)


@pytest.fixture
def train(run_tool) -> Callable[..., tuple[int, str, str]]:
    return partial(run_tool, 'train.py')


def works(result: tuple[int, str, str]) -> str:
    """What a tool printed that ended well."""
    code, out, err = result
    assert code == 0, out[-3000:] + err[-3000:]
    return out + err


def scalars(work_dir: Path) -> list[dict]:
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in files[-1].read_text().splitlines()]


@pytest.fixture(scope='module', params=METRICS)
def trained(request, digits, tmp_path_factory, run_tool):
    """A finished short training in each toolbox, in a folder of its own."""
    scope = request.param
    place = tmp_path_factory.mktemp(scope)
    shutil.copytree(digits / 'data', place / 'data')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        works(run_tool('train.py', DIGIT_CONFIGS[scope], '--work-dir', 'run', *options(scope)))
    return scope, place


@pytest.fixture
def there(trained, monkeypatch):
    """The toolbox, and the folder of its training, in which the test runs."""
    scope, place = trained
    monkeypatch.chdir(place)
    return scope, place


def test_train_and_test(there, run_tool):
    scope, place = there
    assert METRICS[scope] in scalars(place / 'run')[-1]
    out = 'predictions' if scope == 'mmseg' else 'predictions.pkl'
    command = [DIGIT_CONFIGS[scope], 'run/epoch_2.pth', '--work-dir', 'test', '--out', out]
    printed = works(run_tool('test.py', *command, '--show-dir', 'shown', *options(scope)))
    assert METRICS[scope].split('/')[-1] in printed
    assert (place / out).exists()
    pictures = [p for p in place.rglob('*') if p.suffix in ('.png', '.jpg') and 'shown' in p.parts]
    assert pictures


def test_test_time_augmentation(there, run_tool):
    scope, place = there
    command = [DIGIT_CONFIGS[scope], 'run/epoch_2.pth', '--work-dir', 'tta', '--tta']
    works(run_tool('test.py', *command, *options(scope)))
    assert list((place / 'tta').glob('*/*.json'))


def test_resume_goes_on_where_it_stopped(there, run_tool):
    scope, place = there
    more = options(scope, 'train_cfg.max_epochs=3')
    printed = works(
        run_tool('train.py', DIGIT_CONFIGS[scope], '--work-dir', 'run', '--resume', *more)
    )
    assert (place / 'run' / 'epoch_3.pth').is_file()
    assert 'resumed epoch: 2' in printed


@pytest.mark.parametrize('scope', METRICS)
def test_amp_on_the_cpu(place, train, scope):
    if torch.cuda.is_available():
        pytest.skip('float16 on the GPU is used here')
    more = options(scope, 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1')
    more += ['train_dataloader.dataset.indices=4', 'val_dataloader.dataset.indices=2']
    works(train(DIGIT_CONFIGS[scope], '--amp', '--work-dir', 'amp', *more))
    losses = [row['loss'] for row in scalars(place / 'amp') if 'loss' in row]
    assert losses and all(loss == loss for loss in losses)


def test_auto_scale_lr(place, train):
    """Half the base batch size, half the learning rate."""
    more = options('mmpretrain', 'train_dataloader.batch_size=10')
    more += ['auto_scale_lr.base_batch_size=20', 'default_hooks.logger.interval=1']
    works(train(DIGIT_CONFIGS['mmpretrain'], '--auto-scale-lr', '--work-dir', 'scaled', *more))
    assert scalars(place / 'scaled')[0]['lr'] == pytest.approx(5e-4)


# A run without anything random. SGD, since Adam blows up gradients that are zero but for rounding;
# GroupNorm, since plain batch norm sees half a batch; no class weights, since a weighted mean over
# half batches is not the mean over the whole.
EXACT = """
_base_ = '{base}'
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=None)
default_hooks = dict(logger=dict(interval=1))
train_dataloader = dict(dataset=dict(pipeline={pipeline}))
"""
PIPELINES = {
    'mmpretrain': "[dict(type='LoadImageFromFile'), dict(type='PackInputs')]",
    'mmseg': "[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), "
    "dict(type='PackSegInputs')]",
}
HEADS = {
    'mmpretrain': '',
    'mmseg': """
head = dict(
    norm_cfg=dict(_delete_=True, type='GN', num_groups=8),
    dropout_ratio=0.0,
    loss_decode=dict(_delete_=True, type='CrossEntropyLoss'),
)
side = dict(type='FCNHead', in_channels=128, in_index=2, channels=16, num_convs=1, num_classes=11)
side.update(concat_input=False, align_corners=False, dropout_ratio=0.0)
side.update(_delete_=True, norm_cfg=dict(type='GN', num_groups=8))
model = dict(decode_head=head, auxiliary_head=side)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize('scope', PIPELINES)
def test_two_processes_equal_one_with_the_doubled_batch(place, train, scope):
    """Same script, same data: losses and weights of 2 x 2 images and of 1 x 4 agree to rounding."""
    if torch.cuda.is_available():
        pytest.skip('about processes on the CPU')
    exact = EXACT.format(base=DIGIT_CONFIGS[scope], pipeline=PIPELINES[scope]) + HEADS[scope]
    (place / 'exact.py').write_text(exact)
    weights, losses = [], []
    for processes, batch_size in ((1, 4), (2, 2)):
        more = options(scope, 'train_cfg.max_epochs=1', f'train_dataloader.batch_size={batch_size}')
        more = ['--work-dir', f'by_{processes}', *more]
        if processes == 1:
            works(train('exact.py', *more))
        else:
            launch_two(place, scope, 'train', ['exact.py'], more)
        rows = scalars(place / f'by_{processes}')
        losses.append([row['loss'] for row in rows if 'loss' in row])
        weights.append(load_file(place / f'by_{processes}' / 'epoch_1.pth')['state_dict'])
    assert len(losses[0]) == len(losses[1]) >= 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-4, atol=1e-6)


def test_threads_between_processes_end_with_the_run(place, train, monkeypatch):
    """One that runs while Python exits may abort it."""
    if torch.cuda.is_available():
        pytest.skip('about processes on the CPU')
    env = dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=find_port())
    for name, value in env.items():
        monkeypatch.setenv(name, str(value))
    more = options('mmpretrain', 'train_cfg.max_epochs=1')

    def go() -> None:  # in a fork, which has none of the threads that other tests leave
        works(train(DIGIT_CONFIGS['mmpretrain'], '--launcher', 'pytorch', *more))
        names = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
        assert names and not any('gloo' in name for name in names)

    assert run(place / 'log', go) == 0, (place / 'log').read_text()[-3000:]


@pytest.mark.slow
def test_evaluation_by_two_processes_equals_one(there, run_tool):
    if torch.cuda.is_available():
        pytest.skip('about processes on the CPU')
    scope, place = there
    metrics, pages = [], []
    for processes in (1, 2):
        target = place / f'tested_by_{processes}'
        command = [DIGIT_CONFIGS[scope], 'run/epoch_2.pth']
        more = ['--work-dir', target, '--report', *options(scope)]
        if processes == 1:
            works(run_tool('test.py', *command, *more))
        else:
            launch_two(place, scope, 'test', command, more)
        result = json.loads(next(target.glob('*/*.json')).read_text())
        metrics.append({k: v for k, v in result.items() if k not in ('time', 'data_time')})
        pages.append((target / 'report.html').read_text())
    assert metrics[0] == metrics[1] and METRICS[scope] in metrics[0]
    assert pages[0] == pages[1]


class TestBadInput:
    """One clear line on stderr, exit code 1, nothing written."""

    @pytest.mark.parametrize(
        'tool, scope, args, messages',
        [
            ('train.py', None, ['nothing.py'], ["config 'nothing.py' does not exist"]),
            (
                'train.py',
                None,
                [CONFIGS / 'paca' / 'mask_rcnn_paca_t_1x.py'],
                ["folder 'data/coco/' does not exist", 'README.md'],
            ),
            (
                'train.py',
                'mmpretrain',
                options('mmpretrain', 'model.backbone.arch=huge'),
                ["unknown PaCaViT arch 'huge'; known are tiny, small, base"],
            ),
            ('train.py', 'mmdet', [], ["'work_dirs/paca_digits/epoch_8.pth' does not exist"]),
            (
                'train.py',
                'mmpretrain',
                ['--cfg-options', 'load_from=other.pth'],
                ["'other.pth' is of another model", 'missing'],
            ),
            (
                'test.py',
                'mmpretrain',
                ['other.pth'],
                ["'other.pth' is of another model", 'missing'],
            ),
            (
                'train.py',
                'mmpretrain',
                ['--resume', 'weights.pth'],
                ['no training state', 'load_from=weights.pth'],
            ),
            (
                'train.py',
                'mmpretrain',
                options('mmpretrain', 'train_dataloader.batch_size.x=1'),
                ['--cfg-options do not fit'],
            ),
            ('train.py', 'mmpretrain', ['--work-dir', 'file'], ["'file' is a file"]),
            (
                'train.py',
                'mmpretrain',
                ['--work-dir', '/proc/here'],
                ["'/proc/here' cannot be written"],
            ),
        ],
        ids=[
            'config',
            'data_set',
            'arch',
            'pretrained_file',
            'load_from',
            'checkpoint',
            'resume',
            'cfg_options',
            'work_dir_is_a_file',
            'work_dir_cannot_be_written',
        ],
    )
    def test_before_the_run(self, tool, scope, args, messages, place, run_tool):
        torch.save(dict(state_dict={'backbone.conv1.weight': torch.ones(3)}), 'other.pth')
        torch.save(dict(state_dict={}), 'weights.pth')
        (place / 'file').write_text('')
        before = sorted(place.rglob('*'))
        args = [DIGIT_CONFIGS[scope], *args] if scope else args
        check_fails(run_tool(tool, *args), *messages)
        assert sorted(place.rglob('*')) == before

    def test_cfg_options_that_are_none(self, place, train):
        code, _, err = train(DIGIT_CONFIGS['mmpretrain'], '--cfg-options', 'lr:1')
        assert code == 2 and 'take key=value' in err

    def test_dist_train_stops_before_it_launches(self, place):
        script = ROOT / 'tools' / 'dist_train.sh'
        result = launch(place, 'bash', script, 'nothing.py', '2', expect=1)
        check_fails((1, '', result.stderr), "config 'nothing.py' does not exist")
        assert 'usage' in launch(place, 'bash', script, 'nothing.py', expect=2).stderr
        assert 'positive integer' in launch(place, 'bash', script, 'x.py', 'two', expect=2).stderr
        said = launch(place, 'bash', script, 'x.py', '2', expect=2, NNODES='1:4').stderr
        assert 'needs RDZV_ENDPOINT' in said

    @pytest.mark.parametrize('workers', [0, 1])
    def test_corrupt_image(self, place, train, workers):
        """What shows only while training, of data that were not checked: one line, but a log."""
        path = place / 'data' / 'digit_scenes' / 'images' / 'train' / '000003.png'
        path.write_bytes(path.read_bytes()[:500])
        more = options('mmdet', f'train_dataloader.num_workers={workers}')
        check_fails(train(DIGIT_CONFIGS['mmdet'], *more), '1 pictures are cut short: 000003.png')
        result = train(DIGIT_CONFIGS['mmdet'], '--no-data-check', *more)
        check_fails(result, "images/train/000003.png' cannot be read")

    def test_corrupt_index_map(self, place, train):
        path = place / 'data' / 'digit_scenes' / 'semantic' / 'train' / '000003.png'
        path.write_bytes(b'')
        result = train(DIGIT_CONFIGS['mmseg'], '--no-data-check', *options('mmseg'))
        check_fails(result, "semantic/train/000003.png' cannot be read")

    def test_every_annotation_is_dropped(self, place, train):
        more = options('mmdet', 'train_dataloader.dataset.pipeline.1.poly2mask=False')
        result = train(DIGIT_CONFIGS['mmdet'], '--work-dir', 'dropped', *more)
        check_fails(result, 'drops every instance', 'poly2mask=False')
        assert not list((place / 'dropped').glob('*.pth'))

    def test_no_class_matches(self, place, train):
        more = options('mmdet', "train_dataloader.dataset.metainfo.classes=('cat','dog')")
        check_fails(train(DIGIT_CONFIGS['mmdet'], *more), '2 of 2 are not there: cat, dog')
        args = ('--no-data-check', '--work-dir', 'cats', *more)
        check_fails(train(DIGIT_CONFIGS['mmdet'], *args), 'annotation')
