"""The tools as a user calls them: train, test, resume, several processes, and bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmdense
from mmdense.data.digit_scenes import Sizes, generate
from mmdense.serialization.checkpoint import load_file

ROOT = Path(mmdense.__file__).parent
SIZES = {'train': Sizes(scenes=8, crops=20), 'val': Sizes(scenes=4, crops=10)}
TASKS = {
    'classification': ('paca_digits', 'accuracy/top1'),
    'detection': ('mask_rcnn_paca_digits', 'coco/bbox_mAP'),
    'segmentation': ('upernet_paca_digits', 'mIoU'),
}
FROM_SCRATCH = {'detection', 'segmentation'}


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A folder with small digit scenes where the configs look for them; tools run inside it."""
    folder = tmp_path_factory.mktemp('place')
    generate(folder / 'data' / 'digit_scenes', SIZES, seed=0)
    return folder


def config(task: str) -> str:
    return str(ROOT / 'configs' / 'digits' / f'{TASKS[task][0]}.py')


def options(task: str, *more: str) -> list[str]:
    """Two short epochs without pretrained weights."""
    result = ['--cfg-options', 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=4']
    result.append('param_scheduler=None')
    if task in FROM_SCRATCH:
        result.append('model.backbone.init_cfg=None')
    return [*result, *more]


def run(place: Path, *command: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess:
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    result = subprocess.run(
        command,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', **env},
    )
    assert result.returncode == expect, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def train(place: Path, *args: str, **kwargs) -> subprocess.CompletedProcess:
    return run(place, sys.executable, str(ROOT / 'tools' / 'train.py'), *args, **kwargs)


def test(place: Path, *args: str, **kwargs) -> subprocess.CompletedProcess:
    return run(place, sys.executable, str(ROOT / 'tools' / 'test.py'), *args, **kwargs)


test.__test__ = False


def scalars(work_dir: Path) -> list[dict]:
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in files[-1].read_text().splitlines()]


@pytest.fixture(scope='module', params=TASKS)
def trained(request, place):
    """A finished short training of each task."""
    task = request.param
    train(place, config(task), '--work-dir', f'runs/{task}', *options(task))
    return task, place / 'runs' / task


def test_train_and_test(trained, place):
    task, work_dir = trained
    metric = TASKS[task][1]
    assert metric in scalars(work_dir)[-1]
    out = 'predictions' if task == 'segmentation' else f'{task}.pkl'
    command = [config(task), str(work_dir / 'epoch_2.pth'), '--work-dir', f'runs/{task}_test']
    output = test(place, *command, '--out', out, '--show-dir', f'{task}_shown', *options(task))
    assert metric.split('/')[-1] in output.stdout + output.stderr
    assert (place / out).exists()
    pictures = [
        p for p in place.rglob('*') if p.suffix in ('.png', '.jpg') and f'{task}_shown' in str(p)
    ]
    assert pictures


def test_test_time_augmentation(trained, place):
    task, work_dir = trained
    command = [config(task), str(work_dir / 'epoch_2.pth'), '--work-dir', f'runs/{task}_tta']
    test(place, *command, '--tta', *options(task))
    assert list((place / f'runs/{task}_tta').glob('*/*.json'))


def test_resume_goes_on_where_it_stopped(trained, place):
    task, work_dir = trained
    more = options(task, 'train_cfg.max_epochs=3')
    output = train(place, config(task), '--work-dir', str(work_dir), '--resume', *more)
    assert (work_dir / 'epoch_3.pth').is_file()
    assert 'resumed epoch: 2' in output.stdout + output.stderr


@pytest.mark.parametrize('task', TASKS)
def test_amp_on_the_cpu(place, task):
    if torch.cuda.is_available():
        pytest.skip('float16 on the GPU is used here')
    work_dir = f'runs/{task}_amp'
    more = options(task, 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1')
    train(place, config(task), '--amp', '--work-dir', work_dir, *more)
    losses = [row['loss'] for row in scalars(place / work_dir) if 'loss' in row]
    assert losses and all(loss == loss for loss in losses)


def test_auto_scale_lr(place):
    """Half the base batch size, half the learning rate."""
    more = options('classification', 'train_dataloader.batch_size=10')
    more += ['auto_scale_lr.base_batch_size=20', 'default_hooks.logger.interval=1']
    work_dir = 'runs/scaled'
    train(place, config('classification'), '--auto-scale-lr', '--work-dir', work_dir, *more)
    assert scalars(place / work_dir)[0]['lr'] == pytest.approx(1e-3)


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
    'classification': "[dict(type='LoadImageFromFile'), dict(type='PackInputs')]",
    'segmentation': "[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), "
    "dict(type='PackSegInputs')]",
}
HEADS = {
    'classification': '',
    'segmentation': """
head = dict(
    norm_cfg=dict(_delete_=True, type='GN', num_groups=8),
    dropout_ratio=0.0,
    loss_decode=dict(class_weight=None),
)
model = dict(decode_head=head, auxiliary_head=head)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize('task', PIPELINES)
def test_two_processes_equal_one_with_the_doubled_batch(place, task):
    """Same script, same data: losses and weights of 2 x 2 images and of 1 x 4 agree to rounding."""
    if torch.cuda.is_available():
        pytest.skip('about processes on the CPU')
    exact = EXACT.format(base=config(task), pipeline=PIPELINES[task]) + HEADS[task]
    (place / f'exact_{task}.py').write_text(exact)
    weights, losses = {}, {}
    for processes, batch_size in ((1, 4), (2, 2)):
        work_dir = f'runs/{task}_{processes}_processes'
        more = options(task, 'train_cfg.max_epochs=1', f'train_dataloader.batch_size={batch_size}')
        command = [
            'bash',
            str(ROOT / 'tools' / 'dist_train.sh'),
            f'exact_{task}.py',
            str(processes),
        ]
        command += ['--work-dir', work_dir, *more]
        run(place, *command, PORT=str(29500 + os.getpid() % 1000))
        rows = scalars(place / work_dir)
        losses[processes] = [row['loss'] for row in rows if 'loss' in row]
        weights[processes] = load_file(place / work_dir / 'epoch_1.pth')['state_dict']
    assert len(losses[1]) == len(losses[2]) >= 2
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)
    for key, value in weights[1].items():
        torch.testing.assert_close(weights[2][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_evaluation_by_two_processes_equals_one(trained, place):
    if torch.cuda.is_available():
        pytest.skip('about processes on the CPU')
    task, work_dir = trained
    latest = (work_dir / 'last_checkpoint').read_text().strip()
    metrics = []
    for processes in ('1', '2'):
        target = place / 'runs' / f'{task}_tested_by_{processes}'
        command = ['bash', str(ROOT / 'tools' / 'dist_test.sh'), config(task), latest, processes]
        command += ['--work-dir', str(target), *options(task)]
        run(place, *command, PORT=str(29500 + os.getpid() % 1000))
        result = json.loads(next(target.glob('*/*.json')).read_text())
        metrics.append({k: v for k, v in result.items() if k not in ('time', 'data_time')})
    assert metrics[0] == metrics[1] and TASKS[task][1] in metrics[0]


class TestBadInput:
    """One clear line on stderr, exit code 1, nothing written."""

    def fails(self, place: Path, *args: str, tool: str = 'train.py', **env: str) -> str:
        before = sorted(place.rglob('*'))
        result = run(place, sys.executable, str(ROOT / 'tools' / tool), *args, expect=1, **env)
        lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1 and 'Traceback' not in result.stderr, result.stderr[-3000:]
        assert sorted(place.rglob('*')) == before
        return lines[0]

    def test_config(self, place):
        assert "config 'nothing.py' does not exist" in self.fails(place, 'nothing.py')

    def test_data_set(self, place):
        coco = str(ROOT / 'configs' / 'paca' / 'mask_rcnn_paca_t_1x.py')
        line = self.fails(place, coco)
        assert "folder 'data/coco/' does not exist" in line and 'README.md' in line

    def test_arch(self, place):
        more = options('classification', 'model.backbone.arch=huge')
        line = self.fails(place, config('classification'), *more)
        assert "unknown PaCaViT arch 'huge'; known are tiny, small, base" in line

    def test_pretrained_file_is_missing(self, place):
        line = self.fails(place, config('detection'))
        assert "'work_dirs/paca_digits/epoch_9.pth' does not exist" in line

    @pytest.mark.parametrize('tool', ['train.py', 'test.py'])
    def test_checkpoint_of_another_model(self, place, tool):
        torch.save(dict(state_dict={'backbone.conv1.weight': torch.ones(3)}), place / 'other.pth')
        args = [config('classification')]
        if tool == 'train.py':
            args += ['--cfg-options', 'load_from=other.pth']
        else:
            args += ['other.pth']
        line = self.fails(place, *args, tool=tool)
        assert "'other.pth' is of another model" in line and 'missing' in line

    def test_resume_from_weights_alone(self, place):
        torch.save(dict(state_dict={}), place / 'weights.pth')
        line = self.fails(place, config('classification'), '--resume', 'weights.pth')
        assert 'no training state' in line and 'load_from=weights.pth' in line

    def test_cfg_options(self, place):
        more = options('classification', 'train_dataloader.batch_size.x=1')
        line = self.fails(place, config('classification'), *more)
        assert '--cfg-options do not fit' in line
        tool = str(ROOT / 'tools' / 'train.py')
        bad = [sys.executable, tool, config('classification'), '--cfg-options', 'lr:1']
        assert 'take key=value' in run(place, *bad, expect=2).stderr

    def test_work_dir(self, place):
        (place / 'file').write_text('')
        line = self.fails(place, config('classification'), '--work-dir', 'file')
        assert "'file' is a file" in line
        line = self.fails(place, config('classification'), '--work-dir', '/proc/here')
        assert "'/proc/here' cannot be written" in line

    def test_more_processes_than_gpus(self, place, monkeypatch):
        from mmdense.engine import checks
        from mmdense.errors import UserError

        monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
        with pytest.raises(UserError, match=r'8 processes .* 2 GPU'):
            checks.check_processes()
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
        checks.check_processes()

    def test_dist_train_stops_before_it_launches(self, place):
        script = str(ROOT / 'tools' / 'dist_train.sh')
        result = run(place, 'bash', script, 'nothing.py', '2', expect=1)
        assert result.stderr.strip().splitlines()[-1].startswith("error: config 'nothing.py'")
        assert 'usage' in run(place, 'bash', script, 'nothing.py', expect=2).stderr
        assert 'positive integer' in run(place, 'bash', script, 'x.py', 'two', expect=2).stderr

    @pytest.mark.parametrize('workers', [0, 1])
    def test_corrupt_image(self, place, tmp_path, workers):
        path = damaged_copy(place, tmp_path) / 'images' / 'train' / '000003.png'
        path.write_bytes(path.read_bytes()[:500])
        more = options('detection', f'train_dataloader.num_workers={workers}')
        line = self.stops(tmp_path, config('detection'), *more)
        assert "images/train/000003.png' cannot be read" in line

    def test_corrupt_index_map(self, place, tmp_path):
        path = damaged_copy(place, tmp_path) / 'semantic' / 'train' / '000003.png'
        path.write_bytes(b'')
        line = self.stops(tmp_path, config('segmentation'), *options('segmentation'))
        assert "semantic/train/000003.png' cannot be read" in line

    def test_every_annotation_is_dropped(self, place):
        more = options('detection', 'train_dataloader.dataset.pipeline.1.poly2mask=False')
        line = self.stops(place, config('detection'), '--work-dir', 'runs/dropped', *more)
        assert 'drops every instance' in line and 'poly2mask=False' in line
        assert not list((place / 'runs' / 'dropped').glob('*.pth'))

    def test_no_class_matches(self, place):
        more = options('detection', "train_dataloader.dataset.metainfo.classes=('cat','dog')")
        line = self.stops(place, config('detection'), '--work-dir', 'runs/cats', *more)
        assert 'annotation' in line

    def stops(self, place: Path, *args: str) -> str:
        """Bad input that shows only while training: one line, but a log may be there."""
        tool = str(ROOT / 'tools' / 'train.py')
        result = run(place, sys.executable, tool, *args, expect=1)
        lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1 and 'Traceback' not in result.stderr, result.stderr[-3000:]
        return lines[0]


def damaged_copy(place: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(place / 'data' / 'digit_scenes', target / 'data' / 'digit_scenes'))
