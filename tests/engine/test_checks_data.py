"""What is checked before a run: data, checkpoints, once for all processes."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdense.engine import launch
from mmdense.engine.checks import check_data, check_model, check_work_dir, find_consumers
from mmdense.errors import UserError

LOADERS = ('train_dataloader',)


def check(dataset: dict, evaluator: object = None, **rest: object) -> None:
    check_data(Config(dict(train_dataloader=dict(dataset=dataset), **rest)), LOADERS)


def refused(message: str, dataset: dict, **rest: object) -> None:
    with pytest.raises(UserError, match=message) as error:
        check(dataset, **rest)
    assert '\n' not in str(error.value)


@pytest.fixture
def root(tmp_path) -> str:
    for folder in ('train', 'images', 'maps'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'labels.txt').write_text('')
    return str(tmp_path)


def test_data_root(root):
    check(dict(type='A', data_root=root))
    refused(
        "train_dataloader: folder '.*nowhere' does not exist", dict(data_root=f'{root}/nowhere')
    )
    refused('folder', dict(data_root=f'{root}/labels.txt'))  # a file
    check(dict(type='A'))


def test_split_folder_of_imagenet(root):
    check(dict(type='ImageNet', data_root=root, split='train'))
    refused("folder '.*/val' does not exist", dict(type='ImageNet', data_root=root, split='val'))
    check(dict(type='ImageNet', data_root=root, split=''))
    check(dict(type='CIFAR10', data_root=root, split='val'))  # whose split is no folder


@pytest.mark.parametrize('as_dict', [False, True])
def test_data_prefix_as_text_and_by_kind(root, as_dict):
    def data(prefix: str) -> dict:
        wrapped = dict(img_path='images', seg_map_path=prefix) if as_dict else prefix
        return dict(data_root=root, data_prefix=wrapped)

    check(data('maps'))
    check(data(''))
    refused("folder '.*/nowhere' does not exist", data('nowhere'))


def test_prefix_without_a_root(root):
    check(dict(data_prefix=f'{root}/maps'))
    check(dict(data_prefix=dict(img=None), data_root=root))
    refused('folder', dict(data_prefix=f'{root}/nowhere'))


def test_annotations_of_data_and_of_evaluators(root):
    check(dict(data_root=root, ann_file='labels.txt'))
    refused("file '.*/none.txt' does not exist", dict(data_root=root, ann_file='none.txt'))
    refused('file', dict(data_root=root, ann_file='images'))  # a folder
    good, bad = (dict(type='Metric', ann_file=f'{root}/{name}.txt') for name in ('labels', 'none'))
    dataset = dict(data_root=root)
    for evaluator in (good, [dict(type='Other'), good]):
        check(dataset, train_evaluator=evaluator)
    for evaluator in (bad, [good, bad], [dict(type='Other'), bad]):
        refused("train_dataloader: file '.*/none.txt'", dataset, train_evaluator=evaluator)
    check(dataset, val_evaluator=bad)  # of a loader that is not used


def test_other_loaders_are_not_looked_at(root):
    missing = dict(dataset=dict(data_root=f'{root}/nowhere'))
    cfg = Config(dict(train_dataloader=None, val_dataloader=missing))
    check_data(cfg, ('train_dataloader', 'test_dataloader'))
    with pytest.raises(UserError, match='val_dataloader: folder'):
        check_data(cfg, ('train_dataloader', 'val_dataloader'))


def test_every_data_set_below_a_wrapper(root):
    datasets = [dict(data_root=root), dict(data_root=f'{root}/nowhere')]
    refused('nowhere', dict(type='ConcatDataset', datasets=datasets))
    refused('nowhere', dict(type='RepeatDataset', dataset=datasets[1]))


def test_remote_data_are_not_looked_for():
    remote = 's3://bucket/data'
    check(dict(data_root=remote, data_prefix=dict(img='images'), ann_file='a.json'))
    check(dict(type='ImageNet', data_root=remote, split='train'))
    check(dict(data_root=remote), train_evaluator=dict(ann_file=f'{remote}/a.json'))


def test_a_part_of_a_config_is_no_model():
    with pytest.raises(UserError, match='the config has no model'):
        check_model(Config(dict(default_scope='mmdet')), pretrained=False, whole_model=False)


def test_work_dir(tmp_path):
    check_work_dir(str(tmp_path / 'a' / 'b'))
    assert not list(tmp_path.iterdir())  # nothing was made
    (tmp_path / 'file').write_text('')
    for place in ('file', 'file/below'):
        with pytest.raises(UserError, match='--work-dir'):
            check_work_dir(str(tmp_path / place))


def test_who_reads_the_maps():
    """A neck alone, or the heads; an int is of the last map, or of each."""
    head = dict(in_channels=8)
    assert list(find_consumers(dict(neck=dict(in_channels=[4, 8]), head=head), 2)) == [
        ('neck', [4, 8], [0, 1])
    ]
    assert list(find_consumers(dict(neck=dict(embed_dim=6)), 3)) == [('neck', [6] * 3, [0, 1, 2])]
    pooled = dict(neck=dict(type='GlobalAveragePooling'), head=head)
    assert list(find_consumers(pooled, 4)) == [('head', [8], [-1])]
    heads = dict(
        decode_head=dict(in_channels=[4, 8], in_index=[1, 3]),
        auxiliary_head=[dict(in_channels=4, in_index=2), dict(in_channels=(1, 2))],
    )
    assert list(find_consumers(heads, 4)) == [
        ('decode_head', [4, 8], [1, 3]),
        ('auxiliary_head', [4], [2]),
        ('auxiliary_head', [1, 2], [0, 1]),
    ]


@pytest.fixture
def clean_env(monkeypatch) -> pytest.MonkeyPatch:
    for name in ('RANK', 'SLURM_PROCID', 'MMDENSE_CHECKED'):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_one_process_checks_and_only_when_nobody_did(clean_env):
    calls = []
    clean_env.setattr(launch, 'check_run', lambda *args: calls.append(args))
    launch.check_once('cfg', ('a',), True)
    assert calls == [('cfg', ('a',), True)]
    clean_env.setenv('RANK', '0')
    launch.check_once('cfg', ('a',), False)
    assert calls[1:] == [('cfg', ('a',), False)]
    clean_env.setenv('RANK', '1')
    launch.check_once('cfg', ('a',), True)
    clean_env.setenv('RANK', '0')
    clean_env.setenv('MMDENSE_CHECKED', '1')
    launch.check_once('cfg', ('a',), True)
    assert len(calls) == 2


@pytest.mark.parametrize('name', ['LOCAL_WORLD_SIZE', 'SLURM_NTASKS_PER_NODE'])
def test_processes_and_gpus(name, monkeypatch):
    from mmdense.engine.checks import check_processes

    for other in ('LOCAL_WORLD_SIZE', 'SLURM_NTASKS_PER_NODE'):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    check_processes()
    monkeypatch.setenv(name, '2')
    check_processes()
    monkeypatch.setenv(name, '3')
    with pytest.raises(UserError, match=r'3 processes were asked for on a machine with 2 GPU'):
        check_processes()
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    check_processes()


def test_common_flags_reach_the_config(tmp_path, monkeypatch):
    """Launcher and overrides always; the work dir from the flag, the config or the file's name."""
    import argparse

    monkeypatch.setenv('LOCAL_RANK', '5')
    (tmp_path / 'mine.py').write_text('a = dict(b=1)\n')
    (tmp_path / 'placed.py').write_text("work_dir = 'there'\n")

    def load(*args: str) -> Config:
        parser = argparse.ArgumentParser()
        launch.add_common_arguments(parser)
        return launch.load_config(parser.parse_args([str(tmp_path / args[0]), *args[1:]]))

    cfg = load('mine.py', '--launcher', 'pytorch', '--cfg-options', 'a.b=2', '--local-rank', '7')
    assert (cfg.launcher, cfg.a.b) == ('pytorch', 2)
    assert Path(cfg.work_dir) == Path('work_dirs/mine')
    assert load('placed.py').work_dir == 'there'
    assert load('placed.py', '--work-dir', 'here').work_dir == 'here'
    assert load('mine.py').launcher == 'none'
