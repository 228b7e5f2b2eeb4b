"""tools/train.py --data: what is decided, the config that is written, and its training."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import check_fails, load_config
from makers import CLASSES, write
from mmengine.config import Config
from PIL import Image

from mmdense.engine.building import build_model
from mmdense.engine.checks import check_run
from mmdense.engine.config import read_config
from mmdense.engine.data import build_dataset, find_datasets
from mmdense.errors import UserError
from mmdense.intake import fitting
from mmdense.intake.code import (
    Name,
    write_assignment,
    write_code,
    write_comment,
    write_docstring,
)
from mmdense.intake.datasets import set_classes
from mmdense.intake.examining import examine
from mmdense.intake.models import find_model
from mmdense.intake.preparing import find_written, prepare
from mmdense.intake.recipe import decide, find_most, get_momentum


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch) -> None:
    """Tests run in their own folder."""
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.parametrize(
    'maker, model, wanted',
    [
        ('classes', 'paca_t_in1k', 'load_from'),
        ('yolo', 'mask_rcnn_paca_t_1x', 'init_cfg'),
    ],
)
def test_published_weights_are_the_start(maker, model, wanted, own, monkeypatch):
    """Where they can be had; else the reason is said, and the training is from scratch."""
    folder = own(maker)
    path, said = prepare(examine(folder), model, None)
    (line,) = [line for line in said if line.startswith('it starts from')]
    assert (
        line.startswith("it starts from scratch: 'https://github.com/iVMCL/") and 'offline' in line
    )
    cfg = Config.fromfile(path)
    assert cfg.load_from is None and cfg.model.backbone.get('init_cfg') is None

    monkeypatch.setenv('TORCH_HOME', os.path.abspath('torch'))
    cache = Path('torch/hub/mmdense')
    cache.mkdir(parents=True)
    (cache / 'paca_t_in1k.pth').write_bytes(b'only its name counts here')
    path, said = prepare(examine(folder), model, None)
    assert "it starts from 'mmdense://paca_t_in1k'" in said
    cfg = Config.fromfile(path)
    found = dict(
        load_from=cfg.load_from,
        init_cfg=(cfg.model.backbone.get('init_cfg') or {}).get('checkpoint'),
    )
    assert found == {**dict(load_from=None, init_cfg=None), wanted: 'mmdense://paca_t_in1k'}


def collect(node: object, found: dict[str, set]) -> None:
    """What a config says of these keys: numbers, and lengths of lists."""
    children = node.values() if isinstance(node, dict) else node
    for key in found.keys() & {*(node if isinstance(node, dict) else ())}:
        found[key].add(len(node[key]) if isinstance(node[key], list) else node[key])
    for child in children:
        if isinstance(child, dict | list | tuple):
            collect(child, found)


@pytest.mark.parametrize('maker', ['coco', 'masks', 'classes'])
def test_what_the_toolbox_reads_is_not_converted(maker, own):
    prepare(examine(own(maker)), None, None)
    assert not Path('work_dirs/shapes/data').exists()


PLANTED = [  # what is added to class folders, and whether the toolbox's own listing has the same
    ('train/kite/more.webp', False),
    ('train/kite/more.TIFF', False),
    ('train/.hidden/more.png', False),
    ('train/kite/.hidden/more.png', False),
    ('train/kite/deep/more.png', True),
    ('train/kite/.more.png', True),
    ('train/kite/notes.txt', True),
]


@pytest.mark.parametrize('file, native', PLANTED)
def test_class_folders_are_trained_on_as_examined(file, native, own, scenes):
    root = own('classes')
    (root / file).parent.mkdir(exist_ok=True)
    kind = {'.webp': 'webp', '.TIFF': 'tiff', '.txt': 'ppm'}.get(Path(file).suffix, 'png')
    Image.fromarray(scenes[20].picture).save(root / file, kind)
    examination = examine(root)
    path, _ = prepare(examination, None, None)
    assert Path('work_dirs/shapes/data/train.txt').is_file() != native
    dataset = build_dataset(read_config(str(path)), 'train')
    found = {os.path.relpath(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
    samples = examination.folder.splits['train']
    assert found == {os.path.relpath(sample.picture) for sample in samples}


def test_links_to_folders_are_not_followed(own, tmp_path, scenes):
    root = own('classes')
    (tmp_path / 'elsewhere').mkdir()
    Image.fromarray(scenes[20].picture).save(tmp_path / 'elsewhere/more.png')
    (root / 'train/kite/link').symlink_to(tmp_path / 'elsewhere')
    path, _ = prepare(examine(root), None, None)
    assert len(build_dataset(read_config(str(path)), 'train')) == 12


@pytest.mark.parametrize('model', ['mask_rcnn_paca_t_1x', None])
@pytest.mark.parametrize('maker', ['coco', 'yolo'])
def test_empty_and_small_pictures_are_trained_on(maker, model, own, scenes):
    root = own(maker)
    Image.fromarray(scenes[20].picture[:20, :20]).save(root / 'images/train/empty.png')
    if maker == 'yolo':
        write(root / 'labels/train/empty.txt', '')
    else:
        path = root / 'annotations/instances_train.json'
        content = json.loads(path.read_text())
        content['images'].append(dict(id=999, file_name='empty.png', width=20, height=20))
        write(path, json.dumps(content))
    path, _ = prepare(examine(root), model, None)
    assert len(build_dataset(read_config(str(path)), 'train')) == 13


def test_a_test_split_is_tested_on(own):
    root = own('classes')
    for path in sorted(root.glob('train/*/*.png'))[::4]:
        (root / 'test' / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / 'test' / path.parent.name / path.name)
    path, _ = prepare(examine(root), None, None)
    cfg = read_config(str(path))
    assert [len(build_dataset(cfg, split)) for split in ('train', 'val', 'test')] == [9, 3, 3]


@pytest.mark.parametrize('maker', ['yolo', 'single json', 'voc'])
def test_converted_data_are_those_of_the_json(maker, own, scenes):
    """Boxes in the toolbox's own form, against those that were drawn."""
    path, _ = prepare(examine(own(maker)), None, None)
    cfg = Config.fromfile(path)
    for split in ('train', 'val'):
        dataset = build_dataset(cfg, split)
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            wanted = scenes[int(Path(info['img_path']).stem)].objects
            boxes = [instance['bbox'] for instance in info['instances']]
            corners = [[min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])] for _, p in wanted]
            np.testing.assert_allclose(boxes, corners, atol=1e-6)
            assert [x['bbox_label'] for x in info['instances']] == [label for label, _ in wanted]


