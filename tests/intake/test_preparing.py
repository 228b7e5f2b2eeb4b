"""tools/train.py --data: the config that is written, where it goes, and its training."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import check_fails
from makers import write
from mmengine.config import Config
from PIL import Image

from mmdense.engine.checks import check_run
from mmdense.engine.config import read_config
from mmdense.engine.data import build_dataset
from mmdense.errors import UserError
from mmdense.intake.examining import examine
from mmdense.intake.preparing import find_written, prepare

pytestmark = pytest.mark.usefixtures('there')


TRAININGS = {  # by maker: the config, and the metric that it ends with
    'yolo inside splits': ('faster_rcnn_paca_own', 'coco/bbox_mAP'),
    'yolo': ('mask_rcnn_paca_own', 'coco/segm_mAP'),
    'colours': ('sem_fpn_paca_own', 'mIoU'),
    'classes without splits': ('paca_own', 'accuracy/top1'),
}


def few(number: int = 2) -> list[str]:
    """Options for a training of few pictures."""
    options = [f'train_dataloader.dataset.indices={number}', 'val_dataloader.dataset.indices=2']
    return ['--cfg-options', *options]


@pytest.mark.slow
@pytest.mark.parametrize('maker', TRAININGS)
def test_folder_trains(maker, own, run_tool):
    """For one epoch; and its config by itself, as any other, goes on for another."""
    config, metric = TRAININGS[maker]
    root = own(maker)
    for file in ('images/014.png', 'labels/014_mask.png') if maker == 'colours' else ():
        with Image.open(root / file) as image:  # pictures of two sizes
            image.crop((0, 0, 90, 50)).save(root / file)
    code, out, err = run_tool('train.py', '--data', root, '--epochs', 1, *few())
    assert code == 0, err[-3000:]
    path, work_dir = Path('work_dirs/shapes', f'{config}.py'), Path('work_dirs/shapes', config)
    assert f"config: '{path}'" in out and path.is_file()
    assert list(work_dir.glob('best_*.pth')) and (work_dir / 'epoch_1.pth').is_file()
    rows = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert metric in json.loads(rows[-1])
    assert list(work_dir.glob('*/vis_data/events.out.tfevents.*'))
    text = path.read_text()
    more = [*few(), 'train_cfg.max_epochs=2', 'param_scheduler=None']
    code, out, err = run_tool('train.py', '--data', 'shapes', '--resume', '--dry-run', *more)
    assert code == 0 and f"config: '{path}', as it was written" in out, err
    assert f"resuming from '{work_dir / 'epoch_1.pth'}'" in out
    assert path.read_text() == text
    assert run_tool('train.py', path, '--dry-run', *few())[0] == 0


PUBLISHED = [  # maker, model, and the settings that count classes
    ('coco', 'mask_rcnn_paca_t_1x', {'num_classes': {3}}),
    ('coco', 'paca/cascade_mask_rcnn_paca_s_1x', {'num_classes': {3}}),
    ('voc', 'retinanet_fcvit_b12_1x', {'num_classes': {3}}),
    ('masks', 'upernet_paca_t_160k', {'num_classes': {4}}),
    ('values', 'mask2former_paca_s_160k', {'num_classes': {4}, 'class_weight': {5}}),
    ('classes', 'paca_t_in1k', {'num_classes': {3}}),
    ('colours', None, {'num_classes': {4}}),
    ('classes without splits', None, {'num_classes': {3}}),
]


@pytest.mark.slow
@pytest.mark.parametrize('maker, model, counts', PUBLISHED)
def test_written_config_is_whole(maker, model, counts, own):
    """It passes all that is checked before a run, and its data sets hold the pictures."""
    path, said = prepare(examine(own(maker)), model, None)
    cfg = read_config(str(path))
    cfg.launcher = 'none'
    check_run(cfg, ('train_dataloader', 'val_dataloader'), whole_model=False)
    found: dict[str, set] = {key: set() for key in counts}
    collect(cfg.model, found)
    collect(cfg.get('data_preprocessor') or {}, found)
    assert found == counts
    for split, number in {'train': 12, 'val': 3, 'test': 3}.items():
        dataset = build_dataset(cfg, split)
        assert len(dataset) == number
        assert len(dataset.metainfo['classes']) in counts['num_classes']
        inputs = dataset[0]['inputs']
        assert inputs.shape[0] == 3
    assert all(len(line) <= 100 for line in path.read_text().splitlines() if 'shapes' not in line)
    assert any('the rate is' in line for line in said)


def collect(node: object, found: dict[str, set]) -> None:
    """What a config says of these keys: numbers, and lengths of lists."""
    children = node.values() if isinstance(node, dict) else node
    for key in found.keys() & {*(node if isinstance(node, dict) else ())}:
        found[key].add(len(node[key]) if isinstance(node[key], list) else node[key])
    for child in children:
        if isinstance(child, dict | list | tuple):
            collect(child, found)


def test_averages_stopping_and_logs(own):
    path, _ = prepare(examine(own('classes')), None, 8)
    cfg = Config.fromfile(path)
    averages, stopping = cfg.custom_hooks
    assert (averages.type, stopping.type) == ('EMAHook', 'EarlyStoppingHook')
    assert cfg.default_hooks.checkpoint.save_best == stopping.monitor == 'accuracy/top1'
    assert [b.type for b in cfg.visualizer.vis_backends][1] == 'TensorboardVisBackend'
    assert cfg.train_cfg.max_epochs == 8


@pytest.mark.parametrize('model, wanted', [('upernet_paca_t_160k', 2), (None, 1)])
def test_few_pictures(model, wanted, own, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    root = own('masks')
    path, _ = prepare(examine(root), model, None)
    assert Config.fromfile(path).train_dataloader.batch_size == wanted
    examination = examine(root)
    del examination.folder.splits['train'][1:]
    if wanted == 1:
        prepare(examination, model, None)
        return
    with pytest.raises(UserError, match=r"trains on 2 pictures at a time .* 'train' has 1"):
        prepare(examination, model, None)


class TestRefused:
    """One line, before anything is trained."""

    def test_faults(self, own, run_tool):
        root = own('yolo')
        write(root / 'labels/train/000.txt', '7 .1 .1 .5 .1 .1 .5\n')
        result = run_tool('train.py', '--data', root)
        page = Path('work_dirs/shapes/data.html')
        messages = ('1 faults of 1 kinds', 'labels/train/000.txt:1', f"'{page}'", '--fix')
        check_fails(result, *messages)
        assert page.is_file() and not list(page.parent.glob('*.py'))
        code, out, err = run_tool('train.py', '--data', root, '--no-data-check', '--dry-run')
        assert code == 0 and '1 objects dropped: unknown category' in out, err

    @pytest.mark.parametrize(
        'maker, args, message',
        [
            ('yolo', ['--model', 'nothing'], "'nothing' is no config of ours"),
            ('yolo', ['--model', 'upernet_paca_t_160k'], 'is not for instance segmentation'),
            ('voc', ['--model', 'mask_rcnn_paca_t_1x'], 'is not for detection'),
            ('voc', ['--launcher', 'pytorch'], '--dry-run first'),
        ],
    )
    def test_arguments(self, maker, args, message, own, run_tool):
        check_fails(run_tool('train.py', '--data', own(maker), *args), message)

    @pytest.mark.parametrize(
        'args, message',
        [
            ([], 'name a config, or a folder'),
            (['x.py', '--data', 'shapes'], 'name a config, or a folder'),
            (['x.py', '--epochs', '3'], '--model and --epochs go with --data'),
            (['--data', 'shapes', '--epochs', '0'], 'at least 1'),
        ],
    )
    def test_usage(self, args, message, run_tool):
        code, _, err = run_tool('train.py', *args)
        assert code == 2 and message in err

    def test_nothing_to_train_on(self, own):
        root = own('classes')
        shutil.rmtree(root / 'train')
        with pytest.raises(UserError, match='has 1 faults of 1 kinds'):
            prepare(examine(root), None, None)


class TestPlaces:
    """Where the configs of a folder go."""

    def test_two_folders_of_one_name(self, own, tmp_path, run_tool):
        root = own('voc')
        prepare(examine(root), None, None)
        (tmp_path / 'b').mkdir()
        other = shutil.copytree(root, tmp_path / 'b' / 'shapes')
        with pytest.raises(UserError, match=f"was written for '{root}/', not for '{other}'"):
            prepare(examine(other), None, None)
        with pytest.raises(UserError, match='rename the folder'):
            find_written(str(other), None)
        check_fails(run_tool('train.py', '--data', other, '--resume'), 'was written for')
        check_fails(run_tool('train.py', '--data', other), 'was written for')
        assert not Path('work_dirs/shapes/data.html').exists()
        prepare(examine(root), None, None)

    def test_newest_of_any_model(self, own):
        root = own('voc')
        assert find_written(str(root), None) is None
        first, _ = prepare(examine(root), None, None)
        newest, _ = prepare(examine(root), 'retinanet_fcvit_b12_1x', None)
        shutil.copy(newest, newest.with_name('copy.py'))
        os.utime(first, (1, 1))
        assert find_written(str(root), None) == newest
        assert find_written(str(root), 'own/faster_rcnn_paca_own') == first
        assert find_written(str(root), 'paca_own') is None
        os.utime(newest, (0, 0))
        assert find_written(str(root), None) == first

    def test_epochs_of_a_known_config(self, own, run_tool):
        root = own('voc')
        path, _ = prepare(examine(root), None, 3)
        result = run_tool('train.py', '--data', root, '--resume', '--epochs', 5)
        check_fails(result, f"'{path}' says how many epochs", 'train_cfg.max_epochs=5')