def test_averages_stopping_and_logs(own):
    path, _ = prepare(examine(own('classes')), None, 8)
    cfg = Config.fromfile(path)
    averages, stopping = cfg.custom_hooks
    assert (averages.type, stopping.type) == ('EMAHook', 'EarlyStoppingHook')
    assert cfg.default_hooks.checkpoint.save_best == stopping.monitor == 'accuracy/top1'
    assert [b.type for b in cfg.visualizer.vis_backends][1] == 'TensorboardVisBackend'
    assert cfg.train_cfg.max_epochs == 8


class TestDecisions:
    """Batches, rates and epochs, worked out by hand."""

    @pytest.mark.parametrize(
        'pictures, fitting, processes, epochs, wanted',
        [  # wanted: batch, batches a step, epochs, rate for a recipe of 8 with 0.002
            (1000, 4, 1, None, (4, 2, 20, 0.002)),
            (4000, 8, 1, None, (8, 1, 12, 0.002)),
            (1000, 2, 2, None, (2, 2, 20, 0.002)),
            (1000, 1, 8, None, (1, 1, 20, 0.002)),
            (250, 4, 1, None, (4, 2, 80, 0.002)),
            (45, 4, 1, None, (4, 1, 100, 0.001)),
            (3, 1, 1, None, (1, 1, 100, 0.00025)),
            (45, 4, 1, 5, (4, 1, 5, 0.001)),
        ],
    )
    def test_recipe(self, pictures, fitting, processes, epochs, wanted, monkeypatch):
        monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
        cfg = load_config('own/faster_rcnn_paca_own')
        decided = decide(cfg, pictures, fitting, epochs)
        found = (decided.batch, decided.counts, decided.epochs, decided.lr)
        assert found == pytest.approx(wanted)
        assert decided.processes == processes

    def test_nodes_count(self, monkeypatch):
        monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
        monkeypatch.setenv('NNODES', '4')
        cfg = load_config('own/faster_rcnn_paca_own')
        assert decide(cfg, 10**6, 1, None).processes == 8

    @pytest.mark.parametrize('pictures, wanted', [(1, 1), (20, 2), (79, 4), (10**6, 8)])
    def test_small_sets_take_small_steps(self, pictures, wanted):
        assert find_most(load_config('own/faster_rcnn_paca_own'), pictures) == wanted

    def test_average_forgets_the_start(self):
        """What is left of the first weights after all iterations is below a thousandth."""
        cfg = load_config('own/faster_rcnn_paca_own')
        for pictures in (3, 60, 1000, 100000):
            decided = decide(cfg, pictures, 4, None)
            left = (1 - get_momentum(decided)) ** (decided.epochs * decided.iterations)
            assert left < 1e-3

    @pytest.mark.parametrize('room, most, wanted', [(5, 64, 4), (64, 16, 16), (1, 8, 1), (9, 6, 4)])
    def test_largest_power_of_two(self, room, most, wanted, monkeypatch):
        monkeypatch.setattr(fitting, 'fits', lambda cfg, batch: batch <= room)
        assert fitting.find_batch(None, most) == wanted

    def test_nothing_fits(self, monkeypatch):
        monkeypatch.setattr(fitting, 'fits', lambda cfg, batch: False)
        with pytest.raises(UserError, match='not one picture fits'):
            fitting.find_batch(None, 8)

    @pytest.mark.parametrize('most, least, tried', [(1, 1, [1, 2]), (4, 1, [1, 2, 4]), (1, 2, [2])])
    def test_heads_that_need_two(self, most, least, tried, monkeypatch):
        batches = []

        def step(cfg: object, batch: int, device: torch.device) -> None:
            batches.append(batch)
            if batch == 1:
                raise ValueError('Expected more than 1 value per channel when training, got input')

        for name in ('reset_peak_memory_stats', 'max_memory_reserved', 'empty_cache'):
            monkeypatch.setattr(torch.cuda, name, lambda: 0)
        memory = SimpleNamespace(total_memory=1)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: memory)
        monkeypatch.setattr(fitting, 'step_twice', step)
        assert fitting.find_batch(None, most, least) == tried[-1]
        assert batches == tried

    def test_other_errors_of_a_trial_are_raised(self, monkeypatch):
        def fail(cfg: object, batch: int) -> bool:
            raise ValueError('something else')

        monkeypatch.setattr(fitting, 'fits', fail)
        with pytest.raises(ValueError, match='something else'):
            fitting.find_batch(None, 8)

    @pytest.mark.parametrize('model, wanted', [('upernet_paca_t_160k', 2), (None, 1)])
    def test_few_pictures(self, model, wanted, own, monkeypatch):
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

    def test_trial_is_a_step_of_the_training(self, own):
        path, _ = prepare(examine(own('classes')), None, None)
        fitting.step_twice(read_config(str(path)), 2, torch.device('cpu'))


class TestCode:
    """Values laid out as Python."""

    VALUES = [
        dict(a=1, b=dict(c='x' * 60, d=['y' * 60, (1,), ()]), e=None),
        {'not a name': 1, 'b': [1.5] * 60},
        ['it\'s "quoted"\n', -1e-5, True],
        ['{{$X:.*}}', '{{{{ fileDirname }}}}', '\\{{{', {'{{ a': 1}],
        dict(classes=tuple('abc' * 30)),
    ]

    @pytest.mark.parametrize('value', VALUES)
    def test_reads_back(self, value):
        text = write_assignment('value', value)
        scope: dict = {}
        exec(text, scope)
        assert scope['value'] == value
        assert '{{' not in text
        assert all(len(line) <= 100 for line in text.splitlines())

    @pytest.mark.parametrize('text', ['{{$HOME:x}}', "}}', 1)#{{{{ fileDirname }}}}", '\\{{{'])
    def test_mmengine_replaces_nothing(self, text, tmp_path):
        code = [write_docstring(text, text), write_comment(text), write_assignment('value', text)]
        code.append(write_assignment('joined', Name(f'value + {text!r}')))
        path = tmp_path / 'config.py'
        write(path, '\n'.join(code))
        cfg = Config.fromfile(path)
        assert (cfg.value, cfg.joined) == (text, 2 * text)
        assert '{{' not in path.read_text()

    def test_names_are_not_quoted(self):
        assert write_code(dict(classes=Name('classes')), 80) == 'dict(classes=classes)'


@pytest.mark.parametrize(
    'model, wanted',
    [
        (dict(backbone=dict(depth=1)), None),
        (dict(head=dict(num_classes=80, x=1)), dict(head=dict(num_classes=3))),
        (
            dict(heads=[dict(num_classes=80, x=1), dict(y=2)]),
            dict(heads=[dict(num_classes=3, x=1), dict(y=2)]),
        ),
        (
            dict(num_classes=2, loss=dict(class_weight=[1.0, 1.0, 0.1])),
            dict(num_classes=3, loss=dict(class_weight=[1.0, 1.0, 1.0, 0.1])),
        ),
    ],
)
def test_classes_are_counted_wherever_a_model_does(model, wanted):
    assert set_classes(model, 3) == wanted


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


def test_model_of_the_config_has_the_classes(own):
    path, _ = prepare(examine(own('voc')), None, None)
    cfg = read_config(str(path))
    assert build_model(cfg, 'meta').roi_head.bbox_head.num_classes == len(CLASSES)
    dataset = next(find_datasets(cfg.train_dataloader.dataset))
    assert os.path.isabs(dataset.ann_file)
    assert find_model('own/paca_own', 'classification').stem == 'paca_own'
